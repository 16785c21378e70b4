"""The one file that holds Flax modules. It exports pure `(init, apply)` pairs."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from metahpo_jax.base import Array, Key, PyTree


class Net(NamedTuple):
    """A module as pure functions: `init(key) -> params` and `apply(params, x [n, F]) -> [n, out]`."""

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array], Array]


class _Tower(nn.Module):
    widths: tuple[int, ...]
    out: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.widths:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.out)(x)


def tower(inputs: int, widths: tuple[int, ...], out: int) -> Net:
    """A tanh network from `inputs` features through `widths` to `out` numbers: smooth, as functions of hyperparameters are."""
    module = _Tower(widths, out)

    def init(key: Key) -> PyTree:
        return module.init(key, jnp.zeros((1, inputs), jnp.float32))["params"]

    def apply(params: PyTree, x: Array) -> Array:
        return jnp.asarray(module.apply({"params": params}, x))

    return Net(init, jax.named_call(apply, name="tower"))
