"""The simplest pre-trained Gaussian process: mean and covariance over a shared grid, counted from the training tasks.

Configurations are the indices of a multivariate normal whose mean and covariance are those of the training tasks' raw losses, shrunk by 2 %
towards a diagonal; conditioning is exact and the acquisition is expected improvement. No kernel, no scaling: tasks must share a unit.
(The empirical mean and covariance of Wang et al. 2018, "Regret bounds for meta Bayesian optimization with an unknown Gaussian process
prior", section 4.1, with shrinkage.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.acquisitions import log_expected_improvement
from metahpo_jax.base import Array, Candidates, Context, Key, Proposal, Proposer
from metahpo_jax.errors import DataError
from metahpo_jax.history import History, untried
from metahpo_jax.proposers.pool import forget, of_row
from metahpo_jax.surrogates.linalg import factorise, lower_inverse
from metahpo_jax.surrogates.targets import told

SHRINKAGE = 0.02  # share of the variance that a configuration has for itself


class GaussianTheta(NamedTuple):
    """A normal distribution over the pool's `N` losses: covariance `factor^T factor + diag(own)`."""

    mean: Array  # `[N]` float32
    factor: Array  # `[T, N]` float32
    own: Array  # `[N]` float32


def count_gaussian(loss: np.ndarray, *, rows: int = 0) -> GaussianTheta:
    """Mean and shrunk covariance of losses `[T, N]` of training tasks, in their own unit.

    The factor has `rows` rows if that is more than T (the rest are 0), so that counts of several folds can be stacked.

    Raises:
      DataError: with fewer than two tasks, which have no covariance.
    """
    loss = np.asarray(loss, np.float64)
    if len(loss) < 2:
        raise DataError(f"an empirical covariance needs at least 2 training tasks, got {len(loss)}.")
    mean = loss.mean(0)
    factor = (loss - mean) / np.sqrt(len(loss) - 1.0)
    own = SHRINKAGE * np.square(factor).sum(0)
    padding = np.zeros((max(rows - len(factor), 0), factor.shape[1]))
    arrays = (mean, np.sqrt(1.0 - SHRINKAGE) * np.concatenate([factor, padding]), own)
    return GaussianTheta(*(jnp.asarray(array, jnp.float32) for array in arrays))


def posterior(theta: GaussianTheta, row: Array, loss: Array, mask: Array) -> tuple[Array, Array]:
    """Mean `[N]` and variance `[N]` given losses `[K]` of pool rows `row [K]` where `mask [K]`."""
    row = jnp.where(mask, row, 0)
    seen = jnp.where(mask[None, :], theta.factor[:, row], 0.0)  # `[T, K]`
    n = theta.mean.shape[0]
    same = (jnp.arange(n)[:, None] == row[None, :]) & mask[None, :]
    cross = theta.factor.T @ seen + jnp.where(same, theta.own[:, None], 0.0)  # `[N, K]`
    gram = jnp.where(mask[:, None], cross[row], 0.0) + jnp.diag(jnp.where(mask, 0.0, 1.0))
    chol, _ = factorise(gram)
    inverse = lower_inverse(chol)
    residual = jnp.where(mask, loss - theta.mean[row], 0.0)
    white = jnp.matmul(cross, inverse.T, precision=jax.lax.Precision.HIGHEST)
    prior = jnp.sum(theta.factor**2, axis=0) + theta.own
    variance = jnp.maximum(prior - jnp.sum(white**2, axis=1), 1e-7 * prior)
    return theta.mean + white @ (inverse @ residual), variance


def empirical_gaussian(theta: GaussianTheta) -> Proposer:
    """Lowest mean first, then expected improvement over the pool; failures count as the worst loss told.

    The pool must be the configurations that `theta` was counted on, in the same order.
    """

    def init(key: Key, context: Context) -> Context:
        del key
        return context

    def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
        del key
        loss, mask = told(history)
        mean, variance = posterior(theta, history.row, loss, mask & (history.row >= 0))
        best = jnp.min(jnp.where(history.ok, history.loss, jnp.inf))
        score = jnp.where(jnp.isfinite(best), log_expected_improvement(mean, variance, best), -mean)
        row = jnp.argmax(jnp.where(untried(history, candidates), score, -jnp.inf))
        return of_row(state, history, candidates, row), state

    return Proposer(init, ask, forget)
