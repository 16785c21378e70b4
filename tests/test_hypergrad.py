"""Hypergradients are derivatives: exact estimators against finite differences, the others against what they say they estimate."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax.base import HyperGrad
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import (
    Inner,
    checkpointed,
    es_single,
    estimator_of,
    forward,
    forward_sharing,
    full_es,
    growth,
    hyperdistill,
    implicit,
    nres,
    one_step,
    pes,
    reverse,
    shared_noise,
    truncated,
)  # fmt: skip


class Net(NamedTuple):
    """A network in training, with a counter that has no derivative."""

    weights: tuple
    velocity: tuple
    count: jax.Array


def tanh_network(horizon: int) -> Inner:
    """A tanh network under gradient descent with momentum; `theta` holds rate, decay, momentum and the scale of noise on the data."""

    def init(key, theta, task):
        first, second = jax.random.split(key)
        x = task[0]
        weights = (
            jax.random.normal(first, (x.shape[1], 6), x.dtype) / math.sqrt(x.shape[1]),
            jax.random.normal(second, (6,), x.dtype) / math.sqrt(6.0),
        )
        return Net(weights, jax.tree.map(jnp.zeros_like, weights), jnp.zeros((), jnp.int32))

    def error(weights, x, y):
        return jnp.mean((jnp.tanh(x @ weights[0]) @ weights[1] - y) ** 2)

    def halves(task):
        x, y = task
        half = x.shape[0] // 2
        return (x[:half], y[:half]), (x[half:], y[half:])

    def inner_loss(key, theta, weights, task):
        x, y = halves(task)[0]
        noisy = x + jnp.exp(theta["log_noise"]) * jax.random.normal(key, x.shape, x.dtype)
        return error(weights, noisy, y) + jnp.exp(theta["log_decay"]) * sum(jnp.sum(w**2) for w in weights)

    def step(key, theta, state, task, index):
        slope = jax.grad(inner_loss, argnums=2)(key, theta, state.weights, task)
        velocity = jax.tree.map(lambda v, g: jax.nn.sigmoid(theta["momentum"]) * v + g, state.velocity, slope)
        weights = jax.tree.map(lambda w, v: w - jnp.exp(theta["log_rate"]) * v, state.weights, velocity)
        return Net(weights, velocity, state.count + 1)

    def loss(key, theta, state, task):
        return error(state.weights, *halves(task)[1]), {"steps": state.count, "norm": jnp.sum(state.weights[1] ** 2)}

    return Inner(init, step, loss, horizon, weights=lambda state: state.weights, inner_loss=inner_loss)


def make_task(dtype: type = np.float64):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((30, 4)), dtype)
    return x, jnp.tanh(x @ jnp.asarray(rng.standard_normal(4), dtype))


def make_theta(dtype: type = np.float64):
    start = {"log_rate": -2.5, "log_decay": -4.0, "momentum": 0.3, "log_noise": -2.0}
    return {name: jnp.asarray(value, dtype) for name, value in start.items()}


# --- exact estimators ---

EXACT = {
    "reverse": reverse,
    "checkpointed, in segments that do not divide the horizon": lambda inner: checkpointed(inner, segment=7),
    "forward": forward,
}
SEEDS = 20


@pytest.mark.parametrize("horizon", [50])
def test_exact_estimators_equal_central_differences_for_every_hyperparameter(x64, horizon):
    inner, task, theta = tanh_network(horizon), make_task(), make_theta()
    keys = jax.random.split(jax.random.key(horizon), SEEDS)
    value = jax.jit(jax.vmap(lambda key, theta: reverse(inner).step(key, theta, (), task)[0].loss, (0, None)))
    h = 1e-5
    differences = {}
    for name in theta:
        up, down = (value(keys, {**theta, name: theta[name] + sign * h}) for sign in (1, -1))
        differences[name] = np.asarray((up - down) / (2 * h))
        assert np.median(np.abs(differences[name])) > 1e-7, "nothing to compare"
    for name, make in EXACT.items():
        estimator = make(inner)
        found = jax.jit(jax.vmap(lambda key, e=estimator: e.step(key, theta, e.init(key, theta, task), task)[0]))(keys)
        for entry, expected in differences.items():
            scale = np.abs(expected) + 1e-3 * np.abs(expected).max()  # differences of a loss have rounding of their own
            assert (np.abs(found.gradient[entry] - expected) / scale).max() < 1e-6, (name, entry)
        np.testing.assert_allclose(found.loss, value(keys, theta), rtol=1e-12)
        assert found.done.all() and (np.asarray(found.info["steps"]) == horizon).all()


def test_hyperparameters_shared_within_windows_have_the_gradients_of_reverse_mode(x64, key):
    windows, horizon = 5, 30
    inner, task = tanh_network(horizon), make_task()
    theta = jax.tree.map(lambda x: x + 0.1 * jnp.arange(windows), make_theta())

    def at(theta, index):
        return jax.tree.map(lambda x: x[index * windows // horizon], theta)

    unrolled = Inner(
        init=lambda key, theta, task: inner.init(key, at(theta, 0), task),
        step=lambda key, theta, state, task, index: inner.step(key, at(theta, index), state, task, index),
        loss=lambda key, theta, state, task: inner.loss(key, at(theta, horizon - 1), state, task),
        horizon=horizon,
    )
    expected = jax.jit(reverse(unrolled).step)(key, theta, (), task)[0]
    found = jax.jit(forward_sharing(inner, windows).step)(key, theta, (), task)[0]
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
    for name in theta:
        assert found.gradient[name].shape == (windows,)
        np.testing.assert_allclose(found.gradient[name], expected.gradient[name], rtol=1e-9, err_msg=name)


def test_forward_mode_needs_no_more_memory_for_ten_thousand_steps(key):
    task, theta = make_task(np.float32), make_theta(np.float32)

    def memory(make, horizon):
        step = jax.jit(lambda key, theta, task: make(tanh_network(horizon)).step(key, theta, (), task))
        analysis = step.lower(key, theta, task).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    few = memory(forward, 100)
    assert memory(forward, 10_000) <= few + 8 * 10_000  # the numbers of the steps
    all_states = memory(reverse, 10_000)
    assert all_states > 100 * few and memory(checkpointed, 10_000) < all_states / 50


# --- those that see a part of the way ---


def test_truncated_is_the_derivative_through_one_window_and_one_step_that_of_one_update(x64, key):
    inner, task, theta, window = tanh_network(12), make_task(), make_theta(), 4
    estimator = truncated(inner, window)
    carry = estimator.init(key, theta, task)
    step = jax.jit(estimator.step)
    done = []
    for number in range(3):
        now, state = jax.random.fold_in(key, number), carry.state
        estimate, carry = step(now, theta, carry, task)
        done.append(bool(estimate.done))

        def through(theta, state=state, now=now, number=number):
            step_key, loss_key = jax.random.split(now)
            for i in range(number * window, (number + 1) * window):
                state = inner.step(jax.random.fold_in(step_key, i), theta, state, task, jnp.asarray(i))
            return inner.loss(loss_key, theta, state, task)[0]

        for name in theta:
            up, down = (through({**theta, name: theta[name] + sign * 1e-5}) for sign in (1, -1))
            np.testing.assert_allclose(estimate.gradient[name], (up - down) / 2e-5, rtol=1e-6, atol=1e-10)
    assert done == [False, False, True] and int(carry.state.count) == 12


def test_one_step_is_the_formula_of_its_paper(x64, key):
    """-r v^T d2 L / dw dtheta, for plain gradient descent and a hyperparameter of the training loss."""
    rate, w, task = 0.1, jnp.asarray([0.5, -1.0]), jnp.asarray([1.0, 2.0])

    def inner_loss(w, theta):
        return jnp.sum((w - task) ** 4) + jnp.exp(theta) * jnp.sum(w**2)

    inner = Inner(
        init=lambda key, theta, task: w,
        step=lambda key, theta, w, task, index: w - rate * jax.grad(inner_loss)(w, theta),
        loss=lambda key, theta, w, task: jnp.sum(jnp.sin(w)),
        horizon=3,
    )
    theta = jnp.asarray(-1.0)
    estimator = one_step(inner)
    found = estimator.step(key, theta, estimator.init(key, theta, task), task)[0].gradient
    after = w - rate * jax.grad(inner_loss)(w, theta)
    mixed = jax.jacfwd(jax.grad(inner_loss), argnums=1)(w, theta)
    np.testing.assert_allclose(found, -rate * jnp.cos(after) @ mixed, rtol=1e-10)


def test_hyperdistill_is_exact_where_the_past_fades_as_it_assumes(x64, key):
    """An update w' = gamma w + theta has A = gamma I everywhere: the fitted length is then exact at the end of the episode."""
    gamma, horizon = 0.9, 20
    target = jnp.asarray([1.0, -2.0, 3.0])
    inner = Inner(
        init=lambda key, theta, task: jnp.zeros(3),
        step=lambda key, theta, w, task, index: gamma * w + theta,
        loss=lambda key, theta, w, task: 0.5 * jnp.sum((w - task) ** 2) + jnp.sum(theta**2),
        horizon=horizon,
    )
    theta = jnp.asarray([0.1, 0.3, -0.2])
    estimator = hyperdistill(inner, gamma=gamma)
    carry = estimator.init(key, theta, target)
    step = jax.jit(estimator.step)
    for number in range(horizon):
        estimate, carry = step(jax.random.fold_in(key, number), theta, carry, target)
        assert bool(estimate.done) == (number == horizon - 1)
    exact = reverse(inner).step(key, theta, (), target)[0]
    np.testing.assert_allclose(estimate.gradient, exact.gradient, rtol=1e-9)
    np.testing.assert_allclose(estimate.loss, exact.loss, rtol=1e-12)


