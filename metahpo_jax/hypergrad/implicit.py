"""Implicit differentiation at the end of the training (Bengio 2000; Lorraine, Vicol and Duvenaud 2020): for thousands of hyperparameters."""

import warnings
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax

from metahpo_jax.base import Array, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import Inner, advance, full_horizon, measured, unreached

FAR = 0.1  # a gradient of the inner loss beyond this share of its first one counts as far from convergence


def implicit(
    inner: Inner, *, solver: Literal["neumann", "cg"] = "cg", terms: int = 20, rate: float = 0.01, damping: float = 0.0
) -> HyperGrad:
    """dL/dtheta = (direct part) - v^T H^-1 d2 L_inner / dw dtheta, with v = dL/dw and H the Hessian of the inner loss at the trained weights.

    It assumes that the training has converged, and sees what changes the inner loss only: of a hyperparameter of the optimiser the gradient
    is 0 (a warning says so where `step` is traced). `info` is a dict: `info` what the loss measured, `converged` whether the gradient of the
    inner loss has fallen below `FAR` of its first norm (`fit` warns where most have not), `residual` the norm of v - H p over that of v.

    Args:
      solver: `neumann`, p = rate sum_j (1 - rate H)^j v over `terms` + 1 terms (Lorraine et al. 2020, algorithm 3; `rate` below 2 over the
        largest eigenvalue), or `cg`, at most `terms` steps of conjugate gradients (Pedregosa 2016), for inner losses that are convex around
        their minimum.
      damping: added to the diagonal of H.

    Raises:
      ConfigError: without an `inner_loss`, or for arguments out of range.
    """
    if inner.inner_loss is None:
        raise ConfigError(
            "implicit: inner has no inner_loss; give the training loss as a function of the weights, or use reverse."
        )
    if solver not in ("neumann", "cg") or terms < 1 or not rate > 0 or damping < 0:
        raise ConfigError(
            "implicit: expected solver 'neumann' or 'cg', terms of at least 1, a positive rate and no negative damping, got "
            f"{solver!r}, {terms}, {rate} and {damping}."
        )
    inner_loss = inner.inner_loss

    def estimate(key: Key, theta: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        init_key, step_key, loss_key = jax.random.split(key, 3)
        first = inner.init(init_key, theta, task)
        state = lax.stop_gradient(advance(inner, step_key, theta, first, task, 0, inner.horizon))
        weights = inner.weights(state)

        def slope(theta: PyTree, weights: PyTree) -> PyTree:
            return jax.grad(inner_loss, argnums=2)(step_key, theta, weights, task)

        def hessian(p: PyTree) -> PyTree:
            product = jax.jvp(lambda w: slope(theta, w), (weights,), (p,))[1]
            return jax.tree.map(lambda h, x: h + damping * x, product, p)

        _warn_of_the_unseen(slope, theta, weights)
        grad = jax.value_and_grad(
            lambda theta, state: measured(inner, loss_key, theta, state, task),
            argnums=(0, 1),
            has_aux=True,
            allow_int=True,
        )
        (value, info), (direct, of_state) = grad(theta, state)
        v = inner.weights(of_state)
        p = (
            _neumann(hessian, v, terms, rate)
            if solver == "neumann"
            else jax.scipy.sparse.linalg.cg(hessian, v, maxiter=terms, tol=1e-10)[0]
        )
        mixed = jax.grad(lambda theta: optax.tree.vdot(slope(theta, weights), lax.stop_gradient(p)))(theta)
        gradient = jax.tree.map(jnp.subtract, direct, mixed)
        at_first = optax.tree.norm(slope(theta, inner.weights(first)))
        left = optax.tree.norm(jax.tree.map(jnp.subtract, v, hessian(p)))
        found = {
            "info": info,
            "converged": (optax.tree.norm(slope(theta, weights)) <= FAR * at_first).astype(value.dtype),
            "residual": left / jnp.maximum(optax.tree.norm(v), jnp.finfo(value.dtype).tiny),
        }
        return value, gradient, found

    return full_horizon(estimate)


def _neumann(hessian, v: PyTree, terms: int, rate: float) -> PyTree:
    def add(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        term, total = carry
        term = jax.tree.map(lambda t, h: t - rate * h, term, hessian(term))
        return (term, jax.tree.map(jnp.add, total, term)), None

    (_, total), _ = lax.scan(add, (v, v), length=terms)
    return jax.tree.map(lambda x: rate * x, total)


def _warn_of_the_unseen(slope, theta: PyTree, weights: PyTree) -> None:
    """Names the leaves of `theta` that the inner loss's gradient does not depend on."""
    unseen = unreached(slope, theta, weights)
    if unseen:
        warnings.warn(
            f"implicit: the inner loss does not depend on {', '.join(unseen)}, a hyperparameter of the optimiser or of the loss alone; "
            "implicit differentiation does not see what it does to the training. Use forward, reverse or an evolution strategy for it.",
            stacklevel=2,
        )
