"""The three Parquet tables of a meta-dataset, to and from bytes.

The tables are tidy: one row per task, configuration, or (task, configuration, point).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metahpo_jax.errors import DataError, SpaceError
from metahpo_jax.metadata import parquet
from metahpo_jax.metadata.files import strict_json
from metahpo_jax.metadata.schema import MetaDataset, TaskRecord
from metahpo_jax.metadata.validation import CURVES, SNAP_TOLERANCE
from metahpo_jax.spaces import Space

if TYPE_CHECKING:
    import pyarrow as pa

TASKS, CONFIGS, POINTS = NAMES = ("tasks.parquet", "configs.parquet", "curves.parquet")
MAX_ROWS = {TASKS: 10_000, CONFIGS: 20_000, POINTS: 4_000_000}

_TEXTS = ("name", "base", "source", "licence")
_COUNTS = ("n_train", "n_valid", "n_test", "n_features", "n_classes")


def _columns(name: str, space: Space, descriptor_names: Sequence[str]) -> dict[str, str]:
    """Name and Arrow type of each column of a table."""
    if name == TASKS:
        fixed = dict.fromkeys(_TEXTS, "string") | dict.fromkeys(_COUNTS, "int64") | {"prior_entropy": "double"}
        return fixed | {f"descriptor_{descriptor}": "float" for descriptor in descriptor_names}
    if name == CONFIGS:  # in natural values as JSON, for people, and as coordinates
        return {"config": "string"} | {f"u_{dimension}": "float" for dimension in space}
    keys = {"task": "int32", "config": "int32", "fidelity": "double", "status": "int8", "diverged_at": "float"}
    return keys | dict.fromkeys(CURVES, "float") | {"flops": "double"}


# --- writing ---------------------------------------------------------------------------------------------------------


def write(dataset: MetaDataset) -> dict[str, bytes]:
    """Each table of a sound meta-dataset, by file name."""
    t, n, p = dataset.flops.shape
    tasks = {field: [getattr(task, field) for task in dataset.tasks] for field in (*_TEXTS, *_COUNTS, "prior_entropy")}
    descriptors = np.stack([task.descriptor for task in dataset.tasks], axis=1)
    tasks |= {f"descriptor_{name}": row for name, row in zip(dataset.descriptor_names, descriptors, strict=True)}
    configs = {"config": [json.dumps(config) for config in dataset.configs()]}
    configs |= {f"u_{name}": row for name, row in zip(dataset.space, dataset.u.T, strict=True)}
    points = {
        "task": np.repeat(np.arange(t), n * p),
        "config": np.tile(np.repeat(np.arange(n), p), t),
        "fidelity": np.tile(dataset.fidelity, t * n),
        "status": np.repeat(dataset.status, p),
        "diverged_at": np.repeat(dataset.diverged_at, p),
    }
    points |= {field: getattr(dataset, field).ravel() for field in (*CURVES, "flops")}
    contents = {TASKS: tasks, CONFIGS: configs, POINTS: points}
    kinds = {name: _columns(name, dataset.space, dataset.descriptor_names) for name in NAMES}
    return {name: parquet.pack(contents[name], kinds[name], (*CURVES, "flops")) for name in NAMES}


# --- reading ---------------------------------------------------------------------------------------------------------


def read(
    contents: Mapping[str, bytes], space: Space, descriptor_names: Sequence[str], fidelity: np.ndarray
) -> dict[str, Any]:
    """Fields of a `MetaDataset` from the bytes of the tables.

    Raises:
      StoreError: when a file is no Parquet, has more rows than the limit, or has damaged pages.
      DataError: naming file, column and row of what is missing, of another type or out of place.
    """
    tasks, configs, points = (
        parquet.unpack(name, contents[name], _columns(name, space, descriptor_names), MAX_ROWS[name]) for name in NAMES
    )
    u = np.stack([configs[f"u_{name}"].to_numpy() for name in space], axis=1)
    _check_configs(configs["config"].to_pylist(), u, space)
    shape = (tasks.num_rows, len(u), len(fidelity))
    _check_order(points, shape, fidelity)
    fields = {field: points[field].to_numpy().reshape(shape) for field in points.column_names}
    for field in ("status", "diverged_at"):
        _check_repeated(field, fields[field])
    described = [tasks[f"descriptor_{name}"].to_numpy() for name in descriptor_names]
    descriptors = np.stack(described, axis=1) if described else np.zeros((tasks.num_rows, 0), np.float32)
    records = tasks.select([*_TEXTS, *_COUNTS, "prior_entropy"]).to_pylist()
    return {
        "tasks": tuple(TaskRecord(**r, descriptor=d) for r, d in zip(records, descriptors, strict=True)),
        "u": u,
        "status": fields["status"][:, :, 0],
        "diverged_at": fields["diverged_at"][:, :, 0],
        **{field: fields[field] for field in (*CURVES, "flops")},
    }


def _check_configs(texts: list[str], u: np.ndarray, space: Space) -> None:
    """Column `config` is for people and the coordinates for programs: they must say the same."""
    for row, (text, coordinates) in enumerate(zip(texts, u, strict=True)):
        where = f"{CONFIGS}, config, row {row}"
        config = strict_json(text.encode(), where)
        if not isinstance(config, dict):
            raise DataError(f"{where}: expected an object of values by name, got {text[:40]!r}; build it again.")
        try:
            encoded = space.encode(config)
        except (SpaceError, OverflowError) as error:
            raise DataError(f"{where}: {error} Correct it or build the meta-dataset again.") from None
        for name, value in config.items():
            d = space.names.index(name)
            if not abs(encoded[d] - coordinates[d]) <= SNAP_TOLERANCE:
                raise DataError(
                    f"{where}: {name!r} is {value!r}, but column 'u_{name}' says {coordinates[d]}; correct one."
                )


def _check_order(points: "pa.Table", shape: tuple[int, int, int], fidelity: np.ndarray) -> None:
    """Rows stand in the order of tasks, configurations and points, and none is missing."""
    t, n, p = shape
    if points.num_rows != t * n * p:
        raise DataError(
            f"{POINTS}: expected {t} tasks x {n} configurations x {p} points = {t * n * p} rows, "
            f"got {points.num_rows}; keep a row of NaN for a missing point."
        )
    for column, expected in (
        ("task", np.repeat(np.arange(t), n * p)),
        ("config", np.tile(np.repeat(np.arange(n), p), t)),
        ("fidelity", np.tile(fidelity, t * n)),
    ):
        remedy = "sort the rows by task, configuration and fidelity"
        parquet.require_same(POINTS, column, points[column].to_numpy(), expected, remedy)


def _check_repeated(field: str, values: np.ndarray) -> None:
    """What is known of a run is the same at each of its points: `values [T, N, P]`."""
    first = values[:, :, :1]
    differs = (values != first) & ~(np.isnan(values) & np.isnan(first))
    if differs.any():
        row = int(np.argmax(differs))
        got = values.ravel()[row]
        raise DataError(
            f"{POINTS}, {field}, row {row}: got {got}, but another value at the run's first point; correct it."
        )