def test_hyperdistill_keeps_the_minibatch_that_it_keeps_the_number_of(x64, key):
    """The derivative in theta is the number that the kept step drew, and the state takes no part in it."""
    inner = Inner(
        init=lambda key, theta, task: jnp.zeros(()),
        step=lambda key, theta, w, task, index: (
            0.5 * w + theta * jnp.stack([jax.random.normal(key), index.astype(float)])[task]
        ),
        loss=lambda key, theta, w, task: w,
        horizon=12,
    )
    numbers = {}
    for which in (0, 1):
        estimator, task = hyperdistill(inner, gamma=0.9, scale=1.0), jnp.asarray(which)
        carry, step = estimator.init(key, jnp.asarray(1.0), task), jax.jit(estimator.step)
        numbers[which] = []
        for number in range(12):
            before = carry
            _, carry = step(jax.random.fold_in(key, number), jnp.asarray(1.0), before, task)
            drawn = jax.random.normal(jax.random.wrap_key_data(carry.extra.key_data))
            numbers[which].append((int(carry.extra.index), float(drawn)))
    assert numbers[0] == numbers[1]
    by_index = dict(numbers[0])
    assert 1 < len(by_index) < 12, "nothing was kept, or nothing taken"
    assert all(by_index[index] == drawn for index, drawn in numbers[0])


