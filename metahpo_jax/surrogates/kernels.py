"""Stationary kernels as functions of the squared scaled distance: write one profile, the matrix form is shared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array

Kernel = Callable[[Array], Array]  # squared distance in units of the lengthscale -> correlation, elementwise


@jax.custom_jvp
def matern52(squared_distance: Array) -> Array:
    """Matern correlation of smoothness 5/2 (Rasmussen and Williams 2006, eq. 4.17); 1 at distance 0."""
    r = _root(5.0 * squared_distance)
    return (1.0 + r + r * r / 3.0) * jnp.exp(-r)


@matern52.defjvp
def _matern52_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # With respect to the *squared* distance the slope is finite at 0, where differentiating through the root gives NaN.
    (squared_distance,), (tangent,) = primals, tangents
    r = _root(5.0 * squared_distance)
    decay = jnp.exp(-r)
    return (1.0 + r + r * r / 3.0) * decay, -5.0 / 6.0 * (1.0 + r) * decay * tangent


def squared_exponential(squared_distance: Array) -> Array:
    """Squared-exponential (Gaussian, RBF) correlation; 1 at distance 0."""
    return jnp.exp(-0.5 * squared_distance)


def squared_distances(x: Array, z: Array) -> Array:
    """Squared Euclidean distances `[n, m]` of points `x [n, E]` and `z [m, E]`.

    The matrix form costs one product and has a product as its gradient: several times faster than differences of
    pairs. Both sets are centred on `x` first, which keeps the cancellation error near the rounding of the distances
    themselves.
    """
    centre = jnp.mean(x, axis=0, keepdims=True)
    x, z = x - centre, z - centre
    squares = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(z * z, axis=1)[None, :]
    product = jnp.matmul(x, z.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(squares - 2.0 * product, 0.0)


def _root(value: Array) -> Array:
    """Square root with a finite slope at 0 and below."""
    positive = value > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1.0)), 0.0)
