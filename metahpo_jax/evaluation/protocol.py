"""Runs a benchmark: every method on the same held-out tasks, seeds and trials, as compiled programs.

A method learns from the training tasks of a fold only; of the held-out ones it sees the pools of configurations. In a run it is told raw
losses of the trials that it asked for; a table's extremes serve for scoring, after the run.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax import driver
from metahpo_jax.base import Array, Candidates, Context, run_key
from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.evaluation.benchmarks import Benchmark
from metahpo_jax.evaluation.jobs import Job, Progress, Tried, run_jobs, versions
from metahpo_jax.evaluation.methods import METHODS, Method, Training, methods_named, stack
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.statistics import incumbent, incumbent_trial
from metahpo_jax.metalearners.trained_start import trainable
from metahpo_jax.objectives import Table, table
from metahpo_jax.surrogates.exact import MANY

LEARN, RUN = 0, 1  # what the benchmark's key is folded with
BLOCK = 2**20  # history rows x pool rows of the lanes that run side by side: what a core's cache holds in a few arrays


def run_benchmark(
    benchmark: Benchmark, names: Sequence[str], *, trials: int | None = None, seeds: int = 5, key_seed: int = 0, command: str = "",
    progress: Progress | None = None, parts: Path | None = None, workers: int = 1,
) -> BenchmarkResult:  # fmt: skip
    """Runs the named methods on every held-out task of a benchmark.

    Args:
      benchmark: of `load_benchmark`.
      names: of `methods.METHODS`, or `portfolio_then_X` of them.
      trials: per run, at most the number of configurations that every task has beyond its starts; the benchmark's own by default.
      seeds: runs per task; seed s of task t has the same key, and the same starts, for all methods.
      progress: called with (what, done, total) runs of a seed.
      parts: folder where finished parts are kept, so that a run that was stopped goes on from there.
      workers: processes, each with a method and space of its own. With more than one, call this under `if __name__ == "__main__"`.

    Raises:
      ConfigError: for trials, seeds or workers out of range, or unknown methods.
      SplitError: when a method has nothing to learn from, or needs shared configurations where there are none.
    """
    methods = methods_named(names)
    trials = default_trials(benchmark) if trials is None else trials
    _check(benchmark, methods, trials, seeds, workers)
    jobs = [Job(name, space, trials, seeds, key_seed) for name in methods for space in _tested_spaces(benchmark)]
    outcomes = run_jobs(benchmark, jobs, run_job, parts=parts, workers=workers, progress=progress)
    done = {(job.method, job.space): tried for job, tried in outcomes}
    runs = [score(benchmark, name, [done[name, space] for space in _tested_spaces(benchmark)]) for name in methods]
    tasks = [benchmark.archive.tasks[t] for t in benchmark.tested]
    return BenchmarkResult(
        benchmark=benchmark.name,
        protocol=benchmark.protocol,
        tasks=tuple(task.name for task in tasks),
        groups=tuple(task.base for task in tasks),
        runs=(*runs, *published_runs(benchmark, trials, seeds)),
        versions=versions(),
        command=command,
        budgets=benchmark.budgets,
        starts=0 if benchmark.starts is None else benchmark.starts.shape[2],
        regret_unit=benchmark.regret_unit,
        baselines=benchmark.baselines,
    )


def applicable_methods(benchmark: Benchmark) -> list[str]:
    """Names of all methods that the benchmark's tables and its split allow, but for those that train networks themselves."""
    return [name for name, method in METHODS.items() if not method.trains and _obstacle(benchmark, method) is None]


def default_trials(benchmark: Benchmark) -> int:
    """The benchmark's own number of trials, or all that its smallest task has."""
    return min(benchmark.trials, most_trials(benchmark))


def most_trials(benchmark: Benchmark) -> int:
    """Configurations of the smallest held-out task beyond its starts."""
    given = 0 if benchmark.starts is None else benchmark.starts.shape[2]
    return min(len(benchmark.archive.tasks[t].u) for t in benchmark.tested) - given


def run_job(benchmark: Benchmark, job: Job, on_seed: Callable[[], None] | None) -> Tried:
    """One job, in whatever process."""
    (method,) = methods_named([job.method]).values()
    return run_method(
        benchmark, method, job.space, trials=job.trials, seeds=job.seeds, key_seed=job.key_seed, on_seed=on_seed
    )


def run_method(
    benchmark: Benchmark, method: Method, space: str, *, trials: int, seeds: int, key_seed: int = 0,
    on_seed: Callable[[], None] | None = None,
) -> Tried:  # fmt: skip
    """One method on the held-out tasks over one space: learns once per fold, then runs all tasks and seeds as one compiled program."""
    key = jax.random.key(key_seed)
    tasks, thetas, meta_seconds = _learn(benchmark, method, space, trials, jax.random.fold_in(key, LEARN))
    began = time.perf_counter()
    one_seed = _program(benchmark, method, space, tasks, thetas, trials, jax.random.fold_in(key, RUN))
    rows = []
    for seed in range(seeds):
        starts = None if benchmark.starts is None else jnp.asarray(benchmark.starts[tasks, seed], jnp.int32)
        rows.append(np.asarray(one_seed(jnp.asarray(seed, jnp.int32), starts)))
        if on_seed:
            on_seed()
    return Tried(tasks, np.stack(rows, 1), time.perf_counter() - began, meta_seconds)


