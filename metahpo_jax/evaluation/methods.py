"""The methods that a benchmark compares: how each learns from the training tasks of a fold, and the proposer that comes of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from metahpo_jax.base import Key, Proposer, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.metadata import Source
from metahpo_jax.metalearners.empirical_gaussian import count_gaussian, empirical_gaussian
from metahpo_jax.metalearners.forest_portfolio import Forests, forest_portfolio
from metahpo_jax.metalearners.maml import started_at
from metahpo_jax.metalearners.portfolio import greedy_picks, imagined_picks, listed
from metahpo_jax.metalearners.pretrained_gp import OPENING_SIZE, PretrainedGP, pretrain_gp, pretrained_gp
from metahpo_jax.metalearners.trained_start import learn_starts
from metahpo_jax.proposers import PortfolioTheta, gp_bo, grid, portfolio, random, sobol, then
from metahpo_jax.spaces import Space

THEN = "portfolio_then_"
THEN_TRIALS = 10


class Training(NamedTuple):
    """What learning may see in one fold and space: training tasks whole, test tasks by their pools of configurations only."""

    space: Space
    sources: tuple[Source, ...]
    valid: tuple[Source, ...]
    pools: tuple[np.ndarray, ...]  # `[n, D]` of each test task
    shared: bool  # all of them hold the same configurations in the same order
    trials: int

    def regret(self) -> np.ndarray:
        """Regret `[T, N]` of the training tasks, over the shared configurations."""
        return np.stack([source.regret for source in self.sources])

    def losses(self) -> np.ndarray:
        """Losses `[T, N]` of the training tasks, over the shared configurations."""
        return np.stack([source.loss for source in self.sources])


class Method(NamedTuple):
    """`learn` gives, per fold, one theta for each pool; None for a method that learns nothing. `propose` turns one into a proposer."""

    propose: Callable[[Space, PyTree], Proposer]
    learn: Callable[[Sequence[Training], Key], list[list[Any]]] | None = None
    needs_shared: bool = False  # whether all tasks must have the same configurations
    needs_sources: int = 0  # training tasks over the same space
    trains: bool = (
        False  # on the data sets behind the training tasks; takes minutes, and so is compared on request only
    )


def _portfolio(picks: Callable[[np.ndarray, int], np.ndarray], most: int | None = None) -> Callable:
    """Learns a portfolio by `picks` where configurations are shared, and by a forest per training task where they are not."""

    def learn(folds: Sequence[Training], key: Key) -> list[list[PortfolioTheta]]:
        del key
        shared = all(fold.shared for fold in folds)
        forests = None if shared else Forests(folds[0].space, [pool for fold in folds for pool in fold.pools])
        return [_portfolios(fold, forests, picks, most or max(fold.trials, 16)) for fold in folds]

    return learn


def _portfolios(fold: Training, forests: Forests | None, picks: Callable, size: int) -> list[PortfolioTheta]:
    if forests is None:
        pool = fold.pools[0]
        return [listed(pool, picks(fold.regret(), min(size, len(pool))))] * len(fold.pools)
    # One length for all, since thetas are stacked: a list longer than its pool starts over.
    return [_padded(forest_portfolio(forests, fold.sources, pool, min(size, len(pool))), size) for pool in fold.pools]


def _padded(theta: PortfolioTheta, size: int) -> PortfolioTheta:
    return PortfolioTheta(theta.u[np.arange(size) % len(theta.u)])


def _count(folds: Sequence[Training], key: Key) -> list[list[Any]]:
    del key
    most = max(len(fold.sources) for fold in folds)
    return [[count_gaussian(fold.losses(), rows=most)] * len(fold.pools) for fold in folds]


def _pretrain(folds: Sequence[Training], key: Key) -> list[list[PretrainedGP]]:
    priors = pretrain_gp(folds[0].space, [fold.sources for fold in folds], key)
    openings = _portfolio(greedy_picks, OPENING_SIZE)(folds, key)
    return [[PretrainedGP(prior, opening) for opening in pools] for prior, pools in zip(priors, openings, strict=True)]


def _starts(folds: Sequence[Training], key: Key) -> list[list[np.ndarray]]:
    """One configuration per fold, learned by training networks on the data sets of its training tasks."""
    starts = learn_starts(folds[0].space, [[source.name for source in fold.sources] for fold in folds], key)
    return [[start] * len(fold.pools) for start, fold in zip(starts, folds, strict=True)]


_learn_portfolio = _portfolio(greedy_picks)

METHODS: dict[str, Method] = {
    "random": Method(lambda space, theta: random(space)),
    "default": Method(lambda space, theta: started_at(np.full(space.size, 0.5), space, random(space))),
    "sobol": Method(lambda space, theta: sobol(space)),
    "grid": Method(lambda space, theta: grid(space)),
    "portfolio": Method(lambda space, theta: portfolio(theta, space), _learn_portfolio, needs_sources=1),
    "portfolio_imagined": Method(
        lambda space, theta: portfolio(theta, space), _portfolio(imagined_picks), needs_shared=True, needs_sources=1
    ),
    "empirical_gaussian": Method(
        lambda space, theta: empirical_gaussian(theta), _count, needs_shared=True, needs_sources=2
    ),
    "gp": Method(lambda space, theta: gp_bo(space, opening=sobol(space))),
    "pretrained_gp": Method(lambda space, theta: pretrained_gp(theta, space), _pretrain, needs_sources=1),
    "maml": Method(
        lambda space, theta: started_at(theta, space, gp_bo(space, opening_trials=1)),
        _starts,
        needs_sources=1,
        trains=True,
    ),
}


def portfolio_then(method: Method, trials: int = THEN_TRIALS) -> Method:
    """The method after `trials` picks of the portfolio, which it finds in its history."""

    def learn(folds: Sequence[Training], key: Key) -> list[list[Any]]:
        openings = _learn_portfolio(folds, key)
        if method.learn is None:
            return [[(opening, ()) for opening in pools] for pools in openings]
        thetas = method.learn(folds, key)
        return [list(zip(*both, strict=True)) for both in zip(openings, thetas, strict=True)]

    def propose(space: Space, theta: Any) -> Proposer:
        return then(portfolio(theta[0], space), trials, method.propose(space, theta[1]))

    return Method(propose, learn, method.needs_shared, max(1, method.needs_sources), method.trains)


def methods_named(names: Sequence[str]) -> dict[str, Method]:
    """The methods of these names, in their order; `portfolio_then_X` is any other method X after the portfolio.

    Raises:
      ConfigError: for an unknown or repeated name, with the nearest known one, or for none at all.
    """
    from difflib import get_close_matches

    if not names:
        raise ConfigError(f"name at least one method of {', '.join(METHODS)}.")
    out: dict[str, Method] = {}
    for name in names:
        base = name.removeprefix(THEN)
        if base not in METHODS:
            near = get_close_matches(base, METHODS, 1)
            hint = f"did you mean {name.removesuffix(base) + near[0]!r}? " if near else ""
            raise ConfigError(f"unknown method {name!r}; {hint}known are {', '.join(METHODS)}, and {THEN}X of any X.")
        if name in out:
            raise ConfigError(f"method {name!r} is named twice; name it once.")
        out[name] = METHODS[base] if base == name else portfolio_then(METHODS[base])
    return out


def stack(thetas: Sequence[Any]) -> Any:
    """One pytree with a leading axis over tasks."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *thetas)