def test_hyperdistill_sees_further_than_one_step(x64):
    """Section 5 of its paper: nearer to the exact gradient than one step of look-ahead, in direction and in length."""
    horizon = 30
    inner, task, theta = tanh_network(horizon), make_task(), make_theta()
    keys = jax.random.split(jax.random.key(3), SEEDS)

    def last(make):
        estimator = make(inner)

        def run(key):
            # All start from the weights of the exact gradient.
            own = key if make is not one_step else jax.random.split(key, 3)[0]
            start = estimator.init(own, theta, task)

            def body(carry, i):
                estimate, carry = estimator.step(jax.random.fold_in(key, i), theta, carry, task)
                return carry, estimate.gradient

            gradients = jax.lax.scan(body, start, jnp.arange(horizon))[1]
            return jnp.stack([gradients[name][-1] for name in sorted(theta)])

        return np.asarray(jax.jit(jax.vmap(run))(keys))

    exact = jax.jit(jax.vmap(lambda key: reverse(inner).step(key, theta, (), task)[0].gradient))(keys)
    exact = np.stack([exact[name] for name in sorted(theta)], axis=1)
    norm = np.linalg.norm(exact, axis=1)
    cosine, length = {}, {}
    for name, make in {"near": one_step, "far": lambda inner: hyperdistill(inner, gamma=0.9)}.items():
        found = last(make)
        own = np.linalg.norm(found, axis=1)
        cosine[name], length[name] = np.mean(np.sum(found * exact, axis=1) / own / norm), np.median(own / norm)
    assert cosine["far"] > cosine["near"] + 0.15
    assert abs(np.log(length["far"])) < abs(np.log(length["near"])) / 2


