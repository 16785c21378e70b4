"""From the columns of a table to the arrays of an archive."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError, SpaceError
from metahpo_jax.spaces import Int, Space


def encode(space: Space, columns: Mapping[str, np.ndarray], where: str) -> np.ndarray:
    """Coordinates `[n, D]` float32 of natural values, one column `[n]` per hyperparameter: `space.encode` of every row.

    The codec itself runs once per distinct value. Inactive hyperparameters sit at 0.5, whatever their column holds there.

    Raises:
        DataError: starting with `where`; names the column that is missing or holds a value outside its range.
    """
    u = np.empty((len(next(iter(columns.values()))), space.size), np.float64)
    for d, name in enumerate(space):
        if name not in columns:
            raise DataError(f"{where}: column {name!r} is missing; got {', '.join(columns)}.")
        distinct, row = np.unique(columns[name], return_inverse=True)
        values = distinct.tolist()
        if isinstance(space[name], Int):  # files store whole numbers as floats
            values = [int(value) if float(value).is_integer() else value for value in values]
        try:
            u[:, d] = np.array([space[name].encode(value) for value in values])[row]
        except SpaceError as error:
            raise DataError(f"{where}, column {name!r}: {error}") from error
    return np.where(space.active(jnp.asarray(u, jnp.float32)), u, 0.5).astype(np.float32)


def end_at_divergence(loss: np.ndarray, reached: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Curves `[n, P]` float32 that are NaN from their first number on that is not finite, and their status `[n]` int8.

    A run of which `reached` points (`[n]`) were recorded diverged if one of these is not finite.
    """
    with np.errstate(over="ignore"):  # a loss beyond float32 counts as infinite
        loss = np.asarray(loss).astype(np.float32)
    lost = np.logical_or.accumulate(~np.isfinite(loss), axis=1)
    diverged = lost.argmax(1) < np.where(lost.any(1), reached, 0)
    return np.where(lost, np.float32(np.nan), loss), np.where(diverged, Status.DIVERGED, Status.OK).astype(np.int8)
