"""From told losses to the targets of a model: imputation, rank-preserving squashing, standardisation.

All take values `[N]` with a mask `[N]` and look at unmasked ones only, so a model learns its scale from what it has
been told and nothing else. Masked entries come back as 0.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import ndtri

from metahpo_jax.base import Array
from metahpo_jax.history import History

LARGEST = 1e18  # a loss whose square, a variance, is still a float32
Squash = Callable[[Array, Array], Array]  # values `[N]`, mask `[N]` -> values `[N]` in the same order


def told(history: History) -> tuple[Array, Array]:
    """Losses `[N]` to learn from, and where they are `[N]`; failures count as the worst loss told so far.

    So a model avoids what diverged or failed. Before the first loss there is no worst one, and failures teach nothing.
    Losses are clipped to `LARGEST` in size.
    """
    ok = history.ok
    worst = jnp.max(jnp.where(ok, history.loss, -jnp.inf))
    mask = ok | (history.failed & jnp.any(ok))
    loss = jnp.where(ok, history.loss, worst)
    return jnp.where(mask, jnp.clip(loss, -LARGEST, LARGEST), 0.0), mask


def standardise(y: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Targets of mean 0 and variance 1, their mean `[]` and standard deviation `[]`, 1 for constant targets."""
    n = jnp.maximum(jnp.sum(mask, dtype=y.dtype), 1.0)
    size = jnp.max(jnp.where(mask, jnp.abs(y), 0.0))
    unit = jnp.where(size > 0, size, 1.0)  # squares of very large or small values leave the floating range
    mean = jnp.sum(jnp.where(mask, y / unit, 0.0)) / n
    centred = jnp.where(mask, y / unit - mean, 0.0)
    deviation = jnp.sqrt(jnp.sum(centred**2) / n)
    is_constant = deviation <= 10.0 * jnp.finfo(y.dtype).eps
    deviation = jnp.where(is_constant, 1.0, deviation)
    scale = jnp.where(is_constant, 1.0, deviation * unit)
    return jnp.where(is_constant, 0.0, centred / deviation), mean * unit, scale


def as_told(y: Array, mask: Array) -> Array:
    """The values themselves."""
    return jnp.where(mask, y, 0.0)


def half_rank(y: Array, mask: Array) -> Array:
    """Keeps what is at or below the median and moves what is above to normal quantiles of its rank.

    A diverged run or a heavy tail then bends the model no more than any other bad value, while differences among good
    values, which are what is searched for, keep their size. The spread is that of the good half about the median (the
    half-rank warping of Vizier, Song et al. 2024). Ties stay ties.
    """
    n = jnp.maximum(jnp.sum(mask, dtype=y.dtype), 1.0)
    quantile = _mid_rank(y, mask) / n
    # The median is a told value (the lower of two): no arithmetic that large values could overflow.
    ordered = jnp.sort(jnp.where(mask, y, jnp.inf))
    median = ordered[((n - 1) // 2).astype(jnp.int32)]
    median = jnp.where(jnp.any(mask), median, 0.0)
    good = mask & (y <= median)
    gap = jnp.where(good, median - y, 0.0)
    largest = jnp.max(gap)
    unit = jnp.where(largest > 0, largest, 1.0)
    spread = unit * jnp.sqrt(jnp.sum((gap / unit) ** 2) / jnp.maximum(jnp.sum(good, dtype=y.dtype), 1.0))
    # A good half that is all ties tells no spread: any will do, of the values' own size.
    above = jnp.max(jnp.where(mask, y - median, 0.0))
    spread = jnp.where(largest > 0, spread, jnp.where(above > 0, above, 1.0))
    return jnp.where(mask, jnp.where(good, y, median + spread * jnp.maximum(ndtri(quantile), 0.0)), 0.0)


def gaussian_rank(y: Array, mask: Array) -> Array:
    """Normal quantiles of the ranks (the copula of Salinas et al. 2020): only the order is left. Ties stay ties."""
    n = jnp.maximum(jnp.sum(mask, dtype=y.dtype), 1.0)
    return jnp.where(mask, ndtri(jnp.clip(_mid_rank(y, mask) / n, 1e-6, 1.0 - 1e-6)), 0.0)


def _mid_rank(y: Array, mask: Array) -> Array:
    """Ranks `[N]` from 0.5 to n - 0.5, averaged over ties; 0.5 where masked."""
    pair = mask[None, :]
    below = jnp.sum(pair & (y[None, :] < y[:, None]), axis=1, dtype=y.dtype)
    equal = jnp.sum(pair & (y[None, :] == y[:, None]), axis=1, dtype=y.dtype)
    return jnp.where(mask, below + 0.5 * equal, 0.5)