# --- implicit ---


def ridge(horizon: int = 3000) -> Inner:
    """Ridge regression by gradient descent; `theta` is the logarithm of a penalty per weight."""

    def inner_loss(key, theta, w, task):
        x, y = task[0]
        return 0.5 * jnp.mean((x @ w - y) ** 2) + 0.5 * jnp.sum(jnp.exp(theta) * w**2)

    return Inner(
        init=lambda key, theta, task: jnp.zeros(task[0][0].shape[1], task[0][0].dtype),
        step=lambda key, theta, w, task, index: w - 0.3 * jax.grad(inner_loss, argnums=2)(key, theta, w, task),
        loss=lambda key, theta, w, task: jnp.mean((task[1][0] @ w - task[1][1]) ** 2),
        horizon=horizon,
        inner_loss=inner_loss,
    )


@pytest.mark.parametrize(
    "settings",
    [{"solver": "cg", "terms": 10}, {"solver": "neumann", "terms": 3000, "rate": 0.3}],
    ids=lambda s: s["solver"],
)
def test_implicit_gradients_of_ridge_regression_equal_the_closed_form(x64, key, settings):
    rng = np.random.default_rng(0)
    x, valid = jnp.asarray(rng.standard_normal((40, 5))), jnp.asarray(rng.standard_normal((20, 5)))
    truth = jnp.asarray(rng.standard_normal(5))
    task = ((x, x @ truth + 0.3 * rng.standard_normal(40)), (valid, valid @ truth))
    theta = jnp.asarray([-1.0, -2.0, 0.0, -3.0, 0.5])

    def closed_form(theta):
        w = jnp.linalg.solve(x.T @ x / 40 + jnp.diag(jnp.exp(theta)), x.T @ task[0][1] / 40)
        return jnp.mean((valid @ w - task[1][1]) ** 2)

    found = jax.jit(implicit(ridge(), **settings).step)(key, theta, (), task)[0]
    np.testing.assert_allclose(found.gradient, jax.grad(closed_form)(theta), rtol=1e-6)
    np.testing.assert_allclose(found.loss, closed_form(theta), rtol=1e-8)
    assert found.info["converged"] == 1 and found.info["residual"] < 1e-6
    short = jax.jit(implicit(ridge(1), **settings).step)(key, theta, (), task)[0]
    assert short.info["converged"] == 0


def test_implicit_differentiation_says_what_it_does_not_see(key):
    inner, task, theta = tanh_network(2), make_task(np.float32), make_theta(np.float32)
    with pytest.warns(UserWarning, match=r"does not depend on \['log_rate'\], \['momentum'\].* forward, reverse"):
        estimate = jax.jit(implicit(inner).step)(key, theta, (), task)[0]
    assert estimate.gradient["log_rate"] == 0 and estimate.gradient["log_decay"] != 0


def test_implicit_differentiation_looks_into_compiled_losses(key):
    inner, task, theta = tanh_network(2), make_task(np.float32), make_theta(np.float32)
    assert inner.inner_loss is not None
    compiled = inner._replace(inner_loss=jax.jit(inner.inner_loss))
    with pytest.warns(UserWarning, match=r"does not depend on \['log_rate'\], \['momentum'\]"):
        jax.eval_shape(implicit(compiled).step, key, theta, (), task)


