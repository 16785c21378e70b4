"""The training loop is a plain loop, only faster: same numbers in chunks, in lanes, after a resume and beside a
diverged task."""

import os
import signal
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from metahpo_jax import training
from metahpo_jax.base import Array, Estimate, HyperGrad, Key, MetaLearner
from metahpo_jax.checkpoint import load_checkpoint
from metahpo_jax.errors import CheckpointError, ConfigError, ObjectiveError
from metahpo_jax.hypergrad import Inner, nres, pes, reverse, truncated, with_growth
from metahpo_jax.training import DescentState, descent, fit, program

TASKS = 4
CENTRE = np.asarray([1.0, -2.0, 0.5], np.float32)


def bowl(key, theta, task):
    """A noisy quadratic around the task."""
    error = theta["w"] - task + 0.1 * jax.random.normal(key, task.shape, task.dtype)
    return jnp.mean(error**2) + 0.1 * theta["b"] ** 2, {"distance": jnp.max(jnp.abs(error))}


def theta_init(key):
    return {"w": jax.random.normal(key, (3,), jnp.float32), "b": jnp.asarray(1.0, jnp.float32)}


def sample(key, data):
    """Tasks around the centre that the data names."""
    return data[None] + 0.3 * jax.random.normal(key, (TASKS, 3), jnp.float32)


def adam(**settings) -> MetaLearner:
    return descent(reverse(bowl), theta_init, optax.adam(0.05), **{"max_norm": 1.0, **settings})


class Walk(struct.PyTreeNode):
    """A meta-state with a random key inside."""

    inner: DescentState
    key: Key
    drawn: Array


def with_key(inner: MetaLearner) -> MetaLearner:
    """Adds a random walk whose key lives in the meta-state."""

    def init(key):
        return Walk(inner.init(key), jax.random.fold_in(key, 1), jnp.zeros((), jnp.float32))

    def step(key, state, tasks):
        key_next, now = jax.random.split(state.key)
        updated, metrics = inner.step(key, state.inner, tasks)
        return Walk(updated, key_next, state.drawn + jax.random.normal(now, (), jnp.float32)), metrics

    return MetaLearner(init, step, lambda state: inner.export(state.inner))


