"""The inner training as pure functions of one task, and how it is unrolled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters.partial_eval import dce_jaxpr

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError

WRITTEN_OUT = 5  # updates; a loop of so few costs more than it does

Loss = Callable[[Key, PyTree, PyTree], Any]  # key, theta, task -> `[]`, or (`[]`, whatever else was measured)


class Inner(NamedTuple):
    """What hypergradients are taken through: `horizon` updates of a state, and then a loss of it.

    `loss` returns a scalar, or a scalar and a tree of whatever else was measured. `inner_loss` is what the training minimises over
    `weights(state)`, a part of the state; only implicit differentiation asks for it.
    """

    init: Callable[[Key, PyTree, PyTree], PyTree]  # key, theta, task -> state
    step: Callable[[Key, PyTree, PyTree, PyTree, Array], PyTree]  # key, theta, state, task, index `[]` -> state
    loss: Callable[[Key, PyTree, PyTree, PyTree], Any]  # key, theta, state, task
    horizon: int
    weights: Callable[[PyTree], PyTree] = lambda state: state
    inner_loss: Callable[[Key, PyTree, PyTree, PyTree], Array] | None = None  # key, theta, weights, task -> `[]`


def as_inner(inner: Inner | Loss) -> Inner:
    """An `Inner`, or a function `(key, theta, task) -> loss` in which the whole training happens, as an `Inner` without steps."""
    if isinstance(inner, Inner):
        return inner
    return Inner(
        init=lambda key, theta, task: (),
        step=lambda key, theta, state, task, index: state,
        loss=lambda key, theta, state, task: inner(key, theta, task),
        horizon=0,
    )


def windows_of(inner: Inner, window: int, name: str) -> int:
    """Number of windows of `window` steps in the horizon.

    Raises:
      ConfigError: when they do not fill it.
    """
    if window < 1 or inner.horizon % window or not inner.horizon:
        raise ConfigError(
            f"{name}: window must divide the horizon of {inner.horizon} steps, got {window}; take one of its divisors."
        )
    return inner.horizon // window


def advance(
    inner: Inner, key: Key, theta: PyTree, state: PyTree, task: PyTree, start: Array | int, steps: int, *, segment: int | None = None
) -> PyTree:  # fmt: skip
    """The state `steps` updates after update number `start`; with `segment`, only the states between segments are kept for the way back."""

    def one(state: PyTree, index: Array) -> tuple[PyTree, None]:
        return inner.step(jax.random.fold_in(key, index), theta, state, task, index), None

    def run(state: PyTree, indices: Array) -> tuple[PyTree, None]:
        return lax.scan(one, state, indices, unroll=len(indices) <= WRITTEN_OUT)[0], None

    indices = jnp.asarray(start, jnp.int32) + jnp.arange(steps, dtype=jnp.int32)
    if segment is None:
        return run(state, indices)[0]
    whole = steps - steps % segment
    state, _ = lax.scan(jax.checkpoint(run), state, indices[:whole].reshape(-1, segment))
    return jax.checkpoint(run)(state, indices[whole:])[0]


def measured(inner: Inner, key: Key, theta: PyTree, state: PyTree, task: PyTree) -> tuple[Array, PyTree]:
    """The loss `[]` and whatever else was measured.

    Raises:
      ConfigError: when the loss is not a scalar.
    """
    out = inner.loss(key, theta, state, task)
    value, info = out if isinstance(out, tuple) else (out, ())
    if jnp.shape(value):
        raise ConfigError(f"loss must return a scalar, got shape {jnp.shape(value)}; take the mean over the data.")
    return jnp.asarray(value), info


def episode(inner: Inner, key: Key, theta: PyTree, task: PyTree, *, segment: int | None = None) -> tuple[Array, PyTree]:
    """The loss at the end of a whole training, and whatever else was measured."""
    init_key, step_key, loss_key = jax.random.split(key, 3)
    state = inner.init(init_key, theta, task)
    state = advance(inner, step_key, theta, state, task, 0, inner.horizon, segment=segment)
    return measured(inner, loss_key, theta, state, task)


def full_horizon(estimate: Callable[[Key, PyTree, PyTree], tuple[Array, PyTree, PyTree]]) -> HyperGrad:
    """An estimator whose one step is a whole episode, of `estimate(key, theta, task) -> loss, gradient, info`."""

    def step(key: Key, theta: PyTree, carry: PyTree, task: PyTree) -> tuple[Estimate, PyTree]:
        loss, gradient, info = estimate(key, theta, task)
        return Estimate(loss=loss, gradient=gradient, done=jnp.asarray(True), info=info), carry

    return HyperGrad(lambda key, theta, task: (), step)


class Window(NamedTuple):
    """The carry of estimators that look at one window of steps at a time."""

    state: PyTree
    index: Array  # `[]` int32: updates done
    extra: PyTree = ()


def unreached(function: Callable[..., PyTree], theta: PyTree, *others: PyTree) -> list[str]:
    """Paths of the leaves of `theta` on which nothing of `function(theta, *others)` depends; it is traced, not run."""
    closed = jax.make_jaxpr(function)(theta, *others)
    _, used = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    paths = [jax.tree_util.keystr(path) or "theta" for path, _ in jax.tree_util.tree_leaves_with_path(theta)]
    return [path for path, reached in zip(paths, used, strict=False) if not reached]


def check_sees(name: str, inner: Inner, key: Key, theta: PyTree, state: PyTree, task: PyTree) -> None:
    """For estimators that take the state for a constant: raises ConfigError where a part of `theta` sets the initial state alone."""

    def seen(theta: PyTree) -> PyTree:
        return inner.step(key, theta, state, task, jnp.zeros((), jnp.int32)), inner.loss(key, theta, state, task)

    idle = unreached(lambda theta: inner.init(key, theta, task), theta)
    blind = [path for path in unreached(seen, theta) if path not in idle]
    if blind:
        raise ConfigError(
            f"{name}: theta{blind[0]} sets the initial state alone, which this estimator takes for a constant; learn it by reverse, "
            "forward or an evolution strategy."
        )


def split_floats(tree: PyTree) -> tuple[list[Array], Callable[[list[Array]], PyTree]]:
    """The leaves of a tree that have derivatives, and what puts them back among the others (counters, keys)."""
    leaves, structure = jax.tree.flatten(tree)
    real = [jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in leaves]

    def joined(floats: list[Array]) -> PyTree:
        remaining = iter(floats)
        return jax.tree.unflatten(
            structure, [next(remaining) if r else leaf for r, leaf in zip(real, leaves, strict=True)]
        )

    return [leaf for r, leaf in zip(real, leaves, strict=True) if r], joined