@pytest.mark.parametrize(
    "make", [lambda inner: truncated(inner, 2), one_step, hyperdistill], ids=["truncated", "one_step", "hyperdistill"]
)
def test_windows_refuse_what_sets_the_initial_state_alone(make, key):
    inner = lines_from(2)
    with pytest.raises(ConfigError, match=r"theta\['start'\] sets the initial state alone"):
        make(inner).init(key, {"start": jnp.ones(()), "pace": jnp.ones(())}, jnp.zeros(()))


# --- evolution strategies ---


def lines_from(horizon: int) -> Inner:
    """The state begins at `start`, goes on by `pace` in every step, and is the loss."""
    return Inner(
        init=lambda key, theta, task: theta["start"],
        step=lambda key, theta, state, task, index: state + theta["pace"],
        loss=lambda key, theta, state, task: state,
        horizon=horizon,
    )


def test_the_rate_of_bernoulli_dropout_is_seen_by_an_evolution_strategy(x64, key):
    """A kept 1 counts 1 / (1 - rate), so the expected square is 1 / (1 - rate) = 1 + exp(theta) at the logit theta of the rate."""
    theta, sigma = jnp.asarray(-0.4), 0.2

    def loss(key, theta, task):
        rate = jax.nn.sigmoid(theta)
        kept = jax.random.uniform(key, (1000,)) >= rate
        return jnp.mean(jnp.where(kept, 1.0 / (1.0 - rate), 0.0) ** 2)

    estimator = full_es(loss, sigma=sigma, pairs=16)
    found = jax.vmap(lambda key: estimator.step(key, theta, (), ())[0].gradient)(jax.random.split(key, 500))
    error = jnp.std(found) / math.sqrt(500)
    assert error < 0.02
    assert abs(jnp.mean(found) - jnp.exp(theta + sigma**2 / 2)) < 3 * error


@pytest.mark.parametrize("make", [pes, nres], ids=["pes", "nres"])
def test_evolution_strategies_see_what_sets_the_initial_state(x64, key, make):
    """The sum of the losses after 1, 2, 3 and 4 steps has the derivative 4 in the start and 10 in the pace, in every smoothing."""
    theta = {"start": jnp.asarray(0.5), "pace": jnp.asarray(-0.2)}
    estimator = make(lines_from(4), 1, sigma=0.1, pairs=4)

    def whole(key):
        def step(carry, key):
            estimate, carry = estimator.step(key, theta, carry, jnp.zeros(()))
            return carry, estimate.gradient

        keys = jax.random.split(key, 5)
        return jax.tree.map(jnp.sum, jax.lax.scan(step, estimator.init(keys[0], theta, jnp.zeros(())), keys[1:])[1])

    found = jax.jit(jax.vmap(whole))(jax.random.split(key, 4000))
    for name, expected in {"start": 4.0, "pace": 10.0}.items():
        error = np.std(found[name]) / np.sqrt(4000)
        assert abs(np.mean(found[name]) - expected) < 4 * error, name


def product(horizon: int) -> Inner:
    """The state is multiplied by theta in every step, and is the loss: smoothing changes its derivative in ways that can be told apart."""
    return Inner(
        init=lambda key, theta, task: task,
        step=lambda key, theta, state, task, index: state * theta,
        loss=lambda key, theta, state, task: state,
        horizon=horizon,
    )


