"""How fast small changes grow along a training: above 0 it is chaotic, and its exact gradients are of no use (Metz et al. 2021)."""

import math

import jax
import jax.numpy as jnp
import optax
from jax import lax

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.hypergrad.inner import Inner, split_floats

TOO_MUCH = 1e3


def growth(inner: Inner, key: Key, theta: PyTree, task: PyTree) -> Array:
    """Mean over the updates of the logarithm of what a random direction is stretched by, `[]`: an estimate of the largest Lyapunov exponent.

    Gradients of a horizon of n updates grow like exp(n growth). The cost is that of about two trainings.
    """
    init_key, step_key, direction_key = jax.random.split(key, 3)
    state = inner.init(init_key, theta, task)
    floats, _ = split_floats(state)
    direction = optax.tree.random_like(direction_key, floats, jax.random.normal)

    def one(carry: tuple[PyTree, list[Array], Array], index: Array) -> tuple[tuple[PyTree, list[Array], Array], None]:
        state, direction, total = carry
        floats, joined = split_floats(state)

        def update(floats: list[Array]) -> tuple[list[Array], PyTree]:
            new = inner.step(jax.random.fold_in(step_key, index), theta, joined(floats), task, index)
            return split_floats(new)[0], new

        _, direction, state = jax.jvp(update, (floats,), (direction,), has_aux=True)
        norm = optax.tree.norm(direction)
        # A direction that was contracted to nothing stays nothing: its logarithm is minus infinity, not a number all the same.
        return (
            state,
            jax.tree.map(lambda d: d / jnp.where(norm > 0, norm, 1.0), direction),
            total + jnp.log(norm),
        ), None

    unit = jax.tree.map(lambda d: d / optax.tree.norm(direction), direction)
    zero = jnp.zeros((), floats[0].dtype)
    (_, _, total), _ = lax.scan(one, (state, unit, zero), jnp.arange(inner.horizon, dtype=jnp.int32))
    return total / max(inner.horizon, 1)


def with_growth(hypergrad: HyperGrad, inner: Inner) -> HyperGrad:
    """The same estimator; its `info` becomes a dict that also holds `growth`, and `exploding`: whether that is too much.

    Too much is a factor of `TOO_MUCH` over the whole horizon; `fit` warns where most trainings have it. Each step of the estimator costs about
    two trainings of the whole horizon more, those of one window as well.
    """

    def step(key: Key, theta: PyTree, carry: PyTree, task: PyTree) -> tuple[Estimate, PyTree]:
        estimate, carry = hypergrad.step(key, theta, carry, task)
        own = estimate.info if isinstance(estimate.info, dict) else {"info": estimate.info}
        found = growth(inner, key, lax.stop_gradient(theta), task)
        exploding = ~(found * inner.horizon <= math.log(TOO_MUCH))  # also where it is not a number
        return estimate.replace(info=own | {"growth": found, "exploding": exploding.astype(found.dtype)}), carry

    return HyperGrad(hypergrad.init, step)
