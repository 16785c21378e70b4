"""`train_population`: tasks x configurations x seeds, trained as few compiled programs near the speed of the machine."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from metahpo_jax.base import Array, Curve, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.population.devices import training_devices
from metahpo_jax.population.log import ResultLog
from metahpo_jax.population.plan import COARSE_LANES, Group, Run, executed_flops, plan, shape_of
from metahpo_jax.population.programs import Call, Rung, Schedule, compiled, is_compiled
from metahpo_jax.population.records import Gathered, Population, record_of, runs_in
from metahpo_jax.tasks.base import Task

R = 62_208  # samples of a full run: 2^8 x 3^5, so that every rung of Hyperband with eta 3 is a whole number of batches
RUNGS = (1 / 81, 1 / 54, 1 / 27, 1 / 18, 1 / 9, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 1)
POINTS = tuple(round(R * share) for share in RUNGS)


class Progress(NamedTuple):
    """How far a population is."""

    done: int  # trainings
    total: int
    trained: int  # those that were not read back from the log
    flops: float  # useful ones of these
    seconds: float  # since the call began
    programs: int  # compiled by the call so far

    @property
    def per_second(self) -> float:
        """Trainings per second."""
        return self.trained / max(self.seconds, 1e-9)

    @property
    def gflops(self) -> float:
        """Useful GFLOP per second."""
        return self.flops / max(self.seconds, 1e-9) / 1e9


def train_population(
    family: LearnerFamily, u: Array | np.ndarray, tasks: Sequence[Task], keys: Key, *, horizon: int = R,
    points: tuple[int, ...] = POINTS, rungs: tuple[Rung, ...] = (), coarse: bool = False, log: ResultLog | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Population:  # fmt: skip
    """Trains every configuration on every task under every seed.

    Runs are grouped by task shape and capacity. Each group is one compiled program; its runs are cut into chunks that fit in cache and spread
    over all devices, and the next program compiles while one runs.

    Args:
      family: what is trained, such as `mlp_family()`.
      u: `[N, D]` points of `family.space`.
      tasks: `T` tasks of any shapes.
      keys: `[T, S]`, of the runs: `run_key(key, task, seed)`. Minibatches follow from them alone; initial weights and dropout noise also from
        the capacity and the task's padded shape, whose size their arrays have.
      horizon: samples of a whole run, which the schedules refer to.
      points: samples at which curves are recorded, increasing multiples of the largest micro-batch; training ends at the last.
      rungs: successive halving among the lanes of a chunk: configurations of one task, seed and capacity.
      coarse: few capacities and chunks of one width: right for a handful of trials at a time, whose programs should be compiled once.
      log: where finished work is written, and read back from when the same call is made again.
      progress: called after every compiled call.

    Raises:
      ConfigError: when `u` is not `[N, D]` with N >= 1, `keys` not `[T, S]`, or points or rungs make no sense.
      StoreError: when `log` cannot be written.
    """
    u = np.asarray(u, np.float32)
    schedule = Schedule(horizon, tuple(points), tuple(rungs))
    schedule.check()
    if u.ndim != 2 or not len(u) or u.shape[1] != family.space.size:
        raise ConfigError(f"train_population: u must have shape [N >= 1, {family.space.size}], got {u.shape}.")
    if not tasks or keys.ndim != 2 or keys.shape[0] != len(tasks) or not keys.shape[1]:
        raise ConfigError(f"train_population: keys must have shape [{len(tasks)} tasks, seeds], got {keys.shape}.")
    config, capacities = family.configs(u)
    if coarse:
        config, capacities = family.coarsen(config, capacities)
    seeds = keys.shape[1]
    groups = plan(
        family, capacities, np.asarray(config.accumulate), [shape_of(task) for task in tasks], seeds=seeds, horizon=horizon,
        lanes=max(COARSE_LANES // len(training_devices()), 1) if coarse else None,
    )  # fmt: skip
    work = Work(family, schedule, config, tasks, np.asarray(jax.random.key_data(keys)))
    per_sample = np.stack([family.useful(config, capacities, task) for task in tasks])  # `[T, N]`
    out = Gathered((len(tasks), seeds, len(u), len(points)))
    began, now = time.perf_counter(), Progress(0, len(tasks) * seeds * len(u), 0, 0.0, 0.0, 0)

    def report() -> None:
        if progress is not None:
            progress(now._replace(seconds=time.perf_counter() - began))

    finished: set[tuple] = set()
    for record in log or ():
        out.add(record)
        finished |= {identity(run) for run in runs_in(record)}
        now = now._replace(done=now.done + sum(run.real for run in runs_in(record)))
    report()
    left = [g._replace(runs=tuple(run for run in g.runs if identity(run) not in finished)) for g in groups]
    last = began
    for group, call, new in work.compiled([group for group in left if group.runs]):
        now = now._replace(programs=now.programs + new)
        for runs, result in work.trained(group, call):
            jax.block_until_ready(result)
            last, since = time.perf_counter(), time.perf_counter() - last
            record = record_of(group, runs, result, since)
            if log is not None:
                log.append(record)
            out.add(record)
            useful = sum(float(per_sample[run.task, list(run.lanes[: run.real])].sum()) for run in runs)
            real = sum(run.real for run in runs)
            now = now._replace(
                done=now.done + real, trained=now.trained + real, flops=now.flops + useful * schedule.points[-1]
            )
            report()
    return out.population(per_sample, schedule.points, executed_flops(family, groups, schedule.points[-1]), len(groups))


def identity(run: Run) -> tuple:
    """What tells a run from all others of a population, also from those of a plan with other chunks."""
    return run.task, run.seed, run.lanes[: run.real]


class Work(NamedTuple):
    """What the programs of a population are fed with. Host arrays only: nothing but the programs runs on the devices."""

    family: LearnerFamily
    schedule: Schedule
    config: PyTree  # hyperparameters `[N]`
    tasks: Sequence[Task]  # `T`
    keys: np.ndarray  # data of the keys `[T, S, 2]`

    def compiled(self, groups: list[Group]) -> Iterator[tuple[Group, Call, bool]]:
        """Each group with its program, and whether that was compiled now; the next compiles in a thread while the caller runs one."""

        def make(group: Group) -> tuple[Call, bool]:
            new = not is_compiled(self.family, group, self.schedule)
            runs = group.calls(len(training_devices()))[0]
            return compiled(self.family, group, self.schedule, lambda: self.arguments(group, runs)), new

        with ThreadPoolExecutor(1) as pool:
            ahead: list[Future] = [pool.submit(make, group) for group in groups[:1]]
            for i, group in enumerate(groups):
                call, new = ahead.pop().result()
                ahead += [pool.submit(make, following) for following in groups[i + 1 : i + 2]]
                yield group, call, new

    def trained(self, group: Group, call: Call) -> Iterator[tuple[list[Run], tuple[Curve, Array]]]:
        """The results of a group, call by call; the next call is prepared and dispatched before the last one is waited for."""
        waiting: list[tuple[list[Run], Any]] = []
        for runs in group.calls(len(training_devices())):
            waiting.append((runs, call(*self.arguments(group, runs))))
            if len(waiting) == 2:
                yield waiting.pop(0)
        yield from waiting

    def arguments(self, group: Group, runs: list[Run]) -> tuple[np.ndarray, PyTree, Task, np.ndarray, np.ndarray]:
        """Key data `[d, m, 2]`, hyperparameters `[d, m, C]`, tasks `[d, t]`, which of them and real lanes `[d, m]` of a call.

        The last run fills it up; a task is handed over once, however many runs it has.
        """
        devices = len(training_devices())
        full = [*runs, *[runs[-1]] * (devices * group.per_call - len(runs))]

        def folded(x: np.ndarray) -> np.ndarray:
            return x.reshape(devices, len(x) // devices, *x.shape[1:])

        numbers, which, most = [], [], group.tasks_per_call(devices)
        for share in group.shares(full):
            distinct = list(dict.fromkeys(run.task for run in share))
            numbers += [*distinct, *distinct[-1:] * (most - len(distinct))]
            which += [distinct.index(run.task) for run in share]
        tasks = jax.tree.map(
            lambda *leaves: folded(np.stack([np.asarray(x) for x in leaves])), *[self.tasks[t] for t in numbers]
        )
        lanes = np.asarray([run.lanes for run in full])
        key_data = folded(np.stack([self.keys[run.task, run.seed] for run in full]))
        h = jax.tree.map(lambda x: folded(np.asarray(x)[lanes]), self.config)
        real = np.asarray([run.real for run in full], np.int32)
        return key_data, h, tasks, folded(np.asarray(which, np.int32)), folded(real)
