"""The space as arrays: the traced half of the codec. One coordinate per hyperparameter, vectorised over dimensions.

Every function takes `SpaceArrays` and coordinates `u [..., D]`; the caller's leading axes pass through. Arithmetic has
the type of `u`. In float32 whole numbers are exact up to 2^24; levels closer than its resolution cannot be told apart.
"""

import enum
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from metahpo_jax.base import Array, SpaceArrays


class Kind(enum.IntEnum):
    """Type of a hyperparameter in `SpaceArrays.kind`."""

    FLOAT = 0
    INT = 1
    CHOICE = 2
    ORDINAL = 3


_over_leading_axes = functools.partial(jnp.vectorize, excluded={0}, signature="(d)->(d)")


@jax.jit
@_over_leading_axes
def values(space: SpaceArrays, u: Array) -> Array:
    """Natural values `[..., D]`: floats as they are, ints rounded, choices as their index."""
    u = jnp.clip(u, 0.0, 1.0)
    low, high = jnp.asarray(space.low, u.dtype), jnp.asarray(space.high, u.dtype)
    start, half = _log_axis(space, u.dtype)
    root = jnp.exp(u * half)
    on_log = (start * root) * root
    # Not low + u (high - low): that difference may be beyond float32.
    linear = low * (1.0 - u) + high * u
    continuous = jnp.where(space.log, on_log, linear)
    discrete = jnp.where(space.log, jnp.round(on_log), low + _linear_level(space, u))
    return jnp.clip(jnp.where(space.kind == Kind.FLOAT, continuous, discrete), low, high)


@jax.jit
@_over_leading_axes
def snap(space: SpaceArrays, u: Array) -> Array:
    """Moves discrete coordinates to their level's own: what `encode(decode(u))` gives. Floats are clipped to [0, 1].

    A log int's levels lie evenly in log(value); every other level i of n lies at (i + 0.5) / n. Constants sit at 0.5.
    Levels too close for the type of `u` stay where they are, so that snapping twice is the same as snapping once.
    """
    u = jnp.clip(u, 0.0, 1.0)
    start, half = _log_axis(space, u.dtype)
    value = jnp.where(space.log, values(space, u), 1.0)
    on_log = jnp.log(value / start) / jnp.where(half > 0, 2.0 * half, 1.0)
    count = jnp.maximum(space.n_choices, 1)
    centre = (_linear_level(space, u) + 0.5) / count
    per_unit = jnp.where(space.log, value * (1.0 + 2.0 * half), count)  # levels per unit of u, at most
    discrete = (space.kind != Kind.FLOAT) & (per_unit < 0.125 / jnp.finfo(u.dtype).eps)
    snapped = jnp.where(discrete, jnp.where(space.log, on_log, centre), u)
    constant = space.low == space.high
    return jnp.where(space.mask, jnp.where(constant, 0.5, snapped), 0.0).astype(u.dtype)


@jax.jit
@_over_leading_axes
def activity(space: SpaceArrays, u: Array) -> Array:
    """Activity mask `[..., D]`: a dimension is active when its parent is and holds one of the named values."""
    u = jnp.clip(u, 0.0, 1.0)
    level = jnp.where(space.log, values(space, u) - space.low, _linear_level(space, u))
    level = jnp.clip(level, 0, space.parent_values.shape[-1] - 1).astype(jnp.int32)
    parent_level = level[jnp.maximum(space.parent, 0)]
    met = jnp.asarray(space.parent_values)[jnp.arange(u.shape[0]), parent_level]
    active = jnp.asarray((met | (space.parent < 0)) & space.mask)
    ancestor = jnp.asarray(space.parent)
    for _ in range((u.shape[0] - 1).bit_length()):
        # Pointer doubling: inactivity travels twice as far up a chain of conditions with every pass.
        reachable = jnp.maximum(ancestor, 0)
        active = active & ((ancestor < 0) | active[reachable])
        ancestor = jnp.where(ancestor < 0, -1, ancestor[reachable])
    return active


def _log_axis(space: SpaceArrays, dtype: DTypeLike) -> tuple[Array, Array]:
    """Start of each log axis and half its width in log(value), `[D]` each; 1 and 0 where linear.

    An int's axis reaches half a unit beyond its bounds. Halves, because a quotient of bounds may be beyond float32.
    """
    edge = jnp.where(space.kind == Kind.FLOAT, 0.0, 0.5).astype(dtype)
    start = jnp.where(space.log, jnp.asarray(space.low, dtype) - edge, 1.0)
    stop = jnp.where(space.log, jnp.asarray(space.high, dtype) + edge, 1.0)
    return start, jnp.log(jnp.sqrt(stop) / jnp.sqrt(start))


def _linear_level(space: SpaceArrays, u: Array) -> Array:
    """Level `[D]`, counted from 0, of discrete coordinates that are not on a log axis; 0 for floats."""
    count = jnp.maximum(space.n_choices, 1)
    return jnp.minimum(jnp.floor(u * count), count - 1)
