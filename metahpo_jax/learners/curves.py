"""Training to a list of points, evaluating at each: the loop under every learner's `train`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array, Curve, PyTree


def train_to_points(
    advance: Callable[[Array, PyTree], PyTree],
    observe: Callable[[PyTree], Curve],
    states: PyTree,
    *,
    points: tuple[int, ...],
    micro: int,
    start: Array,
    stop: Array,
) -> tuple[PyTree, Curve]:
    """Runs micro-batches from sample `start` to sample `stop`, both traced, and observes at each of `points` between them.

    Args:
      advance: `(micro-step index, states) -> states`.
      observe: `states -> Curve` of `[C]` fields.
      states: pytree with leading axis `[C]`.
      points: `P` increasing numbers of samples, multiples of `micro`.

    Returns:
      States, and a Curve of `[C, P]`; points outside (start, stop] hold NaN and status EMPTY.
    """
    ends = jnp.asarray(points, jnp.int32)
    start, stop = jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32)
    blank = jax.tree.map(
        lambda x: jnp.full(x.shape, jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype),
        jax.eval_shape(observe, states),
    )

    def segment(states: PyTree, bounds: tuple[Array, Array]) -> tuple[PyTree, Curve]:
        low, high = (jnp.clip(b, start, stop) // micro for b in bounds)
        states = jax.lax.fori_loop(low, high, advance, states)
        here = (bounds[1] > start) & (bounds[1] <= stop)
        return states, jax.lax.cond(here, observe, lambda _: blank, states)

    # A last segment without a point, so that samples beyond the last point are trained on too: `stop` means what it says.
    beyond = jnp.full((1,), jnp.iinfo(jnp.int32).max, jnp.int32)
    lows = jnp.concatenate([jnp.zeros((1,), jnp.int32), ends])
    states, curve = jax.lax.scan(segment, states, (lows, jnp.concatenate([ends, beyond])))
    return states, jax.tree.map(lambda x: jnp.moveaxis(x[:-1], 0, 1), curve)
