"""Leave-one-data-set-out on a recorded meta-dataset: every method on the same tasks, seeds and budget, as compiled programs.

A method learns from the training tasks of a fold only: whole losses of those, nothing of the held-out ones. In a run it is told raw losses
of the trials that it asked for; the table's extremes serve for scoring, after the run.
"""

import functools
import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax import driver
from metahpo_jax.base import Candidates, Context, Status, run_key
from metahpo_jax.errors import ConfigError, SplitError
from metahpo_jax.evaluation.methods import Method, Training, methods_named, stack
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.statistics import incumbent, incumbent_trial, normalised_regret
from metahpo_jax.files import read_arrays, write_atomically
from metahpo_jax.metadata import MetaDataset
from metahpo_jax.objectives import Table, table

PROTOCOL = (
    "Leave one base data set out, table look-up; loss is validation log-loss capped at the class-prior entropy (a diverged run counts as "
    "the cap); regret is (incumbent - best) / (worst - best) of the task's recorded table; intervals by bootstrap over base data sets."
)
LEARN, RUN = 0, 1  # what the benchmark's key is folded with


class Folds(NamedTuple):
    """Held-out base data sets and, per fold, the training tasks."""

    bases: tuple[str, ...]  # `S`
    train: np.ndarray  # `[S, T]` bool
    of_task: np.ndarray  # `[T]` int: the fold that holds a task out


def leave_one_base_out(bases: Sequence[str]) -> Folds:
    """One fold per base data set; all tasks of the base are held out together.

    Raises:
      SplitError: with fewer than two bases, since nothing would be left to learn from.
    """
    names = tuple(dict.fromkeys(bases))
    if len(names) < 2:
        raise SplitError(f"leave-one-out needs at least two base data sets, got {len(names)} ({', '.join(names)}).")
    of_task = np.asarray([names.index(b) for b in bases])
    return Folds(names, of_task[None, :] != np.arange(len(names))[:, None], of_task)


def run_benchmark(
    dataset: MetaDataset, names: list[str], *, trials: int, seeds: int, key_seed: int = 0, command: str = "",
    progress: Callable[[str, int, int], None] | None = None, parts: Path | None = None,
) -> BenchmarkResult:  # fmt: skip
    """Runs the named methods on every task of a meta-dataset, each held out in turn.

    Args:
      dataset: shared configurations, recorded on all tasks.
      names: of `methods.METHODS`.
      trials: per run, at most the number of configurations.
      seeds: runs per task; seed s of task t has the same key for all methods.
      progress: called with (what, done, total).
      parts: folder where finished methods are kept, so that a run that was stopped goes on from there.

    Raises:
      ConfigError: for trials or seeds out of range, or unknown methods.
      SplitError: when there is only one base data set.
    """
    methods = methods_named(names)
    n = len(dataset.u)
    if not 1 <= trials <= n:
        raise ConfigError(f"trials must be from 1 to {n}, the number of recorded configurations, got {trials}.")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}.")
    loss = dataset.objective()
    groups = tuple(task.base for task in dataset.tasks)
    folds = leave_one_base_out(groups)
    runs = []
    for name, method in methods.items():
        identity = _identity(dataset, name, trials, seeds, key_seed)
        path = parts / f"{name}.npz" if parts else None
        if path is not None and (kept := _read_part(path, identity)) is not None:
            runs.append(_score(dataset, loss, name, *kept))
            continue
        rows, seconds, meta_seconds = _run_method(dataset, loss, folds, name, method, trials, seeds, key_seed, progress)
        if path is not None:
            _write_part(path, identity, rows, seconds, meta_seconds)
        runs.append(_score(dataset, loss, name, rows, seconds, meta_seconds))
    return BenchmarkResult(
        benchmark=dataset.name,
        protocol=PROTOCOL,
        tasks=tuple(task.name for task in dataset.tasks),
        groups=groups,
        runs=tuple(runs),
        versions=versions(),
        command=command,
    )


