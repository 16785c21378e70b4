"""The figures that a comparison of methods reports: incumbent, regret, rank, solved, and intervals over data sets.

Every table, plot and claim of the library uses these definitions and no others. All are pure functions of numpy arrays;
trials are the last axis `T`, and losses are minimised.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metahpo_jax.errors import ConfigError, DataError

Array = NDArray[np.floating]


class Interval(NamedTuple):
    """A mean with the two ends of its confidence interval."""

    mean: Array  # `[...]`
    low: Array  # `[...]`
    high: Array  # `[...]`


def incumbent(loss: ArrayLike) -> Array:
    """Best finite loss so far.

    A diverged or failed trial (NaN or infinite, of either sign) never wins; before the first success the incumbent is
    `+inf`.

    Args:
        loss: `[..., T]`, raw units, in the order of the trials.

    Returns:
        `[..., T]`, never rising along the last axis.

    >>> incumbent([np.nan, 3.0, -np.inf, 2.0]).tolist()
    [inf, 3.0, 3.0, 2.0]
    """
    values = _floating(loss)
    return np.minimum.accumulate(np.where(np.isfinite(values), values, np.inf), axis=-1)


def incumbent_trial(loss: ArrayLike) -> NDArray[np.integer]:
    """Index of the trial that holds the best finite loss so far, the first of equals; 0 before the first success.

    Args:
        loss: `[..., T]`, raw units, in the order of the trials.

    Returns:
        `[..., T]` integers.

    >>> incumbent_trial([np.nan, 3.0, 4.0, 2.0]).tolist()
    [0, 1, 1, 3]
    """
    best = incumbent(loss)
    before = np.concatenate([np.full_like(best[..., :1], np.inf), best[..., :-1]], axis=-1)
    return np.maximum.accumulate(np.where(best < before, np.arange(best.shape[-1]), 0), axis=-1)


def normalised_regret(incumbent: ArrayLike, best: ArrayLike, worst: ArrayLike) -> NDArray[np.float64]:
    """`(incumbent - best) / (worst - best)`, at most 1: the distance to the best of a table in units of its range.

    The clip at 1 gives a run without any success the regret of the worst entry, and keeps a live run that ends above
    the worst entry from counting as worse than a failure. A live run may beat the table: its regret is then negative.
    Where the table is constant every success has regret 0. Regret is exactly 0 only if `incumbent` and `best` were read
    at the same precision.

    Args:
        incumbent: `[..., T]`, from `incumbent`.
        best: Least loss of the table, broadcast against `incumbent` (of one value per task: `best[:, None, None]`).
        worst: Greatest loss of the table that scores 1, broadcast likewise.

    Returns:
        `[..., T]`.

    Raises:
        DataError: `incumbent` holds NaN or `-inf`, an end of the table is not finite, or `worst` is below `best`.
    """
    value, low, high = (np.asarray(x, dtype=np.float64) for x in (incumbent, best, worst))
    if np.isnan(value).any() or np.isneginf(value).any():
        raise DataError(
            "incumbent holds NaN or -inf, but an incumbent is finite or +inf: pass losses through `incumbent` first."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DataError(
            "best and worst must be finite, got NaN or an infinity: take them over the finite losses of the table."
        )
    if (high < low).any():
        raise DataError("worst is below best for some task, but losses are minimised: swap the two.")
    span = high - low
    scaled = (value - low) / np.where(span > 0, span, 1.0)
    return np.minimum(np.where((span > 0) | np.isinf(value), scaled, 0.0), 1.0)


def average_ranks(regret: ArrayLike) -> NDArray[np.float64]:
    """Rank of each method at every task, seed and trial: 1 is best, ties share the average of their ranks.

    The reported rank of a method is the mean of these over tasks and seeds.

    Args:
        regret: `[M, ..., T]`, methods first.

    Returns:
        `[M, ..., T]`, summing to `M (M + 1) / 2` over the first axis.

    >>> average_ranks([[0.1], [0.3], [0.1]]).ravel().tolist()
    [1.5, 3.0, 1.5]
    """
    from scipy.stats import rankdata

    values = np.asarray(regret, dtype=np.float64)
    if np.isnan(values).any():
        raise DataError("regret holds NaN, which has no rank: compute it with `normalised_regret`.")
    return rankdata(values, method="average", axis=0)


def solved(regret: ArrayLike) -> float:
    """Share of runs whose regret is exactly 0 (or negative, for a live run that beats the table).

    >>> solved([0.0, 0.25, 1e-9, -0.1])
    0.5
    """
    return float(np.mean(np.asarray(regret) <= 0.0))


def bootstrap_mean(
    values: ArrayLike,
    groups: Sequence[Hashable] | NDArray,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over rows with a percentile interval from a cluster bootstrap.

    Efron (1979); Davison and Hinkley (1997), section 3.8. Whole groups (base data sets) are drawn with replacement and
    all rows of a group move together, so further seeds of the same data set never make an interval narrower than the
    data sets warrant. Every row counts once: a group weighs as many rows as it has, in the mean and in each resample.
    Calls with the same groups and seed see the same resamples. Of a single group nothing can be said: both ends are
    NaN.

    Args:
        values: `[N, ...]`, finite; each trailing entry gets its own (pointwise) interval.
        groups: `[N]`, the group of each row.
        resamples: Number of bootstrap resamples.
        level: Coverage that the interval aims at, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        An `Interval` of `[...]`.

    Raises:
        ConfigError: `resamples` or `level` is out of range, or `groups` does not name a group per row.
        DataError: There is no row, or a value is not finite.
    """
    rows = np.asarray(values, dtype=np.float64)
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ConfigError(
            f"A bootstrap needs resamples >= 1 and 0 < level < 1, got resamples={resamples} and level={level}."
        )
    if rows.ndim == 0 or rows.shape[0] == 0:
        raise DataError("values holds no row, so it has no mean: pass at least one run.")
    if len(groups) != rows.shape[0]:
        raise ConfigError(
            f"groups must name one group per row of values: {rows.shape[0]} rows, but {len(groups)} groups."
        )
    if not np.isfinite(rows).all():
        bad = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(
            f"values[{', '.join(map(str, bad))}] is {rows[tuple(bad)]}, but a mean needs finite values: "
            "use regret, not raw losses."
        )

    mean = rows.mean(axis=0)
    index: dict[Hashable, int] = {}
    member = np.array([index.setdefault(group, len(index)) for group in groups], dtype=np.int64)
    n_groups = len(index)
    if n_groups == 1:
        unknown = np.full(mean.shape, np.nan)
        return Interval(mean, unknown, unknown.copy())
    sums = np.zeros((n_groups, mean.size))
    np.add.at(sums, member, rows.reshape(len(rows), -1))
    sizes = np.bincount(member, minlength=n_groups)
    # A resample of groups is a vector of multinomial counts, so all means are one matrix product.
    counts = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1.0 / n_groups), size=resamples)
    means = (counts @ sums) / (counts @ sizes)[:, None]
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0).reshape(2, *mean.shape)
    return Interval(mean, low, high)


def paired_difference(a: ArrayLike, b: ArrayLike, groups: Sequence[Hashable] | NDArray, **settings) -> Interval:
    """Bootstrap of `mean(a - b)`, paired by row: below 0 means that `a` is the better of two regrets.

    Args:
        a: `[N, ...]`.
        b: `[N, ...]`, the same task and seed per row as `a`.
        groups: `[N]`.
        **settings: As of `bootstrap_mean`.

    Raises:
        ConfigError: The shapes of `a` and `b` differ.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ConfigError(
            f"A paired difference needs the same rows on both sides, got shapes {left.shape} and {right.shape}."
        )
    return bootstrap_mean(left - right, groups, **settings)


def _floating(values: ArrayLike) -> Array:
    """As a floating array, of the given precision where it has one."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
