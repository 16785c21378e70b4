"""Small batched linear algebra for Gaussian processes: jitter ladder, inverse factor, Gaussian log density."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array

LADDER = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # relative to the mean of the diagonal; the first that works is used


def factorise(k: Array) -> tuple[Array, Array]:
    """Lower Cholesky factor of `k [N, N]` and the jitter `[]` that was added to its diagonal.

    Climbs `LADDER` until the factor is finite; one that works at once costs one factorisation, under `vmap` too.
    Where every rung fails, the factor is that of the diagonal (of the identity, where that is not positive and
    finite) and the jitter is infinite: the flag of a model that must not be trusted.
    """
    n = k.shape[0]
    scale = jnp.trace(k) / n
    rungs = jnp.asarray(LADDER, k.dtype)
    eye = jnp.eye(n, dtype=k.dtype)

    def failed(carry):
        rung, chol = carry
        return (rung < len(LADDER)) & ~jnp.all(jnp.isfinite(chol))

    def climb(carry):
        rung, _ = carry
        return rung + 1, jax.lax.linalg.cholesky(k + rungs[rung] * scale * eye, symmetrize_input=False)

    rung, chol = jax.lax.while_loop(failed, climb, (jnp.zeros((), jnp.int32), jnp.full_like(k, jnp.nan)))
    usable = jnp.all(jnp.isfinite(chol))
    diagonal = jnp.diagonal(k)
    fallback = jnp.sqrt(jnp.where(jnp.isfinite(diagonal) & (diagonal > 0), diagonal, 1.0))
    chol = jnp.where(usable, chol, jnp.diag(fallback))
    return chol, jnp.where(usable, rungs[jnp.maximum(rung - 1, 0)] * scale, jnp.inf)


def lower_inverse(chol: Array) -> Array:
    """Inverse `[N, N]` of a lower triangular matrix, by doubling the size of inverted diagonal blocks.

    log2(N) rounds of batched products: at N = 64 ten times faster than LAPACK's triangular solve under `vmap` on a CPU,
    whose threads fight those of XLA.
    """
    n = chol.shape[0]
    size = 1 << max(n - 1, 0).bit_length()
    chol = jnp.pad(chol, (0, size - n)) + jnp.diag((jnp.arange(size) >= n).astype(chol.dtype))
    inverse = (1.0 / jnp.diagonal(chol))[:, None, None]  # `[blocks, width, width]`
    while (width := inverse.shape[1]) < size:
        half = size // (2 * width)
        below = chol.reshape(half, 2, width, half, 2, width)[jnp.arange(half), 1, :, jnp.arange(half), 0, :]
        upper, lower = inverse[0::2], inverse[1::2]
        corner = -_product(_product(lower, below), upper)
        top = jnp.concatenate([upper, jnp.zeros_like(upper)], axis=2)
        inverse = jnp.concatenate([top, jnp.concatenate([corner, lower], axis=2)], axis=1)
    return inverse[0, :n, :n]


@jax.custom_jvp
def gaussian_log_density(k: Array, residual: Array) -> Array:
    """`-1/2 r^T K^-1 r - 1/2 log det K`: log density of `residual [N]` under `k [N, N]`, without its constant.

    The derivative is analytic, `1/2 (a a^T - K^-1)` for K and `-a` for r with `a = K^-1 r`, rather than through the
    factorisation; the jitter counts as a constant. Where no jitter helps, the value is minus infinity.
    """
    return _density(k, residual)[0]


@gaussian_log_density.defjvp
def _gaussian_log_density_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    value, inverse, alpha = _density(*primals)
    k_dot, residual_dot = tangents
    precision = _product(inverse.T, inverse)
    slope = 0.5 * (alpha[:, None] * alpha[None, :] - precision)
    return value, jnp.sum(slope * k_dot) - jnp.dot(alpha, residual_dot)


def _density(k: Array, residual: Array) -> tuple[Array, Array, Array]:
    chol, jitter = factorise(k)
    inverse = lower_inverse(chol)
    white = inverse @ residual
    value = -0.5 * jnp.dot(white, white) - jnp.sum(jnp.log(jnp.diagonal(chol)))
    return jnp.where(jnp.isfinite(jitter), value, -jnp.inf), inverse, white @ inverse


def _product(a: Array, b: Array) -> Array:
    # Accelerators would otherwise multiply float32 in half precision, which no factorisation survives.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
