"""How a classifier is trained: minibatches, gradient accumulation, optimisers, schedules, isolation and learning curves.

The networks plug in (`Network`): initial weights, and logits twice, of one network as anyone would write it and of `C` networks at once
as a CPU wants it. Everything else is written here once. `step` trains one network the plain way; `train` trains `C` of them
on one task, which share their minibatches (common random numbers), and is held to `vmap` of a scan over `step` by a test.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from metahpo_jax.base import Array, Curve, Key, Learner, Metrics, PyTree, Status
from metahpo_jax.learners.curves import train_to_points
from metahpo_jax.learners.lanes import cross_entropy
from metahpo_jax.learners.noise import draw, micro_key
from metahpo_jax.learners.optimisers import update
from metahpo_jax.learners.settings import Settings
from metahpo_jax.schedules import factor
from metahpo_jax.tasks.base import Task

LOSS_CAP = 1e6  # a training loss beyond this counts as diverged, in nats
EVAL_BLOCK = 256  # rows that are evaluated at once, so that their activations stay in cache


class TrainConfig(struct.PyTreeNode):
    """Hyperparameters of training as arrays `[]` (or `[C]`), whatever the network. Indices refer to `OPTIMISERS` and `SCHEDULES`."""

    accumulate: Array  # int32: micro-batches per update, batch / micro
    optimiser: Array  # int32
    schedule: Array  # int32
    learning_rate: Array
    weight_decay: Array
    label_smoothing: Array

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Those of `Settings.arrays` that this kind of network has. They stay NumPy: a caller slices before anything is traced."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})

    def in_micro_batches(self, old: Sequence[int], new: int | Sequence[int]) -> Self:
        """The same batches, in micro-batches of `new` rows instead of `old`."""
        return self.replace(accumulate=self.accumulate * (np.asarray(old, np.int32) // np.asarray(new, np.int32)))


class Dropout(NamedTuple):
    """Noise of one micro-batch."""

    rate: Array  # `[]` or `[C]`
    bits: Array  # uniform uint32, shared by all lanes


class Network(NamedTuple):
    """What is trained. `kind(h)` is what prediction needs of the hyperparameters besides the weights."""

    init: Callable[[Key, PyTree, Task], PyTree]  # key, h, task -> weights
    kind: Callable[[PyTree], PyTree]
    logits: Callable[[PyTree, PyTree, Array, Dropout | None], Array]  # kind, weights, x `[B, F]`, noise -> `[K, B]`
    lanes: Callable[[PyTree, PyTree, Array, Dropout | None], Array]  # the same of `C` networks -> `[C, K, B]`
    noise: tuple[int, ...]  # shape of the uniforms of dropout for one row


class TrainState(struct.PyTreeNode):
    """A network in training."""

    kind: PyTree  # see `Network`
    params: PyTree
    first: PyTree  # first moments
    second: PyTree  # second moments
    gradient: PyTree  # mean over the micro-batches of the update under way, so far
    partial_loss: Array  # `[]` likewise
    micro_steps: Array  # `[]` int32 micro-batches seen
    updates: Array  # `[]` int32
    alive: Array  # `[]` bool: False once diverged, and from then on nothing changes
    diverged_at: Array  # `[]` int32 micro-step, -1 while alive
    train_loss: Array  # `[]` of the last update
    gradient_norm: Array  # `[]` of the last update
    learning_rate: Array  # `[]` of the last update, after the schedule


class Batch(NamedTuple):
    """Rows of one micro-batch and its noise."""

    x: Array  # `[B, F]`
    y: Array  # `[B]` int32
    bits: Array


def supervised(
    network: Network, settings: Settings, *, micro: int, horizon: int, points: tuple[int, ...], together: bool = True, fused: bool = True
) -> Learner:  # fmt: skip
    """The learner of a network.

    Args:
      settings: which hyperparameters vary; what does not is left out of the program.
      micro: rows per micro-batch.
      horizon: samples of the whole planned run, which the schedules refer to.
      points: samples at which `train` evaluates, increasing multiples of `micro`.
      together: False for networks so large that `C` of them are better trained one after the other than side by side.
      fused: False for the readable reference, `vmap` of the plain layers.

    Hyperparameters `h` are a record with the fields of `TrainConfig`, `dropout`, and whatever the network wants. Minibatches are drawn uniformly
    with replacement from the key of the micro-step alone, dropout noise likewise, so that a result does not depend on its neighbours.
    """

    optimisers = settings.among("optimiser")
    dropout, accumulates = settings.can_be_positive("dropout"), "batch_size" not in settings.fixed

    def init(key: Key, h: PyTree, task: Task) -> TrainState:
        params = network.init(key, h, task)
        zeros = jax.tree.map(jnp.zeros_like, params)
        dtype = task.train.x.dtype
        nan, none = jnp.asarray(jnp.nan, dtype), jnp.zeros((), jnp.int32)
        return TrainState(
            kind=network.kind(h), params=params, first=zeros, second=zeros, gradient=zeros,
            partial_loss=jnp.zeros((), dtype), micro_steps=none, updates=none, alive=jnp.asarray(True), diverged_at=none - 1,
            train_loss=nan, gradient_norm=nan, learning_rate=nan,
        )  # fmt: skip

    def batch_of(key: Key, task: Task) -> Batch:
        rows, bits = draw(key, micro, task.train.count, (*network.noise, micro) if dropout else (0,))
        return Batch(task.train.x[rows], task.train.y[rows], bits)

    def noise(h: PyTree, batch: Batch) -> Dropout | None:
        return Dropout(h.dropout.astype(batch.x.dtype), batch.bits) if dropout else None

    def target(smoothing: Array, task: Task, y: Array) -> Array:
        """Smoothed one-hot labels `[K, B]`."""
        exists = task.class_mask[:, None]
        hot = (jnp.arange(exists.shape[0], dtype=y.dtype)[:, None] == y[None, :]).astype(smoothing.dtype)
        return (1.0 - smoothing) * hot + smoothing * exists / jnp.sum(exists)

    def loss(params: PyTree, h: PyTree, kind: PyTree, task: Task, batch: Batch) -> Array:
        log_p = log_probabilities(network.logits(kind, params, batch.x, noise(h, batch)), task)
        wanted = target(h.label_smoothing.astype(log_p.dtype), task, batch.y)
        return -jnp.mean(jnp.sum(jnp.where(task.class_mask[:, None], wanted * log_p, 0.0), axis=0))

    def loss_and_gradient(h: PyTree, state: TrainState, task: Task, batch: Batch) -> tuple[Array, PyTree]:
        return jax.value_and_grad(loss)(state.params, h, state.kind, task, batch)

    def losses_and_gradients(h: PyTree, states: TrainState, task: Task, batch: Batch) -> tuple[Array, PyTree]:
        """Of `C` networks: the gradient of the sum of losses is that of each in its own weights."""

        def total(params: PyTree) -> tuple[Array, Array]:
            logits = network.lanes(states.kind, params, batch.x, noise(h, batch))
            masked = jnp.where(task.class_mask[None, :, None], logits, -1e9)
            wanted = jax.vmap(target, (0, None, None))(h.label_smoothing.astype(masked.dtype), task, batch.y)
            losses = cross_entropy(masked, wanted, states.micro_steps[0] >= 0)
            return jnp.sum(losses), losses

        gradient, losses = jax.grad(total, has_aux=True)(states.params)
        return losses, gradient

    def gather(h: PyTree, state: TrainState, value: Array, gradient: PyTree) -> TrainState:
        """Adds one micro-batch's loss and gradient."""
        share = 1.0 / h.accumulate.astype(value.dtype)
        return state.replace(
            gradient=jax.tree.map(lambda total, part: total + share * part, state.gradient, gradient),
            partial_loss=state.partial_loss + share * value,
            micro_steps=state.micro_steps + 1,
        )

    def apply(h: PyTree, state: TrainState, progress: Array) -> TrainState:
        """Updates where an update is due; a network that diverges here keeps its last finite weights and stops."""
        now = state.micro_steps % h.accumulate == 0
        norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(state.gradient)))
        dtype = norm.dtype
        healthy = jnp.isfinite(norm) & (state.partial_loss < LOSS_CAP)
        rate = h.learning_rate.astype(dtype) * factor(h.schedule, progress.astype(dtype))
        go = now & state.alive & healthy

        def moved(gradient: Array, params: Array, first: Array, second: Array) -> tuple[Array, ...]:
            new = update(
                h.optimiser, rate, h.weight_decay.astype(dtype), state.updates + 1, gradient, params, first, second, optimisers
            )  # fmt: skip
            return tuple(jnp.where(go, a, b) for a, b in zip(new, (params, first, second), strict=True))

        leaves = [jax.tree.leaves(tree) for tree in (state.gradient, state.params, state.first, state.second)]
        columns = zip(*(moved(*leaf) for leaf in zip(*leaves, strict=True)), strict=True)
        params, first, second = (jax.tree.unflatten(jax.tree.structure(state.params), column) for column in columns)
        return state.replace(
            params=params,
            first=first,
            second=second,
            gradient=jax.tree.map(lambda x: jnp.where(now, 0.0, x), state.gradient),
            partial_loss=jnp.where(now, 0.0, state.partial_loss),
            updates=state.updates + go,
            alive=state.alive & (healthy | ~now),
            diverged_at=jnp.where(now & state.alive & ~healthy, state.micro_steps, state.diverged_at),
            train_loss=jnp.where(go, state.partial_loss, state.train_loss),
            gradient_norm=jnp.where(go, norm, state.gradient_norm),
            learning_rate=jnp.where(go, rate, state.learning_rate),
        )

    def step(key: Key, h: PyTree, state: TrainState, task: Task, progress: Array) -> TrainState:
        return apply(h, gather(h, state, *loss_and_gradient(h, state, task, batch_of(key, task))), progress)

    def evaluate(state: TrainState, task: Task, split: str) -> Metrics:
        rows = getattr(task, split)
        log_p = log_probabilities(network.logits(state.kind, state.params, rows.x, None), task)
        real, count = is_real(rows.y, rows.count, log_p.dtype), jnp.maximum(rows.count, 1)
        own, right = scores(log_p, rows.y)
        return Metrics(loss=-jnp.sum(own * real) / count, accuracy=jnp.sum(right * real) / count)

    def train(
        key: Key, h: PyTree, states: TrainState, task: Task, start: Array, stop: Array
    ) -> tuple[TrainState, Curve]:
        gradients = losses_and_gradients if fused else jax.vmap(loss_and_gradient, (0, 0, None, None))

        def next_batch(t: Array) -> Batch:
            return batch_of(micro_key(key, t), task)

        def advance(t: Array, carry: tuple[TrainState, Batch]) -> tuple[TrainState, Batch]:
            states, batch = carry
            progress = t.astype(jnp.float32) * (micro / horizon)
            values, gradient = gradients(h, states, task, batch)
            if accumulates:
                # Every micro-step sweeps the weights, masked where no update is due: a branch around that would copy them every time.
                states = jax.vmap(gather)(h, states, values, gradient)
                states = jax.vmap(apply, (0, 0, None))(h, states, progress)
            else:
                nothing = states.gradient
                states = states.replace(gradient=gradient, partial_loss=values, micro_steps=states.micro_steps + 1)
                states = jax.vmap(apply, (0, 0, None))(h, states, progress).replace(gradient=nothing)
            # The next batch is drawn one step ahead: what a loop carries is in memory, while what it computes in place
            # would be fused into its users and computed again for every lane.
            return states, next_batch(t + 1)

        def observe(carry: tuple[TrainState, Batch]) -> Curve:
            return curve_points(carry[0], task)

        carry = (states, next_batch(jnp.asarray(start, jnp.int32) // micro))
        (states, _), curve = train_to_points(
            advance, observe, carry, points=points, micro=micro, start=start, stop=stop
        )
        return states, curve

    def curve_points(states: TrainState, task: Task) -> Curve:
        """What is recorded of `C` networks, fields `[C]`."""
        loss, accuracy = split_scores(states, task)
        ok = states.alive & jnp.isfinite(loss[:, 0])

        def kept(x: Array) -> Array:
            return jnp.where(ok, x, jnp.nan).astype(jnp.float32)

        return Curve(
            valid_loss=kept(loss[:, 0]), valid_accuracy=kept(accuracy[:, 0]), test_accuracy=kept(accuracy[:, 1]),
            train_loss=kept(states.train_loss), gradient_norm=kept(states.gradient_norm),
            learning_rate=kept(states.learning_rate),
            status=jnp.where(ok, int(Status.OK), int(Status.DIVERGED)).astype(jnp.int32),
        )  # fmt: skip

    def split_scores(states: TrainState, task: Task) -> tuple[Array, Array]:
        """Loss and accuracy `[C, 2]` on validation and test, block of rows by block; blocks of padding are skipped."""
        predict = network.lanes if fused else jax.vmap(network.logits, (0, 0, None, None))
        dtype, lanes = task.train.x.dtype, states.alive.shape[0]
        rows = [task.valid, task.test]
        weight = jax.scipy.linalg.block_diag(*[is_real(r.y, r.count, dtype)[:, None] for r in rows])  # `[rows, 2]`
        x, y = (jnp.concatenate([getattr(r, name) for r in rows]) for name in "xy")
        blocks = (in_blocks(x, EVAL_BLOCK), in_blocks(y, EVAL_BLOCK), in_blocks(weight, EVAL_BLOCK))

        def count(block: tuple[Array, Array, Array]) -> Array:
            x, y, weight = block
            log_p = jax.vmap(log_probabilities, (0, None))(predict(states.kind, states.params, x, None), task)
            own, right = jax.vmap(scores, (0, None))(log_p, y)
            return jnp.stack([-own, right.astype(dtype)]) @ weight

        def add(total: Array, block: tuple[Array, Array, Array]) -> tuple[Array, None]:
            return total + lax.cond(jnp.any(block[2] > 0), count, lambda _: jnp.zeros_like(total), block), None

        total, _ = lax.scan(add, jnp.zeros((2, lanes, 2), dtype), blocks)
        counts = jnp.maximum(jnp.stack([r.count for r in rows]), 1)[None, :]
        return total[0] / counts, total[1] / counts

    def one_by_one(
        key: Key, h: PyTree, states: TrainState, task: Task, start: Array, stop: Array
    ) -> tuple[TrainState, Curve]:
        def alone(lane: tuple[PyTree, TrainState]) -> tuple[TrainState, Curve]:
            h, state = jax.tree.map(lambda x: x[None], lane)
            return jax.tree.map(lambda x: x[0], train(key, h, state, task, start, stop))

        return lax.map(alone, (h, states))

    return Learner(init=init, step=step, evaluate=evaluate, train=train if together or not fused else one_by_one)


def log_probabilities(logits: Array, task: Task) -> Array:
    """Log-softmax over the classes that exist, of `[K, B]`."""
    return jax.nn.log_softmax(jnp.where(task.class_mask[:, None], logits, -1e9), axis=0)


def scores(log_p: Array, y: Array) -> tuple[Array, Array]:
    """Log-probability `[B]` of the label, and whether the label's is the largest, of `[K, B]`."""
    hot = jnp.arange(log_p.shape[0], dtype=y.dtype)[:, None] == y[None, :]
    return jnp.sum(jnp.where(hot, log_p, 0.0), axis=0), jnp.argmax(log_p, axis=0) == y


def is_real(y: Array, count: Array, dtype: jnp.dtype) -> Array:
    """1 for real rows, 0 for padding. Sums over rows are divided at the end, so that a share of all is exactly 1."""
    return (jnp.arange(y.shape[0]) < count).astype(dtype)


def in_blocks(x: Array, size: int) -> Array:
    """`[N, ...]` as `[N / size, size, ...]`, padded with zeros."""
    size = min(size, x.shape[0])
    padded = jnp.pad(x, [(0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1)])
    return padded.reshape(-1, size, *x.shape[1:])
