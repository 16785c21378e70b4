"""The greedy portfolio: the short list of configurations that together did best on the training tasks."""

import jax.numpy as jnp
import numpy as np

from metahpo_jax.errors import BudgetError, DataError
from metahpo_jax.proposers.listed import PortfolioTheta


def normalised(loss: np.ndarray) -> np.ndarray:
    """Regret `[T, N]` of losses `[T, N]`: 0 for a task's best configuration, 1 for its worst; 0 where all are equal.

    Raises:
      DataError: when a loss is not finite.
    """
    loss = np.asarray(loss, np.float64)
    if not np.isfinite(loss).all():
        t, n = np.argwhere(~np.isfinite(loss))[0]
        raise DataError(
            f"loss of task {t}, configuration {n} is {loss[t, n]}; give the cap of the objective for failed runs."
        )
    low, high = loss.min(1, keepdims=True), loss.max(1, keepdims=True)
    return (loss - low) / np.where(high > low, high - low, 1.0)


def greedy_picks(regret: np.ndarray, size: int) -> np.ndarray:
    """Indices `[size]` of configurations, each the one that lowers most the mean over tasks of the best regret so far.

    Once nothing lowers it any more, a second round starts over with what is left. (Xu et al. 2010, section 3; Wistuba et al. 2015.)

    Args:
      regret: `[T, N]` of the training tasks.
      size: how many to pick, at most N.

    Raises:
      BudgetError: when more are asked for than there are.
    """
    tasks, n = regret.shape
    if not 1 <= size <= n:
        raise BudgetError(f"a portfolio over {n} configurations can hold 1 to {n} of them, got size={size}.")
    alone = regret.mean(0)
    best = np.full(tasks, np.inf)
    free = np.ones(n, bool)
    picks = []
    for _ in range(size):
        together = np.minimum(best[:, None], regret).mean(0)
        if not (together[free] < best.mean()).any():
            best = np.full(tasks, np.inf)
            together = alone
        # Ties go to the configuration that is better by itself.
        order = np.lexsort((alone, np.where(free, together, np.inf)))
        picks.append(int(order[0]))
        free[order[0]] = False
        best = np.minimum(best, regret[:, order[0]])
    return np.asarray(picks)


def learn_portfolio(u: np.ndarray, loss: np.ndarray, size: int) -> PortfolioTheta:
    """The greedy portfolio of configurations `u [N, D]` with losses `loss [T, N]` on the training tasks."""
    return PortfolioTheta(jnp.asarray(np.asarray(u)[greedy_picks(normalised(loss), size)], jnp.float32))
