"""A portfolio where every task has configurations of its own: what each training task would say of the target's pool, covered greedily.

One forest of extremely randomised trees (Geurts et al. 2006) per training task predicts the rank of a configuration on it. Nothing of
the target but its pool of configurations is looked at.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from metahpo_jax.errors import SplitError
from metahpo_jax.metadata import Source
from metahpo_jax.metalearners.portfolio import cover, listed
from metahpo_jax.proposers.listed import PortfolioTheta
from metahpo_jax.spaces import Space

TREES, MIN_LEAF = 50, 1
MOST_ROWS = 20_000  # of a training task, drawn once: more change the ranks little and cost in proportion


class Forests:
    """The forest of each training task, fitted when first asked for and kept: folds share training tasks, targets share pools."""

    def __init__(self, space: Space):
        self._space = space
        self._features: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._ranks: dict[tuple[str, int], np.ndarray] = {}
        self._forests: dict[str, object] = {}

    def ranks(self, source: Source, pool: np.ndarray) -> np.ndarray:
        """Predicted normalised rank `[n]` of each configuration of `pool [n, D]` on a training task: 0 best, 1 worst."""
        key = source.name, id(pool)
        if key not in self._ranks:
            if source.name not in self._forests:
                self._forests[source.name] = self._fit(source)
            self._ranks[key] = self._forests[source.name].predict(self._features_of(pool))  # type: ignore[attr-defined]  # of scikit-learn
        return self._ranks[key]

    def _fit(self, source: Source) -> object:
        from scipy.stats import rankdata
        from sklearn.ensemble import ExtraTreesRegressor

        rng = np.random.default_rng(0)
        n = len(source.u)
        rows = rng.permutation(n)[:MOST_ROWS]
        rank = (rankdata(source.loss) - 1.0) / max(n - 1, 1)
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=MIN_LEAF, random_state=0)
        return forest.fit(self._features_of(source.u)[rows], rank[rows])

    def _features_of(self, u: np.ndarray) -> np.ndarray:
        # The pool is kept beside its features: an identity means nothing once its owner is gone.
        if id(u) not in self._features:
            on_device = jnp.asarray(u)
            self._features[id(u)] = u, np.asarray(self._space.features(on_device, self._space.active(on_device)))
        return self._features[id(u)][1]


def forest_portfolio(forests: Forests, sources: Sequence[Source], pool: np.ndarray, size: int) -> PortfolioTheta:
    """The greedy cover of the training tasks' predicted ranks on `pool [n, D]`, of `size` configurations.

    Raises:
      SplitError: without a training task over the same space.
    """
    if not sources:
        raise SplitError("a portfolio needs at least one training task over the same space; choose another split.")
    predicted = np.stack([forests.ranks(source, pool) for source in sources])
    return listed(pool, np.asarray(cover(predicted, [], size)))
