"""Archives on disk: a folder of three Parquet tables and a strict JSON manifest that hashes them.

manifest.json           schema version, search spaces, fidelities, and SHA-256 and size of each table
tasks.parquet           one row per task
configurations.parquet  one row per (task, configuration): coordinates `u_0`, `u_1`, ... of the task's own space, status
evaluations.parquet     one row per (task, configuration, fidelity): loss and cost, NaN where there is none
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.errors import DataError, StoreError
from metahpo_jax.metadata import parquet
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.files import MAX_JSON_BYTES, write_folder
from metahpo_jax.metadata.manifest import (
    MANIFEST,
    Format,
    format_of,
    read_manifest,
    read_space,
    read_tables,
    require_folder,
    seal,
)

TASKS, CONFIGURATIONS, EVALUATIONS = NAMES = ("tasks.parquet", "configurations.parquet", "evaluations.parquet")
MAX_ROWS = {TASKS: 10_000, CONFIGURATIONS: 4_000_000, EVALUATIONS: 8_000_000}
BUILD = "make it with `metahpo import`"
_FIELDS = {
    "name": str,
    "metric": str,
    "unit": str,
    "spaces": dict,
    "fidelity": list,
    "descriptor_names": list,
    "content_hash": str,
    "files": dict,
}
FORMAT = Format("metahpo_jax.archive", 1, _FIELDS, NAMES, "archive", BUILD)
_TEXTS = ("name", "base", "space", "group")
_MEASURED = ("loss", "cost", "test_accuracy")


def is_archive(directory: str | os.PathLike[str]) -> bool:
    """Whether the manifest of a folder says that it is an archive; False also where nothing can be read."""
    return format_of(Path(directory)) == FORMAT.name


def save_archive(archive: Archive, directory: str | os.PathLike[str]) -> Path:
    """Writes a folder completely or not at all, in the place of an earlier archive if there is one.

    Raises:
      DataError: when the archive is not sound.
      StoreError: when it is too large, or the folder cannot be written or holds something else.
    """
    archive.validate()
    facts = {
        "name": archive.name,
        "metric": archive.metric,
        "unit": archive.unit,
        "spaces": {name: space.to_json() for name, space in archive.spaces.items()},
        "fidelity": list(archive.fidelity),
        "descriptor_names": list(archive.descriptor_names),
        "content_hash": archive.content_hash,
    }
    files = seal(FORMAT, facts, _write(archive))
    for name, data in files.items():
        limit = MAX_JSON_BYTES if name == MANIFEST else parquet.MAX_FILE_BYTES
        if len(data) > limit:
            raise StoreError(
                f"{name}: expected at most {limit} bytes, got {len(data)}; save fewer tasks in one archive."
            )
    write_folder(Path(directory), files, marker=MANIFEST)
    return Path(directory)


def load_archive(directory: str | os.PathLike[str]) -> Archive:
    """Reads a folder that `save_archive` wrote.

    Raises:
      StoreError: when a file is missing, damaged, of a newer schema version, or leads out of the folder.
      DataError: when what the files hold is not sound. Both name file, field and row.
    """
    folder = Path(directory)
    require_folder(folder, BUILD)
    where = folder / MANIFEST
    manifest = read_manifest(folder, FORMAT)
    spaces = {
        name: read_space(description, f"{where}, spaces, {name!r}", BUILD)
        for name, description in manifest["spaces"].items()
    }
    contents = read_tables(folder, manifest, FORMAT)
    header = Archive(
        name=manifest["name"],
        spaces=spaces,
        tasks=(),
        metric=manifest["metric"],
        fidelity=tuple(manifest["fidelity"]),
        unit=manifest["unit"],
        descriptor_names=tuple(manifest["descriptor_names"]),
    )
    try:
        archive = _read(contents, header)
        archive.validate()
    except (DataError, StoreError) as error:
        raise type(error)(f"{folder}: {error}") from None
    if archive.content_hash != manifest["content_hash"]:
        raise StoreError(f"{where}, content_hash: the tables hold something else; {BUILD} again.")
    return archive


def _kinds(archive: Archive) -> dict[str, dict[str, str]]:
    """Name and Arrow type of each column of each table."""
    width = max((space.size for space in archive.spaces.values()), default=0)
    tasks = dict.fromkeys(_TEXTS, "string") | dict.fromkeys(("cap", "size"), "double") | {"configurations": "int32"}
    tasks |= dict.fromkeys(("has_cost", "has_test_accuracy"), "bool")
    keys = {"task": "int32", "configuration": "int32"}
    return {
        TASKS: tasks | {f"descriptor_{name}": "float" for name in archive.descriptor_names},
        CONFIGURATIONS: keys | {"status": "int8", "test_accuracy": "float"} | {f"u_{d}": "float" for d in range(width)},
        EVALUATIONS: keys | {"fidelity": "double", "loss": "float", "cost": "float"},
    }


def _keys(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Task and configuration of each row `[sum(counts)]`, both int32."""
    tasks = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    starts = np.cumsum(counts) - counts
    return {"task": tasks, "configuration": (np.arange(len(tasks)) - starts[tasks]).astype(np.int32)}


