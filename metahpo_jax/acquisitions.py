"""How promising a point is: acquisitions of a predicted mean and variance, to be maximised, for a minimised loss.

Each takes `mean [n]`, `variance [n]` of the noise-free loss and `best []`, the loss to beat, and returns scores
`[n]`. All are finite in float32 wherever their arguments are, far tails and zero variance included.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr

from metahpo_jax.base import Array, Key, PyTree, Surrogate

Acquisition = Callable[[Array, Array, Array], Array]  # mean `[n]`, variance `[n]`, best `[]` -> score `[n]`
Score = Callable[
    [Key, Surrogate, PyTree, Array, Array], Array
]  # key, surrogate, posterior, x `[n, F]`, best `[]` -> score `[n]`

TAIL = (
    -2.5
)  # deviations: above, the plain formula loses a digit at most; below, the continued fraction has converged to 1e-12
TERMS = 40


def expected_improvement(mean: Array, variance: Array, best: Array) -> Array:
    """Expected improvement `E max(best - f, 0)` (Jones et al. 1998), in units of the loss."""
    z, deviation = _standardise(mean, variance, best)
    return deviation * jnp.exp(_log_h(z))


def log_expected_improvement(mean: Array, variance: Array, best: Array) -> Array:
    """Logarithm of the expected improvement, exact where the improvement itself underflows (Ament et al. 2023)."""
    z, deviation = _standardise(mean, variance, best)
    return jnp.log(deviation) + _log_h(z)


def probability_of_improvement(mean: Array, variance: Array, best: Array) -> Array:
    """Probability that the loss is below `best` (Kushner 1964)."""
    return ndtr(_standardise(mean, variance, best)[0])


def lower_confidence_bound(mean: Array, variance: Array, best: Array, *, kappa: float = 2.0) -> Array:
    """Optimistic bound, `kappa` deviations below the mean, negated: GP-UCB (Srinivas et al. 2010) for a minimum."""
    del best
    return kappa * jnp.sqrt(variance) - mean


def upper_confidence_bound(mean: Array, variance: Array, best: Array, *, kappa: float = 2.0) -> Array:
    """Pessimistic bound, `kappa` deviations above the mean, negated: for a final choice that must not disappoint."""
    return lower_confidence_bound(mean, variance, best, kappa=-kappa)


def marginal(acquisition: Acquisition) -> Score:
    """The acquisition of each point by itself."""

    def score(key: Key, surrogate: Surrogate, posterior: PyTree, x: Array, best: Array) -> Array:
        del key
        return acquisition(*surrogate.predict(posterior, x), best)

    return score


def thompson(key: Key, surrogate: Surrogate, posterior: PyTree, x: Array, best: Array) -> Array:
    """One joint draw of the loss at all points, negated (Thompson 1933): the best point of a plausible world."""
    del best
    return -surrogate.sample(key, posterior, x)


def _standardise(mean: Array, variance: Array, best: Array) -> tuple[Array, Array]:
    """Predicted improvement in standard deviations `[n]`, and the deviation `[n]`."""
    info = jnp.finfo(variance.dtype)
    deviation = jnp.sqrt(jnp.maximum(variance, info.tiny))
    limit = 0.1 * math.sqrt(info.max)  # its square is still finite
    return jnp.clip((best - mean) / deviation, -limit, limit), deviation


def _log_h(z: Array) -> Array:
    """`log(phi(z) + z Phi(z))`, the log of the expected improvement in units of the deviation."""
    is_tail = z < TAIL
    body = jnp.where(is_tail, TAIL, z)
    density = jnp.exp(-0.5 * jnp.square(jnp.minimum(jnp.abs(body), 40.0))) / math.sqrt(2.0 * math.pi)
    log_body = jnp.log(density + body * ndtr(body))
    # In the tail the two terms cancel. The ratio of h to Phi is that of repeated integrals of erfc, a continued
    # fraction of positive terms (DLMF 7.18.13): 1 / (t + 2 / (t + 3 / (t + ...))).
    t = jnp.where(is_tail, -z, -TAIL)
    fraction = t
    for k in range(TERMS, 1, -1):
        fraction = t + k / fraction
    log_tail = log_ndtr(-t) - jnp.log(fraction)
    return jnp.where(is_tail, log_tail, log_body)