def bits(tree) -> list[bytes]:
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return [np.asarray(data(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


PLAIN = adam()
LEARNER = with_key(PLAIN)  # one object, so that its program is compiled once for all tests


def train(learner=LEARNER, steps=10, **settings):
    settings = {"data": jnp.asarray(CENTRE), "chunk": 4, **settings}
    return fit(learner, sample, jax.random.key(7), steps=steps, **settings)


# --- descent ---


def test_fit_equals_a_plain_loop():
    result = train()
    init_key, run_key = jax.random.split(jax.random.key(7))
    state, losses = LEARNER.init(init_key), []

    @jax.jit
    def step(index, state):
        sample_key, step_key = jax.random.split(jax.random.fold_in(run_key, index))
        return LEARNER.step(step_key, state, sample(sample_key, jnp.asarray(CENTRE)))

    for i in range(10):
        state, metrics = step(i, state)
        losses.append(metrics.loss)
    np.testing.assert_allclose(result.metrics.loss, np.asarray(losses), rtol=1e-5)
    chex.assert_trees_all_close(result.meta_state.inner, state.inner, rtol=1e-5, atol=1e-6)
    assert result.meta_state.inner.step == 10 and result.metrics.info["distance"].shape == (10,)
    assert bits(result.meta_state.key) == bits(state.key)


def test_descent_finds_the_centre():
    result = train(steps=300)
    np.testing.assert_allclose(LEARNER.export(result.meta_state)["w"], CENTRE, atol=0.15)
    assert result.metrics.loss[-20:].mean() < 0.2 * result.metrics.loss[0]


def spoiled(key, theta, task):
    """A clean quadratic, except for tasks whose first entry is marked as NAN, INF or ENDLESS."""
    mark = task[0]
    clean = jnp.sum((theta["w"] - jnp.where(mark >= NAN, 0.0, task)) ** 2)
    w = jnp.where(mark == ENDLESS, theta["w"], 1.0)
    value = jnp.where(mark == NAN, jnp.nan, jnp.where(mark == INF, jnp.inf, jnp.sum(jnp.sqrt(w - w))))
    return jnp.where(mark >= NAN, value, clean), {"distance": clean}


NAN, INF, ENDLESS = 1e3, 2e3, 3e3  # of the loss, of the loss, and of the gradient of a finite loss
SPOILED = descent(reverse(spoiled), theta_init, optax.adam(0.1), max_norm=1.0)


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
        adam(max_norm=0)
    with_carry = HyperGrad(lambda key, theta, task: jnp.zeros(()), reverse(bowl).step)
    learner = descent(with_carry, theta_init, optax.sgd(0.1), max_norm=None)
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


def test_fit_stops_when_over_half_of_the_tasks_diverge(key):
    def batch(bad):
        return lambda key, data: jnp.where(jnp.arange(4)[:, None] < bad, jnp.inf, jnp.ones((4, 3), jnp.float32))

    fit(PLAIN, batch(2), key, steps=4, chunk=4)
    with pytest.raises(
        ObjectiveError, match="over half of the tasks gave no finite loss and gradient in the meta-steps 0 to 3"
    ):
        fit(PLAIN, batch(3), key, steps=4, chunk=4)


# --- chunks ---


def counting() -> MetaLearner:
    """Counts to the tasks' sum, with Python scalars as its first state and metrics of its own."""
    return MetaLearner(
        lambda key: {"sum": 0.0, "n": 1},
        lambda key, state, tasks: ({"sum": state["sum"] + jnp.sum(tasks), "n": state["n"]}, {"before": state["sum"]}),
        lambda state: state["sum"],
    )


@pytest.mark.parametrize("batch", [False, True])
def test_all_chunks_share_one_trace_and_one_compilation(batch, caplog):
    learner = counting()
    learner = learner._replace(step=chex.assert_max_traces(learner.step, n=1))
    key = jax.random.split(jax.random.key(0), 2) if batch else jax.random.key(0)
    with jax.log_compiles():
        result = fit(learner, lambda key, data: jnp.ones(2, jnp.float32), key, steps=5, chunk=2, batch=batch)
    assert sum("Finished XLA compilation of jit(run)" in message for message in caplog.messages) == 1
    chex.clear_trace_counter()
    lanes = np.ones((2, 1)) if batch else np.ones(1)
    np.testing.assert_array_equal(result.metrics["before"], (lanes * 2 * np.arange(5)[(None,) * batch]))
    np.testing.assert_array_equal(result.meta_state["sum"], [10, 10] if batch else 10)


def test_a_second_fit_traces_nothing():
    def sample_once(key, data):
        traces.append(data)
        return data

    traces, learner = [], counting()
    for steps in (3, 7):
        fit(learner, sample_once, jax.random.key(steps), steps=steps, chunk=2, data=jnp.ones(2, jnp.float32))
    assert len(traces) == 1


def test_the_program_donates_its_state():
    init, run = training._compiled(LEARNER, sample, 4, False, (0,), jax.tree.structure(0))  # the one that `fit` runs
    state, metrics = init(jax.random.key(0)), None
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        before = state
        state, metrics = run(state, jax.random.key(0), jnp.asarray(CENTRE), jnp.int32(start), jnp.int32(stop))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert metrics is not None and np.asarray(metrics.tasks).tolist() == [TASKS, 0, 0, 0]


def test_hooks_see_every_chunk_in_order_and_may_keep_the_state():
    calls, kept = [], []
    hooks = [
        lambda step, metrics, state: calls.append(("first", step, metrics.loss.shape, type(metrics.loss))),
        lambda step, metrics, state: (calls.append(("second", step)), kept.append(state)),
    ]
    result = train(hooks=hooks)
    lengths = {4: 4, 8: 4, 10: 2}
    assert calls == [
        call for step, n in lengths.items() for call in (("first", step, (n,), np.ndarray), ("second", step))
    ]
    assert [int(state.inner.step) for state in kept] == [4, 8, 10]
    assert bits(kept[-1]) == bits(result.meta_state) and bits(kept[0]) == bits(train(steps=4).meta_state)


def test_divergence_for_a_whole_chunk_names_the_steps():
    def breaks(key, mark):
        return jnp.full((2, 3), mark, jnp.float32)

    with pytest.raises(ObjectiveError, match="in the meta-steps 0 to 3; lower"):
        fit(SPOILED, breaks, jax.random.key(0), steps=10, chunk=4, data=jnp.float32(NAN))
    fit(SPOILED, breaks, jax.random.key(0), steps=3, chunk=4, data=jnp.float32(NAN))  # less than a chunk is data
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.warns(RuntimeWarning, match=r"lanes \[1\]"):
        result = fit(SPOILED, breaks, keys, steps=8, chunk=4, data=jnp.asarray([0.0, NAN]), batch=True)
    assert result.metrics.finite.tolist() == [[2] * 8, [0] * 8]


# --- lanes ---

LANES = {
    "key": jax.random.split(jax.random.key(1), 2),
    "data": jnp.stack([jnp.asarray(CENTRE), -jnp.asarray(CENTRE)]),
    "chunk": 4,
}


def test_lanes_equal_separate_fits():
    together = fit(LEARNER, sample, **LANES, steps=10, batch=True)
    assert together.metrics.loss.shape == (2, 10)
    for lane in range(2):
        alone = fit(LEARNER, sample, LANES["key"][lane], data=LANES["data"][lane], chunk=4, steps=10)
        found = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together)
        assert bits(found.meta_state.key) == bits(alone.meta_state.key)
        chex.assert_trees_all_close(found.meta_state.inner, alone.meta_state.inner, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(found.metrics, alone.metrics, rtol=1e-5, atol=1e-6)


def test_lanes_may_share_data():
    data = {"table": jnp.arange(6, dtype=jnp.float32).reshape(3, 2), "row": jnp.asarray([0, 2])}
    result = fit(
        counting(), lambda key, data: data["table"][data["row"]], LANES["key"], steps=3, chunk=2,
        data=data, batch=True, data_axes={"table": None, "row": 0},
    )  # fmt: skip
    assert result.metrics["before"].tolist() == [[0, 1, 2], [0, 9, 18]]


def test_lanes_resume_bit_by_bit(path):
    named = {"checkpoint": path, "identity": "lanes", "batch": True}
    with pytest.raises(Stop):
        fit(LEARNER, sample, **LANES, **named, steps=9, hooks=[stop_at(8, crash)])
    resumed = fit(LEARNER, sample, **LANES, **named, steps=9)
    assert resumed.metrics.loss.shape == (2, 9)
    assert bits(resumed) == bits(fit(LEARNER, sample, **LANES, steps=9, batch=True))


# --- checkpoints ---


class Stop(Exception):
    """What a hook raises to end a run abruptly."""


def stop_at(step, action):
    def hook(done, metrics, state):
        if done == step:
            action()

    return hook


def crash():
    raise Stop


def watched(path, **settings):
    return train(checkpoint=path, identity="bowl", **settings)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.mark.parametrize("every", [1, 2])
def test_a_crashed_run_resumes_bit_by_bit(path, every):
    with pytest.raises(Stop):
        watched(path, steps=19, every=every, hooks=[stop_at(16, crash)])
    saved, metadata = load_checkpoint(path, kind="fit")
    assert metadata["step"] == {1: 12, 2: 8}[every] == saved["metrics/loss"].shape[0]
    steps = []
    resumed = watched(path, steps=19, every=every, hooks=[lambda step, *_: steps.append(step)])
    assert steps[0] == metadata["step"] + 4
    assert bits(resumed) == bits(train(steps=19))


def test_a_finished_run_comes_back_and_may_go_on(path):
    first = watched(path)
    assert bits(watched(path, hooks=[stop_at(10, crash)])) == bits(first)  # nothing runs, so no hook
    assert bits(watched(path, steps=17)) == bits(train(steps=17))
    with pytest.raises(CheckpointError, match="step is 17, expected 1 to 10; raise steps"):
        watched(path)


@pytest.fixture
def interruptible():
    """A job started in the background by a shell ignores SIGINT, and so would this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_the_chunk_in_flight_and_goes_on_its_way(path, number):
    def on_sigterm(number, frame):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            watched(path, steps=30, every=100, hooks=[stop_at(4, lambda: os.kill(os.getpid(), number))])
        assert signal.getsignal(signal.SIGTERM) is on_sigterm
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert load_checkpoint(path, kind="fit")[1]["step"] == 8
    assert bits(watched(path, steps=30)) == bits(train(steps=30))


def test_a_signal_that_its_owner_survives_does_not_end_the_training(path):
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(time.monotonic()))
    try:
        result = watched(path, hooks=[stop_at(4, lambda: signal.raise_signal(signal.SIGTERM))])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(calls) == 1 and bits(result) == bits(train())


@pytest.mark.usefixtures("interruptible")
def test_the_second_interrupt_acts_at_once(path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        watched(path, every=100, hooks=[stop_at(4, twice)])
    assert not path.exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failed_write_leaves_the_last_checkpoint(path, monkeypatch):
    replace, calls = os.replace, []

    def replace_once(source, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_once)
        with pytest.raises(CheckpointError, match="cannot be written"):
            watched(path)
    assert load_checkpoint(path, kind="fit")[1]["step"] == 4
    assert bits(watched(path)) == bits(train())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": "other"}, r"'run': 'bowl'.*'run': 'other'"),
        ({"data": jnp.zeros(3, jnp.float32)}, "'inputs'"),
        ({"learner": with_key(descent(reverse(bowl), theta_init, optax.sgd(0.1), max_norm=1))}, "nothing expects"),
        ({"learner": adam()}, "lacks 'meta_state/opt_state"),
    ],
)  # fmt: skip
def test_the_checkpoint_of_another_run_is_refused(path, changes, message):
    watched(path)
    settings = {"checkpoint": path, "identity": "bowl", **changes}
    with pytest.raises(CheckpointError, match=message):
        train(**settings)


def test_a_damaged_checkpoint_is_refused_not_overwritten(path):
    watched(path)
    content = path.read_bytes()[:-1]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        watched(path)
    assert path.read_bytes() == content


# --- arguments ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"every": -1}, "every must be at least 1, got -1"),
        ({"batch": True}, r"key must be typed keys of shape \[S\] with batch=True, got key<fry>\[\]"),
        ({"key": 3}, "key must be one typed key without batch=True, got 3"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"got uint32\[2\]"),
        ({"key": jax.random.split(jax.random.key(0), 2), "batch": True}, r"leading axis of 2 lanes .* got shape \[3\]"),
        ({"checkpoint": Path("run")}, "identity must name the run"),
    ],
)
def test_arguments_out_of_range_are_refused(changes, message):
    settings = {"key": jax.random.key(0), "steps": 1, "data": jnp.zeros(3, jnp.float32), **changes}
    with pytest.raises(ConfigError, match=message):
        fit(PLAIN, sample, **settings)


def test_the_bar_is_on_stderr_and_only_when_asked(capsys):
    train()
    assert capsys.readouterr() == ("", "")
    train(progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "10/10" in err and "loss" in err


def test_types_stay_with_x64(x64):
    init, run = program(LEARNER, sample, 2)
    state = jax.eval_shape(init, jax.random.key(0))
    bounds = (np.int32(0), np.int32(2))
    after, metrics = jax.eval_shape(run, state, jax.random.key(0), jnp.asarray(CENTRE), *bounds)
    assert after == state
    assert {leaf.dtype.name for leaf in jax.tree.leaves(metrics)} == {"float32", "int32"}
