"""Who trains with whom: runs grouped by task shape and capacity, cut into chunks of lanes that fit in cache."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metahpo_jax.learners.family import Capacity, LearnerFamily
from metahpo_jax.population.devices import memory_per_device, training_devices
from metahpo_jax.tasks.base import Task, TaskShape

CACHE = 1 << 20  # bytes that the lanes of a chunk may touch in one step on a CPU: about its second-level cache
LEAST_LANES, MOST_LANES = 16, 32
MOST_LANES_ON_ACCELERATOR = 1024
COARSE_LANES = 4  # over all devices, where only a handful of configurations is trained at a time
FEW_RUNS = 4  # per device, below which a group's chunks are cut so that all devices have as many
CALL_BYTES = 64 << 20  # of the tasks that are handed to one device in one call, at most one for each run
CALL_FLOPS = 20e9  # work of one device in one call: about half a second, so that little is lost when a build is killed


class Run(NamedTuple):
    """One chunk of lanes: configurations of one task under one seed. A repeated last lane pads the chunk."""

    task: int
    seed: int
    lanes: tuple[int, ...]  # rows of the population
    real: int  # how many of the lanes are not padding


class Group(NamedTuple):
    """What one compiled program trains: runs of one task shape and capacity, all of `lanes` lanes."""

    shape: TaskShape
    capacity: Capacity
    lanes: int
    per_call: int  # runs that one device trains in one call, one after the other
    runs: tuple[Run, ...]

    def calls(self, devices: int) -> list[list[Run]]:
        """Runs call by call, `devices * per_call` in each but the last."""
        size = devices * self.per_call
        return [list(self.runs[i : i + size]) for i in range(0, len(self.runs), size)]

    def tasks_per_call(self, devices: int) -> int:
        """Most tasks that one device is handed in a call."""
        return max(len({run.task for run in share}) for call in self.calls(devices) for share in self.shares(call))

    def shares(self, call: list[Run]) -> list[list[Run]]:
        """What each device trains of a call; devices without any are left out."""
        return [call[i : i + self.per_call] for i in range(0, len(call), self.per_call)]


def shape_of(task: Task) -> TaskShape:
    """The padded shape that a task has."""
    rows, features = task.train.x.shape[-2:]
    return TaskShape(rows, task.valid.x.shape[-2], features, task.class_mask.shape[-1])


def task_bytes(shape: TaskShape) -> int:
    """Bytes of a task of a shape, near enough."""
    return 4 * (shape.rows + 2 * shape.eval_rows) * (shape.features + 1)


def most_lanes(family: LearnerFamily, capacity: Capacity, shape: TaskShape) -> int:
    """Lanes that a chunk may have: as many as stay in cache on a CPU, as many as memory holds on an accelerator."""
    size = family.working_set(capacity, shape)
    if training_devices()[0].platform == "cpu":
        return min(max(CACHE // size, LEAST_LANES), MOST_LANES)
    return int(min(max(memory_per_device() // size, 1), MOST_LANES_ON_ACCELERATOR))


def plan(
    family: LearnerFamily, capacities: Sequence[Capacity], accumulate: np.ndarray, shapes: Sequence[TaskShape], *, seeds: int, horizon: int,
    lanes: int | None = None,
) -> list[Group]:  # fmt: skip
    """Groups of `N` configurations on tasks of these shapes, the costly ones first.

    Chunks of a group are equally wide, and as narrow as their number allows, so that few lanes are padding. Lanes are sorted by batch size so
    that those of a chunk update together. With `lanes`, all chunks have that many and each device trains one per call: later populations
    then find their programs compiled, however many configurations they have.
    """
    groups = []
    devices = len(training_devices())
    for shape in sorted(set(shapes)):
        tasks = [t for t, other in enumerate(shapes) if other == shape]
        for capacity in sorted(set(capacities)):
            members = [i for i, c in enumerate(capacities) if c == capacity]
            members.sort(key=lambda i: int(accumulate[i]))
            chunks = math.ceil(len(members) / most_lanes(family, capacity, shape))
            each = len(tasks) * seeds
            if (
                each * chunks < FEW_RUNS * devices
            ):  # else some devices would wait for others: narrower chunks, as many for each
                chunks = min(math.ceil(math.ceil(each * chunks / devices) * devices / each), len(members))
            width = math.ceil(len(members) / chunks) if lanes is None else lanes
            parts = [members[low : low + width] for low in range(0, len(members), width)]
            runs = tuple(
                Run(task, seed, tuple(part + [part[-1]] * (width - len(part))), len(part))
                for task in tasks for seed in range(seeds) for part in parts
            )  # fmt: skip
            wanted = CALL_FLOPS / (family.executed(capacity, shape) * width * horizon)
            wanted = max(1, round(min(wanted, CALL_BYTES / task_bytes(shape))))
            calls = math.ceil(len(runs) / (devices * wanted))
            per_call = math.ceil(len(runs) / (devices * calls)) if lanes is None else 1
            groups.append(Group(shape, capacity, width, per_call, runs))
    return sorted(groups, key=lambda g: -len(g.runs) * g.lanes * family.executed(g.capacity, g.shape))


def executed_flops(family: LearnerFamily, groups: Sequence[Group], horizon: int) -> float:
    """FLOPs of a plan, padded lanes, widths, features and classes included (not those of a call's last, repeated runs)."""
    return sum(len(g.runs) * g.lanes * family.executed(g.capacity, g.shape) for g in groups) * horizon
