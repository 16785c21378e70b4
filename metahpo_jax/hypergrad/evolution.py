"""Evolution strategies: gradients of a smoothed loss from perturbed trainings, for what has no derivative or only a chaotic one.

Perturbations come in antithetic pairs that share all other randomness. In all of them L(theta) is replaced by its mean under normal
perturbations of `theta` with standard deviation `sigma`; they differ in how long one perturbation lasts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.inner import (
    Inner,
    Loss,
    Window,
    advance,
    as_inner,
    episode,
    full_horizon,
    measured,
    windows_of,
)


class Pairs(NamedTuple):
    """What the pairs of an episode remember; leaves `[pairs, ...]` like `theta`."""

    noise: PyTree  # standard normal, of the window or episode under way
    total: PyTree  # sum of the noises of the windows so far


def full_es(inner: Inner | Loss, *, sigma: float = 0.1, pairs: int = 8) -> HyperGrad:
    """One perturbation per training (Salimans et al. 2017; Metz et al. 2019): unbiased for the smoothed loss, with no use made of the way there.

    Raises:
      ConfigError: for a sigma or a number of pairs that is not positive.
    """
    _check("full_es", sigma, pairs)
    inner = as_inner(inner)

    def estimate(key: Key, theta: PyTree, task: PyTree) -> tuple[Array, PyTree, PyTree]:
        noise_key, key = jax.random.split(key)
        noise = normal(noise_key, theta, pairs)
        losses, info = jax.vmap(lambda t: episode(inner, key, t, task))(both_sides(theta, noise, sigma))
        return mean_finite(losses), slope(losses, noise, sigma), jax.tree.map(mean_finite, info)

    return full_horizon(estimate)


def pes(inner: Inner, window: int, *, sigma: float = 0.1, pairs: int = 8) -> HyperGrad:
    """Persistent evolution strategies (Vicol, Metz and Sohl-Dickstein 2021, algorithm 2): a new perturbation in every window.

    The loss after each window is weighted with the sum of all perturbations so far, which corrects for what earlier ones did: without bias
    for the smoothed sum of the losses of an episode's windows, with a variance that grows with their number. The first one sets the initial
    state as well.
    """
    return shared_noise(inner, window, period=window, sigma=sigma, pairs=pairs, name="pes")


def nres(inner: Inner, window: int, *, sigma: float = 0.1, pairs: int = 8) -> HyperGrad:
    """Noise-reuse evolution strategies (Li et al. 2023, algorithm 2): one perturbation for all windows of an episode, an update after each.

    Without bias for the smoothed sum of the losses of an episode's windows; its variance does not grow with their number.
    """
    return shared_noise(inner, window, period=inner.horizon, sigma=sigma, pairs=pairs, name="nres")


def es_single(inner: Inner, window: int, *, sigma: float = 0.1, pairs: int = 8) -> HyperGrad:
    """ES-Single (Vicol 2023, algorithm 1): the estimator of `nres`, found at the same time, under its other name."""
    return shared_noise(inner, window, period=inner.horizon, sigma=sigma, pairs=pairs, name="es_single")


def shared_noise(
    inner: Inner, window: int, *, period: int, sigma: float = 0.1, pairs: int = 8, name: str = "shared_noise"
) -> HyperGrad:
    """Generalised persistent evolution strategies (Li et al. 2023, section 3): a new perturbation every `period` steps, an estimate per window.

    A step returns the gradient of the loss at the end of one window; the sum over an episode estimates the gradient of the sum.

    Raises:
      ConfigError: when windows do not divide the period, periods the horizon, or a number is not positive.
    """
    _check(name, sigma, pairs)
    windows_of(inner, window, name)
    if period % window or inner.horizon % period:
        raise ConfigError(
            f"{name}: period must be a multiple of the window {window} that divides the horizon {inner.horizon}, got {period}."
        )

    def init(key: Key, theta: PyTree, task: PyTree) -> Window:
        noise_key, key = jax.random.split(key)
        noise = normal(noise_key, theta, pairs)
        states = jax.vmap(lambda t: inner.init(key, t, task))(both_sides(theta, noise, sigma))
        return Window(states, jnp.zeros((), jnp.int32), Pairs(noise, noise))

    def step(key: Key, theta: PyTree, carry: Window, task: PyTree) -> tuple[Estimate, Window]:
        noise_key, step_key, loss_key = jax.random.split(key, 3)
        fresh = normal(noise_key, theta, pairs)
        renewed = (carry.index > 0) & (carry.index % period == 0)
        noise = jax.tree.map(lambda new, old: jnp.where(renewed, new, old), fresh, carry.extra.noise)
        total = jax.tree.map(lambda old, new: jnp.where(renewed, old + new, old), carry.extra.total, noise)

        def run(theta: PyTree, state: PyTree) -> tuple[PyTree, Array, PyTree]:
            state = advance(inner, step_key, theta, state, task, carry.index, window)
            return state, *measured(inner, loss_key, theta, state, task)

        states, losses, info = jax.vmap(run)(both_sides(theta, noise, sigma), carry.state)
        index = carry.index + window
        estimate = Estimate(
            loss=mean_finite(losses), gradient=slope(losses, total, sigma), done=index >= inner.horizon,
            info=jax.tree.map(mean_finite, info),
        )  # fmt: skip
        return estimate, Window(states, index, Pairs(noise, total))

    return HyperGrad(init, step)


def normal(key: Key, theta: PyTree, pairs: int) -> PyTree:
    """Standard normal numbers, `[pairs, ...]` for each leaf of `theta`."""
    return jax.vmap(lambda k: optax.tree.random_like(k, theta, jax.random.normal))(jax.random.split(key, pairs))


def both_sides(theta: PyTree, noise: PyTree, sigma: float) -> PyTree:
    """`theta` with each noise added and subtracted, `[2 pairs, ...]`."""
    return jax.tree.map(lambda t, n: jnp.concatenate([t[None] + sigma * n, t[None] - sigma * n]), theta, noise)


def slope(losses: Array, noise: PyTree, sigma: float) -> PyTree:
    """Mean over pairs of noise (L+ - L-) / (2 sigma), of `losses [2 pairs]`; over those that are finite, NaN where under half of them are.

    A mean over the few that survive would know nothing of the cliff that the others went over: such a task counts as diverged.
    """
    plus, minus = jnp.split(losses, 2)
    usable = jnp.isfinite(plus - minus)
    count = jnp.where(2 * jnp.sum(usable) >= len(usable), jnp.sum(usable), jnp.nan)
    weights = (jnp.where(usable, plus - minus, 0.0) / (2.0 * sigma * count)).astype(losses.dtype)
    return jax.tree.map(lambda n: jnp.tensordot(weights, n, 1).astype(n.dtype), noise)


def mean_finite(x: Array) -> Array:
    """Mean over the leading axis of what is finite, NaN where nothing is; other types than floats as they are."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.mean(x, axis=0)
    usable = jnp.isfinite(x)
    return jnp.where(jnp.any(usable, axis=0), jnp.mean(x, axis=0, where=usable), jnp.nan)


def _check(name: str, sigma: float, pairs: int) -> None:
    if not sigma > 0 or pairs < 1:
        raise ConfigError(f"{name}: sigma and pairs must be positive, got {sigma} and {pairs}; 0.1 and 8 are usual.")
