"""The jobs of a benchmark: run side by side, kept as they finish, and read again by a run that goes on."""

import functools
import hashlib
import io
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from metahpo_jax.evaluation.benchmarks import Benchmark
from metahpo_jax.files import read_arrays, write_atomically
from metahpo_jax.processes import single_threaded_workers

Progress = Callable[[str, int, int], None]  # what, done, total


class Job(NamedTuple):
    """One method on the held-out tasks over one space: what is run, kept and resumed as a whole."""

    method: str
    space: str
    trials: int
    seeds: int
    key_seed: int


class Tried(NamedTuple):
    """What a method did on the held-out tasks over one space."""

    tasks: np.ndarray  # `[K]` indices into the archive
    rows: np.ndarray  # `[K, S, trials]` of each task's pool
    seconds: float  # of tuning, compilation included
    meta_seconds: float  # of learning, likewise


Run = Callable[[Benchmark, Job, Callable[[], None] | None], Tried]  # the last is called after each seed


def run_jobs(
    benchmark: Benchmark, jobs: Sequence[Job], run: Run, *, parts: Path | None, workers: int, progress: Progress | None
) -> Iterator[tuple[Job, Tried]]:
    """Each job with its outcome, read where it was kept, run where not; `run` must be a function of a module."""
    total, count = sum(job.seeds for job in jobs), 0

    def report(job: Job, seeds: int) -> None:
        nonlocal count
        count += seeds
        if progress:
            progress(job.method, count, total)

    def keep(job: Job, tried: Tried) -> tuple[Job, Tried]:
        if parts is not None:
            _write_part(_part_path(parts, job), _identity(benchmark, job), tried)
        return job, tried

    missing = []
    for job in jobs:
        kept = _read_part(_part_path(parts, job), _identity(benchmark, job)) if parts is not None else None
        if kept is None:
            missing.append(job)
        else:
            report(job, job.seeds)
            yield job, kept
    if workers == 1 or len(missing) < 2:
        for job in missing:
            yield keep(job, run(benchmark, job, functools.partial(report, job, 1)))
        return
    with single_threaded_workers(min(workers, len(missing)), _begin, (benchmark, run)) as pool:
        running = {pool.submit(_work, job): job for job in missing}
        for future in as_completed(running):
            job = running[future]
            tried = future.result()
            report(job, job.seeds)
            yield keep(job, tried)


_OF_WORKER: list[
    tuple[Benchmark, Run]
] = []  # what the jobs of a worker process are about, sent once rather than with each


def _begin(benchmark: Benchmark, run: Run) -> None:
    _OF_WORKER[:] = [(benchmark, run)]


def _work(job: Job) -> Tried:
    ((benchmark, run),) = _OF_WORKER
    return run(benchmark, job, None)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what figures depend on."""
    from importlib.metadata import version

    names = ("metahpo-jax", "jax", "jaxlib", "numpy", "scipy", "scikit-learn", "optax", "flax", "optimistix")
    return {"python": platform.python_version()} | {name: _version(version, name) for name in names}


def _version(version: Callable[[str], str], name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@functools.cache
def source_hash() -> str:
    """SHA-256 of the package's source: what an earlier edition kept is not gone on from."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def _part_path(parts: Path, job: Job) -> Path:
    return parts / f"{job.method}--{quote(job.space, safe='')}.npz"


def _identity(benchmark: Benchmark, job: Job) -> str:
    folds = [[fold.name, *(np.flatnonzero(side).tolist() for side in fold[1:])] for fold in benchmark.folds]
    starts = None if benchmark.starts is None else hashlib.sha256(benchmark.starts.tobytes()).hexdigest()
    fields = [
        benchmark.name,
        benchmark.archive.content_hash,
        folds,
        starts,
        benchmark.raw_regret,
        job,
        versions(),
        source_hash(),
    ]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def _read_part(path: Path, identity: str) -> Tried | None:
    if not path.exists():
        return None
    with read_arrays(path) as part:
        if str(part["identity"]) != identity:
            return None
        return Tried(part["tasks"], part["rows"], float(part["seconds"]), float(part["meta_seconds"]))


def _write_part(path: Path, identity: str, tried: Tried) -> None:
    content = io.BytesIO()
    np.savez(content, identity=np.asarray(identity), **tried._asdict())
    write_atomically(path, content.getvalue())
