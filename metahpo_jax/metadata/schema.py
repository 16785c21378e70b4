"""The meta-dataset in memory: `T` tasks x the same `N` configurations x learning curves of `P` points.

Failure is data: a run that diverged keeps the points it reached and is NaN after them. Nothing is ever imputed here.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.metadata.validation import CURVES, check
from metahpo_jax.spaces import Space


@dataclass(frozen=True, eq=False)
class TaskRecord:
    """What is known of a task without running anything on it."""

    name: str
    base: str  # the data set it is made of; tasks of one base never stand on both sides of a split
    source: str  # the package or collection it was read from
    licence: str
    n_train: int  # rows
    n_valid: int
    n_test: int
    n_features: int
    n_classes: int
    prior_entropy: float  # nats: the validation log-loss of having learned nothing, and the cap of the objective
    descriptor: np.ndarray  # `[m]` float32, NaN where missing


@dataclass(frozen=True, eq=False)
class MetaDataset:
    """What `N` shared configurations did on `T` tasks at `P` fidelities.

    Compare two by `content_hash`. Nothing is checked on construction; `validate` does, and so do saving and loading.
    """

    name: str
    space: Space
    tasks: tuple[TaskRecord, ...]  # `T`
    descriptor_names: tuple[str, ...]  # `m`
    u: np.ndarray  # `[N, D]` float32 in the unit cube, snapped
    fidelity: np.ndarray  # `[P]` float64, increasing, in `unit`
    unit: str  # of fidelity, as in "samples"
    valid_loss: np.ndarray  # `[T, N, P]` float32, NaN after divergence, as are the five below
    valid_accuracy: np.ndarray
    test_accuracy: np.ndarray
    train_loss: np.ndarray  # of the last update before the point
    gradient_norm: np.ndarray  # likewise
    learning_rate: np.ndarray  # likewise, after the schedule
    flops: np.ndarray  # `[T, N, P]` float64, useful floating-point operations up to the point
    status: np.ndarray  # `[T, N]` int8: `Status` OK, DIVERGED or FAILED
    diverged_at: np.ndarray  # `[T, N]` float32 in `unit`, NaN where it did not
    provenance: tuple[dict[str, Any], ...] = ()  # wall times, machines, versions: no part of the content

    def validate(self, *, strict: bool = False) -> None:
        """Raises a DataError that names file, field and row of the first thing that is wrong.

        Args:
          strict: also refuse tasks on which every configuration does equally well, since nothing is learned from them.
        """
        check(self, strict=strict)

    @property
    def bases(self) -> tuple[str, ...]:
        """Base data sets, each once, in the order of the tasks."""
        return tuple(dict.fromkeys(task.base for task in self.tasks))

    @functools.cached_property
    def active(self) -> np.ndarray:
        """Which hyperparameters play a part in which configuration, `[N, D]` bool."""
        return np.array([[name in config for name in self.space] for config in self.configs()])

    def configs(self) -> list[dict[str, Any]]:
        """The configurations in natural values, without inactive hyperparameters."""
        return [self.space.decode(row) for row in self.u]

    def index(self, task: str) -> int:
        """Position of a task.

        Raises:
          DataError: when no task has that name.
        """
        names = [record.name for record in self.tasks]
        if task not in names:
            near = get_close_matches(str(task), names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names[:5])}, ..."
            raise DataError(f"{self.name}: unknown task {task!r}; {hint}")
        return names.index(task)

    def select(self, task_names: Iterable[str]) -> "MetaDataset":
        """The meta-dataset of these tasks, in this order.

        Raises:
          DataError: for an unknown name, a name given twice, or none at all.
        """
        names = list(task_names)
        rows = [self.index(name) for name in names]
        if not rows:
            raise DataError(f"{self.name}: select needs at least one task name, got none.")
        if len(set(rows)) < len(rows):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise DataError(f"{self.name}: select got task {twice!r} twice; name it once.")
        per_task = {field: getattr(self, field)[rows] for field in (*CURVES, "flops", "status", "diverged_at")}
        return replace(
            self,
            tasks=tuple(self.tasks[row] for row in rows),
            provenance=tuple(entry for entry in self.provenance if entry.get("task", names[0]) in names),
            **per_task,
        )

    def first(self, configurations: int) -> "MetaDataset":
        """The meta-dataset of the first so many configurations, which are Sobol points where `build` made them: fewer are as evenly spread.

        Raises:
          DataError: when there are not so many, or fewer than 2 are asked for.
        """
        if not 2 <= configurations <= len(self.u):
            raise DataError(f"{self.name}: expected 2 to {len(self.u)} configurations, got {configurations}.")
        fields = {name: getattr(self, name)[:, :configurations] for name in (*CURVES, "flops", "status", "diverged_at")}
        return replace(self, u=self.u[:configurations], **fields)

    def without_base(self, base: str) -> "MetaDataset":
        """The meta-dataset without the tasks made of a base data set: all of it when there are none.

        Raises:
          DataError: when nothing would be left.
        """
        return self.select(task.name for task in self.tasks if task.base != base)

    def objective(self, fidelity_index: int = -1) -> np.ndarray:
        """What is minimised, `[T, N]` float32: validation log-loss capped at the prior entropy; failures get the cap.

        Only the point asked for is read: a run that diverges later has its own loss until it does.
        """
        cap = np.array([task.prior_entropy for task in self.tasks], np.float32)[:, None]
        loss = self.valid_loss[:, :, fidelity_index]
        return np.where(np.isfinite(loss), np.minimum(loss, cap), cap).astype(np.float32)

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 of all but the provenance. The order of configurations counts, that of tasks does not."""
        digest = hashlib.sha256()
        header = {
            "name": self.name,
            "space": list(self.space.to_json().items()),
            "unit": self.unit,
            "descriptor_names": list(self.descriptor_names),
        }
        digest.update(_line(header))
        digest.update(_block("u", self.u, "<f4"))
        digest.update(_block("fidelity", self.fidelity, "<f8"))
        for t in sorted(range(len(self.tasks)), key=lambda t: self.tasks[t].name):
            record = asdict(self.tasks[t])
            descriptor = record.pop("descriptor")
            digest.update(_line(record))
            digest.update(_block("descriptor", descriptor, "<f4"))
            for field in (*CURVES, "diverged_at"):
                digest.update(_block(field, getattr(self, field)[t], "<f4"))
            digest.update(_block("flops", self.flops[t], "<f8"))
            digest.update(_block("status", self.status[t], "|i1"))
        return digest.hexdigest()


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _block(name: str, array: np.ndarray, dtype: str) -> bytes:
    """An array as a line that describes it and its bytes: little-endian, row-major, and with one NaN for all NaNs."""
    array = np.ascontiguousarray(array, dtype)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array).astype(dtype)
    return _line([name, dtype, list(array.shape)]) + array.tobytes()
