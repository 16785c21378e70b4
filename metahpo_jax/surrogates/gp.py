"""Gaussian-process surrogate of a loss: ARD kernel, dimension-scaled priors, maximum a posteriori fit in float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from metahpo_jax.base import Array, Context, Key, Surrogate
from metahpo_jax.history import History
from metahpo_jax.spaces import Space
from metahpo_jax.surrogates import exact
from metahpo_jax.surrogates.exact import Model, Parameters, Posterior
from metahpo_jax.surrogates.kernels import Kernel, matern52
from metahpo_jax.surrogates.precision import in_float64
from metahpo_jax.surrogates.targets import Squash, half_rank, standardise, told

TOLERANCE = 1e-3  # of the fit, in prior standard deviations and nats: finer ones change no proposal


class LogNormal(NamedTuple):
    """Log-normal prior of a positive hyperparameter by the mean and standard deviation of its logarithm.

    As a function of the logarithm, the density over the *value* is a Gaussian about `loc - scale**2`, the log of its
    mode.
    """

    loc: float
    scale: float

    @property
    def log_mode(self) -> float:
        """Logarithm of the most probable value."""
        return self.loc - self.scale**2


class Priors(NamedTuple):
    """Priors for standardised targets; that of the constant mean is standard normal."""

    lengthscale: LogNormal
    outputscale: LogNormal = LogNormal(0.5, 0.5**0.5)  # mode 1
    noise: LogNormal = LogNormal(-4.0, 1.0)


def dimension_scaled(dimensions: int) -> Priors:
    """Priors whose lengthscale grows with the root of the number of inputs, as distances do (Hvarfner et al. 2024)."""
    return Priors(LogNormal(math.sqrt(2.0) + 0.5 * math.log(dimensions), math.sqrt(3.0)))


def gp(
    space: Space,
    *,
    kernel: Kernel = matern52,
    squash: Squash = half_rank,
    priors: Priors | None = None,
    fit_steps: int = 16,
    restarts: int = 0,
    float64: bool = True,
) -> Surrogate:
    """A Gaussian process over `space.features` with a constant mean.

    Targets are the told losses (failures count as the worst), squashed by `squash` and standardised; predictions are
    of the squashed loss, which has the order of the loss and, with `as_told`, is the loss. Hyperparameters are fitted
    by at most `fit_steps` steps of BFGS from the best of the last fit, the prior's mode and `restarts` draws from the
    prior; a fit that is not finite leaves the start. `float64=False` fits in the precision of the inputs. `predict`
    is of the noise-free function.
    """
    model = Model(kernel=kernel)
    prior = priors or dimension_scaled(space.n_features)
    features = jax.vmap(space.features)

    def whiten(params: Parameters) -> Parameters:
        """In prior deviations from the mode: the penalty is half the squared norm, whose Hessian BFGS starts from."""
        return _rescale(params, prior, lambda value, p: (value - p.log_mode) / p.scale)

    def colour(white: Parameters) -> Parameters:
        return _rescale(white, prior, lambda value, p: p.log_mode + value * p.scale)

    def condition(starts: Parameters, x: Array, loss: Array, mask: Array) -> Posterior:
        y, shift, scale = standardise(squash(loss, mask), mask)

        def objective(white: Parameters, args: None) -> Array:
            del args
            penalty = 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(white))
            return penalty - exact.log_marginal_likelihood(colour(white), x, y, mask, model=model)

        scores = jax.vmap(objective, in_axes=(0, None))(starts, None)
        scores = jnp.where(jnp.isfinite(scores), scores, jnp.inf).astype(jnp.float32)
        best = jax.lax.argmin(scores, 0, jnp.int32)  # jax lowers `argmin` outside of float64 mode: 32-bit types only
        start = jax.tree.map(lambda leaf: leaf[best], starts)
        params = colour(_minimise(objective, start, fit_steps))
        return exact.condition_on(model, params, x, y, mask, shift=shift, scale=scale)

    condition = in_float64(condition) if float64 else condition

    def init(key: Key, context: Context) -> Parameters:
        del key, context
        zero = jnp.zeros((), jnp.float32)
        return colour(Parameters(jnp.zeros((space.n_features,), jnp.float32), zero, zero, zero))

    def fit(key: Key, params: Parameters, history: History, context: Context) -> Posterior:
        white = whiten(params)
        white = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0.0), white)
        flat, unravel = ravel_pytree(white)
        others = jnp.zeros((1, flat.size), jnp.float32)
        if restarts:
            others = jnp.concatenate([others, jax.random.normal(key, (restarts, flat.size), jnp.float32)])
        starts = jax.vmap(unravel)(jnp.concatenate([flat[None, :], others]))
        loss, mask = told(history)
        return condition(starts, features(history.u, history.active), loss, mask)

    return Surrogate(
        init=init,
        fit=fit,
        predict=lambda posterior, x: exact.predict(model, posterior, x),
        sample=lambda key, posterior, x: exact.sample(model, key, posterior, x),
        condition=lambda posterior, x, y: exact.append(model, posterior, x, y),
    )


def _rescale(params: Parameters, prior: Priors, move: Callable[[Array, LogNormal], Array]) -> Parameters:
    """The positive hyperparameters moved by their priors' location and scale; the constant's is standard already."""
    return params.replace(
        log_lengthscale=move(params.log_lengthscale, prior.lengthscale),
        log_outputscale=move(params.log_outputscale, prior.outputscale),
        log_noise=move(params.log_noise, prior.noise),
    )


def _minimise(objective: Callable[[Parameters, None], Array], start: Parameters, steps: int) -> Parameters:
    """Where BFGS gets from `start` in `steps` evaluations, never to a worse point; `start` where that is not finite."""
    import optimistix  # half a second, which importing the library should not cost

    solver = optimistix.BFGS(rtol=TOLERANCE, atol=TOLERANCE)
    found = optimistix.minimise(objective, solver, start, max_steps=steps, throw=False).value
    is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(found)]))
    return jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), found, start)
