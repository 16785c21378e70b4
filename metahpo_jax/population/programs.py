"""The compiled programs: whole training runs of a group, one chunk after the other on each device, one share per device."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from metahpo_jax.base import Array, Curve, Key, Learner, PyTree, Status, training_keys
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.population.devices import training_devices
from metahpo_jax.population.plan import Group
from metahpo_jax.tasks.base import Task


class Rung(NamedTuple):
    """Successive halving (Jamieson and Talwalkar 2016): after `samples`, the best `keep` of the lanes go on."""

    samples: int
    keep: float


class Schedule(NamedTuple):
    """How long, and where to look and to halve."""

    horizon: int  # samples of the whole planned run
    points: tuple[int, ...]
    rungs: tuple[Rung, ...] = ()

    def check(self) -> None:
        """Raises ConfigError for points or rungs that are not increasing, do not fit in the horizon, or keep nothing."""
        if not self.points or sorted(set(self.points)) != list(self.points) or self.points[-1] > self.horizon:
            raise ConfigError(
                f"points must increase and end at or before the horizon {self.horizon}, got {self.points}."
            )
        marks = [rung.samples for rung in self.rungs]
        if sorted(set(marks)) != marks or not set(marks) <= set(self.points):
            raise ConfigError(f"rungs must increase and be among the points {self.points}, got {marks}.")
        if any(not 0.0 < rung.keep <= 1.0 for rung in self.rungs):
            raise ConfigError(f"a rung keeps a share in (0, 1], got {[rung.keep for rung in self.rungs]}.")


def whole_runs(
    learner: Learner, schedule: Schedule, key: Key, h: PyTree, task: Task, real: Array
) -> tuple[Curve, Array]:
    """Trains the lanes `h [C]` of one task: curve `[C, P]`, and micro-steps `[C]` at which lanes diverged (-1: none).

    With rungs, only the best lanes of the chunk go on: the others' later points hold NaN and STOPPED. Lanes from `real []` on are padding, which
    takes nobody's place.
    """
    init_key, train_key = training_keys(key)
    states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
    lanes = jax.tree.leaves(h)[0].shape[0]
    alive = jnp.arange(lanes, dtype=jnp.int32)  # which of the chunk's lanes go on
    total, diverged_at, start = None, None, 0
    for samples, keep in (*schedule.rungs, Rung(schedule.points[-1], 1.0)):
        states, curve = learner.train(train_key, h, states, task, start, samples)
        if total is None or diverged_at is None:
            total, diverged_at = curve, states.diverged_at
        else:
            new = jnp.asarray(curve.status != int(Status.EMPTY))
            total = jax.tree.map(
                lambda all_, part, new=new, alive=alive: all_.at[alive].set(jnp.where(new, part, all_[alive])),
                total,
                curve,
            )
            diverged_at = diverged_at.at[alive].set(states.diverged_at)
        start = samples
        if samples < schedule.points[-1]:
            at_rung = curve.valid_loss[:, schedule.points.index(samples)]
            best = jnp.argsort(jnp.where(jnp.isfinite(at_rung) & (alive < real), at_rung, jnp.inf))[
                : max(1, math.ceil(keep * alive.shape[0]))
            ]
            states, h, alive = jax.tree.map(lambda x, best=best: x[best], (states, h, alive))
    assert total is not None and diverged_at is not None
    stopped = (total.status == int(Status.EMPTY)) & (diverged_at < 0)[:, None]
    return total.replace(status=jnp.where(stopped, int(Status.STOPPED), total.status)), diverged_at


def group_program(
    learner: Learner, schedule: Schedule
) -> Callable[[Array, PyTree, Task, Array, Array], tuple[Curve, Array]]:
    """`(key data [d, m, 2], h [d, m, C], tasks [d, t], which [d, m], real lanes [d, m]) -> (curves [d, m, C, P], diverged_at [d, m, C])`.

    `d` is split over the devices.
    """

    def share(key_data: Array, h: PyTree, tasks: Task, which: Array, real: Array) -> tuple[Curve, Array]:
        keys, h, tasks, which, real = jax.tree.map(
            lambda x: x[0], (jax.random.wrap_key_data(key_data), h, tasks, which, real)
        )

        def one(run: tuple[Key, PyTree, Array, Array]) -> tuple[Curve, Array]:
            key, h, which, real = run
            return whole_runs(learner, schedule, key, h, jax.tree.map(lambda x: x[which], tasks), real)

        return jax.tree.map(lambda x: x[None], lax.map(one, (keys, h, which, real)))

    devices = training_devices()
    if len(devices) == 1:
        return share
    mesh = Mesh(np.asarray(devices), ("devices",))
    spec = PartitionSpec("devices")
    return jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


Call = Callable[[np.ndarray, PyTree, Task, np.ndarray, np.ndarray], tuple[Curve, Array]]
_COMPILED: OrderedDict[tuple, Call] = OrderedDict()  # the last used ones, the latest at the end
MOST_PROGRAMS = 48  # kept; each holds hundreds of the 65,530 memory maps that Linux grants a process


def _name(family: LearnerFamily, group: Group, schedule: Schedule) -> tuple:
    tasks = group.tasks_per_call(len(training_devices()))
    return family, group.shape, group.capacity, group.lanes, group.per_call, tasks, schedule


def is_compiled(family: LearnerFamily, group: Group, schedule: Schedule) -> bool:
    """Whether this process has the program of a group."""
    return _name(family, group, schedule) in _COMPILED


def compiled(family: LearnerFamily, group: Group, schedule: Schedule, arguments: Callable[[], tuple]) -> Call:
    """The program of a group, compiled unless it is among the last `MOST_PROGRAMS`; `arguments()` are those of any of its calls."""
    name = _name(family, group, schedule)
    if name not in _COMPILED:
        learner = family.learner(group.capacity, group.shape, schedule.horizon, schedule.points)
        _COMPILED[name] = jax.jit(group_program(learner, schedule)).lower(*arguments()).compile()
    _COMPILED.move_to_end(name)
    while len(_COMPILED) > MOST_PROGRAMS:
        _COMPILED.popitem(last=False)
    return _COMPILED[name]
