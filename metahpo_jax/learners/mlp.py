"""A multilayer perceptron in which every hyperparameter but the exact depth is a traced value within a capacity.

Layout: feature-major, batch-last (`h [H, B] = W [H, F] @ x [F, B]`). One configuration is written down; `vmap` over configurations of one
task, which share their minibatches, turns the first layer into a single matrix product.

Masking costs nothing inside the loop: weights beyond the width, the features or the classes start at zero, every activation maps 0 to 0,
and so their gradients are exactly zero for ever. A narrow network in a wide capacity therefore is a narrow network; only the random draws of its
initial weights and dropout noise depend on the capacity, since they have its size.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metahpo_jax.base import Array, Curve, Key, Learner, Metrics, Status
from metahpo_jax.learners.curves import train_to_points
from metahpo_jax.learners.optimisers import OPTIMISERS, update
from metahpo_jax.schedules import SCHEDULES, factor
from metahpo_jax.spaces import Choice, Float, Int, Space
from metahpo_jax.tasks.base import Task

ACTIVATIONS = ("relu", "tanh", "silu", "gelu")
_SLOPE = (0.0, 2.0, 1.0, 1.702)  # of the one sigmoid that the three smooth activations share
DEPTHS, WIDTHS, MICRO_BATCHES, BATCHES = (1, 2, 3), (16, 32, 64, 128), (16, 32, 64), (16, 32, 64, 128, 256)
LOSS_CAP = 1e6  # a training loss beyond this counts as diverged, in nats


class Capacity(NamedTuple):
    """What a compiled program is shaped by: hidden layers, largest width, rows per micro-batch."""

    depth: int
    width: int
    micro: int


class MLPConfig(struct.PyTreeNode):
    """Hyperparameters as arrays `[]` (or `[C]` for many). Indices refer to `ACTIVATIONS`, `OPTIMISERS` and `SCHEDULES`."""

    width: Array  # int32
    accumulate: Array  # int32: micro-batches per update, batch / micro
    activation: Array  # int32
    optimiser: Array  # int32
    schedule: Array  # int32
    learning_rate: Array
    weight_decay: Array
    dropout: Array
    label_smoothing: Array


class MLPState(struct.PyTreeNode):
    """A network in training. Its `S` weights and biases are one vector, so that an update is one sweep (see `layers`)."""

    activation: Array  # `[]` int32, which evaluation needs as well
    params: Array  # `[S]`
    first: Array  # `[S]` first moment
    second: Array  # `[S]` second moment
    gradient: Array  # `[S]` mean over the micro-batches of the update under way, so far
    partial_loss: Array  # `[]` likewise
    micro_steps: Array  # `[]` int32 micro-batches seen
    updates: Array  # `[]` int32
    alive: Array  # `[]` bool: False once diverged, and from then on nothing changes
    diverged_at: Array  # `[]` int32 micro-step, -1 while alive
    train_loss: Array  # `[]` of the last update
    gradient_norm: Array  # `[]` of the last update
    learning_rate: Array  # `[]` of the last update, after the schedule


def mlp_space() -> Space:
    """The ten hyperparameters of issue-sized tabular networks, the space of the committed meta-dataset."""
    return Space(
        depth=Int(1, 3),
        width=Int(8, 128, log=True),
        batch_size=Choice(*BATCHES, ordered=True),
        activation=Choice(*ACTIVATIONS),
        optimiser=Choice(*OPTIMISERS),
        learning_rate=Float(1e-4, 1.0, log=True),
        weight_decay=Float(1e-6, 1e-1, log=True),
        dropout=Float(0.0, 0.6),
        label_smoothing=Float(0.0, 0.2),
        schedule=Choice(*SCHEDULES),
    )


def mlp_configs(u: Array | np.ndarray) -> tuple[MLPConfig, list[Capacity]]:
    """Hyperparameters `[N]` (NumPy, float32) and the capacity of each of `N` points `u [N, D]` of `mlp_space()`."""
    space = mlp_space()
    rows = [space.decode(point) for point in np.asarray(u)]

    def column(name: str, table: tuple[str, ...] | None = None) -> np.ndarray:
        values = [r[name] if table is None else table.index(r[name]) for r in rows]
        return np.asarray(values, np.float32 if table is None else np.int32)

    batch = column("batch_size").astype(np.int32)
    micro = np.minimum(batch, MICRO_BATCHES[-1])
    width = column("width").astype(np.int32)
    fields: dict[str, Any] = dict(  # NumPy arrays: a caller slices them before anything is traced
        width=width,
        accumulate=batch // micro,
        activation=column("activation", ACTIVATIONS),
        optimiser=column("optimiser", OPTIMISERS),
        schedule=column("schedule", SCHEDULES),
        learning_rate=column("learning_rate"),
        weight_decay=column("weight_decay"),
        dropout=column("dropout"),
        label_smoothing=column("label_smoothing"),
    )
    bins = [next(w for w in WIDTHS if w >= x) for x in width]
    return MLPConfig(**fields), [Capacity(r["depth"], b, int(m)) for r, b, m in zip(rows, bins, micro, strict=True)]


def capacities() -> tuple[Capacity, ...]:
    """All capacities that `mlp_space()` can touch: 36."""
    return tuple(Capacity(d, w, m) for d in DEPTHS for w in WIDTHS for m in MICRO_BATCHES)


def flops_per_sample(layers: list[int]) -> float:
    """Multiply-adds counted twice, of one training sample: forward, weight gradient, and input gradient but for layer 1."""
    products = [a * b for a, b in itertools.pairwise(layers)]
    return float(6 * sum(products) - 2 * products[0])


def activate(activation: Array, x: Array) -> Array:
    """One of `ACTIVATIONS` by traced index, through a single sigmoid s(a x): tanh is 2 s(2x) - 1, SiLU x s(x), and GELU x s(1.702 x)
    (Hendrycks and Gimpel 2016, section 2). All map 0 to 0.
    """
    s = jax.nn.sigmoid(jnp.asarray(_SLOPE, x.dtype)[activation] * x)
    smooth = jnp.where(activation == 1, 2.0 * s - 1.0, x * s)
    return jnp.where(activation == 0, jnp.maximum(x, 0.0), smooth)


def layers(params: Array, sizes: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """Weights `[out, in]` and biases `[out]` of each layer, from the vector `[S]` of a network of these layer sizes."""
    out, at = [], 0
    for fan_in, fan_out in itertools.pairwise(sizes):
        weights = params[at : at + fan_in * fan_out].reshape(fan_out, fan_in)
        at += fan_in * fan_out
        out.append((weights, params[at : at + fan_out]))
        at += fan_out
    return out


def mlp(capacity: Capacity, *, horizon: int, points: tuple[int, ...]) -> Learner:
    """Learner for all configurations of one capacity, on tasks of any one shape.

    Args:
      capacity: depth, largest width and micro-batch. Configurations must fit (`mlp_configs` says which capacity each needs).
      horizon: samples of the whole planned run, which the schedules refer to.
      points: samples at which `train` evaluates, increasing multiples of the micro-batch.

    Minibatches are drawn uniformly with replacement from the key of the micro-step alone, dropout noise likewise, so that
    all configurations see the same ones and a result does not depend on its neighbours.
    """
    depth, width, micro = capacity

    def sizes(task: Task) -> tuple[int, ...]:
        return (task.train.x.shape[-1], *[width] * depth, task.class_mask.shape[-1])

    def init(key: Key, h: MLPConfig, task: Task) -> MLPState:
        dtype = task.train.x.dtype
        padded = sizes(task)
        real = [task.n_features, *[h.width] * depth, jnp.sum(task.class_mask)]
        total = sum((a + 1) * b for a, b in itertools.pairwise(padded))
        noise = layers(jax.random.normal(key, (total,), dtype), padded)
        pieces = []
        for (weights, biases), fan_in, fan_out in zip(noise, real, real[1:], strict=False):
            rows, columns = jnp.arange(weights.shape[0]) < fan_out, jnp.arange(weights.shape[1]) < fan_in
            scaled = weights / jnp.sqrt(jnp.maximum(fan_in, 1).astype(dtype))
            pieces += [jnp.where(rows[:, None] & columns[None, :], scaled, 0.0).reshape(-1), jnp.zeros_like(biases)]
        params = jnp.concatenate(pieces)
        zeros = jnp.zeros_like(params)
        nan, none = jnp.asarray(jnp.nan, dtype), jnp.zeros((), jnp.int32)
        return MLPState(
            activation=jnp.asarray(h.activation, jnp.int32),
            params=params,
            first=zeros,
            second=zeros,
            gradient=zeros,
            partial_loss=jnp.zeros((), dtype),
            micro_steps=none,
            updates=none,
            alive=jnp.asarray(True),
            diverged_at=none - 1,
            train_loss=nan,
            gradient_norm=nan,
            learning_rate=nan,
        )

    def forward(
        activation: Array, stack: list[tuple[Array, Array]], x: Array, rate: Array, noise: Array | None = None
    ) -> Array:
        """Logits `[K, B]` of rows `x [B, F]`; `noise [depth, width, B]` are the uniforms of dropout at `rate`, if any."""
        hidden = x.T
        for layer, (weights, biases) in enumerate(stack[:-1]):
            hidden = activate(activation, weights @ hidden + biases[:, None])
            if noise is not None:
                hidden = jnp.where(noise[layer] >= rate, hidden / (1.0 - rate), 0.0)
        weights, biases = stack[-1]
        return weights @ hidden + biases[:, None]

    def log_probabilities(logits: Array, task: Task) -> Array:
        masked = jnp.where(task.class_mask[:, None], logits, -1e9)
        return jax.nn.log_softmax(masked, axis=0)

    def loss(stack: list[tuple[Array, Array]], h: MLPConfig, task: Task, x: Array, y: Array, noise: Array) -> Array:
        log_p = log_probabilities(forward(h.activation, stack, x, h.dropout.astype(x.dtype), noise), task)
        exists = task.class_mask[:, None]
        hot = (jnp.arange(exists.shape[0], dtype=y.dtype)[:, None] == y[None, :]).astype(x.dtype)
        smoothing = h.label_smoothing.astype(x.dtype)
        target = (1.0 - smoothing) * hot + smoothing * exists / jnp.sum(exists)
        return -jnp.mean(jnp.sum(jnp.where(exists, target * log_p, 0.0), axis=0))

    def accumulate(key: Key, h: MLPConfig, state: MLPState, task: Task) -> MLPState:
        """Adds the gradient of one micro-batch."""
        # One draw serves rows and dropout: each further one would cost a second of compilation. 2^32 mod 4096 rows is no bias.
        bits = jax.random.bits(key, (micro * (1 + depth * width),), jnp.uint32)
        rows = bits[:micro] % task.train.count.astype(jnp.uint32)
        noise = ((bits[micro:] >> 8).astype(task.train.x.dtype) * 2.0**-24).reshape(depth, width, micro)
        stack = layers(state.params, sizes(task))
        value, gradient = jax.value_and_grad(loss)(stack, h, task, task.train.x[rows], task.train.y[rows], noise)
        share = 1.0 / h.accumulate.astype(value.dtype)
        flat = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(gradient)])
        return state.replace(
            gradient=state.gradient + share * flat,
            partial_loss=state.partial_loss + share * value,
            micro_steps=state.micro_steps + 1,
        )

    def due(h: MLPConfig, state: MLPState) -> Array:
        return state.micro_steps % h.accumulate == 0

    def apply(h: MLPConfig, state: MLPState, progress: Array) -> MLPState:
        """Updates where an update is due; a network that diverges here keeps its last finite weights and stops."""
        now = due(h, state)
        norm = jnp.sqrt(jnp.sum(state.gradient * state.gradient))
        healthy = jnp.isfinite(norm) & (state.partial_loss < LOSS_CAP)
        rate = h.learning_rate.astype(norm.dtype) * factor(h.schedule, progress.astype(norm.dtype))
        params, first, second = update(
            h.optimiser, rate, h.weight_decay.astype(norm.dtype), state.updates + 1,
            state.gradient, state.params, state.first, state.second,
        )  # fmt: skip
        go = now & state.alive & healthy
        return state.replace(
            params=jnp.where(go, params, state.params),
            first=jnp.where(go, first, state.first),
            second=jnp.where(go, second, state.second),
            gradient=jnp.where(now, 0.0, state.gradient),
            partial_loss=jnp.where(now, 0.0, state.partial_loss),
            updates=state.updates + go,
            alive=state.alive & (healthy | ~now),
            diverged_at=jnp.where(now & state.alive & ~healthy, state.micro_steps, state.diverged_at),
            train_loss=jnp.where(go, state.partial_loss, state.train_loss),
            gradient_norm=jnp.where(go, norm, state.gradient_norm),
            learning_rate=jnp.where(go, rate, state.learning_rate),
        )

    def step(key: Key, h: MLPConfig, state: MLPState, task: Task, progress: Array) -> MLPState:
        return apply(h, accumulate(key, h, state, task), progress)

    def predict(state: MLPState, task: Task, x: Array) -> Array:
        """Log-probabilities `[K, B]` of rows `x [B, F]`, without dropout."""
        logits = forward(state.activation, layers(state.params, sizes(task)), x, jnp.zeros((), x.dtype))
        return log_probabilities(logits, task)

    def evaluate(state: MLPState, task: Task, split: str) -> Metrics:
        rows = getattr(task, split)
        return score(predict(state, task, rows.x), rows.y, rows.count)

    def score(log_p: Array, y: Array, count: Array) -> Metrics:
        weight = (jnp.arange(y.shape[0]) < count).astype(log_p.dtype) / jnp.maximum(count, 1)
        hot = jnp.arange(log_p.shape[0], dtype=y.dtype)[:, None] == y[None, :]
        own = jnp.sum(jnp.where(hot, log_p, 0.0), axis=0)
        right = jnp.argmax(log_p, axis=0) == y
        return Metrics(loss=-jnp.sum(own * weight), accuracy=jnp.sum(right * weight))

    def train(key: Key, h: MLPConfig, state: MLPState, task: Task, start: Array, stop: Array) -> tuple[MLPState, Curve]:
        def advance(t: Array, states: MLPState) -> MLPState:
            states = jax.vmap(accumulate, (None, 0, 0, None))(jax.random.fold_in(key, t), h, states, task)
            progress = t.astype(jnp.float32) * (micro / horizon)
            # Lanes may differ in batch size; the branch is real, and skipped while no lane is due.
            return jax.lax.cond(
                jnp.any(jax.vmap(due)(h, states)),
                lambda s: jax.vmap(apply, (0, 0, None))(h, s, progress),
                lambda s: s,
                states,
            )

        def observe(states: MLPState) -> Curve:
            return jax.vmap(curve_point, (0, None))(states, task)

        return train_to_points(advance, observe, state, points=points, micro=micro, start=start, stop=stop)

    def curve_point(state: MLPState, task: Task) -> Curve:
        # One forward pass over both splits compiles in half the time of two.
        both = jnp.concatenate([task.valid.x, task.test.x])
        log_p = predict(state, task, both)
        n = task.valid.y.shape[0]
        valid = score(log_p[:, :n], task.valid.y, task.valid.count)
        test = score(log_p[:, n:], task.test.y, task.test.count)
        ok = state.alive & jnp.isfinite(valid.loss)

        def kept(x: Array) -> Array:
            return jnp.where(ok, x, jnp.nan).astype(jnp.float32)

        return Curve(
            valid_loss=kept(valid.loss), valid_accuracy=kept(valid.accuracy), test_accuracy=kept(test.accuracy),
            train_loss=kept(state.train_loss), gradient_norm=kept(state.gradient_norm), learning_rate=kept(state.learning_rate),
            status=jnp.where(ok, int(Status.OK), int(Status.DIVERGED)).astype(jnp.int32),
        )  # fmt: skip

    return Learner(init=init, step=step, evaluate=evaluate, train=train)
