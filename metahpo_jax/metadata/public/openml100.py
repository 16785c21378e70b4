"""AdaBoost and random forests on the OpenML-100 tasks, different configurations on each (van Rijn and Hutter, KDD 2018)."""

from pathlib import Path

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.public.arrays import encode
from metahpo_jax.metadata.public.folder import damaged, read_json, require
from metahpo_jax.spaces import Choice, Dimension, Float, Int, Space

QUALITIES = "task_qualities.json"
_IMPUTER = ("columntransformer__numeric__imputer__strategy", Choice("mean", "median", "most_frequent"))

# Short name -> column of the file and its range. Columns with a single value (such as 100 trees) are left out.
HYPERPARAMETERS: dict[str, dict[str, tuple[str, Dimension]]] = {
    "adaboost": {
        "algorithm": ("adaboostclassifier__algorithm", Choice("SAMME", "SAMME.R")),
        "learning_rate": ("adaboostclassifier__learning_rate", Float(0.01, 2.0, log=True)),
        "max_depth": ("adaboostclassifier__base_estimator__max_depth", Int(1, 10)),
        "n_estimators": ("adaboostclassifier__n_estimators", Int(50, 500)),
        "imputation": _IMPUTER,
    },
    "random_forest": {
        "bootstrap": ("randomforestclassifier__bootstrap", Choice("False", "True")),
        "criterion": ("randomforestclassifier__criterion", Choice("entropy", "gini")),
        "max_features": ("randomforestclassifier__max_features", Float(0.1, 0.9)),
        "min_samples_leaf": ("randomforestclassifier__min_samples_leaf", Int(1, 20)),
        "min_samples_split": ("randomforestclassifier__min_samples_split", Int(2, 20)),
        "imputation": _IMPUTER,
    },
}
SPACES = {name: Space.of({key: row[1] for key, row in rows.items()}) for name, rows in HYPERPARAMETERS.items()}


def read(data: Path | None) -> Archive:
    """Tasks `adaboost_3`, `random_forest_3`, ...; loss is minus the accuracy, base is the OpenML task.

    Tasks whose accuracy is the same for all configurations (two of the random forest) teach nothing and are left out.
    Descriptors are all qualities that OpenML states for any task, sorted; missing and infinite ones are NaN.

    Raises:
        StoreError: A file is missing or damaged.
        DataError: It holds a hyperparameter outside the published ranges.
    """
    folder = require(data, "openml100", (*(f"{name}.arff" for name in SPACES), QUALITIES))
    names, descriptors = _qualities(folder / QUALITIES)
    tasks = [task for space in SPACES for task in _tasks(folder / f"{space}.arff", space, names, descriptors)]
    archive = Archive("openml100", SPACES, tuple(tasks), metric="minus accuracy", descriptor_names=names)
    archive.validate()
    return archive


def _tasks(path: Path, space: str, names: tuple[str, ...], descriptors: dict[str, np.ndarray]) -> list[ArchivedTask]:
    table = _read_arff(path)
    wanted = [column for column, _ in HYPERPARAMETERS[space].values()] + ["predictive_accuracy", "task_id"]
    for column in wanted:
        if column not in (table.dtype.names or ()):
            raise damaged(path, KeyError(column))
    for column in wanted[-2:]:
        if table[column].dtype.kind != "f" or not np.isfinite(table[column]).all():
            raise damaged(path, f"expected a number in every row of {column}")
    columns = {key: _plain(table[column]) for key, (column, _) in HYPERPARAMETERS[space].items()}
    for key, dimension in ((key, row[1]) for key, row in HYPERPARAMETERS[space].items()):
        if isinstance(dimension, Int):  # the forest's are nominal: text
            try:
                columns[key] = columns[key].astype(np.float64)
            except ValueError as error:
                raise damaged(path, error) from error
    u = encode(SPACES[space], columns, str(path))
    loss = -table["predictive_accuracy"].astype(np.float32)
    ids = table["task_id"].astype(np.int64)
    missing = np.full(len(names), np.nan, np.float32)
    tasks = []
    for number in np.unique(ids).tolist():
        rows = np.flatnonzero(ids == number)
        if np.unique(loss[rows]).size < 2:
            continue
        described = descriptors.get(str(number), missing)
        tasks.append(
            ArchivedTask(
                name=f"{space}_{number}",
                base=str(number),
                space=space,
                u=u[rows],
                loss=loss[rows, None],
                status=np.full(len(rows), Status.OK, np.int8),
                size=float(described[names.index("NumberOfInstances")]) if "NumberOfInstances" in names else np.nan,
                descriptor=described,
            )
        )
    return tasks


def _qualities(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names `m` of all qualities, and the descriptor `[m]` float32 of each task."""
    content = read_json(path)
    try:
        names = tuple(sorted({name for task in content.values() for name in task}))
        rows = {
            number: np.array([task.get(name, np.nan) for name in names], np.float64) for number, task in content.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    with np.errstate(over="ignore"):
        descriptors = {number: row.astype(np.float32) for number, row in rows.items()}
    return names, {number: np.where(np.isfinite(row), row, np.float32(np.nan)) for number, row in descriptors.items()}


def _read_arff(path: Path) -> np.ndarray:
    """The rows of an ARFF file as a structured array; nominal values are bytes."""
    from scipy.io import arff

    try:
        table, _ = arff.loadarff(path)
    except (OSError, ValueError, IndexError, NotImplementedError, RuntimeError, StopIteration) as error:
        raise damaged(path, error) from error
    return table


def _plain(column: np.ndarray) -> np.ndarray:
    """Nominal values as text."""
    return column.astype(np.str_) if column.dtype.kind == "S" else column
