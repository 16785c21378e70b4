"""Acquisition functions against numerical integration, and in the tails where the plain formulas underflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from metahpo_jax import acquisitions
from metahpo_jax.base import Surrogate

ALL = [
    acquisitions.expected_improvement,
    acquisitions.log_expected_improvement,
    acquisitions.probability_of_improvement,
    acquisitions.lower_confidence_bound,
    acquisitions.upper_confidence_bound,
]


def log_improvement(z: float) -> float:
    """`log E max(z + e, 0)` of a standard normal `e`, with the density at `z` taken out so that nothing underflows."""
    width = max(1.0, -z)
    value, _ = integrate.quad(
        lambda s: s * np.exp((z * s) / width - 0.5 * (s / width) ** 2), 0, 80, epsabs=0, epsrel=1e-12, limit=500
    )
    return stats.norm.logpdf(z) + np.log(value) - 2 * np.log(width)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.4, 2.0])
@pytest.mark.parametrize("deviation", [0.1, 1.0, 3.0])
def test_expected_improvement_is_the_integral(mean, deviation, x64):
    best = 0.3
    exact, _ = integrate.quad(
        lambda f: (best - f) * stats.norm.pdf(f, mean, deviation),
        mean - 12 * deviation,
        best,
        points=[mean],
        epsabs=1e-14,
    )
    if mean - 12 * deviation > best:
        exact = 0.0
    arguments = jnp.asarray([mean]), jnp.asarray([deviation**2]), jnp.asarray(best)
    np.testing.assert_allclose(acquisitions.expected_improvement(*arguments), [exact], rtol=1e-8, atol=1e-12)
    chance = acquisitions.probability_of_improvement(*arguments)
    np.testing.assert_allclose(chance, [stats.norm.cdf((best - mean) / deviation)], rtol=1e-10)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-10)])
def test_log_expected_improvement_in_the_tails(dtype, tolerance, x64):
    z = np.asarray([-1e4, -1e3, -100, -38, -20, -10, -5, -3, -2.51, -2.5, -2.49, -2, -1, 0, 1, 5], dtype)
    zero, one = jnp.zeros(z.shape, dtype), jnp.ones(z.shape, dtype)
    value = acquisitions.log_expected_improvement(zero - z, one, jnp.zeros((), dtype))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, [log_improvement(float(v)) for v in z], rtol=tolerance, atol=tolerance)


def test_gradient_of_log_expected_improvement_in_the_tails():
    slope = jax.vmap(jax.grad(lambda m: acquisitions.log_expected_improvement(m[None], jnp.ones(1), jnp.zeros(()))[0]))
    mean = np.asarray([0.5, 2.4, 2.6, 8.0, 30.0, 100.0], np.float32)
    exact = [-np.exp(stats.norm.logcdf(-float(m)) - log_improvement(-float(m))) for m in mean]
    np.testing.assert_allclose(slope(jnp.asarray(mean)), exact, rtol=1e-3)


@pytest.mark.parametrize("acquisition", ALL)
def test_finite_at_the_edges_of_float32(acquisition):
    mean = jnp.asarray([0.0, 1e12, -1e12, 1.0, 1.0, 1e30], jnp.float32)
    variance = jnp.asarray([0.0, 1e24, 1e-24, 0.0, 1e-38, 1e-38], jnp.float32)
    score = acquisition(mean, variance, jnp.asarray(0.5, jnp.float32))
    assert score.shape == mean.shape and score.dtype == jnp.float32
    assert np.isfinite(score).all()


@pytest.mark.parametrize("acquisition", ALL)
def test_a_lower_mean_is_better(acquisition):
    score = acquisition(jnp.asarray([-0.5, 0.5, 1.5]), jnp.ones(3), jnp.zeros(()))
    assert score[0] > score[1] > score[2]


def test_confidence_bounds_differ_in_what_uncertainty_is_worth():
    mean, variance, best = jnp.zeros(2), jnp.asarray([1.0, 4.0]), jnp.zeros(())
    np.testing.assert_allclose(acquisitions.lower_confidence_bound(mean, variance, best), [2.0, 4.0])
    np.testing.assert_allclose(acquisitions.upper_confidence_bound(mean, variance, best, kappa=1.0), [-1.0, -2.0])


def test_scores_of_a_surrogate():
    surrogate = Surrogate(
        init=lambda key, context: (),
        fit=lambda key, params, history, context: (),
        predict=lambda posterior, x: (x[:, 0], jnp.ones(x.shape[:1])),
        sample=lambda key, posterior, x: 2.0 * x[:, 0],
        condition=lambda posterior, x, y: (),
    )
    x, key, best = jnp.asarray([[1.0], [3.0]]), jax.random.key(0), jnp.zeros(())
    score = acquisitions.marginal(acquisitions.expected_improvement)(key, surrogate, (), x, best)
    np.testing.assert_array_equal(score, acquisitions.expected_improvement(x[:, 0], jnp.ones(2), best))
    np.testing.assert_array_equal(acquisitions.thompson(key, surrogate, (), x, best), [-2.0, -6.0])
