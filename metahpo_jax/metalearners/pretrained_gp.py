"""Pre-training a Gaussian process on a meta-dataset (HyperBO: Wang et al. 2021, 2024, section 4.2: the sum of log marginal likelihoods).

Each step draws tasks and, of each, a few configurations: the likelihood of a subset is unbiased for that of its size, and a Cholesky of
64 points costs nothing. Losses are standardised per task over the training table; `surrogates.pretrained` infers both numbers on a new one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from metahpo_jax.base import Array, Key, MetaLearner, Proposer
from metahpo_jax.errors import SplitError
from metahpo_jax.hypergrad import reverse
from metahpo_jax.metadata import MetaDataset, Source, archive_of, sources_of
from metahpo_jax.metalearners.descent import descent
from metahpo_jax.metalearners.portfolio import greedy_picks, listed
from metahpo_jax.metalearners.prior import Prior
from metahpo_jax.proposers import PortfolioTheta, bo, portfolio
from metahpo_jax.spaces import Space
from metahpo_jax.surrogates import exact
from metahpo_jax.surrogates.exact import Parameters
from metahpo_jax.surrogates.pretrained import PretrainedTheta, pretrained, prior_init, prior_model
from metahpo_jax.training import fit

STEPS, POINTS, TASKS_PER_STEP, LEARNING_RATE = 600, 64, 8, 5e-3
MOST_ROWS = 2048  # of a training task: a step sees 64 of them
OPENING_SIZE = 16  # configurations of the portfolio that come along
# Of which this many are tried first: the list is hard to beat before, and after it the model is. Chosen on `tabular` among 3, 6 and 10.
OPENING_TRIALS = 6


class TrainingTable(struct.PyTreeNode):
    """Training tasks as pre-training sees them, padded to `T` tasks of `N` configurations."""

    x: Array  # `[T, N, F]` features
    y: Array  # `[T, N]` losses, standardised per task
    rows: Array  # `[T]` int32: configurations of each task; 0 where there is no task


class PretrainedGP(NamedTuple):
    """Everything that the learned proposer needs: the prior and the configurations that it opens with."""

    prior: PretrainedTheta
    opening: PortfolioTheta


def training_table(space: Space, sources: Sequence[Source], tasks: int, points: int) -> TrainingTable:
    """Table of training tasks, padded to `tasks` of `points` configurations; larger ones are thinned to `points`, drawn once."""
    x = np.zeros((tasks, points, space.n_features), np.float32)
    y = np.zeros((tasks, points), np.float32)
    rows = np.zeros(tasks, np.int32)
    features: dict[int, np.ndarray] = {}  # of a shared grid, once
    for t, source in enumerate(sources):
        kept = np.arange(len(source.u))
        if len(kept) > points:
            kept = np.sort(np.random.default_rng(0).permutation(len(source.u))[:points])
        if id(source.u) not in features:
            u = jnp.asarray(source.u[kept], jnp.float32)
            features[id(source.u)] = np.asarray(space.features(u, space.active(u)))
        spread = source.loss.std()
        x[t, : len(kept)] = features[id(source.u)]
        y[t, : len(kept)] = (source.loss[kept] - source.loss.mean()) / (spread if spread > 0 else 1.0)
        rows[t] = len(kept)
    return TrainingTable(jnp.asarray(x), jnp.asarray(y), jnp.asarray(rows))


def pretraining(space: Space, steps: int = STEPS) -> MetaLearner:
    """Meta-learner of the prior's parameters: Adam on the mean negative log marginal likelihood per observation."""
    model = prior_model(space)

    def loss(key: Key, theta: Parameters, task: tuple[Array, Array, Array]) -> Array:
        x, y, mask = task
        return -exact.log_marginal_likelihood(theta, x, y, mask, model=model) / jnp.sum(mask, dtype=y.dtype)

    rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    return descent(reverse(loss), lambda key: prior_init(space, key), optax.adam(rate), max_norm=10.0)


