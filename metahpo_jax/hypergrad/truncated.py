"""Gradients through a window of the training only, on the way (Shaban et al. 2019; Luketina et al. 2016): cheap, and short-sighted."""

import jax
import jax.numpy as jnp
from jax import lax

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.hypergrad.inner import Inner, Window, advance, check_sees, measured, windows_of


def truncated(inner: Inner, window: int) -> HyperGrad:
    """The gradient of the loss after each window of `window` steps through that window alone; the state at its beginning counts as constant.

    Biased towards what pays at once: learned learning rates come out too small (Wu et al. 2018). What `theta` does to the initial state is
    not seen.

    Raises:
      ConfigError: when the windows do not divide the horizon, or (where `init` is traced) a part of `theta` sets the initial state alone,
        as learned initial weights do.
    """
    windows_of(inner, window, "truncated")

    def init(key: Key, theta: PyTree, task: PyTree) -> Window:
        state = lax.stop_gradient(inner.init(key, theta, task))
        check_sees("truncated", inner, key, theta, state, task)
        return Window(state, jnp.zeros((), jnp.int32))

    def step(key: Key, theta: PyTree, carry: Window, task: PyTree) -> tuple[Estimate, Window]:
        step_key, loss_key = jax.random.split(key)

        def loss(theta: PyTree) -> tuple[Array, tuple[PyTree, PyTree]]:
            state = advance(inner, step_key, theta, lax.stop_gradient(carry.state), task, carry.index, window)
            value, info = measured(inner, loss_key, theta, state, task)
            return value, (state, info)

        (value, (state, info)), gradient = jax.value_and_grad(loss, has_aux=True)(theta)
        index = carry.index + window
        return Estimate(loss=value, gradient=gradient, done=index >= inner.horizon, info=info), Window(state, index)

    return HyperGrad(init, step)


def one_step(inner: Inner) -> HyperGrad:
    """The gradient through a single update (Luketina et al. 2016, section 3: T1-T2): `truncated` with windows of one step.

    For a hyperparameter of the training loss under plain gradient descent with rate r it is -r (dL_valid/dw) (d2 L_train / dw dtheta).
    """
    return truncated(inner, 1)
