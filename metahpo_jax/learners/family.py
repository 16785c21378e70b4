"""A family of learners: one search space, and for each of its points the program that can train it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from metahpo_jax.base import Learner, PyTree
from metahpo_jax.spaces import Space
from metahpo_jax.tasks.base import Task, TaskShape

Capacity = Any  # a NamedTuple of whole numbers, `micro` among them: what a compiled program is shaped by


class LearnerFamily(NamedTuple):
    """What the population engine needs to know of a kind of network. `N` configurations, FLOPs as multiply-adds counted twice."""

    name: str
    space: Space
    fixed: tuple[tuple[str, Any], ...]  # hyperparameters outside the space, and their values
    # `u [N, D]` -> hyperparameters `[N]` (NumPy), capacities
    configs: Callable[[np.ndarray], tuple[PyTree, list[Capacity]]]
    coarsen: Callable[[PyTree, list[Capacity]], tuple[PyTree, list[Capacity]]]  # the same networks in fewer capacities
    learner: Callable[[Capacity, TaskShape, int, tuple[int, ...]], Learner]  # capacity, shape, horizon, points
    useful: Callable[[PyTree, list[Capacity], Task], np.ndarray]  # FLOPs `[N]` of one training sample, without padding
    executed: Callable[[Capacity, TaskShape], float]  # FLOPs of one training sample of one lane, with padding
    working_set: Callable[[Capacity, TaskShape], int]  # bytes that one step of one lane touches
