"""The figures that a comparison of methods reports: incumbent, regret, rank, solved, and intervals over data sets.

Every table, plot and claim of the library uses these definitions and no others. All are pure functions of numpy arrays;
trials are the last axis `T`, and losses are minimised.
"""

import functools
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


def expected_minimum(values: ArrayLike, trials: int) -> float:
    """Expected least of `trials` values drawn without replacement: what random search reaches on a table, without sampling error.

    Args:
        values: `[N]`, regrets of a table's configurations, failures at the worst.
        trials: From 1 to N.

    >>> round(expected_minimum([0.0, 1.0, 2.0], 2), 6)
    0.333333
    """
    from scipy.special import gammaln

    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if not 1 <= trials <= n:
        raise ConfigError(f"trials must be from 1 to {n}, the number of values, got {trials}.")
    # Rank i is the least where it is drawn and the others are drawn among the n - 1 - i above it.
    above = np.arange(n - 1, trials - 2, -1)
    log_share = gammaln(above + 1) - gammaln(above - trials + 2) - gammaln(trials)
    log_share -= gammaln(n + 1) - gammaln(n - trials + 1) - gammaln(trials + 1)
    return float(ordered[: len(above)] @ np.exp(log_share))


def trials_to_reach(curve: ArrayLike, level: float) -> int | None:
    """The first trial (from 1) at which a mean regret curve `[T]` is at or below `level`; None if it never is."""
    reached = np.flatnonzero(np.asarray(curve) <= level)
    return int(reached[0]) + 1 if len(reached) else None


DECIMALS = 5  # of a regret that its rank looks at


def average_ranks(regret: ArrayLike) -> NDArray[np.float64]:
    """Rank of each method at every task, seed and trial: 1 is best, ties share the average of their ranks.

    Regrets that agree to `DECIMALS` are ties: the same row of a table, as its authors published it, differs from ours by their rounding. The
    reported rank of a method is the mean of these over tasks and seeds.

    Args:
        regret: `[M, ..., T]`, methods first.

    Returns:
        `[M, ..., T]`, summing to `M (M + 1) / 2` over the first axis.

    >>> average_ranks([[0.1], [0.3], [0.1]]).ravel().tolist()
    [1.5, 3.0, 1.5]
    """
    values = np.round(np.asarray(regret, dtype=np.float64), DECIMALS)
    if np.isnan(values).any():
        raise DataError("regret holds NaN, which has no rank: compute it with `normalised_regret`.")
    # Of few methods at very many places, all pairs at once are far quicker than a sort at each place.
    return np.stack([0.5 + (values < own).sum(axis=0) + 0.5 * (values == own).sum(axis=0) for own in values])


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
    rows = _checked(values, groups, resamples, level)
    return _interval(rows, _draw(groups, resamples, seed), level)


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


