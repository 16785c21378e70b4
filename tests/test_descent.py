"""Descent masks what diverges, clips at any scale, and keeps the episodes of estimators that go window by window."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bits, bowl, bowl_theta

from metahpo_jax.base import Estimate, HyperGrad
from metahpo_jax.errors import ConfigError, ObjectiveError
from metahpo_jax.hypergrad import Inner, nres, pes, reverse, truncated, with_growth
from metahpo_jax.metalearners.descent import descent
from metahpo_jax.training import fit


def spoiled(key, theta, task):
    """A clean quadratic, except for tasks whose first entry is marked as NAN, INF or ENDLESS."""
    mark = task[0]
    clean = jnp.sum((theta["w"] - jnp.where(mark >= NAN, 0.0, task)) ** 2)
    w = jnp.where(mark == ENDLESS, theta["w"], 1.0)
    value = jnp.where(mark == NAN, jnp.nan, jnp.where(mark == INF, jnp.inf, jnp.sum(jnp.sqrt(w - w))))
    return jnp.where(mark >= NAN, value, clean), {"distance": clean}


NAN, INF, ENDLESS = 1e3, 2e3, 3e3  # of the loss, of the loss, and of the gradient of a finite loss
SPOILED = descent(reverse(spoiled), bowl_theta, optax.adam(0.1), max_norm=1.0)


@pytest.fixture(scope="module")
def spoiled_step():
    return jax.jit(SPOILED.step)


@pytest.mark.parametrize("mark", [NAN, INF, ENDLESS])
def test_a_diverged_task_is_left_out_of_mean_norm_and_clip(mark, key, spoiled_step):
    good = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)), jnp.float32)
    bad = jnp.full((1, 3), mark, jnp.float32)
    state = SPOILED.init(key)
    expected, clean = spoiled_step(key, state, good)
    found, metrics = spoiled_step(key, state, jnp.concatenate([good[:1], bad, good[1:]]))
    chex.assert_trees_all_close((found.theta, found.opt_state), (expected.theta, expected.opt_state), rtol=1e-6)
    assert (metrics.finite, metrics.tasks) == (3, 4)
    np.testing.assert_allclose(metrics.loss, clean.loss, rtol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, clean.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(metrics.info["distance"], clean.info["distance"], rtol=1e-6)
    assert clean.gradient_norm > 1.0, "the clip is not at work"


def test_without_a_finite_task_nothing_moves(key, spoiled_step):
    state, _ = spoiled_step(key, SPOILED.init(key), jnp.ones((3, 3), jnp.float32))
    found, metrics = spoiled_step(key, state, jnp.full((3, 3), NAN, jnp.float32))
    assert bits((found.theta, found.opt_state)) == bits((state.theta, state.opt_state))
    assert metrics.finite == 0 and np.isnan(metrics.loss) and found.step == 2


def test_the_clip_holds_at_any_scale(key):
    given = HyperGrad(
        lambda key, theta, task: (),
        lambda key, theta, carry, task: (Estimate(jnp.float32(0), task, jnp.asarray(True)), carry),
    )
    learner = descent(given, lambda key: jnp.zeros(3, jnp.float32), optax.sgd(1.0), max_norm=0.5)
    step = jax.jit(learner.step)
    for scale in (0.0, 1e-30, 0.25, 1.0, 1e25, 2e38):
        gradients = jnp.tile(jnp.asarray([[0.6, 0.0, 0.8]], jnp.float32) * scale, (5, 1))
        found, metrics = step(key, learner.init(key), gradients)
        expected = -np.asarray([0.6, 0.0, 0.8]) * min(scale, 0.5)
        np.testing.assert_allclose(found.theta, expected, rtol=1e-5, atol=1e-37)
        np.testing.assert_allclose(metrics.gradient_norm, scale, rtol=1e-5)


def test_descent_refuses_what_it_cannot_do(key):
    with pytest.raises(ConfigError, match="max_norm must be a positive number or None, got 0"):
        descent(reverse(bowl), bowl_theta, optax.adam(0.05), max_norm=0)
    with_carry = HyperGrad(lambda key, theta, task: jnp.zeros(()), reverse(bowl).step)
    learner = descent(with_carry, bowl_theta, optax.sgd(0.1), max_norm=None)
    with pytest.raises(ConfigError, match="give an example batch as tasks"):
        learner.step(key, learner.init(key), jnp.zeros((2, 3), jnp.float32))


# --- estimators that go through an episode window by window ---


def lines(horizon: int) -> Inner:
    """The state goes on by theta in every step; the loss is its square distance from the task."""
    return Inner(
        init=lambda key, theta, task: jnp.zeros((), jnp.float32),
        step=lambda key, theta, state, task, index: state + theta,
        loss=lambda key, theta, state, task: ((state - task) ** 2, {"state": state}),
        horizon=horizon,
    )


def test_a_slot_takes_a_new_task_where_its_episode_is_done_and_nowhere_else(key):
    tasks = jnp.asarray([1.0, 2.0], jnp.float32)
    learner = descent(
        truncated(lines(4), 2), lambda key: jnp.asarray(0.5, jnp.float32), optax.sgd(0.0), max_norm=None, tasks=tasks
    )
    state, step = learner.init(key), jax.jit(learner.step)
    seen = []
    for number in range(5):
        state, metrics = step(key, state, tasks + 10 * number)
        seen.append((np.asarray(state.slots.tasks).tolist(), state.slots.done.tolist(), float(metrics.info["state"])))
    first, third, last = [1.0, 2.0], [21.0, 22.0], [41.0, 42.0]
    assert seen == [
        (first, [False] * 2, 1.0), (first, [True] * 2, 2.0), (third, [False] * 2, 1.0), (third, [True] * 2, 2.0), (last, [False] * 2, 1.0),
    ]  # fmt: skip


def test_an_episode_that_diverges_ends_at_once(key):
    tasks = jnp.asarray([1.0, jnp.inf], jnp.float32)
    learner = descent(
        truncated(lines(4), 2), lambda key: jnp.asarray(0.5, jnp.float32), optax.sgd(0.1), max_norm=1.0, tasks=tasks
    )
    state, metrics = jax.jit(learner.step)(key, learner.init(key), tasks)
    assert state.slots.done.tolist() == [False, True] and int(metrics.finite) == 1
    assert np.isfinite(state.theta)


@pytest.mark.parametrize(
    ("make", "fixed_point"),
    [(lambda i: truncated(i, 1), 0.8), (lambda i: nres(i, 2, sigma=0.01), 0.6), (lambda i: pes(i, 2, sigma=0.01), 0.6)],
    ids=["truncated", "nres", "pes"],
)
def test_window_by_window_estimators_learn_through_fit_and_resume_bit_by_bit(make, fixed_point, tmp_path):
    """The state after k steps is k theta, the target 2: where each estimator's gradient is 0 on average over the windows is known."""
    tasks = jnp.full(8, 2.0, jnp.float32)
    learner = descent(
        make(lines(4)), lambda key: jnp.asarray(0.0, jnp.float32), optax.adam(0.02), max_norm=None, tasks=tasks
    )
    settings = {"chunk": 50, "identity": "lines", "data": tasks}
    whole = fit(learner, lambda key, data: data, jax.random.key(0), steps=300, **settings)
    np.testing.assert_allclose(learner.export(whole.meta_state), fixed_point, atol=0.06)
    assert whole.metrics.loss[-8:].mean() < whole.metrics.loss[:8].mean()
    path = tmp_path / "c"
    fit(learner, lambda key, data: data, jax.random.key(0), steps=100, checkpoint=path, **settings)
    resumed = fit(learner, lambda key, data: data, jax.random.key(0), steps=300, checkpoint=path, **settings)
    assert bits(resumed) == bits(whole)


