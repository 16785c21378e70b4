"""One's own table becomes an archive: a row per run, or per run and fidelity.

Failed runs are data and never refused. What cannot be understood is, with file, row (counted from 1, the header left
out), column and value.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import ConfigError, DataError, SpaceError, StoreError
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.archive_store import EVALUATIONS, MAX_ROWS
from metahpo_jax.metadata.columns import Column, read_columns
from metahpo_jax.metadata.validation import check_name
from metahpo_jax.spaces import Choice, Dimension, Int, Space

_STATES = {"": Status.EMPTY, "ok": Status.OK, "diverged": Status.DIVERGED, "failed": Status.FAILED}


def import_table(
    path: str | os.PathLike[str],
    space: Space,
    *,
    task: str,
    loss: str,
    maximise: bool = False,
    fidelity: str | None = None,
    group: str | None = None,
    cost: str | None = None,
    status: str | None = None,
    name: str | None = None,
) -> Archive:
    """The archive of a CSV or Parquet file, whose columns are called as the hyperparameters of `space`.

    Rows of one task and configuration are the points of one learning curve. A run has failed where its loss is empty
    (FAILED), or NaN, infinite or beyond float32 (DIVERGED); a status that is given wins. Identical rows count once;
    of their costs, the first counts. Cells of inactive hyperparameters are not read.

    Args:
      path: a file that ends in .csv or .parquet.
      space: search space of all tasks.
      task: column of the task's name.
      loss: column of the loss, in raw units.
      maximise: the column is a score; its negative is stored.
      fidelity: column of the fidelity, a number such as an epoch; without it each row is a whole run.
      group: column of the data set that a task is made of; tasks of one group are never split. By default each task
        is its own.
      cost: column of the cost of a row, in any unit; may be empty.
      status: column of `ok`, `diverged` or `failed`; may be empty.
      name: of the archive; by default the file's, without its ending.

    Raises:
      StoreError: when the file cannot be read or is too large.
      DataError: when what it holds is not sound.
    """
    path = Path(path)
    name = path.stem if name is None else name
    roles = {"task": task, "loss": loss, "fidelity": fidelity, "group": group, "cost": cost, "status": status}
    roles = {role: column for role, column in roles.items() if column is not None}
    _check_roles(space, roles)
    table = read_columns(path, [*space, *roles.values()])
    columns = {role: table[column] for role, column in roles.items()}
    bases = _bases(columns)
    u = _coordinates(table, space)
    values, state = _outcomes(columns["loss"], columns.get("status"), maximise)
    points, point = np.ones(1), np.zeros(len(u), np.int64)
    if fidelity is not None:
        points, point = np.unique(columns["fidelity"].parse(_fidelity), return_inverse=True)
    run, first = _runs(columns["task"].codes, u)
    shape = (len(first), len(points))
    if math.prod(shape) > MAX_ROWS[EVALUATIONS]:
        raise StoreError(
            f"{path}: {shape[0]} configurations x {shape[1]} fidelities are more than {MAX_ROWS[EVALUATIONS]} cells; "
            "round the fidelities to fewer, or import fewer tasks at a time."
        )
    rows = _distinct(columns["loss"], run * shape[1] + point, values, state, at_a_fidelity=fidelity is not None)
    curves, costs = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    curves[run[rows], point[rows]] = values[rows]
    if fidelity is not None:
        _check_gaps(columns["fidelity"], curves, run, point, points)
    if cost is not None:
        costs[run[rows], point[rows]] = columns["cost"].parse(_cost)[rows]
    ended = np.full(len(first), Status.OK, np.int8)
    failed = rows[state[rows] != Status.OK][
        ::-1
    ]  # in the order of their fidelities, so that the first is assigned last
    ended[run[failed]] = state[failed]
    tasks, stop = [], 0
    for code, count in enumerate(np.bincount(columns["task"].codes[first])):
        start, stop = stop, stop + int(count)
        record = ArchivedTask(
            name=columns["task"].texts[code],
            base=bases[code],
            space=name,
            u=u[first[start:stop]],
            loss=curves[start:stop],
            status=ended[start:stop],
            group="" if group is None else bases[code],
            cost=None if cost is None else costs[start:stop],
        )
        tasks.append(record)
    archive = Archive(
        name=name,
        spaces={name: space},
        tasks=tuple(tasks),
        metric=f"negative {loss}" if maximise else loss,
        fidelity=tuple(points.tolist()),
        unit="whole runs" if fidelity is None else fidelity,
    )
    try:
        archive.validate()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return archive


def _check_roles(space: Space, roles: Mapping[str, str]) -> None:
    seen: dict[str, str] = {column: "a hyperparameter" for column in space}
    for role, column in roles.items():
        if column in seen:
            raise ConfigError(f"{role}: column {column!r} is {seen[column]} already; name another column.")
        seen[column] = f"the {role}"


def _bases(columns: Mapping[str, Column]) -> list[str]:
    """Base data set of each task: the task itself, or the one group of all its rows."""
    task, group = columns["task"], columns.get("group")
    for column in (task, group):
        if column is not None:
            for row, text in zip(_first_rows(column.codes), column.texts, strict=True):
                check_name(text, f"{column.where}, row {row + 1}, column {column.name!r}")
    if group is None:
        return task.texts
    own = group.codes[_first_rows(task.codes)]
    differs = group.codes != own[task.codes]
    if differs.any():
        row = int(np.argmax(differs))
        code = task.codes[row]
        expected = f"task {task.texts[code]!r} is of group {group.texts[own[code]]!r} in an earlier row"
        raise group.error(row, f"{expected}; a task has one group, so correct it or rename the task")
    return [group.texts[code] for code in own]


def _first_rows(codes: np.ndarray) -> np.ndarray:
    return np.unique(codes, return_index=True)[1]


# --- cells -----------------------------------------------------------------------------------------------------------


def _number(text: str) -> float:
    try:
        return float("" if "_" in text else text)  # Python reads 1_0 as 10
    except ValueError:
        raise ValueError("expected a number; correct the cell") from None


def _fidelity(text: str) -> float:
    value = _number(text)
    if not abs(value) < 2**63:
        raise ValueError("expected a finite number; correct the cell")
    return value


def _cost(text: str) -> float:
    value = _number(text or "nan")
    if value < 0 or abs(value) > np.finfo(np.float32).max:
        raise ValueError("expected a number from 0, or an empty cell where it is unknown; correct the cell")
    return value


def _loss(text: str) -> float:
    try:
        return _number(text or "nan")
    except ValueError:
        raise ValueError("expected a number; leave the cell empty where the run failed") from None


def _state(text: str) -> float:
    if text.lower() not in _STATES:
        raise ValueError("expected ok, diverged, failed or an empty cell; correct the cell")
    return _STATES[text.lower()]


def _coordinate(dimension: Dimension, lookup: Mapping[str | float, Any], text: str) -> float:
    """Coordinate of a cell, which the type of the hyperparameter says how to read."""
    if not text and text not in lookup:
        raise ValueError("fill it, since only an inactive hyperparameter may be empty")
    try:
        if isinstance(dimension, Choice):
            return dimension.encode(_chosen(lookup, text))
        value = _number(text)
        return dimension.encode(int(value) if isinstance(dimension, Int) and value.is_integer() else value)
    except SpaceError as error:
        raise ValueError(f"{str(error).rsplit(', got ', 1)[0]}; correct the cell or the space") from None


def _lookup(dimension: Dimension) -> dict[str | float, Any]:
    """Values of a choice by their text, truth values in lower case, and numbers also by value: 16.0 is 16."""
    values = dimension.values if isinstance(dimension, Choice) else ()
    texts = {str(v).lower() if isinstance(v, bool) else str(v).strip(): v for v in values}
    return {float(v): v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)} | texts


def _chosen(lookup: Mapping[str | float, Any], text: str) -> Any:
    if text in lookup:
        return lookup[text]
    if isinstance(truth := lookup.get(text.lower()), bool):
        return truth
    try:
        return lookup.get(_number(text), text)
    except ValueError:
        return text


def _coordinates(table: Mapping[str, Column], space: Space) -> np.ndarray:
    """Coordinates `[R, D]` float32 of all rows; 0.5 where inactive, whatever the cell holds."""
    complaints = {}
    u = np.empty((len(table[space.names[0]].codes), space.size), np.float32)
    for d, name in enumerate(space):
        reader: Callable[[str], float] = partial(_coordinate, space[name], _lookup(space[name]))
        values, complaints[name] = table[name].attempt(reader)
        u[:, d] = np.where(np.isnan(values), 0.5, values)[table[name].codes]
    active = np.asarray(space.active(jnp.asarray(u)))
    for d, name in enumerate(space):
        table[name].refuse(complaints[name], active[:, d])
    return np.where(active, u, np.float32(0.5))


def _outcomes(loss: Column, status: Column | None, maximise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Loss `[R]` float32, NaN where there is none, and status `[R]` int8 of each row."""
    with np.errstate(over="ignore"):
        values = (loss.parse(_loss) * (-1.0 if maximise else 1.0) + 0.0).astype(np.float32)  # + 0.0: no negative zero
    there = np.isfinite(values)
    empty = np.asarray([not text for text in loss.texts])[loss.codes]
    state = np.where(there, Status.OK, np.where(empty, Status.FAILED, Status.DIVERGED))
    if status is not None:
        given = status.parse(_state)
        state = np.where((given == Status.EMPTY) | ((given == Status.OK) & ~there), state, given)
    return np.where(there, values, np.float32(np.nan)), state.astype(np.int8)


