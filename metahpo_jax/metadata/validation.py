"""What a sound meta-dataset is. Each check names the file, field, task and row that break it, and what to do."""

import math
from typing import Any

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError

MetaDataset = Any  # of `schema.py`, which imports this module

# The recorded curves, all `[T, N, P]` float32, in the order of the columns on disk.
CURVES = ("valid_loss", "valid_accuracy", "test_accuracy", "train_loss", "gradient_norm", "learning_rate")
MAX_NAME = 128
SNAP_TOLERANCE = 1e-4  # of the unit cube: codecs differ by rounding, levels lie further apart
AGREEMENT = 1e-4  # relative: runs of one configuration in different batches differ by rounding


def check(dataset: MetaDataset, *, strict: bool) -> None:
    """Raises a DataError unless the meta-dataset is sound; `strict` refuses tasks with a constant objective as well."""
    check_name(dataset.name, "manifest.json, name")
    _check_tasks(dataset)
    _check_shapes(dataset)
    _check_configurations(dataset)
    _check_fidelity(dataset)
    _check_status(dataset)
    _check_values(dataset)
    _check_duplicates(dataset)
    if strict:
        _check_targets(dataset)


def check_name(name: object, where: str) -> None:
    """Names end up in file names and on terminals: printable text that cannot lead out of a folder."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
        shown = repr(name) if len(repr(name)) <= MAX_NAME else f"{repr(name)[:40]}..."
        raise DataError(f"{where}: expected text of 1 to {MAX_NAME} characters, got {shown}; rename it.")
    if not name.isprintable() or "/" in name or "\\" in name or ".." in name:
        raise DataError(
            f"{where}: {name!r} holds a slash, two dots in a row or an unprintable character; rename it, since names "
            "become file names."
        )


def _check_tasks(dataset: MetaDataset) -> None:
    if not dataset.tasks:
        raise DataError("tasks.parquet: expected at least one task, got zero tasks; build the meta-dataset again.")
    seen: dict[str, int] = {}
    for row, task in enumerate(dataset.tasks):
        where = f"tasks.parquet, row {row}"
        check_name(task.name, f"{where}, name")
        check_name(task.base, f"{where} ({task.name}), base")
        if task.name in seen:
            raise DataError(
                f"{where}, name: {task.name!r} is a duplicate of row {seen[task.name]}; drop or rename one."
            )
        seen[task.name] = row
        for field, least in (("n_train", 1), ("n_valid", 1), ("n_test", 1), ("n_features", 1), ("n_classes", 2)):
            if getattr(task, field) < least:
                value = getattr(task, field)
                raise DataError(
                    f"{where} ({task.name}), {field}: expected at least {least}, got {value}; drop the task."
                )
        if not (math.isfinite(task.prior_entropy) and task.prior_entropy > 0.0):
            raise DataError(
                f"{where} ({task.name}), prior_entropy: expected a positive number of nats, got {task.prior_entropy}; "
                "drop the task."
            )
        _check_array(
            task.descriptor, (len(dataset.descriptor_names),), np.float32, f"{where} ({task.name}), descriptor"
        )
        if np.isinf(task.descriptor).any():
            name = dataset.descriptor_names[int(np.argmax(np.isinf(task.descriptor)))]
            raise DataError(
                f"{where} ({task.name}), descriptor: {name!r} is infinite; use NaN where a descriptor is missing."
            )
    if len(set(dataset.descriptor_names)) < len(dataset.descriptor_names):
        raise DataError(
            f"manifest.json, descriptor_names: expected distinct names, got {dataset.descriptor_names}; rename one."
        )


def _check_array(array: object, shape: tuple[int, ...], dtype: type, where: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype):
        got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{where}: expected dtype {np.dtype(dtype)}, got {got}; cast it.")
    if array.shape != shape:
        raise DataError(
            f"{where}: expected shape {shape}, got {array.shape}; every task needs every configuration and point."
        )


def _check_shapes(dataset: MetaDataset) -> None:
    if np.ndim(dataset.u) != 2 or len(dataset.u) < 2:
        count = len(dataset.u) if np.ndim(dataset.u) == 2 else f"an array of {np.ndim(dataset.u)} axes"
        raise DataError(f"configs.parquet, u: expected at least 2 configurations, got {count}; record more of them.")
    if np.ndim(dataset.fidelity) != 1 or not len(dataset.fidelity):
        raise DataError(
            "manifest.json, fidelity: expected a list of at least 1 number, got none; give the curve's points."
        )
    t, n, p = len(dataset.tasks), len(dataset.u), len(dataset.fidelity)
    _check_array(dataset.u, (n, dataset.space.size), np.float32, "configs.parquet, u")
    _check_array(dataset.fidelity, (p,), np.float64, "manifest.json, fidelity")
    for field in CURVES:
        _check_array(getattr(dataset, field), (t, n, p), np.float32, f"curves.parquet, {field}")
    _check_array(dataset.flops, (t, n, p), np.float64, "curves.parquet, flops")
    _check_array(dataset.status, (t, n), np.int8, "curves.parquet, status")
    _check_array(dataset.diverged_at, (t, n), np.float32, "curves.parquet, diverged_at")


def _check_configurations(dataset: MetaDataset) -> None:
    inside = np.isfinite(dataset.u) & (dataset.u >= 0.0) & (dataset.u <= 1.0)
    if not inside.all():
        row, d = np.argwhere(~inside)[0]
        raise DataError(
            f"configs.parquet, u, row {row}: {dataset.space.names[d]!r} is {dataset.u[row, d]}, expected a coordinate "
            "from 0 to 1; encode configurations with `space.encode`."
        )
    snapped = np.stack([dataset.space.encode(config) for config in dataset.configs()])
    off = dataset.active & (np.abs(snapped - dataset.u) > SNAP_TOLERANCE)
    if off.any():
        row, d = np.argwhere(off)[0]
        raise DataError(
            f"configs.parquet, u, row {row}: {dataset.u[row, d]} stands for no value of {dataset.space.names[d]!r} "
            f"(the nearest is at {snapped[row, d]:.6g}), so it is an unknown category or level; use `space.snap`."
        )


def _check_fidelity(dataset: MetaDataset) -> None:
    points = dataset.fidelity
    if not np.isfinite(points).all() or points[0] <= 0.0 or (np.diff(points) <= 0.0).any():
        raise DataError(
            f"manifest.json, fidelity: expected positive, strictly increasing {dataset.unit}, got {points.tolist()}; "
            "sort the points and drop repeated ones."
        )


def _check_status(dataset: MetaDataset) -> None:
    allowed = (Status.OK, Status.DIVERGED, Status.FAILED)
    unknown = ~np.isin(dataset.status, allowed)
    if unknown.any():
        t, n = np.argwhere(unknown)[0]
        words = ", ".join(f"{s.value} ({s.name})" for s in allowed)
        raise DataError(
            f"{_row(dataset, 'status', t, n)}: expected one of {words}, got {dataset.status[t, n]}; "
            "record finished runs only."
        )
    wrong = np.isfinite(dataset.diverged_at) != (dataset.status == Status.DIVERGED)
    wrong &= dataset.status != Status.FAILED
    if wrong.any():
        t, n = np.argwhere(wrong)[0]
        raise DataError(
            f"{_row(dataset, 'diverged_at', t, n)}: got {dataset.diverged_at[t, n]} with status "
            f"{Status(dataset.status[t, n]).name}; give it for diverged runs and NaN for others."
        )


def _check_values(dataset: MetaDataset) -> None:
    """Runs that are OK have every number; others have none from where they ended, and no point after a missing one."""
    ok = (dataset.status == Status.OK)[:, :, None]
    for field in (*CURVES, "flops"):
        values = getattr(dataset, field)
        _refuse(
            dataset, field, ok & ~np.isfinite(values), "is not finite although the status is OK; mark the run FAILED"
        )
        _refuse(dataset, field, np.isinf(values), "is infinite; use NaN from where the run diverged")
        missing = np.isnan(values)
        resumed = np.zeros_like(missing)
        resumed[:, :, 1:] = missing[:, :, :-1] & ~missing[:, :, 1:]
        _refuse(
            dataset, field, resumed, "follows a missing point; use NaN up to the end, since futures are never imputed"
        )
    over = dataset.fidelity[None, None, :] >= dataset.diverged_at[:, :, None]  # False where diverged_at is NaN
    _refuse(dataset, "valid_loss", over & np.isfinite(dataset.valid_loss), "lies after the divergence; use NaN there")
    for field in ("valid_accuracy", "test_accuracy"):
        values = getattr(dataset, field)
        _refuse(
            dataset, field, (values < 0.0) | (values > 1.0), "is no share between 0 and 1; divide counts by the rows"
        )
    for field in ("valid_loss", "gradient_norm", "learning_rate", "flops"):
        _refuse(dataset, field, getattr(dataset, field) < 0.0, "is negative; record the run again")


def _refuse(dataset: MetaDataset, field: str, wrong: np.ndarray, complaint: str) -> None:
    """Raises for the first True of `wrong [T, N, P]`."""
    if wrong.any():
        t, n, p = np.argwhere(wrong)[0]
        value = getattr(dataset, field)[t, n, p]
        raise DataError(f"{_row(dataset, field, t, n, p)}: {value} {complaint}.")


def _row(dataset: MetaDataset, field: str, t: int, n: int, p: int = 0) -> str:
    """Where a point stands: the file has one row for each (task, configuration, point)."""
    row = (t * len(dataset.u) + n) * len(dataset.fidelity) + p
    return f"curves.parquet, {field}, row {row} (task {dataset.tasks[t].name!r}, configuration {n}, point {p})"


def _check_duplicates(dataset: MetaDataset) -> None:
    """A configuration written twice must have done the same both times; inactive coordinates do not count."""
    first: dict[bytes, int] = {}
    for n, key in enumerate(np.where(dataset.active, dataset.u, 0.5).astype(np.float32)):
        m = first.setdefault(key.tobytes(), n)
        if m == n:
            continue
        agree = np.isclose(dataset.valid_loss[:, m], dataset.valid_loss[:, n], rtol=AGREEMENT, equal_nan=True).all(-1)
        agree &= dataset.status[:, m] == dataset.status[:, n]
        if not agree.all():
            t = int(np.argmin(agree))
            raise DataError(
                f"{_row(dataset, 'valid_loss', t, n)}: configuration {n} is a duplicate of {m} with conflicting "
                "results; drop one of the two."
            )


def _check_targets(dataset: MetaDataset) -> None:
    objective = dataset.objective()
    constant = objective.max(1) == objective.min(1)
    if constant.any():
        t = int(np.argmax(constant))
        raise DataError(
            f"curves.parquet, valid_loss: the objective of task {dataset.tasks[t].name!r} is a constant "
            f"{objective[t, 0]} over all configurations, so it teaches nothing; leave the task out with `select`."
        )
