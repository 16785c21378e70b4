"""The masked MLP is, configuration by configuration, the plain network that its hyperparameters describe."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import make_task

from metahpo_jax.base import Learner
from metahpo_jax.learners import Capacity, MLPConfig, capacities, mlp, mlp_configs, mlp_space
from metahpo_jax.learners.mlp import coarsen
from metahpo_jax.learners.noise import draw, micro_key
from metahpo_jax.schedules import SCHEDULES, as_optax
from metahpo_jax.tasks import Task

UPDATES = 50
ACTIVATION = {"relu": nn.relu, "tanh": jnp.tanh, "silu": nn.silu, "gelu": lambda x: x * nn.sigmoid(1.702 * x)}


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
    real = (features, *[width] * capacity.depth, classes)
    params = {
        f"Dense_{i}": {"kernel": w[:b, :a].T, "bias": c[:b]}
        for i, ((w, c), a, b) in enumerate(zip(state.params, real, real[1:], strict=False))
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
            chosen, _ = draw(micro_key(key, micro_step), capacity.micro, task.train.count, (0,))
            rows.append(np.asarray(chosen))
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
            state = learner.step(micro_key(key, t), h, state, task, (t * capacity.micro) / (total * capacity.micro))
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
    assert compare(random_points(6), np.float64, 1e-6, largest_rate=np.inf) >= 5


def test_masked_equals_plain_in_float32_at_stable_rates() -> None:
    assert compare(random_points(6, seed=1), np.float32, 1e-4, largest_rate=0.03) >= 3


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
    assert len(set(touched)) <= len(capacities()) == 45


def test_fewer_capacities_hold_the_same_networks() -> None:
    config, touched = mlp_configs(random_points(64, seed=9))
    coarse, few = coarsen(config, touched)
    assert len(set(few)) <= 12
    for i, (old, new) in enumerate(zip(touched, few, strict=True)):
        assert new.width >= old.width and new.depth == old.depth
        assert new.micro * coarse.accumulate[i] == old.micro * config.accumulate[i]
