"""The result of a benchmark: the curves of every method, their summary as JSON, and both on disk.

`save` writes two files: `NAME.json`, the summary that people and pages read, and `NAME.npz`, the raw curves that the
summary was computed from. The summary records the digest of the curves, so halves of two different saves are never
mistaken for one result.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from metahpo_jax.errors import ConfigError, DataError, StoreError
from metahpo_jax.evaluation.statistics import (
    Interval,
    RankTest,
    average_ranks,
    bootstrap_mean,
    friedman,
    paired_differences,
    solved,
)
from metahpo_jax.evaluation.verdicts import verdicts
from metahpo_jax.files import require_writable_file, write_atomically

SCHEMA = 2
_READABLE = (1, 2)  # schema 1 knew no published rows, budgets, baselines or starts: it reads with their defaults
_SINCE_2 = {"budgets": tuple, "baselines": tuple, "starts": int, "regret_unit": str}
_CURVES = ("regret", "loss", "test_accuracy")


@dataclass(frozen=True, eq=False)
class MethodRun:
    """What one method did on every task, seed and trial.

    Attributes:
        name: Name of the method, unique within a result.
        regret: `[tasks, seeds, T]`, normalised regret of the incumbent, finite.
        loss: `[tasks, seeds, T]`, validation loss of the incumbent, raw; `+inf` before the first success; `None` for a
            published row, of which only regrets are known.
        test_accuracy: `[tasks, seeds, T]` of the incumbent, NaN before the first success; `None` where the benchmark
            has none.
        seconds: Wall time of tuning, all tasks and seeds together.
        meta_seconds: Wall time of meta-training, 0 if there was none.
        note: A remark that belongs beside the name, may be empty.
        published: Where the row was read from, such as "HPO-B, authors' result files"; empty for a run of our own.
    """

    name: str
    regret: NDArray[np.floating]
    loss: NDArray[np.floating] | None = None
    test_accuracy: NDArray[np.floating] | None = None
    seconds: float = 0.0
    meta_seconds: float = 0.0
    note: str = ""
    published: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("A method has an empty name: name every run.")
        for name in _CURVES:
            if (value := getattr(self, name)) is None:
                continue
            array = np.asarray(value)
            if (
                array.ndim != 3
                or 0 in array.shape
                or not np.issubdtype(array.dtype, np.floating)
                or array.shape != np.shape(self.regret)
            ):
                raise DataError(
                    f"{name} of method {self.name!r} must be a floating array `[tasks, seeds, T]`, without an "
                    f"empty axis and of the shape of its regret, got {array.dtype} of shape {array.shape}."
                )
            object.__setattr__(self, name, array)
        if not np.isfinite(self.regret).all():
            raise DataError(
                f"regret of method {self.name!r} holds NaN or an infinity: compute it with `normalised_regret`."
            )
        if not all(np.isfinite(seconds) and seconds >= 0 for seconds in (self.seconds, self.meta_seconds)):
            raise DataError(f"seconds and meta_seconds of method {self.name!r} must be finite and not negative.")


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """The runs of several methods on the same tasks and seeds.

    Attributes:
        benchmark: Name of the benchmark.
        protocol: A sentence that says what was held out and what regret is against.
        tasks: Name of each task.
        groups: Base data set of each task: what intervals are taken over.
        runs: One per method, all of the same shape; seed `s` of task `i` is the same run key in each.
        versions: Version by package name.
        command: The command that made it.
        budgets: Trials that tables and verdicts show, rising; those beyond `T` are dropped there.
        baselines: Methods that verdicts compare with; names that are not among the runs are ignored.
        starts: Evaluations given to every method before its first trial, not counted among the trials.
        regret_unit: What a regret of 1 is.
    """

    benchmark: str
    protocol: str
    tasks: tuple[str, ...]
    groups: tuple[str, ...]
    runs: tuple[MethodRun, ...]
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    budgets: tuple[int, ...] = (1, 5, 10, 20, 50)
    baselines: tuple[str, ...] = ("random", "portfolio", "gp")
    starts: int = 0
    regret_unit: str = "share of the table's range"

    def __post_init__(self) -> None:
        if not self.runs:
            raise DataError(f"The result of benchmark {self.benchmark!r} has no method: run at least one.")
        names = [run.name for run in self.runs]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(
                f"Method {doubled[0]!r} stands twice in benchmark {self.benchmark!r}: give each run its own name."
            )
        for run in self.runs:
            if run.regret.shape != self.runs[0].regret.shape:
                raise DataError(
                    f"Method {run.name!r} has curves of shape {run.regret.shape} but {names[0]!r} of "
                    f"{self.runs[0].regret.shape}: compare methods on the same tasks, seeds and trials."
                )
        if not len(self.tasks) == len(self.groups) == self.runs[0].regret.shape[0]:
            raise DataError(
                f"The curves hold {self.runs[0].regret.shape[0]} tasks, but there are {len(self.tasks)} names "
                f"and {len(self.groups)} groups: give one of each per task."
            )
        object.__setattr__(self, "budgets", tuple(map(int, self.budgets)))
        object.__setattr__(self, "baselines", tuple(map(str, self.baselines)))
        if not self.budgets or min(self.budgets) < 1 or list(self.budgets) != sorted(set(self.budgets)):
            raise DataError(
                f"budgets of benchmark {self.benchmark!r} must be rising trials, counted from 1, got {self.budgets}."
            )
        if self.starts < 0:
            raise DataError(f"starts of benchmark {self.benchmark!r} must not be negative, got {self.starts}.")

    @property
    def trials(self) -> int:
        """Number of trials `T` per run."""
        return self.runs[0].regret.shape[2]

    @property
    def seeds(self) -> int:
        """Number of seeds per task."""
        return self.runs[0].regret.shape[1]

    @property
    def row_groups(self) -> list[str]:
        """`[tasks * seeds]`, the group of each row of `rows`."""
        return [group for group in self.groups for _ in range(self.seeds)]

    def rows(self, run: MethodRun) -> NDArray[np.float64]:
        """Regret of a method, `[tasks * seeds, T]`."""
        return np.asarray(run.regret, np.float64).reshape(-1, self.trials)

    @property
    def shown(self) -> list[int]:
        """The budgets within the run, or the last trial alone where none is."""
        return [trial for trial in self.budgets if trial <= self.trials] or [self.trials]

    @cached_property
    def _stacked(self) -> NDArray[np.float64]:
        """`[M, tasks * seeds, T]`."""
        return np.stack([self.rows(run) for run in self.runs])

    @cached_property
    def _intervals(self) -> Interval:
        """`[M, T]`."""
        return bootstrap_mean(self._stacked.swapaxes(0, 1), self.row_groups)

    @cached_property
    def _differences(self) -> Interval:
        """`[M, M, T]`."""
        return paired_differences(self._stacked, self.row_groups)

    @cached_property
    def _ranks(self) -> NDArray[np.float64]:
        return average_ranks(self._stacked).mean(axis=1)

    def interval(self, run: MethodRun) -> Interval:
        """Mean regret with its interval over data sets, `[T]`."""
        return Interval(*(part[self.runs.index(run)] for part in self._intervals))

    def difference(self, run: MethodRun, baseline: MethodRun) -> Interval:
        """Mean of regret minus the baseline's, paired by task and seed, with its interval over data sets, `[T]`."""
        return Interval(*(part[self.runs.index(run), self.runs.index(baseline)] for part in self._differences))

    def ranks(self) -> NDArray[np.float64]:
        """`[M, T]`, rank of each method, averaged over tasks and seeds."""
        return self._ranks

    def friedman(self, trial: int) -> RankTest:
        """Ranks over data sets after a trial (counted from 1), with the Nemenyi critical difference.

        Raises:
            ConfigError: There is only one method, or `trial` is not within the run.
        """
        if not 1 <= trial <= self.trials:
            raise ConfigError(f"trial must be from 1 to {self.trials}, the length of the runs, got {trial}.")
        return friedman(self._stacked[:, :, trial - 1], self.row_groups)

    def to_json(self) -> dict[str, Any]:
        """The summary, of JSON types only: per-trial entries are objects keyed "1" to "T"; unknown is null."""
        methods: dict[str, Any] = {}
        for run, rank in zip(self.runs, self.ranks(), strict=True):
            interval = self.interval(run)
            methods[run.name] = {
                "regret": _by_trial(interval.mean),
                "interval": _by_trial(np.stack([interval.low, interval.high], axis=-1)),
                "rank": _by_trial(rank),
                "solved": solved(run.regret[..., -1]),
                # Where some run has no model yet there is no mean accuracy: to leave that run out would flatter.
                "test_accuracy": None
                if run.test_accuracy is None
                else _by_trial(run.test_accuracy.mean(axis=(0, 1), dtype=np.float64)),
                "seconds": None if run.published else float(run.seconds),
                "meta_seconds": None if run.published else float(run.meta_seconds),
                "note": run.note,
                "published": run.published,
            }
        difference = {
            run.name: {
                other.name: _by_trial(np.stack(self.difference(run, other), axis=-1))
                for other in self.runs
                if other is not run
            }
            for run in self.runs
        }
        sentences: dict[str, list[str]] = {run.name: [] for run in self.runs}
        for verdict in verdicts(self):
            sentences[verdict.method].append(verdict.sentence)
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "command": self.command,
            "versions": dict(self.versions),
            "tasks": list(self.tasks),
            "groups": list(self.groups),
            "trials": self.trials,
            "seeds": self.seeds,
            "budgets": list(self.budgets),
            "baselines": list(self.baselines),
            "starts": self.starts,
            "regret_unit": self.regret_unit,
            "methods": methods,
            "difference": difference,
            "verdicts": sentences,
        }


