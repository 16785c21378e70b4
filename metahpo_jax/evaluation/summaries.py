"""What a meta-dataset shows when it is looked at, as arrays: learning curves, importance, coverage, likeness of tasks.

`survey` draws it.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from metahpo_jax.evaluation.importance import importance
from metahpo_jax.metadata.schema import MetaDataset

Array = NDArray[np.floating]

BINS = 16
MANY_LEVELS = 8
RANDOM_REPEATS = 5


class Curves(NamedTuple):
    """Over the configurations, at each of `P` points of `T` tasks: all `[T, P]`.

    Losses are shares of the prior entropy, so that 1 is having learned nothing on any task; failed runs count as 1.
    """

    best: Array
    lower: Array  # quartile
    median: Array
    upper: Array
    failed: Array  # share of runs that have no loss (any more)


def curves(meta: MetaDataset) -> Curves:
    """Summaries of the learning curves."""
    prior = np.array([task.prior_entropy for task in meta.tasks])[:, None, None]
    loss = np.stack([meta.objective(p) for p in range(len(meta.fidelity))], axis=-1) / prior  # `[T, N, P]`
    lower, median, upper = np.quantile(loss, (0.25, 0.5, 0.75), axis=1)
    return Curves(loss.min(axis=1), lower, median, upper, (~np.isfinite(meta.valid_loss)).mean(axis=1))


class Importances(NamedTuple):
    """See `importance.Importance`, with a leading axis of tasks."""

    main: Array  # `[T, D]`
    explained: Array  # `[T]`


def importances(meta: MetaDataset) -> Importances:
    """Importance of each hyperparameter for the last objective of each task; inactive ones sit at 0.5."""
    u = np.where(meta.active, meta.u, np.float32(0.5))
    found = [importance(u, loss) for loss in meta.objective()]
    return Importances(np.array([f.main for f in found]), np.array([f.explained for f in found]))


def density(meta: MetaDataset, name: str) -> Array:
    """Where the configurations lie along a hyperparameter, `[B]`: 1 where there are as many as among uniform ones.

    The bins are the levels where these are few, and equal parts of the coordinate where not. NaN where no level lies.
    """
    d, levels = meta.space.names.index(name), meta.space[name].levels
    bins = levels if 0 < levels <= MANY_LEVELS else BINS
    grid = (np.arange(64 * bins, dtype=np.float32) + 0.5) / (64 * bins)
    uniform = np.asarray(meta.space.snap(jnp.asarray(np.repeat(grid[:, None], meta.space.size, axis=1))))[:, d]
    expected, _ = np.histogram(uniform, bins, (0, 1))
    counts, _ = np.histogram(meta.u[meta.active[:, d], d], bins, (0, 1))
    share = counts / max(counts.sum(), 1)
    return np.divide(share, expected / expected.sum(), out=np.full(bins, np.nan), where=expected > 0)


def pair_discrepancy(meta: MetaDataset, seed: int = 0) -> Array:
    """Centred L2 discrepancy (Hickernell 1998) of every two hyperparameters, `[D, D]`, over that of random search.

    Below 1 the configurations are more even than as many uniform ones, of whose discrepancies the mean over
    `RANDOM_REPEATS` sets is taken. On the diagonal is each hyperparameter alone.
    """
    from scipy.stats import qmc

    rng = np.random.default_rng(seed)
    sets = [meta.u, *(_uniform(meta, rng) for _ in range(RANDOM_REPEATS))]
    ratio = np.ones((meta.space.size, meta.space.size))
    for i, j in zip(*np.tril_indices(meta.space.size), strict=True):
        pair = np.unique([i, j])
        own, *random = (qmc.discrepancy(points[:, pair].astype(np.float64)) for points in sets)
        ratio[i, j] = ratio[j, i] = own / np.mean(random)
    return ratio


def _uniform(meta: MetaDataset, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(meta.space.snap(jnp.asarray(rng.random(meta.u.shape, np.float32))))


class Components(NamedTuple):
    """First two principal components of the standardised descriptors; fewer tasks than 3 or constant ones give zeros."""

    scores: Array  # `[T, 2]`
    share: Array  # `[2]` of the variance
    loadings: Array  # `[2, m]`


def descriptor_components(meta: MetaDataset) -> Components:
    """Missing descriptors count as the mean of the others; constant ones have no loading."""
    values = np.array([task.descriptor for task in meta.tasks], np.float64)  # `[T, m]`
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, values - np.where(known, values, 0.0).sum(axis=0) / count, 0.0)
    spread = np.sqrt((centred**2).mean(axis=0))
    centred = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    left, size, right = np.linalg.svd(np.pad(centred, ((0, 2), (0, 2))), full_matrices=False)  # 2 of each, always
    total = (size**2).sum()
    share = size[:2] ** 2 / total if total > 0 else np.zeros(2)
    return Components((left * size)[:-2, :2], share, right[:2, :-2])


def rank_correlations(meta: MetaDataset) -> Array:
    """Spearman's correlation of the last objective over the configurations, `[T, T]`; NaN where a task is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(meta.objective(), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    ranks = np.divide(ranks, size, out=np.full_like(ranks, np.nan), where=size > 0)
    return np.clip(ranks @ ranks.T, -1.0, 1.0)


def similar_together(correlation: Array) -> NDArray[np.intp]:
    """An order of the tasks in which correlated ones are neighbours: the leaves of an average-linkage clustering."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = 1.0 - np.nan_to_num(correlation)
    np.fill_diagonal(distance, 0.0)
    return leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True)).astype(np.intp)
