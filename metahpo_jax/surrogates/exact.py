"""Exact Gaussian-process regression on a padded, masked set of points: pure functions for `jit`, `scan` and `vmap`.

`N` is the capacity, `F` the number of features of a point, `E` that of its embedding. Masked rows hold an identity
row in the kernel matrix and a zero residual, and so contribute exactly nothing. Every function computes in the
precision of its arguments.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.surrogates.kernels import Kernel, matern52, squared_distances
from metahpo_jax.surrogates.linalg import factorise, gaussian_log_density, lower_inverse

MANY = 2048  # points
CUTS = (16, 32, 64, 128, 256, 512)


class Parameters(struct.PyTreeNode):
    """Hyperparameters of a Gaussian process, on the scale of standardised targets."""

    log_lengthscale: Array  # `[E]`
    log_outputscale: Array  # `[]` log of the signal's variance
    log_noise: Array  # `[]` log of the noise's variance
    constant: Array  # `[]` mean
    network: PyTree = ()  # weights of a learned mean or embedding


def constant_mean(params: Parameters, x: Array) -> Array:
    """Mean `[n]` that is the same at every point of `x [n, F]`."""
    return jnp.broadcast_to(params.constant, x.shape[:1])


def identity(params: Parameters, x: Array) -> Array:
    """The features `[n, F]` as they are."""
    del params
    return x


class Model(NamedTuple):
    """What is static about a Gaussian process. `mean` sees features; `embed` makes kernel inputs `[n, E]` of them."""

    kernel: Kernel = matern52
    mean: Callable[[Parameters, Array], Array] = constant_mean
    embed: Callable[[Parameters, Array], Array] = identity


class Posterior(struct.PyTreeNode):
    """A Gaussian process that has seen data. Observed points come first, in whatever order they were given."""

    params: Parameters
    x: Array  # `[N, F]`
    y: Array  # `[N]` targets on the model's scale, 0 where masked
    mask: Array  # `[N]` bool
    chol: Array  # `[N, N]` lower factor of the kernel matrix with noise and jitter
    inverse: Array  # `[N, N]` inverse of `chol`
    alpha: Array  # `[N]` kernel matrix solved for the residual
    shift: Array  # `[]` targets = shift + scale * the model's
    scale: Array  # `[]`
    jitter: Array  # `[]` what was added to the diagonal beyond the noise; infinite where no amount helped


def covariance(model: Model, params: Parameters, x: Array, z: Array) -> Array:
    """Prior covariance `[n, m]` of the noise-free function at `x [n, F]` and `z [m, F]`."""
    lengthscale = jnp.exp(params.log_lengthscale)[None, :]
    squared = squared_distances(model.embed(params, x) / lengthscale, model.embed(params, z) / lengthscale)
    return jnp.exp(params.log_outputscale) * model.kernel(squared)


def gram(model: Model, params: Parameters, x: Array, mask: Array) -> Array:
    """Covariance `[N, N]` of noisy observations at `x [N, F]`, with identity rows where masked."""
    x = jnp.where(mask[:, None], x, 0.0)  # whatever stands in masked rows, NaN included, must not reach the gradient
    off_diagonal = mask[:, None] & mask[None, :] & ~jnp.eye(x.shape[0], dtype=bool)
    # The distance of a point to itself is exactly 0, which the matrix form gives only to rounding.
    own = jnp.exp(params.log_outputscale) + jnp.exp(params.log_noise)
    return jnp.where(off_diagonal, covariance(model, params, x, x), 0.0) + jnp.diag(jnp.where(mask, own, 1.0))


def log_marginal_likelihood(params: Parameters, x: Array, y: Array, mask: Array, *, model: Model = Model()) -> Array:  # noqa: B008 - immutable
    """Log density `[]`, in nats, of targets `y [N]` at `x [N, F]` where `mask [N]`; -inf where no jitter helps."""
    x = jnp.where(mask[:, None], x, 0.0)
    residual = jnp.where(mask, y - model.mean(params, x), 0.0)
    n = jnp.sum(mask, dtype=x.dtype)
    return gaussian_log_density(gram(model, params, x, mask), residual) - 0.5 * n * math.log(2.0 * math.pi)


def condition_on(
    model: Model,
    params: Parameters,
    x: Array,
    y: Array,
    mask: Array,
    *,
    shift: Array | float = 0.0,
    scale: Array | float = 1.0,
) -> Posterior:
    """The posterior given `y [N]` (on the model's scale, whatever where masked) at `x [N, F]` where `mask [N]`."""
    order = jnp.argsort(~mask, stable=True)  # observed rows first, so that `append` adds a last row
    x, y, mask = jnp.where(mask[:, None], x, 0.0)[order], jnp.where(mask, y, 0.0)[order], mask[order]
    chol, jitter = factorise(gram(model, params, x, mask))
    posterior = Posterior(
        params=params,
        x=x,
        y=y,
        mask=mask,
        chol=chol,
        inverse=lower_inverse(chol),
        alpha=jnp.zeros_like(y),
        shift=jnp.asarray(shift, y.dtype),
        scale=jnp.asarray(scale, y.dtype),
        jitter=jitter,
    )
    return _solve(model, posterior)


def predict(model: Model, posterior: Posterior, x: Array) -> tuple[Array, Array]:
    """Mean `[n]` and variance `[n]` of the noise-free function at `x [n, F]`, in units of the targets.

    Many points at once cost what has been observed, not what there is room for: observed rows come first, so the rest is cut
    off at the next power of two. (Under `vmap` all cuts would be computed: map over large pools instead.)
    """
    capacity = posterior.mask.shape[0]
    cuts = [size for size in CUTS if size < capacity] if x.shape[0] >= MANY else []
    if not cuts:
        return _predict(model, posterior, x)
    branch = jnp.searchsorted(jnp.asarray(cuts), jnp.sum(posterior.mask, dtype=jnp.int32))
    at = [lambda x, size=size: _predict(model, _cut(posterior, size), x) for size in (*cuts, capacity)]
    return jax.lax.switch(branch, at, x)


def _cut(posterior: Posterior, size: int) -> Posterior:
    """The posterior without rows beyond `size`, none of which is observed."""
    rows = {name: getattr(posterior, name)[:size] for name in ("x", "y", "mask", "alpha")}
    square = {name: getattr(posterior, name)[:size, :size] for name in ("chol", "inverse")}
    return posterior.replace(**rows, **square)


def _predict(model: Model, posterior: Posterior, x: Array) -> tuple[Array, Array]:
    mean, white = _project(model, posterior, x)
    prior = jnp.exp(posterior.params.log_outputscale)
    # Rounding may take the difference below what the precision can tell from 0.
    variance = jnp.maximum(prior - jnp.sum(white * white, axis=1), prior * jnp.finfo(x.dtype).eps)
    return posterior.shift + posterior.scale * mean, posterior.scale**2 * variance


def sample(model: Model, key: Key, posterior: Posterior, x: Array) -> Array:
    """One joint draw `[n]` of the noise-free function at `x [n, F]`, in units of the targets."""
    mean, white = _project(model, posterior, x)
    joint = covariance(model, posterior.params, x, x) - white @ white.T
    # Nearby points make the joint covariance singular: a jitter of the precision's own size spares climbing the ladder.
    nugget = 10.0 * jnp.finfo(x.dtype).eps * jnp.exp(posterior.params.log_outputscale)
    chol, _ = factorise(joint + nugget * jnp.eye(x.shape[0], dtype=x.dtype))
    draw = mean + chol @ jax.random.normal(key, x.shape[:1], x.dtype)
    return posterior.shift + posterior.scale * draw


def append(model: Model, posterior: Posterior, x: Array, y: Array) -> Posterior:
    """The posterior after one more observation `y []`, in units of the targets, at `x [F]`: a new row of the factor.

    Costs O(N^2). At full capacity there is no row left and the posterior stays as it is.
    """
    p, slot = posterior.params, jnp.sum(posterior.mask, dtype=jnp.int32)
    cross = jnp.where(posterior.mask, covariance(model, p, posterior.x, x[None, :])[:, 0], 0.0)
    row = posterior.inverse @ cross
    own = (
        jnp.exp(p.log_outputscale)
        + jnp.exp(p.log_noise)
        + jnp.where(jnp.isfinite(posterior.jitter), posterior.jitter, 0.0)
    )
    pivot = jnp.sqrt(jnp.maximum(own - jnp.dot(row, row), own * jnp.finfo(row.dtype).eps))
    here = jnp.arange(row.shape[0]) == slot
    put = lambda rows, new: rows.at[slot].set(new, mode="drop")  # noqa: E731
    grown = posterior.replace(
        x=put(posterior.x, x),
        y=put(posterior.y, (y - posterior.shift) / posterior.scale),
        mask=put(posterior.mask, True),
        chol=put(posterior.chol, jnp.where(here, pivot, row)),
        inverse=put(posterior.inverse, jnp.where(here, 1.0, -row @ posterior.inverse) / pivot),
    )
    return _solve(model, grown)


def _solve(model: Model, posterior: Posterior) -> Posterior:
    """The same posterior with `alpha` of its factor and targets."""
    residual = jnp.where(posterior.mask, posterior.y - model.mean(posterior.params, posterior.x), 0.0)
    return posterior.replace(alpha=(posterior.inverse @ residual) @ posterior.inverse)


def _project(model: Model, posterior: Posterior, x: Array) -> tuple[Array, Array]:
    """Mean `[n]` on the model's scale and whitened cross-covariance `[n, N]`: its squares are variance explained."""
    cross = covariance(model, posterior.params, x, posterior.x)
    cross = jnp.where(posterior.mask[None, :], cross, 0.0)
    mean = model.mean(posterior.params, x) + cross @ posterior.alpha
    return mean, jnp.matmul(cross, posterior.inverse.T, precision=jax.lax.Precision.HIGHEST)