SIGMA, THETA = 0.5, 0.8
PLAIN_SUM = (
    1 + 2 * THETA + 3 * THETA**2
)  # of theta + theta^2 + theta^3: independent factors have the product of their means
SMOOTH = 3 * SIGMA**2  # added to the derivative of theta^3 when all three factors are perturbed alike


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: full_es(product(3), sigma=SIGMA, pairs=4000), 3 * THETA**2 + SMOOTH),
        (lambda: pes(product(3), 1, sigma=SIGMA, pairs=4000), PLAIN_SUM),
        (lambda: nres(product(3), 1, sigma=SIGMA, pairs=4000), PLAIN_SUM + SMOOTH),
        (lambda: es_single(product(3), 1, sigma=SIGMA, pairs=4000), PLAIN_SUM + SMOOTH),
        # One window of two steps under one perturbation, and another of two steps under the next: theta^2 + theta^4, smoothed apart.
        (
            lambda: pes(product(4), 2, sigma=SIGMA, pairs=4000),
            2 * THETA + 4 * THETA * (THETA**2 + SIGMA**2),
        ),
    ],
    ids=["full_es", "pes", "nres", "es_single", "pes, windows of two"],
)
def test_evolution_strategies_estimate_the_gradient_of_their_own_smoothed_loss(x64, make, expected):
    estimator, theta, task = make(), jnp.asarray(THETA), jnp.asarray(1.0)

    def whole_episode(key):
        carry, total, done = estimator.init(key, theta, task), 0.0, False
        for number in range(4):
            estimate, new = estimator.step(jax.random.fold_in(key, number), theta, carry, task)
            total = total + jnp.where(done, 0.0, estimate.gradient)
            carry = jax.tree.map(lambda a, b, done=done: jnp.where(done, a, b), carry, new)
            done = jnp.asarray(done) | estimate.done
        return total

    found = np.asarray(jax.jit(jax.vmap(whole_episode))(jax.random.split(jax.random.key(1), 50)))
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert error < 0.02 and abs(found.mean() - expected) < 3 * error


def test_a_perturbation_that_diverges_leaves_the_others_their_say(x64, key):
    """Roots of negative numbers: perturbations below zero are not finite."""
    task = jnp.asarray(1.0)
    estimator = full_es(lambda key, theta, task: jnp.sqrt(theta) * task, sigma=0.5, pairs=64)
    few = estimator.step(key, jnp.asarray(0.6), (), task)[0]
    assert np.isfinite(few.loss) and few.gradient > 0.1
    none = estimator.step(key, jnp.asarray(-50.0), (), task)[0]
    assert np.isnan(none.loss) and np.isnan(none.gradient)


# --- all of them ---


def sharing(inner: Inner) -> HyperGrad:
    """Forward mode with sharing, of two windows with the same hyperparameters."""
    windows = forward_sharing(inner, 2)

    def step(key, theta, carry, task):
        estimate, carry = windows.step(key, jax.tree.map(lambda x: jnp.stack([x, x]), theta), carry, task)
        return estimate.replace(gradient=jax.tree.map(lambda g: jnp.sum(g, 0), estimate.gradient)), carry

    return HyperGrad(windows.init, step)


ALL = {
    "reverse": reverse,
    "sharing": sharing,
    "checkpointed": checkpointed,
    "forward": forward,
    "truncated": lambda inner: truncated(inner, 3),
    "one_step": one_step,
    "hyperdistill": hyperdistill,
    "implicit": lambda inner: implicit(inner, damping=1.0),
    "implicit, neumann": lambda inner: implicit(inner, solver="neumann", rate=0.1),
    "full_es": full_es,
    "pes": lambda inner: pes(inner, 3),
    "nres": lambda inner: nres(inner, 3),
    "es_single": lambda inner: es_single(inner, 3),
    "shared_noise": lambda inner: shared_noise(inner, 1, period=3),
}


