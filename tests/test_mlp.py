"""The masked MLP is, configuration by configuration, the plain network that its hyperparameters describe."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metahpo_jax import population
from metahpo_jax.base import Learner, Status
from metahpo_jax.learners import Capacity, MLPConfig, capacities, mlp, mlp_configs, mlp_space
from metahpo_jax.learners.mlp import layers
from metahpo_jax.schedules import SCHEDULES, as_optax
from metahpo_jax.tasks import Split, Task

UPDATES = 50
ACTIVATION = {"relu": nn.relu, "tanh": jnp.tanh, "silu": nn.silu, "gelu": lambda x: x * nn.sigmoid(1.702 * x)}


def make_task(dtype=np.float32, rows=300, features=6, classes=3, padded=(8, 4), seed=0) -> Task:
    """A learnable three-class problem with padded features and classes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    y = np.argmax(x @ rng.standard_normal((features, classes)) + 0.3 * rng.standard_normal((rows, classes)), 1)
    wide = np.zeros((rows, padded[0]))
    wide[:, :features] = x

    def split(low: int, high: int) -> Split:
        return Split(
            jnp.asarray(wide[low:high], dtype), jnp.asarray(y[low:high], jnp.int32), jnp.asarray(high - low, jnp.int32)
        )

    return Task(
        train=split(0, 200), valid=split(200, 250), test=split(250, 300), class_mask=jnp.arange(padded[1]) < classes,
        n_features=jnp.asarray(features, jnp.int32), prior_entropy=jnp.asarray(1.1, jnp.float32),
        descriptor=jnp.zeros(0, jnp.float32), descriptor_mask=jnp.zeros(0, bool),
    )  # fmt: skip


def random_points(count: int, seed: int = 0) -> np.ndarray:
    space = mlp_space()
    rows = np.random.default_rng(seed).random((count, space.size))
    return np.asarray([space.encode(space.decode(r)) for r in rows], np.float32)


def without_dropout(config: MLPConfig) -> MLPConfig:
    return config.replace(dropout=np.zeros_like(config.dropout))


def only(config: MLPConfig, i: int) -> MLPConfig:
    return jax.tree.map(lambda x: jnp.asarray(x[i]), config)


class PlainMLP(nn.Module):
    """What anyone would write in Flax."""

    widths: tuple[int, ...]
    classes: int
    activation: str

    @nn.compact
    def __call__(self, x):
        dtype = x.dtype
        for width in self.widths:
            x = ACTIVATION[self.activation](nn.Dense(width, param_dtype=dtype)(x))
        return nn.Dense(self.classes, param_dtype=dtype)(x)


def plain_optimiser(config: dict, updates: int) -> optax.GradientTransformation:
    rate = as_optax(SCHEDULES.index(config["schedule"]), config["learning_rate"], updates)
    decay = config["weight_decay"]
    if config["optimiser"] == "adamw":
        return optax.adamw(rate, weight_decay=decay)
    inner = {"sgd": optax.sgd(rate), "momentum": optax.sgd(rate, momentum=0.9), "adam": optax.adam(rate)}
    return optax.chain(optax.add_decayed_weights(decay), inner[config["optimiser"]])


def plain_run(config: dict, h: MLPConfig, capacity: Capacity, state, task: Task, key) -> tuple[list[float], bool]:
    """Losses of 50 updates of an unmasked Flax network under optax, from the same weights and minibatches."""
    features, classes, width = int(task.n_features), int(task.class_mask.sum()), config["width"]
    padded = (task.train.x.shape[1], *[capacity.width] * capacity.depth, task.class_mask.shape[0])
    real = (features, *[width] * capacity.depth, classes)
    params = {
        f"Dense_{i}": {"kernel": w[:b, :a].T, "bias": c[:b]}
        for i, ((w, c), a, b) in enumerate(zip(layers(state.params, padded), real, real[1:], strict=False))
    }
    model = PlainMLP((width,) * capacity.depth, classes, config["activation"])
    optimiser = plain_optimiser(config | {k: float(getattr(h, k)) for k in ("learning_rate", "weight_decay")}, UPDATES)
    opt_state = optimiser.init(params)
    accumulate, smoothing = int(h.accumulate), float(h.label_smoothing)

    def loss(p, x, y):
        logits = jnp.asarray(model.apply({"params": p}, x))
        target = optax.smooth_labels(jax.nn.one_hot(y, classes, dtype=x.dtype), smoothing)
        return jnp.mean(optax.softmax_cross_entropy(logits, target))

    @jax.jit
    def update(p, s, x, y):
        value, gradient = jax.value_and_grad(loss)(p, x, y)
        moves, s = optimiser.update(gradient, s, p)
        return optax.apply_updates(p, moves), s, value

    values = []
    for t in range(UPDATES):
        rows = []
        for micro_step in range(t * accumulate, (t + 1) * accumulate):
            bits = jax.random.bits(
                jax.random.fold_in(key, micro_step),
                (capacity.micro * (1 + capacity.depth * capacity.width),),
                jnp.uint32,
            )
            rows.append(np.asarray(bits[: capacity.micro] % np.uint32(task.train.count)))
        rows = np.concatenate(rows)
        params, opt_state, value = update(
            params, opt_state, task.train.x[rows, :features], task.train.y[rows].astype(jnp.int32)
        )
        values.append(float(value))
    return values, bool(np.all(np.isfinite(values)) and max(values) < 1e6)


