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

from metahpo_jax.base import Array, Estimate, HyperGrad, Key, MetaLearner
from metahpo_jax.checkpoint import load_checkpoint
from metahpo_jax.errors import CheckpointError, ConfigError, ObjectiveError
from metahpo_jax.hypergrad import reverse
from metahpo_jax.training import DescentState, MetaMetrics, descent, fit, program

TASKS = 4
CENTRE = np.asarray([1.0, -2.0, 0.5], np.float32)


def bowl(key, theta, task):
    """A noisy quadratic around the task."""
    error = theta["w"] - task + 0.1 * jax.random.normal(key, task.shape)
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
        return Walk(updated, key_next, state.drawn + jax.random.normal(now)), metrics

    return MetaLearner(init, step, lambda state: inner.export(state.inner))


def bits(tree) -> list[bytes]:
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return [np.asarray(data(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


def train(learner=None, steps=10, **settings):
    settings = {"data": jnp.asarray(CENTRE), "chunk": 4, **settings}
    return fit(learner or with_key(adam()), sample, jax.random.key(7), steps=steps, **settings)


# --- descent ---


def test_fit_equals_a_plain_loop():
    learner = adam()
    result = train(learner)
    init_key, run_key = jax.random.split(jax.random.key(7))
    state, losses, step = learner.init(init_key), [], jax.jit(learner.step)
    for i in range(10):
        sample_key, step_key = jax.random.split(jax.random.fold_in(run_key, i))
        state, metrics = step(step_key, state, sample(sample_key, jnp.asarray(CENTRE)))
        losses.append(metrics.loss)
    np.testing.assert_allclose(result.metrics.loss, np.asarray(losses), rtol=1e-5)
    chex.assert_trees_all_close(result.meta_state, state, rtol=1e-5, atol=1e-6)
    assert result.meta_state.step == 10 and result.metrics.info["distance"].shape == (10,)


def test_descent_finds_the_centre():
    result = fit(adam(), sample, jax.random.key(0), steps=300, data=jnp.asarray(CENTRE))
    np.testing.assert_allclose(adam().export(result.meta_state)["w"], CENTRE, atol=0.15)
    assert result.metrics.loss[-20:].mean() < 0.2 * result.metrics.loss[0]


def spoiled(value):
    """A loss whose gradient or value is spoiled for tasks that are marked by a huge first entry."""

    def loss(key, theta, task):
        marked = task[0] > 100
        target = jnp.where(marked, 0.0, task)
        clean = jnp.sum((theta["w"] - target) ** 2)
        return jnp.where(marked, value(theta["w"]), clean), {"distance": clean}

    return loss


@pytest.mark.parametrize(
    "value",
    [
        lambda w: jnp.nan * jnp.sum(w),
        lambda w: jnp.inf + jnp.sum(w),
        lambda w: jnp.sum(jnp.sqrt(w - w)),  # a finite value with an infinite gradient
    ],
    ids=["nan", "inf", "gradient"],
)
def test_a_diverged_task_is_left_out_of_mean_norm_and_clip(value, key):
    learner = descent(reverse(spoiled(value)), theta_init, optax.sgd(0.1), max_norm=1.0)
    good = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)), jnp.float32)
    bad = jnp.full((1, 3), 1e3, jnp.float32)
    state = learner.init(key)
    step = jax.jit(learner.step)
    expected, clean = step(key, state, good)
    found, metrics = step(key, state, jnp.concatenate([good[:1], bad, good[1:]]))
    chex.assert_trees_all_close(found.theta, expected.theta, rtol=1e-6)
    assert (metrics.finite, metrics.tasks) == (3, 4)
    np.testing.assert_allclose(metrics.loss, clean.loss, rtol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, clean.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(metrics.info["distance"], clean.info["distance"], rtol=1e-6)


def test_without_a_finite_task_nothing_moves(key):
    learner = descent(reverse(spoiled(lambda w: jnp.nan * jnp.sum(w))), theta_init, optax.adam(0.1), max_norm=1.0)
    state = learner.init(key)
    step = jax.jit(learner.step)
    state, _ = step(key, state, jnp.ones((2, 3), jnp.float32))
    found, metrics = step(key, state, jnp.full((2, 3), 1e3, jnp.float32))
    assert bits((found.theta, found.opt_state)) == bits((state.theta, state.opt_state))
    assert metrics.finite == 0 and np.isnan(metrics.loss) and found.step == 2


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25, 2e38])
def test_the_clip_holds_at_any_scale(scale, key):
    gradient = {"w": jnp.asarray([3.0, 0.0, 4.0], jnp.float32) / 5 * scale, "b": jnp.asarray(0.0, jnp.float32)}
    constant = HyperGrad(
        lambda key, theta, task: (),
        lambda key, theta, carry, task: (Estimate(jnp.float32(0), gradient, jnp.asarray(True)), carry),
    )
    learner = descent(constant, theta_init, optax.sgd(1.0), max_norm=0.5)
    state = learner.init(key)
    found, metrics = jax.jit(learner.step)(key, state, jnp.zeros((5, 1), jnp.float32))
    moved = np.asarray(state.theta["w"] - found.theta["w"])
    expected = np.asarray([0.6, 0.0, 0.8]) * min(scale, 0.5)
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, scale, rtol=1e-5)


def test_descent_refuses_what_it_cannot_do(key):
    with pytest.raises(ConfigError, match="max_norm must be a positive number or None, got 0"):
        adam(max_norm=0)
    with_carry = HyperGrad(lambda key, theta, task: jnp.zeros(()), reverse(bowl).step)
    learner = descent(with_carry, theta_init, optax.sgd(0.1), max_norm=None)
    with pytest.raises(ConfigError, match="full-horizon"):
        learner.step(key, learner.init(key), jnp.zeros((2, 3), jnp.float32))