def trainings(benchmark: Benchmark, space: str, trials: int) -> list[tuple[np.ndarray, Training]]:
    """Per fold that tests a task over this space: indices of these tasks, and what a method may see to learn for them."""
    archive = benchmark.archive
    over = np.array([task.space == space for task in archive.tasks])
    shared = _space_is_shared(benchmark, space)
    out = []
    for fold in benchmark.folds:
        tested = np.flatnonzero(fold.test & over)
        if len(tested):
            sources, valid = (
                tuple(benchmark.source_of(int(t)) for t in np.flatnonzero(side & over))
                for side in (fold.train, fold.valid)
            )
            pools = tuple(archive.tasks[t].u for t in tested)
            out.append((tested, Training(archive.spaces[space], sources, valid, pools, shared, trials)))
    return out


def _learn(benchmark: Benchmark, method: Method, space: str, trials: int, key: Array) -> tuple[np.ndarray, Any, float]:
    """Held-out tasks `[K]` over a space, their thetas stacked `[K, ...]`, and the seconds that learning took."""
    began = time.perf_counter()
    folds = trainings(benchmark, space, trials)
    tasks = np.concatenate([tested for tested, _ in folds])
    if method.learn is None:
        return tasks, (), 0.0
    learned = method.learn([training for _, training in folds], key)
    return tasks, stack([theta for pools in learned for theta in pools]), time.perf_counter() - began


def _program(
    benchmark: Benchmark, method: Method, space_name: str, tasks: np.ndarray, thetas: Any, trials: int, key: Array
) -> Callable[[Array, Array | None], Array]:
    """`(seed, starts [K, G] or None) -> rows [K, trials]`: all tasks as one compiled program, in blocks that fit the cache."""
    archive, space = benchmark.archive, benchmark.archive.spaces[space_name]
    given = 0 if benchmark.starts is None else benchmark.starts.shape[2]
    pools = [archive.tasks[t].u for t in tasks]
    shared = _is_shared(pools)
    largest = max(len(u) for u in pools)
    block = 1 if largest >= MANY else _block_size(len(tasks), largest * (trials + given))
    padded = np.resize(np.arange(len(tasks)), -(-len(tasks) // block) * block)  # the last block repeats the first tasks
    told = [archive.tasks[t].told for t in tasks]
    losses = np.stack([_pad(loss, largest, np.nan) for loss, _ in told])[padded]
    status = np.stack([_pad(state, largest, 0) for _, state in told])[padded]
    if shared:
        u = jnp.asarray(pools[0])
        mask = jnp.ones(largest, bool)
    else:
        u = jnp.asarray(np.stack([_pad(pool, largest, 0.5) for pool in pools])[padded])
        mask = jnp.asarray(np.stack([np.arange(largest) < len(pool) for pool in pools])[padded])
    active = space.active(u)
    contexts = stack_contexts(benchmark, tasks[padded], trials, given)
    numbers = jnp.asarray(tasks[padded], jnp.int32)
    thetas = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[padded]), thetas)

    def one_task(seed, number, losses, status, context, theta, starts, candidates):
        recorded = Table(
            loss=losses[:, None],
            cost=jnp.ones_like(losses)[:, None],
            status=status[:, None],
            fidelity=context.max_fidelity[None],
        )
        proposer = method.propose(space, theta)
        run = run_key(key, number, seed)
        history = driver.search(run, proposer, table(recorded), context, candidates, steps=trials, given=starts)
        return history.row[given : given + trials]

    data = (numbers, jnp.asarray(losses), jnp.asarray(status), contexts, thetas)
    pool = Candidates(u=u, active=active, mask=mask)

    @jax.jit
    def all_tasks(seed, starts, data, pool):
        side_by_side = jax.vmap(one_task, (None, 0, 0, 0, 0, 0, 0, None if shared else 0))
        run = one_task if block == 1 else side_by_side

        def of_block(block_data):
            (numbers, losses, status, contexts, thetas), starts, own = block_data
            return run(seed, numbers, losses, status, contexts, thetas, starts, pool if shared else own)

        everything = (data, starts, None if shared else pool)
        if block > 1:
            shape = (len(padded) // block, block)
            everything = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), everything)
        return jax.lax.map(of_block, everything).reshape(len(padded), trials)[: len(tasks)]

    def one_seed(seed: Array, starts: Array | None) -> Array:
        return all_tasks(seed, None if starts is None else starts[padded], data, pool)

    return one_seed


