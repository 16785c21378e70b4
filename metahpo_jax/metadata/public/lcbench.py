"""LCBench: 2,000 shared configurations of a funnel-shaped MLP on 35 data sets (Zimmer, Lindauer and Hutter, 2021).

Reads the final accuracies of the wheel bocode, or the official JSON with its learning curves.
"""

from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import MetaHPOError
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.public.arrays import encode, end_at_divergence
from metahpo_jax.metadata.public.folder import damaged, read_json, read_npz, require_any
from metahpo_jax.spaces import Float, Int, Space

ARRAYS = "lcbench_data.npz"
OFFICIAL = ("data_2k_lw.json", "data_2k.json", "six_datasets_lw.json")
COLUMNS = ("batch_size", "learning_rate", "max_dropout", "max_units", "momentum", "num_layers", "weight_decay")
EPOCHS = 50  # of training; the official logs also hold one entry before it and one after it, which are left out
SPACE = Space(
    batch_size=Int(16, 512, log=True),
    learning_rate=Float(1e-4, 1e-1, log=True),
    max_dropout=Float(0.0, 1.0),
    max_units=Int(64, 1024, log=True),
    momentum=Float(0.1, 0.99),
    num_layers=Int(1, 5),  # as published, though only 1 to 4 were drawn
    weight_decay=Float(1e-5, 1e-1),
)


def read(data: Path | None) -> Archive:
    """The 35 tasks; loss is minus the validation accuracy (%). All tasks share one array of coordinates.

    `lcbench_data.npz` has one fidelity, the end of training. The official JSON, of about 1 GB, is read where that is absent.
    It has epochs 1 to 50, and its last point is the published `final_val_accuracy` where the file states one.

    Raises:
        StoreError: The files are missing or damaged.
        DataError: They hold a configuration outside the published ranges.
    """
    path = require_any(data, "lcbench", (ARRAYS, *OFFICIAL))
    archive = _from_arrays(path) if path.name == ARRAYS else _from_json(path)
    archive.validate()
    return archive


def _from_arrays(path: Path) -> Archive:
    tables = read_npz(path)
    tasks, configs, u = [], None, np.empty(0, np.float32)
    for name, table in tables.items():
        if table.ndim != 2 or table.shape[1] != len(COLUMNS) + 1:
            raise damaged(path, f"{name}: expected {len(COLUMNS) + 1} columns, got shape {table.shape}")
        if configs is None or not np.array_equal(configs, table[:, :-1]):
            configs = table[:, :-1]
            u = encode(SPACE, dict(zip(COLUMNS, configs.T, strict=True)), f"{path}, {name}")
        loss, status = end_at_divergence(-table[:, -1:], 1)
        tasks.append(ArchivedTask(name=name, base=name, space="mlp", u=u, loss=loss, status=status))
    return _archive(tasks, fidelity=(float(EPOCHS),))


def _from_json(path: Path) -> Archive:
    tasks: list[ArchivedTask] = []
    content = read_json(path)
    try:
        for name, runs in content.items():
            tasks.append(_official_task(path, name, list(runs.values()), tasks[-1].u if tasks else None))
    except MetaHPOError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise damaged(path, error) from error
    return _archive(tasks, fidelity=tuple(float(epoch) for epoch in range(1, EPOCHS + 1)))


def _official_task(path: Path, name: str, runs: list[dict[str, Any]], previous: np.ndarray | None) -> ArchivedTask:
    """One data set of the official file; takes over the coordinates `previous` where they are the same."""
    columns = {column: np.array([run["config"][column] for run in runs]) for column in COLUMNS}
    u = encode(SPACE, columns, f"{path}, {name}")
    accuracy = np.full((len(runs), EPOCHS), np.nan)
    reached = np.zeros(len(runs), int)
    for row, run in enumerate(runs):
        curve = run["log"]["Train/val_accuracy"][1 : EPOCHS + 1]
        reached[row] = len(curve)
        accuracy[row, : len(curve)] = [np.nan if value is None else value for value in curve]
        if curve and "final_val_accuracy" in run.get("results", {}):
            accuracy[row, len(curve) - 1] = run["results"]["final_val_accuracy"]
    loss, status = end_at_divergence(-accuracy, reached)
    status = np.where(reached == 0, Status.FAILED, status).astype(np.int8)
    facts = {**runs[0].get("results", {}), **runs[0]["config"]}  # releases differ in where they put the data set's size
    return ArchivedTask(
        name=name,
        base=name,
        space="mlp",
        u=previous if previous is not None and np.array_equal(previous, u) else u,
        loss=loss,
        status=status,
        size=float(facts.get("instances", np.nan)),
    )


def _archive(tasks: list[ArchivedTask], fidelity: tuple[float, ...]) -> Archive:
    metric = "minus validation accuracy (%)"
    return Archive("lcbench", {"mlp": SPACE}, tuple(tasks), metric=metric, fidelity=fidelity, unit="epochs")