# --- rows ------------------------------------------------------------------------------------------------------------


def _runs(tasks: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run of each row `[R]` and first row of each run; runs are ordered by task and then by first row."""
    keys = np.column_stack([tasks.astype(np.int32), u.view(np.int32)])
    whole = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1]))).ravel()
    _, first, run = np.unique(whole, return_index=True, return_inverse=True)
    order = np.lexsort((first, tasks[first]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[run.ravel()], first[order]


def _distinct(
    loss: Column, cells: np.ndarray, values: np.ndarray, state: np.ndarray, *, at_a_fidelity: bool
) -> np.ndarray:
    """First row of each cell, in the order of the cells; the others must say the same."""
    _, first, cell = np.unique(cells, return_index=True, return_inverse=True)
    twin = first[cell]
    same = (values == values[twin]) | (np.isnan(values) & np.isnan(values[twin]))
    differs = ~(same & (state == state[twin]))
    if differs.any():
        row = int(np.argmax(differs))
        what = "task, configuration and fidelity" if at_a_fidelity else "task and configuration"
        earlier = loss.texts[loss.codes[twin[row]]]
        hint = "" if at_a_fidelity else ", or name the column of the fidelity"
        fate = "" if state[row] == state[twin[row]] else f" ({Status(int(state[twin[row]])).name})"
        raise loss.error(
            row, f"row {twin[row] + 1} has {earlier!r}{fate} for the same {what}; average repetitions or drop one{hint}"
        )
    return first


def _check_gaps(fidelity: Column, curves: np.ndarray, run: np.ndarray, point: np.ndarray, points: np.ndarray) -> None:
    """Curves `[C, P]` may end early, but miss no fidelity before their last."""
    there = np.isfinite(curves)
    gaps = ~there[:, :-1] & there[:, 1:]
    if gaps.any():
        c, p = np.argwhere(gaps)[0]
        row = int(np.argmax((run == c) & (point == p + 1)))
        raise fidelity.error(
            row,
            f"the run has no loss at {points[p]:g}, which other runs have, and curves may only end early; "
            "add that row, or import the last fidelity of each run alone",
        )
