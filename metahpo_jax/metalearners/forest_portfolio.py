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
    """What each training task would say of each of the targets' pools, predicted when first asked for.

    Folds share training tasks, so a forest is fitted once; it predicts all pools in one go, which is mostly what it costs.
    """

    def __init__(self, space: Space, pools: Sequence[np.ndarray]):
        self._space = space
        self._pools = {id(pool): pool for pool in pools}
        ends = np.cumsum([len(pool) for pool in self._pools.values()])
        self._slices = {
            key: slice(end - len(pool), end) for (key, pool), end in zip(self._pools.items(), ends, strict=True)
        }
        self._features = self._features_of(np.concatenate(list(self._pools.values())))
        self._ranks: dict[str, np.ndarray] = {}

    def ranks(self, source: Source, pool: np.ndarray) -> np.ndarray:
        """Predicted normalised rank `[n]` of each configuration of `pool [n, D]` on a training task: 0 best, 1 worst."""
        if source.name not in self._ranks:
            self._ranks[source.name] = self._predict(source)
        return self._ranks[source.name][self._slices[id(pool)]]

    def _predict(self, source: Source) -> np.ndarray:
        from scipy.stats import rankdata
        from sklearn.ensemble import ExtraTreesRegressor

        rows = np.random.default_rng(0).permutation(len(source.u))[:MOST_ROWS]
        rank = (rankdata(source.loss) - 1.0) / max(len(source.u) - 1, 1)
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=MIN_LEAF, random_state=0)
        forest.fit(self._features_of(source.u[rows]), rank[rows])
        return forest.predict(self._features)

    def _features_of(self, u: np.ndarray) -> np.ndarray:
        on_device = jnp.asarray(u)
        return np.asarray(self._space.features(on_device, self._space.active(on_device)))


def forest_portfolio(forests: Forests, sources: Sequence[Source], pool: np.ndarray, size: int) -> PortfolioTheta:
    """The greedy cover of the training tasks' predicted ranks on `pool [n, D]`, of `size` configurations.

    Raises:
      SplitError: without a training task over the same space.
    """
    if not sources:
        raise SplitError("a portfolio needs at least one training task over the same space; choose another split.")
    predicted = np.stack([forests.ranks(source, pool) for source in sources])
    return listed(pool, np.asarray(cover(predicted, [], size)))
