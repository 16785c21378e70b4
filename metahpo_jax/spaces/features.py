"""What models see of a configuration: coordinates, one-hot blocks and columns of activity."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array
from metahpo_jax.spaces.dimensions import Choice, Dimension


class Columns(NamedTuple):
    """Where each of `F` columns comes from: the coordinate of its source unless `one_hot` or `activity` is set."""

    source: np.ndarray  # `[F]` int32 dimension
    count: np.ndarray  # `[F]` int32 levels of that dimension, 1 where it has a continuum
    level: np.ndarray  # `[F]` int32 level that a one-hot column stands for
    one_hot: np.ndarray  # `[F]` bool
    activity: np.ndarray  # `[F]` bool


def columns_of(dimensions: list[Dimension]) -> Columns:
    """The columns of a space: those of each dimension in turn, then the activity of the conditional ones."""
    rows = []
    for i, x in enumerate(dimensions):
        # An unordered choice of two needs one column only: the second is its complement.
        nominal = isinstance(x, Choice) and not x.ordered and x.levels > 2
        rows += [(i, max(x.levels, 1), k, nominal, False) for k in range(x.levels if nominal else 1)]
    rows += [(i, 1, 0, False, True) for i, x in enumerate(dimensions) if x.when is not None]
    source, count, level, one_hot, activity = (np.asarray(column) for column in zip(*rows, strict=True))
    return Columns(source.astype(np.int32), count.astype(np.int32), level.astype(np.int32), one_hot, activity)


@jax.jit
@functools.partial(jnp.vectorize, excluded={0}, signature="(d),(d)->(f)")
def features(columns: Columns, u: Array, active: Array) -> Array:
    """Features `[..., F]`, in the type of `u`, of coordinates `u [..., D]` and their activity `active [..., D]`."""
    source = jnp.asarray(columns.source)
    coordinate, is_active = u[source], active[source]
    level = jnp.clip(jnp.floor(coordinate * columns.count), 0, columns.count - 1)
    hot = (level == columns.level) & is_active
    plain = jnp.where(is_active, coordinate, 0.5)
    return jnp.where(columns.activity, is_active, jnp.where(columns.one_hot, hot, plain)).astype(u.dtype)