def paired_differences(
    values: ArrayLike,
    groups: Sequence[Hashable] | NDArray,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """`paired_difference` of every method and every other, with one draw of the groups for all.

    Args:
        values: `[M, N, ...]`, methods first; the same task and seed per row in each.
        groups: `[N]`.
        resamples: As of `bootstrap_mean`, like `level` and `seed`.
        level: See there.
        seed: See there.

    Returns:
        An `Interval` of `[M, M, ...]`, entry `[a, b]` of `a - b`; the diagonal is 0.

    Raises:
        ConfigError: As of `bootstrap_mean`.
        DataError: Likewise.
    """
    rows = np.asarray(values, dtype=np.float64)
    for method in rows:
        _checked(method, groups, resamples, level)
    drawn = _draw(groups, resamples, seed)
    mean, low, high = (np.zeros((len(rows), *rows.shape[:1], *rows.shape[2:])) for _ in range(3))
    for a in range(len(rows)):
        for b in range(a):
            # Differences are taken before sums, so that equal rows cancel to exactly 0.
            mean[a, b], low[a, b], high[a, b] = _interval(rows[a] - rows[b], drawn, level)
            mean[b, a], low[b, a], high[b, a] = -mean[a, b], -high[a, b], -low[a, b]
    return Interval(mean, low, high)


class RankTest(NamedTuple):
    """Ranks of several methods over data sets, and how far apart two of them must be."""

    rank: NDArray[np.float64]  # `[M]`, mean over data sets, 1 is best
    p_value: float  # Friedman: that all methods rank alike
    critical_difference: float  # Nemenyi: two mean ranks less than this apart cannot be told apart


def friedman(regret: ArrayLike, groups: Sequence[Hashable] | NDArray, *, level: float = 0.05) -> RankTest:
    """Friedman's test with the Nemenyi critical difference, over data sets.

    Demsar (2006), sections 3.2.1 and 3.2.2. Tasks and seeds of one data set are averaged first, so that what is ranked
    is independent; ties share the average of their ranks, for which the statistic is corrected (Conover 1999, 5.8).

    Args:
        regret: `[M, N]`, methods first, at one trial.
        groups: `[N]`, the base data set of each row.
        level: Of significance, over all pairs together.

    Raises:
        ConfigError: There are fewer than two methods, or `groups` does not name a group per row.
        DataError: A value is not finite.
    """
    from scipy.stats import chi2

    rows = np.asarray(regret, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ConfigError(
            f"Ranks are tested between methods: regret must be `[M, N]` with M at least 2, got shape {rows.shape}."
        )
    _checked(rows.T, groups, 1, 1.0 - level)
    member = _membership(groups)
    ranks = average_ranks(rows @ member.T / member.sum(axis=1))
    k, n = ranks.shape
    centred = ranks - (k + 1) / 2.0
    spread = (centred**2).sum()  # 0 if all tie everywhere
    statistic = (k - 1) * (centred.sum(axis=1) ** 2).sum() / spread if spread > 0 else 0.0
    return RankTest(ranks.mean(axis=1), float(chi2.sf(statistic, k - 1)), critical_difference(k, n, level))


@functools.cache
def critical_difference(methods: int, data_sets: int, level: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, `q sqrt(k (k + 1) / 6 n)` (Demsar 2006, section 3.2.2).

    `q` is the upper quantile of the studentised range at infinite degrees of freedom, divided by the square root of 2.

    >>> round(critical_difference(5, 30), 3)
    1.114
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1.0 - level, methods, np.inf) / np.sqrt(2.0)
    return float(q * np.sqrt(methods * (methods + 1) / (6.0 * data_sets)))


class _Draw(NamedTuple):
    """Resamples of groups; `counts[r, g]` says how often resample `r` holds group `g`."""

    member: NDArray[np.float64]  # `[G, N]`, 1 where a row belongs to a group
    counts: NDArray[np.float64]  # `[R, G]`


def _membership(groups: Sequence[Hashable] | NDArray) -> NDArray[np.float64]:
    """`[G, N]`, 1 where row `n` is of group `g`, groups in the order of their first row."""
    index: dict[Hashable, int] = {}
    member = np.array([index.setdefault(group, len(index)) for group in groups], dtype=np.int64)
    return (member == np.arange(len(index))[:, None]).astype(np.float64)


def _draw(groups: Sequence[Hashable] | NDArray, resamples: int, seed: int) -> _Draw:
    member = _membership(groups)
    n = len(member)
    # A resample of groups is a vector of multinomial counts, so all means are one matrix product.
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples)
    return _Draw(member, counts.astype(np.float64))


def _interval(rows: NDArray[np.float64], draw: _Draw, level: float) -> Interval:
    """Mean of `[N, ...]` with the percentile interval of the resamples."""
    mean = rows.mean(axis=0)
    if len(draw.member) == 1:
        unknown = np.full(mean.shape, np.nan)
        return Interval(mean, unknown, unknown.copy())
    sums = draw.member @ rows.reshape(len(rows), -1)
    weights = draw.counts / (draw.counts @ draw.member.sum(axis=1))[:, None]
    tail = (1.0 - level) / 2.0
    # Resamples last: quantiles along contiguous memory are several times quicker.
    low, high = np.quantile(sums.T @ weights.T, [tail, 1.0 - tail], axis=1).reshape(2, *mean.shape)
    return Interval(mean, low, high)


def _checked(
    values: ArrayLike, groups: Sequence[Hashable] | NDArray, resamples: int, level: float
) -> NDArray[np.float64]:
    """The rows of a bootstrap, or what is wrong with them."""
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
    return rows


def _floating(values: ArrayLike) -> Array:
    """As a floating array, of the given precision where it has one."""
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
