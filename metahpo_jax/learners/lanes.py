"""The layers of `C` networks at once, with derivatives written for speed on a CPU: what `vmap` of the plain layers computes, faster.

Layout: feature-major, batch-last, `h [C, H, B] = W [C, H, F] @ x [C, F, B]`. Networks that share their input `x [F, B]` share one matrix
product. Sums over the batch are products with a vector of ones, because XLA adds along the last axis one number at a time.

Only reverse mode: what needs forward mode or second derivatives goes through the plain layers (`Learner.step`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from metahpo_jax.base import Array

# What follows was measured on x86-64 CPUs.
FEW = 4  # up to so many outputs are back-propagated by sums of outer products, which fuse with what follows
LONG = 128  # batches from which ...
PART = 16  # ... so many samples are better summed side by side than by a product with few rows
TILE = 8  # columns of a matrix product that cost no more than one


def over_lanes(values: Array) -> Array:
    """`[C]` as `[C, 1, 1]`, to be combined with `[C, H, B]`."""
    return values[:, None, None]


@jax.custom_vjp
def dense_shared(weights: Array, biases: Array, x: Array) -> Array:
    """`[C, H, B]` from weights `[C, H, F]`, biases `[C, H]` and inputs `[F, B]` that all lanes share; nothing is propagated to the inputs."""
    lanes, out, inputs = weights.shape
    return (weights.reshape(lanes * out, inputs) @ x).reshape(lanes, out, -1) + biases[:, :, None]


def _dense_shared_forward(weights: Array, biases: Array, x: Array) -> tuple[Array, Array]:
    return dense_shared(weights, biases, x), x


def _dense_shared_backward(x: Array, cotangent: Array) -> tuple[Array, Array, None]:
    lanes, out, batch = cotangent.shape
    rows, inputs = cotangent.reshape(lanes * out, batch), x.shape[0]
    if inputs % TILE == 0:
        of_biases = (rows @ jnp.ones((batch, 1), rows.dtype)).reshape(lanes, out)
        return (rows @ x.T).reshape(lanes, out, inputs), of_biases, None
    # The product works in tiles of columns: those that would be idle sum for the biases, whose input is always 1.
    columns = jnp.concatenate([x, jnp.ones((-inputs % TILE, batch), x.dtype)])
    both = (rows @ columns.T).reshape(lanes, out, -1)
    return both[:, :, :inputs], both[:, :, inputs], None


dense_shared.defvjp(_dense_shared_forward, _dense_shared_backward)


@jax.custom_vjp
def dense(weights: Array, biases: Array, x: Array) -> Array:
    """`[C, H, B]` from weights `[C, H, F]`, biases `[C, H]` and inputs `[C, F, B]`."""
    return lax.dot_general(weights, x, (((2,), (1,)), ((0,), (0,)))) + biases[:, :, None]


def _dense_forward(weights: Array, biases: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return dense(weights, biases, x), (weights, x)


def _dense_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, Array]:
    weights, x = residuals
    lanes, out, batch = cotangent.shape
    rows = cotangent.reshape(lanes * out, batch)
    of_biases = (rows @ jnp.ones((batch, 1), rows.dtype)).reshape(lanes, out)
    if out <= FEW:
        of_x = jnp.asarray(sum(weights[:, k, :, None] * cotangent[:, k, None, :] for k in range(out)))
    else:
        of_x = lax.dot_general(weights, cotangent, (((1,), (1,)), ((0,), (0,))))
    if out <= FEW and batch >= LONG and batch % PART == 0:
        parts = [slice(start, start + PART) for start in range(0, batch, PART)]
        total = jnp.asarray(sum(cotangent[:, :, None, part] * x[:, None, :, part] for part in parts))
        of_weights = (total.reshape(-1, PART) @ jnp.ones((PART, 1), rows.dtype)).reshape(weights.shape)
    else:
        of_weights = lax.dot_general(cotangent, x, (((2,), (2,)), ((0,), (0,))))
    return of_weights, of_biases, of_x


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def relu(z: Array) -> Array:
    """max(z, 0), whose derivative is read off its value: `z` need not be kept."""
    return jnp.maximum(z, 0.0)


def _relu_forward(z: Array) -> tuple[Array, Array]:
    value = relu(z)
    return value, value


def _relu_backward(value: Array, cotangent: Array) -> tuple[Array]:
    return (jnp.where(value > 0.0, cotangent, 0.0),)


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def pointwise(z: Array, value: Array, slope: Array) -> Array:
    """`value [C, H, B]`, declared to be a function of `z` with derivative `slope`: one product is then all that reverse mode does."""
    return value


def _pointwise_forward(z: Array, value: Array, slope: Array) -> tuple[Array, Array]:
    return value, slope


def _pointwise_backward(slope: Array, cotangent: Array) -> tuple[Array, None, None]:
    return cotangent * slope, None, None


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@jax.custom_vjp
def cross_entropy(logits: Array, target: Array, always: Array) -> Array:
    """Mean cross-entropy `[C]` in nats of logits `[C, K, B]` against distributions `target [C, K, B]`, which add up to 1 over K.

    `always` is a traced True that the compiler cannot see through: see `apart`.
    """
    return _cross_entropy_forward(logits, target, always)[0]


def _cross_entropy_forward(logits: Array, target: Array, always: Array) -> tuple[Array, Array]:
    def both(logits: Array, target: Array) -> tuple[Array, Array]:
        shifted = logits - jnp.max(logits, 1, keepdims=True)
        exponential = jnp.exp(shifted)
        total = jnp.sum(exponential, 1, keepdims=True)
        loss = jnp.mean(jnp.log(total[:, 0]) - jnp.sum(shifted * target, 1), -1)
        return loss, (exponential / total - target) / logits.shape[-1]

    return apart(always, both, logits, target)


def _cross_entropy_backward(slope: Array, cotangent: Array) -> tuple[Array, None, None]:
    return slope * over_lanes(cotangent), None, None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def apart(always: Array, function: Callable, *arguments: Array) -> Any:
    """`function(*arguments)`, computed on its own: XLA on a CPU would else fuse it into its users and compute it for each of their elements.

    An optimisation barrier does not stop it; a branch on a traced value does.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *arguments))
    return lax.cond(always, function, lambda *_: zeros, *arguments)
