"""Reverse mode through the whole episode (Maclaurin et al. 2015; Franceschi et al. 2017, section 3.1): exact."""

import math

import jax

from metahpo_jax.base import Array, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import Inner, Loss, as_inner, episode, full_horizon


def reverse(inner: Inner | Loss) -> HyperGrad:
    """The exact gradient by `jax.value_and_grad`; memory is linear in the horizon, the cost that of a few trainings.

    Args:
      inner: the training, or a function `loss(key, theta, task)` in which all of it happens and which returns a scalar `[]`, or
        `(scalar, info)` with whatever else was measured.

    Raises:
      ConfigError: when the loss turns out not to be a scalar; raised where `step` is traced.

    >>> import jax.numpy as jnp
    >>> estimator = reverse(lambda key, theta, task: (theta - task) ** 2)
    >>> estimate, carry = estimator.step(jax.random.key(0), jnp.float32(3.0), (), jnp.float32(1.0))
    >>> float(estimate.loss), float(estimate.gradient), bool(estimate.done), carry
    (4.0, 4.0, True, ())
    """
    return _reverse(as_inner(inner), None)


def checkpointed(inner: Inner, *, segment: int | None = None) -> HyperGrad:
    """`reverse` that keeps the states between segments only and computes those within again (Chen et al. 2016, section 4.1).

    Args:
      segment: steps of a segment. Memory holds horizon / segment + segment states; the default, the square root of the horizon, is the
        least of that.

    Raises:
      ConfigError: for a segment that is not positive.
    """
    if segment is not None and segment < 1:
        raise ConfigError(
            f"checkpointed: segment must be at least 1, got {segment}; None takes the square root of the horizon."
        )
    return _reverse(inner, segment or max(1, math.isqrt(inner.horizon)))


def _reverse(inner: Inner, segment: int | None) -> HyperGrad:
    def estimate(key: Key, theta: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        def loss(theta: PyTree) -> tuple[Array, PyTree]:
            return episode(inner, key, theta, task, segment=segment)

        (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(theta)
        return value, gradient, info

    return full_horizon(estimate)