@pytest.mark.filterwarnings("ignore:implicit")
@pytest.mark.parametrize("name", ALL)
def test_vmap_over_tasks_equals_a_loop_and_a_task_that_diverges_stays_alone(name, x64, key):
    theta, (x, y) = make_theta(), make_task()
    tasks = (jnp.stack([x, x.at[0, 0].set(jnp.nan), 2 * x]), jnp.stack([y, y, y]))
    estimator = ALL[name](tanh_network(6))

    def two_steps(task):
        def step(carry, _):
            estimate, carry = estimator.step(key, theta, carry, task)
            return carry, estimate

        return jax.lax.scan(step, estimator.init(key, theta, task), length=2)[1]

    many, one = jax.jit(jax.vmap(two_steps)), jax.jit(two_steps)
    together = many(tasks)
    for i in range(3):
        alone = one(jax.tree.map(lambda leaf, i=i: leaf[i], tasks))
        np.testing.assert_allclose(together.loss[i], alone.loss, rtol=1e-10)
        for entry in theta:
            np.testing.assert_allclose(together.gradient[entry][i], alone.gradient[entry], rtol=1e-10, atol=1e-13)
    assert np.isfinite(together.loss[:, 0]).tolist() == [True, False, True]
    healthy = many((tasks[0].at[1, 0, 0].set(0.0), tasks[1]))
    kept = jnp.asarray([0, 2])
    for one_leaf, other in zip(
        *(jax.tree.leaves(jax.tree.map(lambda x: x[kept], t)) for t in (together, healthy)), strict=True
    ):
        assert np.asarray(one_leaf).tobytes() == np.asarray(other).tobytes()


def test_growth_is_the_logarithm_of_the_largest_factor(x64, key):
    inner = Inner(
        init=lambda key, theta, task: jnp.ones(2),
        step=lambda key, theta, state, task, index: jnp.asarray([1.1, 0.5]) * state,
        loss=lambda key, theta, state, task: jnp.sum(state),
        horizon=400,
    )
    np.testing.assert_allclose(growth(inner, key, jnp.asarray(0.0), ()), math.log(1.1), rtol=0.02)
    assert (
        growth(inner._replace(step=lambda key, theta, state, task, index: jnp.ones(2)), key, jnp.asarray(0.0), ())
        == -jnp.inf
    )


def test_auto_takes_what_fits_and_says_why(key):
    inner, task, few = tanh_network(100), make_task(np.float32), make_theta(np.float32)
    many = few | {"more": jnp.zeros(100, jnp.float32)}
    for theta, memory, name, reason in [
        (few, 1, "forward", "4 entries"),
        (many, 1 << 20, "reverse", "fit into 1 MiB"),
        (many, 10_000, "checkpointed", "20 of them do"),
        (many, 3_500, "nres", "but the 14 of 7 pairs do"),
        (many, 1, "nres", "the 2 of 1 pairs are the least there is"),
    ]:
        found = estimator_of("auto", inner, theta, task, memory=memory)
        assert found.name == name and reason in found.reason
        carry = jax.eval_shape(found.hypergrad.init, key, theta, task)
        gradient = jax.eval_shape(found.hypergrad.step, key, theta, carry, task)[0].gradient
        assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, theta)
    assert estimator_of("reverse", inner, few, task).name == "reverse"
    assert estimator_of(lambda inner: truncated(inner, 5), inner, few, task).reason == "as given"


def step_of(estimator):
    return estimator.step(jax.random.key(0), jnp.float32(1), (), jnp.float32(1))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: step_of(reverse(lambda key, theta, task: theta * jnp.ones(2))), r"scalar, got shape \(2,\)"),
        (lambda: checkpointed(product(4), segment=0), "segment must be at least 1, got 0"),
        (lambda: truncated(product(4), 3), "window must divide the horizon of 4 steps, got 3"),
        (lambda: forward_sharing(product(4), 3), "windows must divide the horizon of 4 steps, got 3"),
        (lambda: step_of(forward_sharing(product(4), 2)), r"leading axis of 2 windows, got shape \(\)"),
        (lambda: implicit(product(4)), "no inner_loss"),
        (lambda: implicit(ridge(), terms=0), "terms of at least 1"),
        (lambda: pes(product(4), 1, sigma=0.0), "sigma and pairs must be positive, got 0.0 and 8"),
        (lambda: shared_noise(product(4), 2, period=3), "period must be a multiple of the window 2"),
        (lambda: hyperdistill(product(4), gamma=1.0), "gamma must be between 0 and 1, got 1.0"),
        (lambda: estimator_of("best", product(4), jnp.float32(1), ()), "expected auto, reverse, .* got 'best'"),
        (lambda: estimator_of("auto", product(4), {"units": jnp.int32(3)}, ()), r"theta\['units'\] is not a floating-point number"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ConfigError, match=sentence):
        call()
