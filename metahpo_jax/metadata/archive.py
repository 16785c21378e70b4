"""An archive: the general meta-dataset, in which every task has configurations and learning curves of its own.

Public tables, one's own tables and the meta-datasets that this project records all become one, so that a benchmark asks nothing else.
Failure is data: a failed run keeps the points it reached and is NaN after them; no future is ever imputed.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError
from metahpo_jax.metadata.schema import MetaDataset
from metahpo_jax.metadata.validation import check_name
from metahpo_jax.spaces import Space


@dataclass(frozen=True, eq=False)
class ArchivedTask:
    """What `n` configurations did on one task, at up to `P` fidelities."""

    name: str
    base: str  # the data set it is made of; tasks of one base never stand on both sides of a split
    space: str  # name of its search space in the archive
    u: np.ndarray  # `[n, D]` float32 in the unit cube
    loss: np.ndarray  # `[n, P]` float32, minimised, raw units; NaN where a run failed or had ended
    status: np.ndarray  # `[n]` int8: `Status` OK, DIVERGED or FAILED
    group: str = ""  # what else is held out together, such as an architecture; empty where there is nothing
    cap: float = np.inf  # loss of having learned nothing, known before tuning: no run counts as worse
    size: float = np.nan  # rows of the data set
    cost: np.ndarray | None = None  # `[n, P]` float32, NaN where unknown
    descriptor: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # `[m]` float32, NaN where missing
    test_accuracy: np.ndarray | None = None  # `[n]` float32 of each configuration, for reporting only

    @functools.cached_property
    def told(self) -> tuple[np.ndarray, np.ndarray]:
        """What an optimiser is told of each configuration: loss `[n]` float32, at most `cap`, and status `[n]` int32.

        A curve counts by the last point it reached. A failed run has no loss (NaN).
        """
        reached = np.isfinite(self.loss)
        last = self.loss.shape[1] - 1 - np.argmax(reached[:, ::-1], axis=1)
        final = np.minimum(self.loss[np.arange(len(self.loss)), last], np.float32(self.cap))
        ok = (self.status == Status.OK) & reached.any(1)
        status = np.where(ok, Status.OK, np.where(self.status == Status.OK, Status.FAILED, self.status))
        return np.where(ok, final, np.nan).astype(np.float32), status.astype(np.int32)

    @functools.cached_property
    def scored(self) -> np.ndarray:
        """Losses `[n]` float32 with failures at `cap`, or at the worst loss of the task where there is no cap."""
        loss, _ = self.told
        worst = self.cap if np.isfinite(self.cap) else np.nanmax(loss)
        return np.where(np.isfinite(loss), loss, worst).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Archive:
    """Recorded evaluations of several tasks, over one search space or several.

    Compare two by `content_hash`. Nothing is checked on construction; `validate` does, and so do saving and loading.
    """

    name: str
    spaces: Mapping[str, Space]
    tasks: tuple[ArchivedTask, ...]
    metric: str = "loss"  # what is minimised, in words
    fidelity: tuple[float, ...] = (1.0,)  # `P`, increasing, in `unit`
    unit: str = "whole runs"
    descriptor_names: tuple[str, ...] = ()  # `m`

    def validate(self) -> None:
        """Raises a DataError that names task, field and row of the first thing that is wrong."""
        check_name(self.name, "name")
        if not self.tasks:
            raise DataError(f"{self.name}: expected at least one task, got none; record some.")
        points = np.asarray(self.fidelity, np.float64)
        if not len(points) or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
            raise DataError(f"{self.name}, fidelity: expected increasing finite numbers, got {list(self.fidelity)}.")
        if len(set(self.descriptor_names)) < len(self.descriptor_names):
            raise DataError(f"{self.name}, descriptor_names: expected distinct names, got {self.descriptor_names}.")
        seen = set()
        for task in self.tasks:
            if task.name in seen:
                raise DataError(f"{self.name}: two tasks are called {task.name!r}; rename one.")
            seen.add(task.name)
            self._check_task(task)

    def _check_task(self, task: ArchivedTask) -> None:
        where = f"{self.name}, task {task.name!r}"
        for what in ("name", "base"):
            check_name(getattr(task, what), f"{where}, {what}")
        if task.space not in self.spaces:
            raise DataError(f"{where}, space: {task.space!r} is none of {', '.join(self.spaces)}.")
        n = len(task.u)
        curves = (n, len(self.fidelity))
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "u": ((n, self.spaces[task.space].size), np.float32),
            "loss": (curves, np.float32),
            "status": ((n,), np.int8),
            "cost": (curves, np.float32),
            "descriptor": ((len(self.descriptor_names),), np.float32),
            "test_accuracy": ((n,), np.float32),
        }
        for what, (shape, dtype) in expected.items():
            array: np.ndarray | None = getattr(task, what)
            if array is None:  # as cost and test accuracy may be
                continue
            if array.shape != shape:
                raise DataError(f"{where}, {what}: expected shape {shape}, got {array.shape}.")
            if array.dtype != dtype:
                raise DataError(f"{where}, {what}: expected dtype {np.dtype(dtype)}, got {array.dtype}; cast it.")
        if n < 2:
            raise DataError(f"{where}: expected at least 2 configurations, got {n}; leave the task out.")
        bad = ~(np.isfinite(task.u) & (task.u >= 0) & (task.u <= 1))
        if bad.any():
            row, d = np.argwhere(bad)[0]
            raise DataError(
                f"{where}, u, row {row}: {task.u[row, d]} is no coordinate from 0 to 1; use `space.encode`."
            )
        if np.isinf(task.loss).any():
            row = int(np.argwhere(np.isinf(task.loss))[0, 0])
            raise DataError(f"{where}, loss, row {row}: infinite; use NaN and status DIVERGED.")
        unknown = ~np.isin(task.status, (Status.OK, Status.DIVERGED, Status.FAILED))
        if unknown.any():
            row = int(np.argmax(unknown))
            raise DataError(f"{where}, status, row {row}: got {task.status[row]}; use OK, DIVERGED or FAILED.")
        gaps = ~np.isfinite(task.loss[:, :-1]) & np.isfinite(task.loss[:, 1:])
        if gaps.any():
            row = int(np.argwhere(gaps)[0, 0])
            raise DataError(f"{where}, loss, row {row}: a point follows a missing one; futures are never imputed.")
        loss, _ = task.told
        if not np.isfinite(loss).any():
            raise DataError(f"{where}, loss: all {n} configurations failed, so it teaches nothing; leave it out.")
        if np.unique(loss[np.isfinite(loss)]).size < 2:
            raise DataError(f"{where}, loss: the same for all configurations, so it teaches nothing; leave it out.")

    @property
    def bases(self) -> tuple[str, ...]:
        """Base data sets, each once, in the order of the tasks."""
        return tuple(dict.fromkeys(task.base for task in self.tasks))

    def select(self, names: Iterable[str]) -> "Archive":
        """The archive of these tasks, in this order.

        Raises:
          DataError: for an unknown name or none at all.
        """
        known = {task.name: task for task in self.tasks}
        names = list(names)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            got = repr(unknown[0]) if unknown else "no name"
            raise DataError(f"{self.name}: select got {got}; known are {', '.join(list(known)[:5])}, ...")
        tasks = tuple(known[name] for name in names)
        used = {task.space for task in tasks}
        return replace(self, tasks=tasks, spaces={name: s for name, s in self.spaces.items() if name in used})

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of all that the archive holds."""
        digest = hashlib.sha256()
        spaces = {name: list(space.to_json().items()) for name, space in self.spaces.items()}
        header = [self.name, spaces, self.metric, list(self.fidelity), self.unit, list(self.descriptor_names)]
        digest.update(json.dumps(header).encode())
        for task in self.tasks:
            facts = [task.name, task.base, task.space, task.group, repr(float(task.cap)), repr(float(task.size))]
            digest.update(json.dumps(facts).encode())
            for array in (task.u, task.loss, task.status, task.cost, task.descriptor, task.test_accuracy):
                if array is None:
                    digest.update(b"none")
                    continue
                digest.update(json.dumps([str(array.dtype), list(array.shape)]).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class Source(NamedTuple):
    """A training task as a method sees it: everything that was recorded of it."""

    name: str
    u: np.ndarray  # `[n, D]` float32
    loss: np.ndarray  # `[n]` float32, finite: failures at the cap or at the worst
    regret: np.ndarray  # `[n]` float64, as the benchmark scores it
    descriptor: np.ndarray  # `[m]` float32, NaN where missing


def archive_of(dataset: MetaDataset) -> Archive:
    """The archive of a recorded meta-dataset: validation log-loss capped at the prior entropy, where failures count as the cap."""
    losses = np.stack([dataset.objective(p) for p in range(len(dataset.fidelity))], axis=-1)
    tasks = tuple(
        ArchivedTask(
            name=record.name,
            base=record.base,
            space="network",
            u=dataset.u,
            loss=losses[t],
            status=np.full(len(dataset.u), Status.OK, np.int8),
            cap=float(np.float32(record.prior_entropy)),
            size=float(record.n_train),
            cost=dataset.flops[t].astype(np.float32),
            descriptor=record.descriptor,
            test_accuracy=dataset.test_accuracy[t, :, -1],
        )
        for t, record in enumerate(dataset.tasks)
    )
    return Archive(
        name=dataset.name,
        spaces={"network": dataset.space},
        tasks=tasks,
        metric="validation log-loss (nats)",
        fidelity=tuple(dataset.fidelity.tolist()),
        unit=dataset.unit,
        descriptor_names=dataset.descriptor_names,
    )


def sources_of(archive: Archive) -> list[Source]:
    """All tasks as training tasks; regret is the share of the table's range."""
    out = []
    for task in archive.tasks:
        (regret,) = share_of_range(task.scored[None])
        out.append(Source(task.name, task.u, task.scored, regret, task.descriptor))
    return out


def share_of_range(loss: np.ndarray) -> np.ndarray:
    """Regret `[T, N]` of losses `[T, N]`: 0 for a task's best configuration, 1 for its worst; 0 where all are equal.

    Raises:
      DataError: when a loss is not finite.
    """
    loss = np.asarray(loss, np.float64)
    if not np.isfinite(loss).all():
        t, n = np.argwhere(~np.isfinite(loss))[0]
        raise DataError(
            f"loss of task {t}, configuration {n} is {loss[t, n]}; give the cap of the objective for failed runs."
        )
    low, high = loss.min(1, keepdims=True), loss.max(1, keepdims=True)
    return (loss - low) / np.where(high > low, high - low, 1.0)
