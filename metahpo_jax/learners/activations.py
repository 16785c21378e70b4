"""Activations by traced index, so that configurations with different ones share a program."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array

ACTIVATIONS = ("relu", "tanh", "silu", "gelu")
_SLOPE = (0.0, 2.0, 1.0, 1.702)  # of the one sigmoid that the three smooth activations share


def activate(activation: Array, x: Array, among: tuple[str, ...] = ACTIVATIONS) -> Array:
    """One of `ACTIVATIONS` by traced index, through a single sigmoid s(a x): tanh is 2 s(2x) - 1, SiLU x s(x), and GELU x s(1.702 x)
    (Hendrycks and Gimpel 2016, section 2). All map 0 to 0. `among` says which can occur.
    """
    return with_slope(activation, x, among)[0]


def with_slope(activation: Array, x: Array, among: tuple[str, ...] = ACTIVATIONS) -> tuple[Array, Array]:
    """The activation and its derivative; `activation` is `[]`, or has the axes of `x` with length 1 where it does not vary."""
    positive, slope_of_relu = jax.nn.relu(x), (x > 0.0).astype(x.dtype)
    if among == ("relu",):
        return positive, slope_of_relu
    steep = jnp.asarray(_SLOPE, x.dtype)[activation]
    s = jax.nn.sigmoid(steep * x)
    is_relu, is_tanh = activation == 0, activation == 1
    value = jnp.where(is_tanh, 2.0 * s - 1.0, x * s)
    slope = jnp.where(is_tanh, 4.0 * s * (1.0 - s), s * (1.0 + steep * x * (1.0 - s)))
    return jnp.where(is_relu, positive, value), jnp.where(is_relu, slope_of_relu, slope)