def test_episodes_that_always_diverge_before_their_end_stop_fit(key):
    """Three of four windows are finite, and yet no episode is."""
    broken = lines(8)._replace(
        step=lambda key, theta, state, task, index: jnp.where(index >= 7, jnp.nan, state + theta)
    )
    tasks = jnp.ones(4, jnp.float32)
    learner = descent(
        truncated(broken, 2), lambda key: jnp.asarray(0.1, jnp.float32), optax.sgd(0.01), max_norm=1.0, tasks=tasks
    )
    with pytest.raises(ObjectiveError, match="over half of the tasks"):
        fit(learner, lambda key, data: data, key, steps=24, chunk=8, data=tasks)


def test_fit_warns_of_what_an_estimator_raises_the_alarm_about(key):
    chaotic = Inner(
        init=lambda key, theta, task: jnp.ones((), jnp.float32),
        step=lambda key, theta, state, task, index: 3.0 * state,
        loss=lambda key, theta, state, task: theta * 1e-8 * state,
        horizon=10,
    )
    learner = descent(
        with_growth(reverse(chaotic), chaotic), lambda key: jnp.asarray(1.0, jnp.float32), optax.sgd(0.1), max_norm=1.0
    )
    with pytest.warns(RuntimeWarning, match="small changes grow too much along most inner trainings"):
        fit(learner, lambda key, data: jnp.zeros(2, jnp.float32), key, steps=2, chunk=2)