def masked_run(learner: Learner, h: MLPConfig, capacity: Capacity, state, task: Task, key) -> list[float]:
    """Losses of 50 updates of the masked learner, through `step`."""
    total = UPDATES * int(h.accumulate)

    @jax.jit
    def run(state, h):
        def body(state, t):
            state = learner.step(
                jax.random.fold_in(key, t), h, state, task, (t * capacity.micro) / (total * capacity.micro)
            )
            return state, state.train_loss

        return jax.lax.scan(body, state, jnp.arange(total))[1]

    return np.asarray(run(state, h))[int(h.accumulate) - 1 :: int(h.accumulate)].tolist()


def compare(u: np.ndarray, dtype, relative: float, largest_rate: float) -> int:
    config, capacity = mlp_configs(u)
    config, task, key = without_dropout(config), make_task(dtype), jax.random.key(7)
    compared = 0
    for i, cap in enumerate(capacity):
        natural = mlp_space().decode(u[i])
        if natural["learning_rate"] > largest_rate:
            continue
        # A constant rate, or a schedule whose phase both count in updates: with accumulation the masked learner
        # reads its schedule at the last micro-batch, the plain one at the first, so these differ by design.
        if int(config.accumulate[i]) > 1:
            natural["schedule"] = "constant"
            config.schedule[i] = 0
        learner = mlp(cap, horizon=UPDATES * natural["batch_size"], points=(natural["batch_size"],))
        h = only(config, i)
        state = learner.init(jax.random.key(3), h, task)
        want, converging = plain_run(natural, h, cap, state, task, key)
        if not converging:
            continue
        got = masked_run(learner, h, cap, state, task, key)
        np.testing.assert_allclose(got, want, rtol=relative, err_msg=str(natural))
        compared += 1
    return compared


@pytest.mark.usefixtures("x64")
def test_masked_equals_plain_in_float64() -> None:
    assert compare(random_points(10), np.float64, 1e-6, largest_rate=np.inf) >= 8


def test_masked_equals_plain_in_float32_at_stable_rates() -> None:
    assert compare(random_points(10, seed=1), np.float32, 1e-4, largest_rate=0.03) >= 4