def _write(archive: Archive) -> dict[str, bytes]:
    """Each table of a sound archive, by file name."""
    tasks, kinds, p = archive.tasks, _kinds(archive), len(archive.fidelity)
    counts = np.asarray([len(task.u) for task in tasks])
    for name, rows in ((TASKS, len(tasks)), (CONFIGURATIONS, counts.sum()), (EVALUATIONS, counts.sum() * p)):
        if rows > MAX_ROWS[name]:
            raise StoreError(
                f"{name}: expected at most {MAX_ROWS[name]} rows, got {rows}; save fewer tasks or fidelities."
            )
    facts: dict[str, Any] = {field: [getattr(task, field) for task in tasks] for field in _TEXTS}
    facts |= {field: np.asarray([getattr(task, field) for task in tasks], np.float64) for field in ("cap", "size")}
    facts |= {f"has_{field}": [getattr(t, field) is not None for t in tasks] for field in ("cost", "test_accuracy")}
    facts |= {f"descriptor_{n}": [t.descriptor[m] for t in tasks] for m, n in enumerate(archive.descriptor_names)}
    u = np.full((counts.sum(), len(kinds[CONFIGURATIONS]) - 4), np.nan, np.float32)
    for task, stop in zip(tasks, np.cumsum(counts), strict=True):
        u[stop - len(task.u) : stop, : task.u.shape[1]] = task.u
    keys = _keys(counts)
    configurations = keys | {
        "status": np.concatenate([task.status for task in tasks]),
        "test_accuracy": np.concatenate([_or_nan(task.test_accuracy, task.status.shape) for task in tasks]),
        **{f"u_{d}": column for d, column in enumerate(u.T)},
    }
    evaluations = {name: np.repeat(values, p) for name, values in keys.items()} | {
        "fidelity": np.tile(np.asarray(archive.fidelity, np.float64), len(u)),
        "loss": np.concatenate([task.loss.ravel() for task in tasks]),
        "cost": np.concatenate([_or_nan(task.cost, task.loss.shape).ravel() for task in tasks]),
    }
    columns = {TASKS: facts | {"configurations": counts}, CONFIGURATIONS: configurations, EVALUATIONS: evaluations}
    return {name: parquet.pack(columns[name], kinds[name], _MEASURED) for name in NAMES}


def _or_nan(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan, np.float32) if values is None else values


def _read(contents: dict[str, bytes], header: Archive) -> Archive:
    """The archive of the bytes of the tables; `header` is it without its tasks."""
    kinds = _kinds(header)
    facts, configurations, evaluations = (
        parquet.unpack(name, contents[name], kinds[name], MAX_ROWS[name]) for name in NAMES
    )
    counts, p = facts["configurations"].to_numpy().astype(np.int64), len(header.fidelity)
    for name, table, per in ((CONFIGURATIONS, configurations, 1), (EVALUATIONS, evaluations, p)):
        if (counts < 0).any() or table.num_rows != counts.sum() * per:
            raise DataError(
                f"{name}: expected {counts.sum() * per} rows as {TASKS}, configurations says, got {table.num_rows}; "
                "keep a row of NaN for a missing fidelity."
            )
    points = np.asarray(header.fidelity, np.float64)
    for name, expected in _keys(counts).items():
        _in_order(CONFIGURATIONS, name, configurations, expected)
        _in_order(EVALUATIONS, name, evaluations, np.repeat(expected, p))
    _in_order(EVALUATIONS, "fidelity", evaluations, np.tile(points, counts.sum()))
    u = np.stack([configurations[f"u_{d}"].to_numpy() for d in range(len(kinds[CONFIGURATIONS]) - 4)], axis=-1)
    status, test_accuracy = (configurations[field].to_numpy() for field in ("status", "test_accuracy"))
    loss, cost = (evaluations[field].to_numpy().reshape(-1, p) for field in ("loss", "cost"))
    tasks = []
    for row, stop in zip(facts.to_pylist(), np.cumsum(counts), strict=True):
        if row["space"] not in header.spaces:
            raise DataError(f"{TASKS}, space: {row['space']!r} is none of {', '.join(header.spaces)}; correct it.")
        rows = slice(stop - row["configurations"], stop)
        task = ArchivedTask(
            **{field: row[field] for field in (*_TEXTS, "cap", "size")},
            u=np.ascontiguousarray(u[rows, : header.spaces[row["space"]].size]),
            loss=loss[rows],
            status=status[rows],
            cost=cost[rows] if row["has_cost"] else None,
            test_accuracy=test_accuracy[rows] if row["has_test_accuracy"] else None,
            descriptor=np.asarray([row[f"descriptor_{name}"] for name in header.descriptor_names], np.float32),
        )
        tasks.append(task)
    return replace(header, tasks=tuple(tasks))


def _in_order(name: str, column: str, table: Any, expected: np.ndarray) -> None:
    remedy = "sort the rows by task, configuration and fidelity"
    parquet.require_same(name, column, table[column].to_numpy(), expected, remedy)
