"""A Gaussian process whose mean and kernel were learned on other tasks (HyperBO: Wang et al. 2021, 2024).

The prior, a neural mean and a Matern kernel on features and a learned embedding of them, is fixed at tuning time. Tasks differ in
location and scale, so a new task's are inferred from what has been told, jointly with the prior: y = a + s f, f ~ GP(theta).
"""

import jax
import jax.numpy as jnp
from flax import struct

from metahpo_jax.base import Array, Context, Key, PyTree, Surrogate
from metahpo_jax.history import History
from metahpo_jax.nets import Net, tower
from metahpo_jax.spaces import Space
from metahpo_jax.surrogates import exact
from metahpo_jax.surrogates.exact import Model, Parameters, Posterior
from metahpo_jax.surrogates.targets import told

WIDTHS, EMBEDDING = (32, 32), 4
NEWTON_STEPS = 20


class PretrainedTheta(struct.PyTreeNode):
    """What pre-training learned: the prior, and how large tasks' scales are."""

    params: Parameters
    log_scale: Array  # `[]` mean over the training tasks of log standard deviation of the loss
    log_scale_spread: Array  # `[]` standard deviation of it


def network(space: Space) -> Net:
    """Features `[n, F]` -> mean `[n, 1]` and embedding `[n, EMBEDDING]`, side by side."""
    return tower(space.n_features, WIDTHS, 1 + EMBEDDING)


def prior_model(space: Space) -> Model:
    """Neural mean; kernel inputs are the features followed by the learned embedding, each with its own lengthscale."""
    net = network(space)

    def mean(params: Parameters, x: Array) -> Array:
        return params.constant + net.apply(params.network, x)[:, 0]

    def embed(params: Parameters, x: Array) -> Array:
        return jnp.concatenate([x, net.apply(params.network, x)[:, 1:]], axis=1)

    return Model(mean=mean, embed=embed)


def prior_init(space: Space, key: Key) -> Parameters:
    """Where pre-training starts: a nearly flat mean, lengthscales of the size of the cube's diagonal, little noise."""
    inputs = space.n_features + EMBEDDING
    return Parameters(
        log_lengthscale=jnp.full((inputs,), 0.5 * jnp.log(1.0 * space.n_features), jnp.float32),
        log_outputscale=jnp.zeros((), jnp.float32),
        log_noise=jnp.full((), -4.0, jnp.float32),
        constant=jnp.zeros((), jnp.float32),
        network=network(space).init(key),
    )


def pretrained(theta: PretrainedTheta, space: Space) -> Surrogate:
    """Surrogate of a pre-trained prior. Nothing of it is fitted to the new task but the location and scale of its losses."""
    model = prior_model(space)

    def init(key: Key, context: Context) -> Parameters:
        del key, context
        return theta.params

    def fit(key: Key, params: Parameters, history: History, context: Context) -> Posterior:
        del key, params, context
        loss, mask = told(history)
        x = jax.vmap(space.features)(history.u, history.active)
        shift, scale = location_and_scale(model, theta, x, loss, mask)
        return exact.condition_on(model, theta.params, x, (loss - shift) / scale, mask, shift=shift, scale=scale)

    return Surrogate(
        init=init,
        fit=fit,
        predict=lambda posterior, x: exact.predict(model, posterior, x),
        sample=lambda key, posterior, x: exact.sample(model, key, posterior, x),
        condition=lambda posterior, x, y: exact.append(model, posterior, x, y),
    )


def location_and_scale(model: Model, theta: PretrainedTheta, x: Array, y: Array, mask: Array) -> tuple[Array, Array]:
    """The most probable location `[]` and scale `[]` of a task given its losses `y [N]` at `x [N, F]` where `mask [N]`.

    With t = 1 / s and b = a / s, the density of y is that of t y - b under the prior, times t^n. Location is flat a priori, log s normal
    as it was over the training tasks. For fixed t the best b is a weighted mean; what is left is concave in log t, by Newton's method.
    """
    posterior = exact.condition_on(model, theta.params, x, y, mask)
    order = jnp.argsort(~mask, stable=True)
    mask, y = mask[order], jnp.where(mask, y, 0.0)[order]
    n = jnp.sum(mask, dtype=y.dtype)

    def whiten(v: Array) -> Array:
        return posterior.inverse @ jnp.where(mask, v, 0.0)

    ones, mean = whiten(jnp.ones_like(y)), whiten(model.mean(theta.params, posterior.x))
    weight = jnp.maximum(ones @ ones, 1e-12)

    def project(v: Array) -> Array:
        return v - ones * (ones @ v) / weight

    # In units of the expected scale, so that float32 holds any unit of the loss.
    unit = jnp.exp(theta.log_scale)
    values, prior = project(whiten(y / unit)), project(mean)
    a, b = values @ values, values @ prior
    precision = 1.0 / jnp.square(theta.log_scale_spread)

    def newton(_: int, log_t: Array) -> Array:
        t = jnp.exp(log_t)
        slope = a * t * t - b * t - jnp.maximum(n - 1.0, 0.0) + precision * log_t
        curvature = 2.0 * a * t * t - b * t + precision
        return log_t - jnp.clip(slope / jnp.maximum(curvature, precision), -1.0, 1.0)

    log_t = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros((), y.dtype))
    scale = unit * jnp.exp(-log_t)
    at = ones @ (whiten(y / scale) - mean) / weight
    return jnp.where(n > 0, at * scale, 0.0), scale


def theta_template(space: Space) -> PyTree:
    """A theta of the right structure, shapes and types, for reading checkpoints."""
    zero = jnp.zeros((), jnp.float32)
    return PretrainedTheta(prior_init(space, jax.random.key(0)), zero, zero + 1.0)
