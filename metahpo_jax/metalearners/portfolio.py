"""The greedy portfolio: the short list of configurations that together did best on the training tasks."""

import jax.numpy as jnp
import numpy as np

from metahpo_jax.errors import BudgetError
from metahpo_jax.metadata import share_of_range
from metahpo_jax.proposers.listed import PortfolioTheta

OWN_PICKS = 6
IMAGINED = 1000
INDEPENDENT = 0.1


def greedy_picks(regret: np.ndarray, size: int) -> np.ndarray:
    """Indices `[size]` of configurations, each the one that lowers most the mean over tasks of the best regret so far.

    Xu et al. (2010), section 3; Wistuba et al. (2015). Once every training task has its best, the configurations that are best by
    themselves follow.

    Args:
      regret: `[T, N]` of the training tasks.
      size: how many to pick, at most N.

    Raises:
      BudgetError: when more are asked for than there are.
    """
    _check_size(regret, size)
    return np.asarray(cover(regret, [], size))


def imagined_picks(regret: np.ndarray, size: int) -> np.ndarray:
    """Indices `[size]`: greedy on the training tasks for `OWN_PICKS` configurations, then on imagined tasks.

    Soon the greedy choice only mends single training tasks, which does not carry over: on `tabular` the plain list is no better than chance
    from trial 20 on. Imagined tasks are random mixtures of what set the training tasks apart. (This continuation is our own; its two
    numbers were chosen on `tabular`.)

    Args and errors as of `greedy_picks`.
    """
    _check_size(regret, size)
    picks = cover(regret, [], min(size, OWN_PICKS))
    return np.asarray(cover(imagined(regret), picks, size))


def cover(regret: np.ndarray, picks: list[int], size: int) -> list[int]:
    """Greedy continuation of `picks` to `size` by regret `[T, N]`; ties go to the configuration that is better by itself."""
    alone = regret.mean(0)
    best = regret[:, picks].min(1, initial=np.inf)
    free = np.ones(regret.shape[1], bool)
    free[picks] = False
    while len(picks) < size:
        together = np.minimum(best[:, None], regret).mean(0)
        chosen = int(np.lexsort((alone, np.where(free, together, np.inf)))[0])
        picks = [*picks, chosen]
        free[chosen] = False
        best = np.minimum(best, regret[:, chosen])
    return picks


def imagined(regret: np.ndarray) -> np.ndarray:
    """Regret `[IMAGINED, N]` of made-up tasks with the mean of the training tasks and nearly their covariance.

    A share `INDEPENDENT` of the variance is drawn for each configuration by itself: the least shrinkage that leaves no configuration
    a mere echo of the others.
    """
    rng = np.random.default_rng(0)
    tasks, n = regret.shape
    mean, spread = regret.mean(0), regret.std(0)
    mixed = rng.standard_normal((IMAGINED, tasks)) @ (regret - mean) / np.sqrt(tasks)
    own = rng.standard_normal((IMAGINED, n)) * spread
    return share_of_range(mean + np.sqrt(1.0 - INDEPENDENT) * mixed + np.sqrt(INDEPENDENT) * own)


def learn_portfolio(u: np.ndarray, loss: np.ndarray, size: int) -> PortfolioTheta:
    """The greedy portfolio of configurations `u [N, D]` with losses `loss [T, N]` on the training tasks."""
    return listed(u, greedy_picks(share_of_range(loss), size))


def listed(u: np.ndarray, picks: np.ndarray) -> PortfolioTheta:
    """The picks, indices into configurations `u [N, D]`, as what the proposer tries in order."""
    return PortfolioTheta(jnp.asarray(np.asarray(u)[picks], jnp.float32))


def _check_size(regret: np.ndarray, size: int) -> None:
    n = regret.shape[1]
    if not 1 <= size <= n:
        raise BudgetError(f"a portfolio over {n} configurations can hold 1 to {n} of them, got size={size}.")