def draw_tasks(key: Key, table: TrainingTable) -> tuple[Array, Array, Array]:
    """`TASKS_PER_STEP` tasks, `POINTS` configurations of each: x `[B, P, F]`, y `[B, P]`, and which are real `[B, P]`."""
    n = table.x.shape[1]

    def one(key: Key) -> tuple[Array, Array, Array]:
        task_key, point_key = jax.random.split(key)
        task = jax.random.categorical(task_key, jnp.where(table.rows > 0, 0.0, -jnp.inf))
        is_real = jnp.arange(n) < table.rows[task]
        ticket = jax.random.uniform(point_key, (n,), jnp.float32)
        drawn, row = jax.lax.top_k(jnp.where(is_real, ticket, -1.0), min(POINTS, n))
        return table.x[task, row], table.y[task, row], drawn >= 0.0

    return jax.vmap(one)(jax.random.split(key, TASKS_PER_STEP))


def scales(sources: Sequence[Source]) -> tuple[float, float]:
    """Mean and standard deviation over tasks of the log standard deviation of the loss."""
    spread = np.array([source.loss.std() for source in sources])
    logs = np.log(spread[spread > 0])
    return float(logs.mean()), float(max(logs.std(), 0.1))


def pretrain_gp(
    space: Space, folds: Sequence[Sequence[Source]], key: Key, *, steps: int = STEPS, progress: bool = False
) -> list[PretrainedTheta]:
    """Pre-trains one prior per fold, all folds as one program.

    Args:
      space: of the configurations.
      folds: the training tasks of each fold.
      key: of the whole pre-training; fold s uses `fold_in(key, s)`.

    Raises:
      SplitError: when a fold has no training task.
    """
    if not all(folds):
        raise SplitError("pre-training needs at least one training task over the same space; choose another split.")
    tasks = max(len(sources) for sources in folds)
    points = min(MOST_ROWS, max(len(source.u) for sources in folds for source in sources))
    tables = [training_table(space, sources, tasks, points) for sources in folds]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(len(folds)))
    result = fit(pretraining(space, steps), draw_tasks, keys, steps=steps, data=stacked, batch=True, progress=progress)
    params = pretraining(space, steps).export(result.meta_state)
    return [
        PretrainedTheta(
            jax.tree.map(lambda leaf, s=s: leaf[s], params),
            *(jnp.asarray(value, jnp.float32) for value in scales(sources)),
        )
        for s, sources in enumerate(folds)
    ]


def pretrained_gp(theta: PretrainedGP, space: Space, *, opening_trials: int = OPENING_TRIALS) -> Proposer:
    """The learned proposer: opens with the portfolio's first picks, then expected improvement under the pre-trained prior."""
    opening = portfolio(theta.opening, space)
    return bo(space, pretrained(theta.prior, space), opening=opening, opening_trials=opening_trials)


def learn_theta(dataset: MetaDataset, key: Key, *, steps: int = STEPS, progress: bool = False) -> PretrainedGP:
    """Everything that the learned proposer needs, from all of a meta-dataset."""
    sources = sources_of(archive_of(dataset))
    (prior,) = pretrain_gp(dataset.space, [sources], key, steps=steps, progress=progress)
    regret = np.stack([source.regret for source in sources])
    return PretrainedGP(prior, listed(dataset.u, greedy_picks(regret, min(OPENING_SIZE, len(dataset.u)))))


def learn_prior(dataset: MetaDataset, *, key: Key | int = 0, steps: int = STEPS, progress: bool = False) -> Prior:
    """Pre-trains on all of a meta-dataset and gives a prior for `minimize` and `Study` on new tasks over its space.

    The caller sees to it that no task to be tuned, under any name, is in it (`MetaDataset.without_base`).
    """
    key = jax.random.key(key) if isinstance(key, int) else key
    theta = learn_theta(dataset, key, steps=steps, progress=progress)
    return Prior(f"pretrained_gp on {dataset.name}", dataset.space, lambda space: pretrained_gp(theta, space))