def test_fit_warns_of_inner_trainings_that_end_far_from_convergence(key):
    def step(key, theta, carry, task):
        info = {"converged": (task < 1.5).astype(jnp.float32)}
        return Estimate(jnp.sum(theta**2), 2.0 * theta, jnp.asarray(True), info), carry

    far = HyperGrad(lambda key, theta, task: (), step)
    learner = descent(far, lambda key: jnp.ones(2, jnp.float32), optax.sgd(0.1), max_norm=None)
    with pytest.warns(RuntimeWarning, match="end far from convergence"):
        fit(learner, lambda key, data: jnp.asarray([1.0, 2.0, 3.0], jnp.float32), key, steps=4, chunk=2)
    fit(learner, lambda key, data: jnp.asarray([1.0, 1.0, 3.0], jnp.float32), key, steps=4, chunk=2)  # no warning


@pytest.mark.parametrize("number", [15, 16, 21])
def test_many_tasks_are_differentiated_a_few_at_a_time_with_the_same_result(key, number):
    tasks = jnp.arange(number, dtype=jnp.float32)
    hypergrad = reverse(lambda key, theta, task: jnp.sum((theta - task) ** 2) + jax.random.normal(key, (), jnp.float32))
    learner = descent(hypergrad, lambda key: jnp.zeros(2, jnp.float32), optax.sgd(0.5), max_norm=None)
    state, metrics = learner.step(key, learner.init(key), tasks)
    np.testing.assert_allclose(state.theta, np.full(2, tasks.mean()), rtol=1e-5)
    keys = jax.random.split(key, (2, number))[1]
    expected = [hypergrad.step(k, jnp.zeros(2, jnp.float32), (), t)[0].loss for k, t in zip(keys, tasks, strict=True)]
    np.testing.assert_allclose(metrics.loss, np.mean(expected), rtol=1e-5)


def test_devices_that_share_the_tasks_find_what_one_finds() -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from metahpo_jax import configure, fit
configure(devices=2)
import jax, numpy as np, optax
from metahpo_jax.hypergrad import reverse
from metahpo_jax.metalearners import descent
from helpers import bowl, bowl_theta
tasks = jax.random.normal(jax.random.key(1), (6, 3))
for devices in (None, jax.devices()):
    learner = descent(reverse(bowl), bowl_theta, optax.sgd(0.1), max_norm=1.0, devices=devices)
    result = fit(learner, lambda key, data: data, jax.random.key(0), steps=5, chunk=2, data=tasks)
    print(result.metrics.loss.tobytes().hex(), np.asarray(result.meta_state.theta["w"]).tobytes().hex())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(Path(__file__).parent)], env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (loss, theta), (shared_loss, shared_theta) = (
        [np.frombuffer(bytes.fromhex(part), np.float32) for part in line.split()] for line in done.stdout.splitlines()
    )
    np.testing.assert_allclose(shared_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(shared_theta, theta, rtol=1e-6)


def test_tasks_that_devices_cannot_share_evenly_are_refused(key) -> None:
    learner = descent(reverse(bowl), bowl_theta, optax.sgd(0.1), max_norm=None, devices=jax.devices() * 2)
    with pytest.raises(ConfigError, match="2 devices cannot share 3 tasks evenly"):
        learner.step(key, learner.init(key), jnp.zeros((3, 3), jnp.float32))
