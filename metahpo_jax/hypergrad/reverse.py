"""Reverse mode through the whole episode (Maclaurin et al. 2015; Franceschi et al. 2017): exact, memory linear in the
horizon."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError


def reverse(loss: Callable[[Key, PyTree, PyTree], Array | tuple[Array, PyTree]]) -> HyperGrad:
    """The exact gradient of `loss(key, theta, task)` by `jax.value_and_grad`.

    Args:
      loss: returns a scalar `[]`, or `(scalar, info)` with whatever else was measured; all of the inner training
        happens in it.

    Raises:
      ConfigError: when the loss turns out not to be a scalar; raised where `step` is traced.

    >>> estimator = reverse(lambda key, theta, task: (theta - task) ** 2)
    >>> estimate, carry = estimator.step(jax.random.key(0), jnp.float32(3.0), (), jnp.float32(1.0))
    >>> float(estimate.loss), float(estimate.gradient), bool(estimate.done), carry
    (4.0, 4.0, True, ())
    """

    def init(key: Key, theta: PyTree, task: PyTree) -> PyTree:
        return ()

    def step(key: Key, theta: PyTree, carry: PyTree, task: PyTree) -> tuple[Estimate, PyTree]:
        def loss_and_info(theta: PyTree) -> tuple[Array, PyTree]:
            out = loss(key, theta, task)
            value, info = out if isinstance(out, tuple) else (out, ())
            if jnp.shape(value):
                raise ConfigError(
                    f"reverse: loss must return a scalar, got shape {jnp.shape(value)}; take the mean over the data."
                )
            return jnp.asarray(value), info

        (value, info), gradient = jax.value_and_grad(loss_and_info, has_aux=True)(theta)
        return Estimate(loss=value, gradient=gradient, done=jnp.asarray(True), info=info), carry

    return HyperGrad(init, step)
