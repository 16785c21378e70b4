"""Forward mode (Franceschi et al. 2017, section 3.2): derivatives travel with the state, so memory does not depend on the horizon."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from metahpo_jax.base import Array, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import Inner, Loss, advance, as_inner, episode, full_horizon, measured, split_floats


def forward(inner: Inner | Loss) -> HyperGrad:
    """The exact gradient, one tangent per entry of `theta`: for few hyperparameters, whatever the horizon.

    The cost is that of about (entries of `theta` + 1) trainings. The state itself is computed once for all tangents.
    """
    inner = as_inner(inner)

    def estimate(key: Key, theta: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        flat, unravel = ravel_pytree(theta)

        def along(direction: Array) -> tuple[Array, Array, PyTree]:
            return jax.jvp(
                lambda theta: episode(inner, key, theta, task), (theta,), (unravel(direction),), has_aux=True
            )

        basis = jnp.eye(flat.size, dtype=flat.dtype)
        loss, slopes, info = jax.vmap(along, out_axes=(None, 0, None))(basis)
        return loss, unravel(slopes), info

    return full_horizon(estimate)


def forward_sharing(inner: Inner, windows: int) -> HyperGrad:
    """Forward mode for hyperparameters that change over the training and are shared within windows of it (Micaelli and Storkey 2021, section 4).

    Every leaf of `theta` has a leading axis `[windows]`; updates of window w see `theta[w]`, `init` the first, `loss` the last. The gradient
    is not greedy: that of a window's hyperparameters is taken of the loss at the end of the horizon. Since each entry is shared by many steps,
    the noise of single steps averages out, and there are few tangents. Those of a window exist from its beginning on only.

    Raises:
      ConfigError: when the windows do not divide the horizon, or (where `step` is traced) a leaf has another leading axis.
    """
    if windows < 1 or inner.horizon % windows:
        raise ConfigError(
            f"forward_sharing: windows must divide the horizon of {inner.horizon} steps, got {windows}; take one of its divisors."
        )
    steps = inner.horizon // windows

    def estimate(key: Key, theta: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        wrong = [jnp.shape(leaf) for leaf in jax.tree.leaves(theta) if jnp.shape(leaf)[:1] != (windows,)]
        if wrong:
            raise ConfigError(
                f"forward_sharing: every leaf of theta needs a leading axis of {windows} windows, got shape {wrong[0]}."
            )
        init_key, step_key, loss_key = jax.random.split(key, 3)
        own = [jax.tree.map(lambda leaf, w=w: leaf[w], theta) for w in range(windows)]
        flat, unravel = ravel_pytree(own[0])
        basis = jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))

        def begin(theta: PyTree) -> tuple[list[Array], PyTree]:
            state = inner.init(init_key, theta, task)
            return split_floats(state)[0], state

        def grown(old: PyTree, new: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), old, new)

        _, tangents, state = jax.vmap(
            lambda d: jax.jvp(begin, (own[0],), (d,), has_aux=True), out_axes=(None, 0, None)
        )(basis)
        for w in range(windows):
            floats, joined = split_floats(state)

            def run(theta: PyTree, floats: list[Array], joined=joined, w=w) -> tuple[list[Array], PyTree]:
                end = advance(inner, step_key, theta, joined(floats), task, w * steps, steps)
                return split_floats(end)[0], end

            nothing = jax.tree.map(lambda x: jnp.zeros((flat.size, *x.shape), x.dtype), floats)
            still = jax.tree.map(lambda x, w=w: jnp.zeros((w * flat.size, *x.shape[1:]), x.dtype), basis)
            of_state = tangents if w == 0 else grown(tangents, nothing)

            def along(of_theta: PyTree, of_floats: list[Array], run=run, floats=floats, w=w):
                return jax.jvp(run, (own[w], floats), (of_theta, of_floats), has_aux=True)

            _, tangents, state = jax.vmap(along, out_axes=(None, 0, None))(grown(still, basis), of_state)
        floats, joined = split_floats(state)

        def last(theta: PyTree, floats: list[Array]) -> tuple[Array, PyTree]:
            return measured(inner, loss_key, theta, joined(floats), task)

        still = jax.tree.map(lambda x: jnp.zeros(((windows - 1) * flat.size, *x.shape[1:]), x.dtype), basis)
        loss, slopes, info = jax.vmap(
            lambda a, b: jax.jvp(last, (own[-1], floats), (a, b), has_aux=True), out_axes=(None, 0, None)
        )(grown(still, basis), tangents)
        return loss, jax.vmap(unravel)(slopes.reshape(windows, flat.size)), info

    return full_horizon(estimate)
