"""MAML learns hyperparameters and initial weights that are good on new tasks, and what it learned becomes a proposer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax import driver
from metahpo_jax.base import Evaluation, Status, no_candidates
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import Inner, Theta, forward, gradient_descent, regressor, truncated
from metahpo_jax.metalearners import adapt, configuration, maml, reptile, started_at
from metahpo_jax.proposers import random
from metahpo_jax.spaces import Choice, Float, Free, Space
from metahpo_jax.training import fit

FREE = Free(Space(learning_rate=Float(1e-3, 10.0, log=True)))


def quadratic(free: Free, steps: int = 3) -> Inner:
    """Gradient descent from 1 on curvature * w^2 / 2; the task is the curvature, and the best rate its inverse."""
    return Inner(
        init=lambda key, theta, task: jnp.ones((), jnp.float32),
        step=lambda key, theta, w, task, index: w - free.decode(theta.z)["learning_rate"] * task * w,
        loss=lambda key, theta, w, task: 0.5 * task * w**2,
        horizon=steps,
    )


@pytest.mark.parametrize(
    "estimator", ["auto", "reverse", lambda inner: truncated(inner, 1)], ids=["auto", "reverse", "truncated"]
)
def test_maml_learns_the_best_learning_rate_by_any_estimator(estimator):
    tasks = jnp.full(4, 2.0, jnp.float32)
    theta = Theta(FREE.encode({"learning_rate": 0.05}))
    learner = maml(quadratic(FREE), theta, tasks, estimator=estimator, rate=0.1)
    result = fit(learner, lambda key, data: data, jax.random.key(0), steps=200, chunk=100, data=tasks)
    found = FREE.config(learner.export(result.meta_state).z)["learning_rate"]
    np.testing.assert_allclose(found, 0.5, rtol=0.15)  # the loss is flat there: (1 - 2 rate)^6


def test_adaptation_moves_to_the_task_it_is_on(key):
    theta = Theta(FREE.encode({"learning_rate": 0.5}))
    adapted = jax.jit(
        lambda: adapt(forward(quadratic(FREE)), theta, jnp.asarray(5.0, jnp.float32), key, evaluations=6)
    )()
    assert adapted.loss.shape == (6,) and adapted.loss[-1] < adapted.loss[0] / 100
    rates = FREE.decode(adapted.z)["learning_rate"]
    np.testing.assert_allclose(rates[0], 0.5, rtol=1e-5)
    assert abs(rates[-1] - 0.2) < 0.1
    # A task that diverges does not move anything to where nothing is a number.
    broken = adapt(forward(quadratic(FREE)), theta, jnp.asarray(jnp.nan, jnp.float32), key, evaluations=3)
    assert np.isnan(broken.loss).all() and np.isfinite(broken.z["learning_rate"]).all()


def lines(key, shots: int = 8):
    """Linear functions of slopes around 2: training and validation data."""
    slope_key, x_key = jax.random.split(key)
    slope = 2.0 + 0.1 * jax.random.normal(slope_key, (4, 1, 1), jnp.float32)
    x = jax.random.normal(x_key, (4, 2 * shots, 1), jnp.float32)
    y = slope * x
    return (x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:])


@pytest.mark.parametrize("how", ["maml", "first order", "reptile"])
def test_initial_weights_are_learned_by_maml_its_first_order_form_and_reptile(how, key):
    problem = regressor((1, 1))
    steps = 3 if how == "reptile" else 1
    inner = gradient_descent(
        problem, None, steps=steps, fixed={"learning_rate": 0.05}, first_order=how == "first order"
    )
    theta = Theta({}, problem.init(key, jax.tree.map(lambda x: x[0], lines(key))))
    learner = maml(inner, theta, lines(key), estimator=reptile if how == "reptile" else "reverse", rate=0.05)
    result = fit(learner, lambda key, data: lines(key), jax.random.key(1), steps=300, chunk=100)
    ((weights, biases),) = learner.export(result.meta_state).weights
    np.testing.assert_allclose(weights, [[2.0]], atol=0.1)
    np.testing.assert_allclose(biases, [0.0], atol=0.1)


def test_what_was_learned_becomes_a_configuration_and_the_first_trial_of_a_proposer(key):
    space = Space(learning_rate=Float(1e-4, 1.0, log=True), optimiser=Choice("sgd", "adam"))
    theta = Theta(FREE.encode({"learning_rate": 0.02}))
    one = jnp.ones((), jnp.float32)
    evaluation = Evaluation(loss=one, cost=one, fidelity=one, status=jnp.asarray(int(Status.OK), jnp.int32))
    u = configuration(theta, FREE, {"optimiser": "adam"}, space)
    assert space.decode(u) == {"learning_rate": pytest.approx(0.02, rel=1e-4), "optimiser": "adam"}
    proposer = started_at(u, space, random(space))
    run, tried = driver.start(key, proposer, space.context(budget=3), 4), []
    for _ in range(3):
        proposal, run = driver.ask(key, proposer, run, no_candidates(space.size))
        run = driver.tell(proposer, run, proposal, evaluation)
        tried.append(np.asarray(proposal.u))
    np.testing.assert_allclose(tried[0], u, atol=1e-6)
    assert not np.allclose(tried[1], tried[0]) and not np.allclose(tried[2], tried[1])


def test_what_cannot_be_learned_is_refused(key):
    theta, tasks = Theta(FREE.encode({"learning_rate": 0.1})), jnp.ones(2, jnp.float32)
    with pytest.raises(ConfigError, match="reptile: theta holds no weights"):
        reptile(quadratic(FREE)).step(key, theta, (), tasks[0])
    with pytest.raises(ConfigError, match="expected auto, .* got 'exact'"):
        maml(quadratic(FREE), theta, tasks, estimator="exact")