def _block_size(tasks: int, size: int) -> int:
    """Number of tasks side by side, each of `size` entries: of even blocks, as few as keep one within `BLOCK`.

    One by one for large pools, whose models are cut to what they have observed, which differs from task to task.
    """
    most = max(1, min(tasks, BLOCK // max(size, 1)))
    return -(-tasks // -(-tasks // most))


def stack_contexts(benchmark: Benchmark, tasks: np.ndarray, trials: int, given: int = 0) -> Context:
    """What proposers are told about each of `tasks [K]`, with a leading axis `[K]`."""
    archive = benchmark.archive
    contexts = [
        archive.spaces[archive.tasks[t].space].context(
            budget=trials, max_fidelity=float(archive.fidelity[-1]), descriptor=archive.tasks[t].descriptor, given=given
        )
        for t in tasks
    ]
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *contexts)


def score(benchmark: Benchmark, name: str, tried: Sequence[Tried]) -> MethodRun:
    """Regret, loss and test accuracy of the incumbent after each trial; given starts count as told before the first."""
    place = {t: i for i, t in enumerate(benchmark.tested)}
    seeds, trials = tried[0].rows.shape[1:]
    loss = np.full((len(place), seeds, trials), np.nan)
    regret, accuracy = loss.copy(), loss.copy()
    for part in tried:
        for t, rows in zip(part.tasks, part.rows, strict=True):
            task = benchmark.archive.tasks[t]
            if benchmark.starts is not None:
                rows = np.concatenate([benchmark.starts[t, :seeds], rows], axis=1)
            told = task.told[0].astype(np.float64)[rows]
            loss[place[t]] = incumbent(told)[:, -trials:]
            regret[place[t]] = benchmark.regret(t, loss[place[t]])
            if task.test_accuracy is not None:
                best = np.take_along_axis(task.test_accuracy[rows], incumbent_trial(told), 1)
                accuracy[place[t]] = best[:, -trials:]
    known = all(task.test_accuracy is not None for task in benchmark.archive.tasks)
    return MethodRun(
        name=name,
        regret=regret,
        loss=loss,
        test_accuracy=accuracy if known else None,
        seconds=sum(part.seconds for part in tried),
        meta_seconds=sum(part.meta_seconds for part in tried),
    )


def published_runs(benchmark: Benchmark, trials: int, seeds: int) -> list[MethodRun]:
    """The authors' own runs on the same tasks and starts, as rows that are marked as such."""
    runs = []
    for name, curves in benchmark.published.items():
        regret = curves[benchmark.tested, :seeds, :trials]
        if regret.shape[1:] == (seeds, trials) and np.isfinite(regret).all():
            runs.append(MethodRun(f"{name} (published)", regret, loss=None, published=benchmark.source))
    return runs


def _check(benchmark: Benchmark, methods: dict[str, Method], trials: int, seeds: int, workers: int) -> None:
    most = most_trials(benchmark)
    if not 1 <= trials <= most:
        raise ConfigError(f"trials must be from 1 to {most}, the configurations of the smallest task, got {trials}.")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}.")
    if benchmark.starts is not None and seeds > benchmark.starts.shape[1]:
        raise ConfigError(
            f"{benchmark.name} has published starts for {benchmark.starts.shape[1]} seeds, got seeds={seeds}."
        )
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}.")
    for name, method in methods.items():
        if (obstacle := _obstacle(benchmark, method)) is not None:
            raise SplitError(f"method {name!r} {obstacle}; leave it out.")


def _obstacle(benchmark: Benchmark, method: Method) -> str | None:
    """Why a method cannot run on a benchmark, None where it can."""
    for space in _tested_spaces(benchmark):
        over = np.array([task.space == space for task in benchmark.archive.tasks])
        if method.needs_shared and not _space_is_shared(benchmark, space):
            return f"needs the same configurations on all tasks, which {benchmark.name} does not have"
        names = [task.name for task, mine in zip(benchmark.archive.tasks, over, strict=True) if mine]
        if method.trains and not trainable(names):
            return f"trains networks on the data sets behind the tasks, of which {benchmark.name} has records only"
        for fold in benchmark.folds:
            sources = int((fold.train & over).sum())
            if (fold.test & over).any() and sources < method.needs_sources:
                return (
                    f"needs at least {method.needs_sources} training task(s) over the space {space!r}, of which fold {fold.name!r} of "
                    f"{benchmark.name} leaves {sources}"
                )
    return None


def _tested_spaces(benchmark: Benchmark) -> list[str]:
    return list(dict.fromkeys(benchmark.archive.tasks[t].space for t in benchmark.tested))


def _space_is_shared(benchmark: Benchmark, space: str) -> bool:
    return _is_shared([task.u for task in benchmark.archive.tasks if task.space == space])


def _is_shared(pools: Sequence[np.ndarray]) -> bool:
    return all(u is pools[0] or np.array_equal(u, pools[0]) for u in pools)


def _pad(array: np.ndarray, length: int, value: float) -> np.ndarray:
    out = np.full((length, *array.shape[1:]), value, array.dtype)
    out[: len(array)] = array
    return out
