"""HyperDistill (Lee et al. 2022): the hypergradient of a long training, distilled into one Jacobian-vector product per step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import Inner, Window, advance, check_sees, measured, split_floats


class Distilled(NamedTuple):
    """What stands for the whole way so far."""

    floats: list[Array]  # of the distilled state
    index: Array  # `[]` int32: the step whose minibatch is the distilled one
    key_data: Array  # of the key of that step
    scale: Array  # `[]`: the paper's theta, length of the second-order term per unit of sum_i gamma^i


def hyperdistill(inner: Inner, *, gamma: float = 0.99, scale: float | None = None) -> HyperGrad:
    """An update of `theta` in every inner step, with the influence of the whole way so far approximated.

    The hypergradient at step t is the direct part plus g = sum_i alpha A_t ... A_{i+1} B_i, with alpha = dL/dw, A the Jacobian of an update in
    the state and B that in `theta`. Taking A for gamma times the identity, g has the direction of alpha B at one distilled state and minibatch
    (section 4.2): the state is the running average of states with weights gamma^(t-i), the minibatch is kept with the same probability. Its
    length is scale (1 - gamma^t) / (1 - gamma).

    Args:
      gamma: in (0, 1): how much of an influence is left after one step.
      scale: length per unit; by default it is fitted when an episode begins (section 4.3, algorithm 2) along a training with the present
        `theta` on the way back over states interpolated between first and last (DrMAD, Fu et al. 2016), which costs about four
        trainings. The paper does that once every 50 episodes: hand in what was found before to do the same.

    Raises:
      ConfigError: for a gamma outside (0, 1), or (where `init` is traced) a part of `theta` that sets the initial state alone.
    """
    if not 0.0 < gamma < 1.0:
        raise ConfigError(f"hyperdistill: gamma must be between 0 and 1, got {gamma}; 0.99 is usual.")

    def update_of(key: Key, state: PyTree, task: PyTree, index: Array):
        """The floats of the next state as a function of `theta` and of this one's, by the key of that step."""
        _, joined = split_floats(state)

        def run(theta: PyTree, floats: list[Array]) -> list[Array]:
            return split_floats(inner.step(key, theta, joined(floats), task, index))[0]

        return run

    def alpha_of(key: Key, theta: PyTree, state: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree, list[Array]]:
        """Loss, what else was measured, and the derivatives in `theta` and in the floats of the state."""
        floats, joined = split_floats(state)

        def loss(theta: PyTree, floats: list[Array]) -> tuple[Array, PyTree]:
            return measured(inner, key, theta, joined(floats), task)

        (value, info), (direct, alpha) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(theta, floats)
        return value, info, direct, alpha

    def averaged(old: list[Array], new: list[Array], keep: Array) -> list[Array]:
        return [(keep * a + (1.0 - keep) * b).astype(a.dtype) for a, b in zip(old, new, strict=True)]

    def fitted_scale(key: Key, theta: PyTree, task: PyTree) -> Array:
        init_key, step_key, loss_key, pick_key = jax.random.split(key, 4)
        first = inner.init(init_key, theta, task)
        last = advance(inner, step_key, theta, first, task, 0, inner.horizon)
        _, _, _, alpha = alpha_of(loss_key, theta, last, task)
        began, ended = split_floats(first)[0], split_floats(last)[0]
        nothing = jax.tree.map(jnp.zeros_like, theta)

        def back(carry: tuple, s: Array) -> tuple[tuple, tuple[Array, Array]]:
            """With the s-th last step included: its part of g, and the distilled state of the last s steps."""
            beta, g, distilled, index = carry
            t = inner.horizon - s  # number of the update, from the state after t updates
            share = t / inner.horizon
            floats = [((1.0 - share) * a + share * b).astype(a.dtype) for a, b in zip(began, ended, strict=True)]
            run = update_of(jax.random.fold_in(step_key, t), last, task, t)
            _, pull = jax.vjp(run, theta, floats)
            of_theta, beta = pull(beta)
            g = jax.tree.map(jnp.add, g, of_theta)
            # The weights gamma^0 ... gamma^(s-1) of the last s states add up to (1 - gamma^s) / (1 - gamma).
            keep = (1.0 - gamma ** (s - 1.0)) / (1.0 - gamma**s)
            distilled = averaged(distilled, floats, keep)
            index = jnp.where(jax.random.uniform(jax.random.fold_in(pick_key, s)) < keep, index, t)
            kept = update_of(jax.random.fold_in(step_key, index), last, task, index)
            direction = unit(jax.vjp(lambda theta: kept(theta, distilled), theta)[1](alpha)[0])
            length = jnp.asarray((1.0 - gamma**s) / (1.0 - gamma))
            return (beta, g, distilled, index), (length, jnp.asarray(optax.tree.vdot(direction, g)))

        start = (alpha, nothing, ended, jnp.asarray(inner.horizon - 1, jnp.int32))
        _, (x, y) = lax.scan(back, start, jnp.arange(1, inner.horizon + 1, dtype=jnp.int32))
        return jnp.sum(x * y) / jnp.sum(x * x)

    def init(key: Key, theta: PyTree, task: PyTree) -> Window:
        state_key, scale_key = jax.random.split(key)
        state = inner.init(state_key, theta, task)
        check_sees("hyperdistill", inner, key, theta, lax.stop_gradient(state), task)
        floats = split_floats(state)[0]
        found = fitted_scale(scale_key, theta, task) if scale is None else jnp.asarray(scale, floats[0].dtype)
        zero = jnp.zeros((), jnp.int32)
        return lax.stop_gradient(Window(state, zero, Distilled(floats, zero, jax.random.key_data(key), found)))

    def step(key: Key, theta: PyTree, carry: Window, task: PyTree) -> tuple[Estimate, Window]:
        step_key, loss_key, pick_key = jax.random.split(key, 3)
        state, old = carry.state, carry.extra
        t = carry.index + 1
        keep = (gamma - gamma**t) / (1.0 - gamma**t)  # 0 in the first step
        distilled = averaged(old.floats, split_floats(state)[0], keep)
        is_kept = jax.random.uniform(pick_key) < keep
        index = jnp.where(is_kept, old.index, carry.index)
        key_data = jnp.where(is_kept, old.key_data, jax.random.key_data(step_key))
        new = inner.step(step_key, theta, state, task, carry.index)
        value, info, direct, alpha = alpha_of(loss_key, theta, new, task)
        run = update_of(jax.random.wrap_key_data(key_data), state, task, index)
        direction = unit(jax.vjp(lambda theta: run(theta, distilled), theta)[1](alpha)[0])
        length = old.scale * (1.0 - gamma**t) / (1.0 - gamma)
        gradient = jax.tree.map(lambda d, u: (d + length * u).astype(d.dtype), direct, direction)
        estimate = Estimate(loss=value, gradient=gradient, done=t >= inner.horizon, info=info)
        return estimate, Window(new, t, Distilled(distilled, index, key_data, old.scale))

    return HyperGrad(init, step)


def unit(tree: PyTree) -> PyTree:
    """The tree divided by its norm; zero stays zero."""
    norm = optax.tree.norm(tree)
    return jax.tree.map(lambda x: jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1.0), 0.0).astype(x.dtype), tree)
