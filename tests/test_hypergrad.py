"""Hypergradients are derivatives: each estimator against finite differences, and its conduct where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import reverse


def inner_training(key, theta, task):
    """Validation loss of a linear model after 20 steps of SGD with momentum, whose rate, decay and momentum are
    `theta`."""
    x, y = task
    half = x.shape[0] // 2
    start = 0.1 * jax.random.normal(key, (x.shape[1],), x.dtype)

    def train_loss(w):
        return jnp.mean((jnp.tanh(x[:half] @ w) - y[:half]) ** 2) + jnp.exp(theta["log_decay"]) * jnp.sum(w**2)

    def update(carry, _):
        w, velocity = carry
        velocity = jax.nn.sigmoid(theta["momentum"]) * velocity + jax.grad(train_loss)(w)
        return (w - jnp.exp(theta["log_rate"]) * velocity, velocity), None

    (w, _), _ = jax.lax.scan(update, (start, jnp.zeros_like(start)), length=20)
    return jnp.mean((jnp.tanh(x[half:] @ w) - y[half:]) ** 2), {"norm": jnp.sum(w**2)}


def make_problem(dtype: type = np.float64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((30, 4)), dtype)
    y = jnp.tanh(x @ jnp.asarray(rng.standard_normal(4), dtype))
    theta = {
        "log_rate": jnp.asarray(-1.5, dtype),
        "log_decay": jnp.asarray(-4.0, dtype),
        "momentum": jnp.asarray(0.3, dtype),
    }
    return theta, (x, y)  # fmt: skip


def test_reverse_equals_central_differences(x64, key):
    theta, task = make_problem()
    estimator = reverse(inner_training)
    estimate, carry = jax.jit(estimator.step)(key, theta, estimator.init(key, theta, task), task)
    value = jax.jit(lambda theta: inner_training(key, theta, task)[0])
    h = 1e-5
    for name in theta:
        up, down = ({**theta, name: theta[name] + sign * h} for sign in (1, -1))
        difference = (value(up) - value(down)) / (2 * h)
        assert abs(difference) > 1e-4, "nothing to compare"
        np.testing.assert_allclose(estimate.gradient[name], difference, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(estimate.loss, value(theta), rtol=1e-12)
    assert carry == () and bool(estimate.done) and estimate.info["norm"] > 0


def test_over_tasks_by_vmap_equals_a_loop_and_a_diverged_task_is_not_finite(key):
    theta, (x, y) = make_problem(np.float32)
    tasks = (jnp.stack([x, x.at[0, 0].set(jnp.nan), 2 * x]), jnp.stack([y, y, y]))
    estimator = reverse(inner_training)
    step = jax.jit(lambda task: estimator.step(key, theta, (), task)[0])
    together = jax.jit(jax.vmap(step))(tasks)
    for i in range(3):
        alone = step(jax.tree.map(lambda leaf, i=i: leaf[i], tasks))
        np.testing.assert_allclose(together.loss[i], alone.loss, rtol=1e-5)
        np.testing.assert_allclose(together.gradient["log_rate"][i], alone.gradient["log_rate"], rtol=1e-4)
    assert np.isfinite(together.loss).tolist() == [True, False, True]
    assert np.isfinite(together.gradient["momentum"]).tolist() == [True, False, True]


def test_a_loss_that_is_no_scalar_is_refused(key):
    with pytest.raises(ConfigError, match=r"loss must return a scalar, got shape \(2,\)"):
        reverse(lambda key, theta, task: theta * jnp.ones(2)).step(key, jnp.float32(1), (), ())