def save(result: BenchmarkResult, path: str | os.PathLike[str]) -> None:
    """Writes the summary to `path` and the raw curves to `<stem>.npz` beside it, each atomically.

    Raises:
        StoreError: The suffix of `path` is not `.json`, or its directory cannot be written.
    """
    path = _json_path(path)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **{
            _key(run.name, curve): value
            for run in result.runs
            for curve in _CURVES
            if (value := getattr(run, curve)) is not None
        },
    )
    content = result.to_json() | {"curves_sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    write_atomically(path.with_suffix(".npz"), buffer.getvalue())
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def load(path: str | os.PathLike[str]) -> BenchmarkResult:
    """Reads what `save` wrote; every array comes back bit by bit.

    Raises:
        StoreError: A file is missing, truncated, altered, or of another schema.
        DataError: The files are whole, but their content contradicts itself.
    """
    path = _json_path(path)
    try:
        content = json.loads(_read(path))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
        raise StoreError(
            f"{path} is not valid JSON ({error}): it was truncated or is no result file; run the benchmark again."
        ) from error
    if not isinstance(content, dict) or content.get("schema") not in _READABLE:
        found = content.get("schema") if isinstance(content, dict) else None
        raise StoreError(
            f"{path} has schema {found!r}, but this version reads schemas up to {SCHEMA}: run the benchmark again."
        )
    curves_path = path.with_suffix(".npz")
    raw = _read(curves_path)
    if hashlib.sha256(raw).hexdigest() != content.get("curves_sha256"):
        raise StoreError(
            f"{curves_path} is not the file that {path.name} was written with: restore both or run the benchmark again."
        )
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            curves = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StoreError(f"{curves_path} holds no plain arrays ({error}): run the benchmark again.") from error
    try:
        runs = tuple(
            MethodRun(
                name=name,
                regret=curves[_key(name, "regret")],
                loss=curves.get(_key(name, "loss")),
                test_accuracy=curves.get(_key(name, "test_accuracy")),
                seconds=float(summary["seconds"] or 0.0),
                meta_seconds=float(summary["meta_seconds"] or 0.0),
                note=str(summary["note"]),
                published=str(summary.get("published", "")),
            )
            for name, summary in content["methods"].items()
        )
        return BenchmarkResult(
            benchmark=str(content["benchmark"]),
            protocol=str(content["protocol"]),
            tasks=tuple(map(str, content["tasks"])),
            groups=tuple(map(str, content["groups"])),
            runs=runs,
            versions={str(name): str(version) for name, version in content["versions"].items()},
            command=str(content["command"]),
            **{name: convert(content[name]) for name, convert in _SINCE_2.items() if name in content},
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"{path} lacks a field of schema {SCHEMA} or has one of another type ({error!r}): run the benchmark again."
        ) from error


def require_writable(path: str | os.PathLike[str]) -> None:
    """Fails now, rather than after hours of runs, if a result could not be saved at `path`.

    Raises:
        StoreError: As of `save`.
    """
    require_writable_file(_json_path(path))


def _json_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".json":
        raise StoreError(
            f"A result is a .json file with an .npz beside it, but the path is {str(path)!r}: let it end in .json."
        )
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{path} does not exist: a result is a .json file with its curves in the .npz beside it; copy both."
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error


def _key(method: str, curve: str) -> str:
    """Name of an array in the archive: a method may be called anything, a zip member may not."""
    return f"{quote(method, safe='')}.{curve}"


def _by_trial(values: NDArray[np.floating]) -> dict[str, Any]:
    """`[T]` or `[T, k]` as an object keyed by the 1-based trial; JSON knows no NaN, so unknown is null."""
    known = values.astype(object)
    known[~np.isfinite(values)] = None
    return {str(trial): value for trial, value in enumerate(known.tolist(), start=1)}
