"""HPO-B: evaluations of 16 search spaces on OpenML data sets, and the authors' published runs (Pineda Arango et al., 2021).

Reads the evaluation pools of the wheel bocode, or the official JSON files.
"""

from pathlib import Path
from typing import Any

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.public.folder import damaged, read_json, read_npz, require, require_any
from metahpo_jax.spaces import Float, Space

ARRAYS = "hpob_data.npz"
OFFICIAL = "meta-test-dataset.json"
OFFICIAL_SOURCES = ("meta-train-dataset.json", "meta-validation-dataset.json")
DESCRIPTORS = "meta-dataset-descriptors.json"
TEST_TASKS = "meta-test-tasks-per-space.json"
RESULTS = "results"
SEEDS = ("test0", "test1", "test2", "test3", "test4")
POINTS = 101  # the best of the five starts, then one per trial
# These search a surrogate of the continuous space, where regrets are another scale.
CONTINUOUS_TRACK = ("RS-C", "GP-C", "DGP-C")
# Published with 6 points in place of 101.
INCOMPLETE = ("RF",)
ROUNDING = 1e-4  # how far beyond [0, 1] a scaled column may lie


def read(data: Path | None) -> Archive:
    """One task per pool, called `<space>_<data set>`; loss is minus the accuracy, base is the data set.

    Pools that are no test task (see `test_tasks`) are sources only. Without `hpob_data.npz`, the official
    `meta-test-dataset.json` is read; training and validation pools of its spaces join where their files are present.

    Raises:
        StoreError: The files are missing or damaged.
        DataError: They hold a coordinate beyond [0, 1], or a task twice.
    """
    path = require_any(data, "hpob", (ARRAYS, OFFICIAL))
    folder = require(data, "hpob", (DESCRIPTORS,))
    if path.name == ARRAYS:
        tasks = [_task(path, key, table[:, :-1], table[:, -1:]) for key, table in _tables(path).items()]
    else:
        tasks = _official(folder)
    described = read_json(folder / DESCRIPTORS)
    widths = {task.space: task.u.shape[1] for task in tasks}
    spaces = {space: _space(folder / DESCRIPTORS, described, space, width) for space, width in widths.items()}
    archive = Archive("hpob", spaces, tuple(tasks), metric="minus accuracy")
    archive.validate()
    return archive


def test_tasks(data: Path | None) -> set[str]:
    """Names of the official test tasks. All 86: the arrays of bocode lack four of them.

    Raises:
        StoreError: The file is missing or damaged.
    """
    path = require(data, "hpob", (TEST_TASKS,)) / TEST_TASKS
    content = read_json(path)
    try:
        return {f"{space}_{dataset}" for space, datasets in content.items() for dataset in datasets}
    except (AttributeError, TypeError) as error:
        raise damaged(path, error) from error


def read_published(data: Path | None) -> dict[str, dict[str, np.ndarray]]:
    """The authors' runs on the discrete track: method -> task -> best normalised accuracy so far, `[5, 101]` float64.

    Index 0 is the best of the five starts, index k the best after k trials; rows are the seeds test0 to test4. Figures are as
    published: 13 of the 430 curves of GP fall somewhere. Left out are the methods of the continuous track, which is another
    table, and RF, which was published with 6 points.

    Raises:
        StoreError: The folder is missing, or a file in it is damaged.
    """
    folder = require(data, "hpob", (f"{RESULTS}/Random.json",)) / RESULTS
    skipped = (*CONTINUOUS_TRACK, *INCOMPLETE)
    return {path.stem: _published(path) for path in sorted(folder.glob("*.json")) if path.stem not in skipped}


def _published(path: Path) -> dict[str, np.ndarray]:
    content = read_json(path)
    try:
        curves = {
            f"{space}_{dataset}": np.array([runs[seed] for seed in SEEDS], np.float64)
            for space, datasets in content.items()
            for dataset, runs in datasets.items()
        }
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    for task, curve in curves.items():
        if curve.shape != (len(SEEDS), POINTS):
            raise damaged(path, f"{task}: expected {POINTS} points of each seed, got shape {curve.shape}")
    return curves


def _tables(path: Path) -> dict[str, np.ndarray]:
    tables = read_npz(path)
    for key, table in tables.items():
        if key.count("_") != 1 or table.ndim != 2 or table.shape[1] < 2 or table.dtype.kind != "f":
            raise damaged(path, f"{key}: expected <space>_<data set> and floats [n, d + 1], got shape {table.shape}")
    return tables


def _task(path: Path, key: str, u: np.ndarray, accuracy: np.ndarray) -> ArchivedTask:
    """The task of a pool: `u [n, d]`, which is clipped in place, and `accuracy [n, 1]`."""
    low, high = u.min(initial=0.0), u.max(initial=1.0)
    if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
        raise DataError(f"{path}, {key}: expected coordinates scaled to [0, 1], got {low:.4g} to {high:.4g}.")
    u = u.astype(np.float32, copy=False)
    if low < 0.0 or high > 1.0:
        np.clip(u, 0.0, 1.0, out=u)
    loss = -accuracy.astype(np.float32, copy=False)
    status = np.where(np.isfinite(loss[:, 0]), Status.OK, Status.FAILED).astype(np.int8)
    space, dataset = key.split("_")
    return ArchivedTask(name=key, base=dataset, space=space, u=u, loss=loss, status=status)


def _official(folder: Path) -> list[ArchivedTask]:
    """The test tasks, then those of the same spaces that are for training and validation and have two accuracies or more."""
    tasks = _official_tasks(folder / OFFICIAL)
    spaces = {task.space for task in tasks}
    for name in OFFICIAL_SOURCES:
        if (folder / name).is_file():
            more = _official_tasks(folder / name)
            tasks += [task for task in more if task.space in spaces and np.unique(task.loss).size > 1]
    return tasks


def _official_tasks(path: Path) -> list[ArchivedTask]:
    content: dict[str, dict[str, Any]] = read_json(path)
    try:
        return [
            _task(path, f"{space}_{dataset}", np.array(pool["X"], np.float32), np.array(pool["y"], np.float32))
            for space, datasets in content.items()
            for dataset, pool in datasets.items()
        ]
    except DataError:
        raise
    except (KeyError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise damaged(path, error) from error


def _space(path: Path, described: Any, space: str, width: int) -> Space:
    """All coordinates are already scaled to [0, 1]; logarithms were taken before."""
    try:
        names = described[space]["variables_order"]
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if len(names) != width:
        raise DataError(f"{path}, space {space}: expected {width} variables as in the pools, got {len(names)}.")
    return Space.of({name: Float(0.0, 1.0) for name in names})
