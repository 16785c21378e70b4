"""Float64 inside a float32 program, under any nesting of `jit`, `scan` and `vmap`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from metahpo_jax.base import PyTree


def in_float64(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function` on arrays, computed in float64: floating inputs are cast up, floating outputs down to float32.

    A `vmap` outside a `scan` or `jit` rewrites the operations inside only after they were traced, where 64-bit types
    are off again and would silently become 32-bit. So batching is done by hand: the rule maps the function itself
    with 64-bit types on. Not differentiable from outside; take gradients inside. Keys must not be drawn from inside
    (the bits would depend on the flag).
    """

    @custom_vmap
    def computed(*args: Any) -> PyTree:
        with jax.enable_x64(True):
            # Inner `jit`: the outer call is traced anew where 64-bit types are off, its own jaxpr is not.
            return _cast(jax.jit(function)(*_cast(args, jnp.float64)), jnp.float32)

    @computed.def_vmap
    def _(size: int, batched: Any, *args: Any) -> tuple[PyTree, PyTree]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
        mapped = jax.vmap(function, in_axes=axes, axis_size=size)
        out = in_float64(mapped)(*args)
        return out, jax.tree.map(lambda _: True, out)

    return functools.wraps(function)(lambda *args: computed(*args))


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
