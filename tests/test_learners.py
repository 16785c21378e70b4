"""What every family of learners promises: a row in `FAMILIES` is all that a new one needs."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_task

from metahpo_jax.base import Learner, Status, training_keys
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners import LearnerFamily, cnn_family, logistic_family, mlp_family, mlp_space
from metahpo_jax.learners.cnn import cnn, convolve, plain_convolution, pool
from metahpo_jax.learners.logistic import logistic
from metahpo_jax.learners.mlp import mlp
from metahpo_jax.learners.noise import micro_key
from metahpo_jax.learners.settings import Settings
from metahpo_jax.population.plan import shape_of

STEPS = 50


class Row(NamedTuple):
    """A family, how its learners are made from a capacity, and the task shape that it is tried on."""

    family: LearnerFamily
    make: Callable[..., Learner]  # (capacity, **arguments of the factory) -> Learner
    padded: tuple[int, int]  # features and classes
    tried: Callable[..., bool] = lambda capacity: True  # of which capacities


FIXED = {"depth": 1, "width": 10, "batch_size": 128, "activation": "relu", "optimiser": "momentum", "dropout": 0.0}
FAMILIES = {
    "mlp": Row(mlp_family(depth=2), mlp, (8, 4)),
    "mlp_fixed": Row(mlp_family(**FIXED), lambda *a, **k: mlp(*a, settings=Settings(mlp_space(), FIXED), **k), (10, 4)),
    "cnn": Row(
        cnn_family(blocks=2, kernel=5), lambda *a, **k: cnn(*a, side=6, **k), (36, 4), lambda c: c.channels == 16
    ),
    "logistic": Row(logistic_family(), logistic, (8, 4)),
}


@pytest.fixture(params=FAMILIES)
def row(request) -> Row:
    return FAMILIES[request.param]


def points(family: LearnerFamily, count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).random((count, family.space.size))
    return np.asarray([family.space.encode(family.space.decode(r)) for r in rows], np.float32)


def lanes_of_one_capacity(row: Row, count: int, largest_rate: float = np.inf, seed: int = 0):
    """Hyperparameters `[count]` that share a capacity, batch sizes of several kinds among them, and that capacity."""
    u = points(row.family, 400, seed)
    config, capacities = row.family.configs(u)
    chosen = max(filter(row.tried, set(capacities)), key=capacities.count)
    lanes = [i for i, c in enumerate(capacities) if c == chosen and config.learning_rate[i] <= largest_rate][:count]
    assert len(lanes) == count
    return jax.tree.map(lambda x: jnp.asarray(x[np.asarray(lanes)]), config), chosen


def trained(learner: Learner, h, task, key, horizon: int):
    init_key, train_key = training_keys(key)

    @jax.jit
    def run(h):
        states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
        return learner.train(train_key, h, states, task, 0, horizon)

    return run(h)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "largest_rate"), [(np.float64, 1e-6, 0.1), (np.float32, 1e-4, 0.03)], ids=["64", "32"]
)
def test_the_fast_path_equals_the_readable_one(row: Row, dtype, tolerance: float, largest_rate: float, request) -> None:
    if dtype is np.float64:
        request.getfixturevalue("x64")
    h, capacity = lanes_of_one_capacity(row, 4, largest_rate)
    task, horizon = make_task(dtype, padded=row.padded), STEPS * capacity.micro
    arguments = {"horizon": horizon, "points": (capacity.micro, horizon)}
    (fast, curve), (plain, reference) = (
        trained(row.make(capacity, fused=fused, **arguments), h, task, jax.random.key(1), horizon)
        for fused in (True, False)
    )
    assert (np.asarray(plain.alive)).all()
    np.testing.assert_array_equal(fast.updates, plain.updates)
    np.testing.assert_allclose(fast.train_loss, plain.train_loss, rtol=tolerance)
    np.testing.assert_allclose(fast.gradient_norm, plain.gradient_norm, rtol=10 * tolerance)
    np.testing.assert_allclose(curve.valid_loss, reference.valid_loss, rtol=max(tolerance, 1e-6))
    np.testing.assert_array_equal(curve.status, reference.status)


@pytest.mark.usefixtures("x64")
def test_train_equals_a_scan_over_step(row: Row) -> None:
    h, capacity = lanes_of_one_capacity(row, 3, 0.03)
    task, horizon = make_task(np.float64, padded=row.padded), 24 * capacity.micro
    learner = row.make(capacity, horizon=horizon, points=(horizon,))
    init_key, train_key = training_keys(jax.random.key(1))
    states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
    fused, curve = jax.jit(learner.train)(train_key, h, states, task, 0, horizon)

    def one(h, state):
        def body(state, t):
            progress = t.astype(jnp.float32) * (capacity.micro / horizon)
            return learner.step(micro_key(train_key, t), h, state, task, progress), None

        return jax.lax.scan(body, state, jnp.arange(horizon // capacity.micro))[0]

    plain = jax.jit(jax.vmap(one))(h, states)
    chex.assert_trees_all_close(fused.params, plain.params, rtol=1e-6, atol=1e-9)
    want = jax.vmap(lambda s: learner.evaluate(s, task, "valid").loss)(plain)
    np.testing.assert_allclose(curve.valid_loss[:, -1], want, rtol=1e-6)  # curves are float32


def test_resuming_equals_not_stopping_bit_by_bit(row: Row) -> None:
    h, capacity = lanes_of_one_capacity(row, 3, 0.1)
    task, micro = make_task(padded=row.padded), capacity.micro
    learner = row.make(capacity, horizon=30 * micro, points=(10 * micro, 20 * micro, 30 * micro))
    init_key, key = training_keys(jax.random.key(1))
    states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
    train = jax.jit(learner.train)
    whole, curve = train(key, h, states, task, 0, 30 * micro)
    half, first = train(key, h, states, task, 0, 13 * micro)  # between two points, and within an update of some
    resumed, second = train(key, h, half, task, 13 * micro, 30 * micro)
    chex.assert_trees_all_equal(whole, resumed)
    np.testing.assert_array_equal(curve.valid_loss[:, 0], first.valid_loss[:, 0])
    np.testing.assert_array_equal(curve.valid_loss[:, 1:], second.valid_loss[:, 1:])
    assert (np.asarray(first.status)[:, 1:] == Status.EMPTY).all()


def test_a_diverging_lane_leaves_its_neighbours_bit_identical(row: Row) -> None:
    h, capacity = lanes_of_one_capacity(row, 4, 0.03)
    h = h.replace(optimiser=jnp.full((4,), 1, jnp.int32), schedule=jnp.zeros((4,), jnp.int32))
    wild = h.replace(learning_rate=h.learning_rate.at[1].set(1e15))
    task, horizon = make_task(padded=row.padded), 40 * capacity.micro
    learner = row.make(capacity, horizon=horizon, points=(horizon,))
    calm, disturbed = (trained(learner, each, task, jax.random.key(2), horizon) for each in (h, wild))
    assert np.asarray(disturbed[0].alive).tolist() == [True, False, True, True]
    assert 0 < int(disturbed[0].diverged_at[1]) <= 40 and np.isnan(disturbed[1].valid_loss[1, 0])
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(disturbed[0].params))
    for lane in (0, 2, 3):
        chex.assert_trees_all_equal(
            *(jax.tree.map(lambda x, lane=lane: np.asarray(x)[lane], result) for result in (calm, disturbed))
        )


def test_padding_stays_zero(row: Row) -> None:
    """Features and classes that do not exist change nothing: a task in a wider shape gets the same first gradients."""
    h, capacity = lanes_of_one_capacity(row, 2, 0.03)
    task = make_task(padded=row.padded)
    learner = row.make(capacity, horizon=320, points=(320,))
    states, _ = trained(learner, h, task, jax.random.key(3), 20 * capacity.micro)
    weights, biases = states.params[-1]
    assert (np.asarray(weights)[:, 3:] == 0).all() and (np.asarray(biases)[:, 3:] == 0).all()


def test_useful_work_is_at_most_what_is_executed(row: Row) -> None:
    task = make_task(padded=row.padded)
    config, capacities = row.family.configs(points(row.family, 64))
    useful = row.family.useful(config, capacities, task)
    executed = np.asarray([row.family.executed(c, shape_of(task)) for c in capacities])
    assert (useful > 0).all() and (useful <= executed).all()
    assert all(row.family.working_set(c, shape_of(task)) > 0 for c in capacities)
    coarse, few = row.family.coarsen(config, capacities)
    old = np.asarray(config.accumulate) * [c.micro for c in capacities]
    np.testing.assert_array_equal(np.asarray(coarse.accumulate) * [c.micro for c in few], old)


@pytest.mark.parametrize(
    ("kernel", "side", "inputs"), [(3, 6, 1), (5, 6, 1), (3, 6, 4), (5, 6, 4), (5, 4, 4), (5, 3, 1)]
)
def test_the_fast_convolution_and_its_gradient_are_those_of_the_library(kernel: int, side: int, inputs: int) -> None:
    rng = np.random.default_rng(0)
    shapes = (4, side, side, inputs), (kernel, kernel, inputs, 5), (4, side, side, 5)
    x, weights, cotangent = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    (got, pull), (want, reference) = jax.vjp(convolve, x, weights), jax.vjp(plain_convolution, x, weights)
    chex.assert_trees_all_close((got, pull(cotangent)), (want, reference(cotangent)), rtol=1e-4, atol=1e-4)


def test_the_maximum_of_a_pool_gets_the_gradient_and_equal_ones_share_it() -> None:
    x = jnp.arange(16.0).reshape(1, 4, 4, 1).at[0, 2:, :2].set(7.0)
    value, pull = jax.vjp(pool, x)
    np.testing.assert_array_equal(value[0, :, :, 0], [[5.0, 7.0], [7.0, 15.0]])
    got = pull(jnp.ones_like(value))[0][0, :, :, 0]
    np.testing.assert_array_equal(
        got, [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.25, 0.25, 0.0, 0.0], [0.25, 0.25, 0.0, 1.0]]
    )


@pytest.mark.parametrize(
    ("fixed", "word"), [({"depht": 2}, "depht"), ({"depth": 7}, "depth"), ({"optimiser": "lion"}, "lion")]
)
def test_what_cannot_be_fixed_is_refused(fixed: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        mlp_family(**fixed)


def test_fixed_hyperparameters_leave_the_space_and_reach_the_network() -> None:
    family = mlp_family(depth=1, width=50, batch_size=128, activation="tanh")
    assert "width" not in family.space and family.space.size == 6
    config, capacities = family.configs(points(family, 5))
    assert set(capacities) == {(1, 50, 128)} and (np.asarray(config.accumulate) == 1).all()
    assert (np.asarray(config.activation) == 1).all()


def test_images_that_are_not_square_are_refused() -> None:
    family = cnn_family()
    with pytest.raises(ConfigError, match="square"):
        family.executed(family.configs(points(family, 1))[1][0], shape_of(make_task(padded=(8, 4))))