def test_step_by_step_equals_train() -> None:
    """`train` is `vmap` of a scan over `step`, lanes with different batch sizes included."""
    capacity, horizon = Capacity(2, 16, 16), 16 * 24
    learner = mlp(capacity, horizon=horizon, points=(horizon // 2, horizon))
    config, _ = mlp_configs(random_points(4, seed=5))
    h = jax.tree.map(
        jnp.asarray,
        config.replace(width=np.asarray([9, 16, 12, 10], np.int32), accumulate=np.asarray([1, 2, 4, 1], np.int32)),
    )
    h = h.replace(learning_rate=jnp.full((4,), 0.01, jnp.float32))
    task, key = make_task(), jax.random.key(1)
    states = jax.vmap(learner.init, (None, 0, None))(jax.random.key(2), h, task)
    fused, curve = jax.jit(learner.train)(key, h, states, task, 0, horizon)

    def one(h, state):
        def body(state, t):
            return learner.step(
                jax.random.fold_in(key, t), h, state, task, t.astype(jnp.float32) * (16 / horizon)
            ), None

        return jax.lax.scan(body, state, jnp.arange(horizon // 16))[0]

    plain = jax.jit(jax.vmap(one))(h, states)
    chex.assert_trees_all_close(fused.params, plain.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(fused.updates, plain.updates)
    want = jax.vmap(lambda s: learner.evaluate(s, task, "valid").loss)(plain)
    np.testing.assert_allclose(curve.valid_loss[:, -1], want, rtol=1e-4)


def test_resuming_equals_not_stopping_bit_by_bit() -> None:
    capacity, horizon = Capacity(1, 16, 16), 16 * 30
    learner = mlp(capacity, horizon=horizon, points=(160, 320, horizon))
    config, _ = mlp_configs(random_points(3, seed=2))
    h = jax.tree.map(
        jnp.asarray, config.replace(width=np.full(3, 16, np.int32), accumulate=np.asarray([1, 2, 4], np.int32))
    )
    task, key = make_task(), jax.random.key(1)
    states = jax.vmap(learner.init, (None, 0, None))(jax.random.key(2), h, task)
    train = jax.jit(learner.train)
    whole, curve = train(key, h, states, task, 0, horizon)
    half, first = train(key, h, states, task, 0, 208)  # between two points, and within an update of the third lane
    resumed, second = train(key, h, half, task, 208, horizon)
    chex.assert_trees_all_equal(whole, resumed)
    np.testing.assert_array_equal(curve.valid_loss[:, 0], first.valid_loss[:, 0])
    np.testing.assert_array_equal(curve.valid_loss[:, 1:], second.valid_loss[:, 1:])
    assert (np.asarray(first.status)[:, 1:] == Status.EMPTY).all()


def test_a_diverging_lane_leaves_its_neighbours_bit_identical() -> None:
    capacity, horizon = Capacity(2, 32, 16), 16 * 40
    learner = mlp(capacity, horizon=horizon, points=(horizon,))
    config, _ = mlp_configs(random_points(4, seed=3))
    calm = config.replace(
        width=np.full(4, 32, np.int32),
        accumulate=np.ones(4, np.int32),
        learning_rate=np.full(4, 0.01, np.float32),
        optimiser=np.zeros(4, np.int32),
    )
    wild = calm.replace(learning_rate=np.asarray([0.01, 1e12, 0.01, 0.01], np.float32))
    task = make_task()

    @jax.jit
    def run(h):
        states = jax.vmap(learner.init, (None, 0, None))(jax.random.key(2), h, task)
        return learner.train(jax.random.key(1), h, states, task, 0, horizon)

    calm_states, calm_curve = run(calm)
    wild_states, wild_curve = run(wild)
    assert np.asarray(wild_states.alive).tolist() == [True, False, True, True]
    assert 0 < int(wild_states.diverged_at[1]) <= 40 and np.isnan(wild_curve.valid_loss[1, 0])
    assert np.isfinite(np.asarray(wild_states.params)).all()
    for lane in (0, 2, 3):
        one = jax.tree.map(lambda x, lane=lane: np.asarray(x)[lane], (calm_states, calm_curve))
        two = jax.tree.map(lambda x, lane=lane: np.asarray(x)[lane], (wild_states, wild_curve))
        chex.assert_trees_all_equal(one, two)


def test_a_hundred_configurations_compile_once_per_capacity() -> None:
    u = random_points(100, seed=4)
    config, touched = mlp_configs(u)
    task = make_task()

    @chex.assert_max_traces(n=len(set(touched)))
    def start(h, capacity):
        learner = mlp(capacity, horizon=256, points=(256,))
        return learner.init(jax.random.key(0), h, task).alive

    compiled = jax.jit(start, static_argnums=1)
    for i, capacity in enumerate(touched):
        assert bool(compiled(only(config, i), capacity))
    assert len(set(touched)) <= len(capacities()) == 36


def test_at_least_half_of_the_work_is_useful() -> None:
    from metahpo_jax.tasks import TaskShape

    config, touched = mlp_configs(random_points(1024, seed=6))
    chunks = population.plan(touched, config.accumulate)
    useful = population.useful_flops(config, [c.depth for c in touched], n_features=30, n_classes=3).sum()
    assert useful / population.executed_flops(chunks, TaskShape(4096, 1024, 32, 4)) >= 0.5
    assert sorted(i for c in chunks for i in c.lanes[: c.real]) == list(range(1024))


def test_population_equals_one_by_one_and_reports_divergence() -> None:
    u = random_points(6, seed=8)
    task, key, horizon = make_task(), jax.random.key(0), 768
    together = population.train_population(key, u, task, horizon=horizon, points=(256, horizon))
    for i in (0, 3):
        alone = population.train_population(key, u[i : i + 1], task, horizon=horizon, points=(256, horizon))
        np.testing.assert_allclose(alone.curve.valid_loss[0], together.curve.valid_loss[i], rtol=1e-3)
    bad = together.curve.status == Status.DIVERGED
    assert (np.isnan(together.curve.valid_loss) == bad).all()
    assert (np.isfinite(together.diverged_at) == bad[:, -1]).all()
    assert (together.flops[:, 1] == 3 * together.flops[:, 0]).all()


def test_fewer_capacities_hold_the_same_networks() -> None:
    config, touched = mlp_configs(random_points(64, seed=9))
    coarse, few = population.coarsen(config, touched)
    assert len(set(few)) <= 12
    for i, (old, new) in enumerate(zip(touched, few, strict=True)):
        assert new.width >= old.width and new.depth == old.depth
        assert new.micro * coarse.accumulate[i] == old.micro * config.accumulate[i]
