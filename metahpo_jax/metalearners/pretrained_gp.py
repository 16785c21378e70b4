"""Pre-training a Gaussian process on a meta-dataset (HyperBO: Wang et al. 2021, 2024, section 4.2: the sum of log marginal likelihoods).

Each step draws tasks and, of each, a few configurations: the likelihood of a subset is unbiased for that of its size, and a Cholesky of
64 points costs nothing. Losses are standardised per task over the training table; `surrogates.pretrained` infers both numbers on a new one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from metahpo_jax.base import Array, Key, MetaLearner, Proposer
from metahpo_jax.hypergrad import reverse
from metahpo_jax.metadata import MetaDataset
from metahpo_jax.metalearners.portfolio import learn_portfolio
from metahpo_jax.metalearners.prior import Prior
from metahpo_jax.proposers import PortfolioTheta, bo, portfolio
from metahpo_jax.spaces import Space
from metahpo_jax.surrogates import exact
from metahpo_jax.surrogates.exact import Parameters
from metahpo_jax.surrogates.pretrained import PretrainedTheta, pretrained, prior_init, prior_model
from metahpo_jax.training import descent, fit

STEPS, POINTS, TASKS_PER_STEP, LEARNING_RATE = 600, 64, 8, 5e-3
OPENING_SIZE = 16  # configurations of the portfolio that come along
# Of which this many are tried first: the list is hard to beat before, and after it the model is. Chosen on `tabular`.
OPENING_TRIALS = 10


class TrainingTable(struct.PyTreeNode):
    """A meta-dataset as pre-training sees it. Tasks of weight 0 are held out: they are never drawn."""

    x: Array  # `[N, F]` features
    y: Array  # `[T, N]` losses, standardised per task
    weight: Array  # `[T]`


class PretrainedGP(NamedTuple):
    """Everything that the learned proposer needs: the prior and the configurations that it opens with."""

    prior: PretrainedTheta
    opening: PortfolioTheta


def training_table(space: Space, u: np.ndarray, loss: np.ndarray, weight: np.ndarray) -> TrainingTable:
    """Table of configurations `u [N, D]` with losses `loss [T, N]`; tasks with `weight [T]` 0 are held out, and blanked."""
    coordinates = jnp.asarray(u, jnp.float32)
    x = jax.vmap(space.features)(coordinates, jax.vmap(space.active)(coordinates))
    spread = loss.std(1, keepdims=True)
    y = (loss - loss.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    held_out = np.asarray(weight)[:, None] == 0
    return TrainingTable(x, jnp.asarray(np.where(held_out, 0.0, y), jnp.float32), jnp.asarray(weight, jnp.float32))


def pretraining(space: Space, steps: int = STEPS) -> MetaLearner:
    """Meta-learner of the prior's parameters: Adam on the mean negative log marginal likelihood per observation."""
    model = prior_model(space)

    def loss(key: Key, theta: Parameters, task: tuple[Array, Array]) -> Array:
        x, y = task
        everything = jnp.ones(y.shape, bool)
        return -exact.log_marginal_likelihood(theta, x, y, everything, model=model) / y.shape[0]

    rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    return descent(reverse(loss), lambda key: prior_init(space, key), optax.adam(rate), max_norm=10.0)


def draw_tasks(key: Key, table: TrainingTable) -> tuple[Array, Array]:
    """`TASKS_PER_STEP` tasks by weight, `POINTS` configurations of each: x `[B, P, F]`, y `[B, P]`."""

    def one(key: Key) -> tuple[Array, Array]:
        task_key, point_key = jax.random.split(key)
        task = jax.random.categorical(task_key, jnp.log(table.weight))
        n = table.x.shape[0]
        rows = jax.random.permutation(point_key, n)[: min(POINTS, n)]
        return table.x[rows], table.y[task, rows]

    return jax.vmap(one)(jax.random.split(key, TASKS_PER_STEP))


def scales(loss: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over tasks of the log standard deviation of the loss `[T, N]`."""
    spread = loss.std(1)
    logs = np.log(spread[spread > 0])
    return float(logs.mean()), float(max(logs.std(), 0.1))


def pretrain_gp(
    space: Space, u: np.ndarray, loss: np.ndarray, folds: np.ndarray, key: Key, *, steps: int = STEPS, progress: bool = False,
) -> list[PretrainedGP]:  # fmt: skip
    """Pre-trains one prior per fold, all folds as one program.

    Args:
      space: of the configurations.
      u: `[N, D]` shared configurations.
      loss: `[T, N]` finite losses.
      folds: `[S, T]` bool, the training tasks of each fold. `np.ones((1, T), bool)` trains on everything.
      key: of the whole pre-training; fold s uses `fold_in(key, s)`.

    Returns:
      `S` learned proposers' parameters.
    """
    tables = [training_table(space, u, loss, fold.astype(np.float32)) for fold in folds]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(len(folds)))
    result = fit(pretraining(space, steps), draw_tasks, keys, steps=steps, data=stacked, batch=True, progress=progress)
    params = pretraining(space, steps).export(result.meta_state)
    out = []
    for s, fold in enumerate(folds):
        mean, spread = scales(loss[fold])
        prior = PretrainedTheta(
            jax.tree.map(lambda leaf, s=s: leaf[s], params),
            jnp.asarray(mean, jnp.float32),
            jnp.asarray(spread, jnp.float32),
        )
        out.append(PretrainedGP(prior, learn_portfolio(u, loss[fold], min(OPENING_SIZE, len(u)))))
    return out


def pretrained_gp(theta: PretrainedGP, space: Space, *, opening_trials: int = OPENING_TRIALS) -> Proposer:
    """The learned proposer: opens with the portfolio's first picks, then expected improvement under the pre-trained prior."""
    opening = portfolio(theta.opening, space)
    return bo(space, pretrained(theta.prior, space), opening=opening, opening_trials=opening_trials)


def learn_prior(dataset: MetaDataset, *, key: Key | int = 0, steps: int = STEPS, progress: bool = False) -> Prior:
    """Pre-trains on all of a meta-dataset and gives a prior for `minimize` and `Study` on new tasks over its space.

    The caller sees to it that no task to be tuned, under any name, is in it (`MetaDataset.without_base`).
    """
    key = jax.random.key(key) if isinstance(key, int) else key
    everything = np.ones((1, len(dataset.tasks)), bool)
    (theta,) = pretrain_gp(
        dataset.space, dataset.u, dataset.objective(), everything, key, steps=steps, progress=progress
    )
    return Prior(f"pretrained_gp on {dataset.name}", dataset.space, lambda space: pretrained_gp(theta, space))
