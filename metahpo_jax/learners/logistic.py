"""L2-regularised logistic regression, trained by minibatches: the network of `mlp` without a hidden layer."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Learner
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.learners.mlp import flops_per_sample, network
from metahpo_jax.learners.settings import MICRO_BATCHES, TRAINING, Settings
from metahpo_jax.learners.supervised import TrainConfig, supervised
from metahpo_jax.spaces import Float, Space
from metahpo_jax.tasks.base import Task, TaskShape


class LogisticCapacity(NamedTuple):
    """What a compiled program is shaped by: rows per micro-batch."""

    micro: int


class LogisticConfig(TrainConfig):
    """Hyperparameters as arrays `[]` (or `[C]` for many). The strength of the L2 penalty is `weight_decay`."""


def logistic_space() -> Space:
    """Learning rate, strength of the penalty, batch size, optimiser, schedule and label smoothing."""
    shared = {
        name: TRAINING[name] for name in ("batch_size", "optimiser", "learning_rate", "label_smoothing", "schedule")
    }
    return Space.of({**shared, "weight_decay": Float(1e-6, 1.0, log=True)})


def logistic_configs(u: np.ndarray, settings: Settings) -> tuple[LogisticConfig, list[LogisticCapacity]]:
    """Hyperparameters `[N]` (NumPy) and the capacity of each of `N` points `u [N, D]` of `logistic_space()`, or of what `settings` vary."""
    found = settings.arrays(u)
    return LogisticConfig.of(found), [LogisticCapacity(int(m)) for m in found["micro"]]


def coarsen(config: LogisticConfig, exact: list[LogisticCapacity]) -> tuple[LogisticConfig, list[LogisticCapacity]]:
    """The same models in one capacity: the smallest micro-batch serves all."""
    least = MICRO_BATCHES[0]
    return config.in_micro_batches([c.micro for c in exact], least), [LogisticCapacity(least)] * len(exact)


def logistic(
    capacity: LogisticCapacity, *, horizon: int, points: tuple[int, ...], settings: Settings | None = None, fused: bool = True
) -> Learner:  # fmt: skip
    """Learner for all configurations of one micro-batch; other arguments as of `mlp`."""
    settings = settings or Settings(logistic_space(), {})
    linear = network(0, 0)._replace(kind=lambda h: jnp.zeros((), jnp.int32))
    return supervised(
        linear, settings, micro=capacity.micro, horizon=horizon, points=points, fused=fused
    )  # fmt: skip


@functools.cache  # one object per setting, so that its programs are compiled once
def logistic_family(**fixed: Any) -> LearnerFamily:
    """Logistic regression over `logistic_space()`, less what is `fixed`."""
    settings = Settings(logistic_space(), fixed)

    def useful(config: LogisticConfig, touched: list[LogisticCapacity], task: Task) -> np.ndarray:
        sizes = [int(task.n_features), int(np.sum(np.asarray(task.class_mask)))]
        return np.full(len(touched), flops_per_sample(sizes))

    def executed(capacity: LogisticCapacity, shape: TaskShape) -> float:
        return flops_per_sample([shape.features, shape.classes])

    def working_set(capacity: LogisticCapacity, shape: TaskShape) -> int:
        return 4 * shape.classes * (5 * (shape.features + 1) + 3 * capacity.micro)

    return LearnerFamily(
        name="logistic",
        space=settings.space,
        fixed=tuple(sorted(settings.fixed.items())),
        configs=lambda u: logistic_configs(np.asarray(u), settings),
        coarsen=coarsen,
        learner=lambda capacity, _shape, horizon, points: logistic(
            capacity, horizon=horizon, points=points, settings=settings
        ),
        useful=useful,
        executed=executed,
        working_set=working_set,
    )