# --- chunks ---


def test_chunks_share_one_trace_and_change_nothing():
    inner = adam()
    counted = inner._replace(step=chex.assert_max_traces(inner.step, n=1))
    whole = train(inner, steps=11, chunk=11)
    parts = train(counted, steps=11, chunk=4)
    assert bits(parts) == bits(whole)
    chex.clear_trace_counter()


def test_the_program_compiles_once_and_donates_its_state():
    init, run = program(with_key(adam()), sample, 4)
    run = jax.jit(run, donate_argnums=0)
    state = jax.jit(init)(jax.random.key(0))
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        before = state
        state, metrics = run(state, jax.random.key(0), jnp.asarray(CENTRE), np.int32(start), np.int32(stop))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert run._cache_size() == 1
    assert (np.asarray(metrics.tasks) == [TASKS, 0, 0, 0]).all()


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


def test_the_next_chunk_runs_before_hooks_see_the_last():
    """The hook of chunk 1 must not wait until it may dispatch chunk 2: the state that it gets is a copy."""
    seen = []
    inner = adam()
    result = train(inner, hooks=[lambda step, metrics, state: seen.append(np.asarray(state.theta["w"]).copy())])
    assert len(seen) == 3 and not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[-1], result.meta_state.theta["w"])


def test_metrics_need_not_be_ours_and_weak_types_do_no_harm():
    weak = MetaLearner(
        lambda key: {"x": 0.0, "n": 1}, lambda key, s, t: ({"x": s["x"] + 1, "n": s["n"]}, {"x": s["x"]}), dict
    )
    result = fit(weak, lambda key, data: (), jax.random.key(0), steps=5, chunk=2)
    assert result.meta_state["x"] == 5 and result.metrics["x"].tolist() == [0, 1, 2, 3, 4]


def test_divergence_for_a_whole_chunk_names_the_steps():
    learner = descent(reverse(spoiled(lambda w: jnp.nan * jnp.sum(w))), theta_init, optax.sgd(0.1), max_norm=1.0)

    def breaks(key, first_bad):
        return jnp.full((2, 3), 1e3 * first_bad, jnp.float32)

    with pytest.raises(ObjectiveError, match="in the meta-steps 0 to 3; lower"):
        fit(learner, breaks, jax.random.key(0), steps=10, chunk=4, data=jnp.float32(1))
    fit(learner, breaks, jax.random.key(0), steps=3, chunk=4, data=jnp.float32(1))  # less than a chunk is data
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.warns(RuntimeWarning, match=r"lanes \[1\]"):
        result = fit(learner, breaks, keys, steps=8, chunk=4, data=jnp.asarray([0.0, 1.0]), batch=True)
    assert result.metrics.finite.tolist() == [[2] * 8, [0] * 8]


# --- lanes ---


def test_lanes_equal_separate_fits():
    keys = jax.random.split(jax.random.key(1), 3)
    centres = jnp.stack([jnp.asarray(CENTRE), -jnp.asarray(CENTRE), jnp.zeros(3, jnp.float32)])
    together = fit(with_key(adam()), sample, keys, steps=10, chunk=4, data=centres, batch=True)
    assert together.metrics.loss.shape == (3, 10)
    for lane in range(3):
        alone = fit(with_key(adam()), sample, keys[lane], steps=10, chunk=4, data=centres[lane])
        found = jax.tree.map(lambda leaf, lane=lane: leaf[lane], together)
        assert bits(found.meta_state.key) == bits(alone.meta_state.key)
        chex.assert_trees_all_close(found.meta_state.inner, alone.meta_state.inner, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(found.metrics, alone.metrics, rtol=1e-5, atol=1e-6)


def test_lanes_may_share_data():
    keys = jax.random.split(jax.random.key(1), 2)
    table = jnp.stack([jnp.asarray(CENTRE), jnp.zeros(3, jnp.float32)])

    def sample_fold(key, data):
        return sample(key, data["table"][data["fold"]])

    data = {"table": table, "fold": jnp.asarray([0, 1])}
    shared = fit(
        adam(), sample_fold, keys, steps=6, chunk=4, data=data, batch=True, data_axes={"table": None, "fold": 0}
    )
    given = fit(adam(), sample, keys, steps=6, chunk=4, data=table, batch=True)
    chex.assert_trees_all_close(shared.metrics, given.metrics, rtol=1e-6)


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


def test_lanes_resume_bit_by_bit(path):
    keys = jax.random.split(jax.random.key(1), 2)
    settings = {"steps": 9, "chunk": 4, "batch": True, "data": jnp.stack([jnp.asarray(CENTRE), jnp.zeros(3)])}
    named = {"checkpoint": path, "identity": "lanes"}
    with pytest.raises(Stop):
        fit(with_key(adam()), sample, keys, hooks=[stop_at(8, crash)], **settings, **named)
    resumed = fit(with_key(adam()), sample, keys, **settings, **named)
    assert resumed.metrics.loss.shape == (2, 9)
    assert bits(resumed) == bits(fit(with_key(adam()), sample, keys, **settings))


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
        ({"learner": with_key(descent(reverse(bowl), theta_init, optax.sgd(0.1), max_norm=1.0))}, "nothing expects"),
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
        fit(adam(), sample, **settings)


def test_the_bar_is_on_stderr_and_only_when_asked(capsys):
    train(adam())
    assert capsys.readouterr() == ("", "")
    train(adam(), progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "10/10" in err and "loss" in err


def test_the_program_works_with_x64(x64):
    result = fit(adam(), sample, jax.random.key(0), steps=3, chunk=2, data=jnp.asarray(CENTRE))
    assert isinstance(result.metrics, MetaMetrics) and result.metrics.loss.shape == (3,)
