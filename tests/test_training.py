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
from helpers import bits, bowl, bowl_theta

from metahpo_jax import training
from metahpo_jax.base import Array, Key, MetaLearner
from metahpo_jax.checkpoint import load_checkpoint
from metahpo_jax.errors import CheckpointError, ConfigError, ObjectiveError
from metahpo_jax.hypergrad import reverse
from metahpo_jax.metalearners.descent import DescentState, descent
from metahpo_jax.training import fit, program

TASKS = 4
CENTRE = np.asarray([1.0, -2.0, 0.5], np.float32)


def sample(key, data):
    """Tasks around the centre that the data names."""
    return data[None] + 0.3 * jax.random.normal(key, (TASKS, 3), jnp.float32)


def adam(**settings) -> MetaLearner:
    return descent(reverse(bowl), bowl_theta, optax.adam(0.05), **{"max_norm": 1.0, **settings})


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


PLAIN = adam()
LEARNER = with_key(PLAIN)  # one object, so that its program is compiled once for all tests


def train(learner=LEARNER, steps=10, **settings):
    settings = {"data": jnp.asarray(CENTRE), "chunk": 4, **settings}
    return fit(learner, sample, jax.random.key(7), steps=steps, **settings)


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
        fit(PLAIN, breaks, jax.random.key(0), steps=10, chunk=4, data=jnp.float32(np.nan))
    with pytest.raises(ObjectiveError, match="in the meta-steps 0 to 2; lower"):  # fewer than a chunk: all of them
        fit(PLAIN, breaks, jax.random.key(0), steps=3, chunk=4, data=jnp.float32(np.nan))
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.warns(RuntimeWarning, match=r"lanes \[1\]"):
        result = fit(PLAIN, breaks, keys, steps=8, chunk=4, data=jnp.asarray([0.0, np.nan]), batch=True)
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
        ({"learner": with_key(descent(reverse(bowl), bowl_theta, optax.sgd(0.1), max_norm=1))}, "nothing expects"),
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