def _run_method(
    dataset: MetaDataset, loss: np.ndarray, folds: Folds, name: str, method: Method, trials: int, seeds: int, key_seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[np.ndarray, float, float]:  # fmt: skip
    """Pool rows `[T, S, trials]` that a method tried, seconds of tuning, seconds of learning (compilation included in both)."""
    key = jax.random.key(key_seed)
    began = time.perf_counter()
    thetas = ()
    if method.learn is not None:
        if progress:
            progress(f"{name}: learning", 0, seeds)
        training = Training(dataset.space, dataset.u, loss, folds.train, trials)
        per_fold = method.learn(training, jax.random.fold_in(key, LEARN))
        # The theta of each task is that of the fold which holds its base out.
        thetas = jax.tree.map(lambda leaf: jnp.asarray(leaf[folds.of_task]), stack(per_fold))
    meta_seconds = time.perf_counter() - began if method.learn is not None else 0.0

    candidates = Candidates(
        u=jnp.asarray(dataset.u), active=jnp.asarray(dataset.active), mask=jnp.ones((len(dataset.u),), bool)
    )
    contexts = stack_contexts(dataset, trials)

    @jax.jit
    def one_seed(seed):
        def one_task(task, losses, context, theta):
            recorded = Table(
                loss=losses[:, None], cost=jnp.ones_like(losses)[:, None],
                status=jnp.full((losses.shape[0], 1), int(Status.OK), jnp.int32), fidelity=context.max_fidelity[None],
            )  # fmt: skip
            run = run_key(jax.random.fold_in(key, RUN), task, seed)
            proposer = method.propose(dataset.space, theta)
            return driver.search(run, proposer, table(recorded), context, candidates, steps=trials).row[:trials]

        return jax.vmap(one_task)(jnp.arange(len(loss)), jnp.asarray(loss), contexts, thetas)

    began = time.perf_counter()
    rows = []
    for seed in range(seeds):
        rows.append(np.asarray(one_seed(jnp.asarray(seed, jnp.int32))))
        if progress:
            progress(name, seed + 1, seeds)
    return np.stack(rows, 1), time.perf_counter() - began, meta_seconds


def stack_contexts(dataset: MetaDataset, trials: int) -> Context:
    """What proposers are told about each task, with a leading axis `[T]`."""
    contexts = [
        dataset.space.context(budget=trials, max_fidelity=float(dataset.fidelity[-1]), descriptor=task.descriptor)
        for task in dataset.tasks
    ]
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *contexts)


def _score(
    dataset: MetaDataset, loss: np.ndarray, name: str, rows: np.ndarray, seconds: float, meta_seconds: float
) -> MethodRun:
    """Regret, loss and test accuracy of the incumbent after each trial, from the rows `[T, S, trials]` that were tried."""
    tasks = np.arange(len(loss))[:, None, None]
    told = loss[tasks, rows]
    best_so_far = incumbent(told)
    accuracy = dataset.test_accuracy[:, :, -1][tasks, rows]
    return MethodRun(
        name=name,
        regret=normalised_regret(best_so_far, loss.min(1)[:, None, None], loss.max(1)[:, None, None]),
        loss=best_so_far,
        test_accuracy=np.take_along_axis(accuracy, incumbent_trial(told), -1).astype(np.float64),
        seconds=seconds,
        meta_seconds=meta_seconds,
    )


def trials_to_reach(curve: np.ndarray, level: float) -> int | None:
    """The first trial (from 1) at which a mean regret curve `[T]` is at or below `level`; None if it never is."""
    reached = np.flatnonzero(np.asarray(curve) <= level)
    return int(reached[0]) + 1 if len(reached) else None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what figures depend on."""
    from importlib.metadata import version

    names = ("metahpo-jax", "jax", "jaxlib", "numpy", "scipy", "optax", "flax", "optimistix")
    return {"python": platform.python_version()} | {name: _version(version, name) for name in names}


def _version(version: Callable[[str], str], name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _identity(dataset: MetaDataset, name: str, trials: int, seeds: int, key_seed: int) -> str:
    fields = [dataset.content_hash, name, trials, seeds, key_seed, versions()]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _read_part(path: Path, identity: str) -> tuple[np.ndarray, float, float] | None:
    if not path.exists():
        return None
    with read_arrays(path) as part:
        if str(part["identity"]) != identity:
            return None
        return part["rows"], float(part["seconds"]), float(part["meta_seconds"])


def _write_part(path: Path, identity: str, rows: np.ndarray, seconds: float, meta_seconds: float) -> None:
    content = io.BytesIO()
    np.savez(content, identity=np.asarray(identity), rows=rows, seconds=seconds, meta_seconds=meta_seconds)
    write_atomically(path, content.getvalue())
