"""A multilayer perceptron in which every hyperparameter but the exact depth is a traced value within a capacity.

Masking costs nothing inside the loop: weights beyond the width, the features or the classes start at zero, every activation maps 0 to 0,
and so their gradients are exactly zero for ever. A narrow network in a wide capacity therefore is a narrow network; only the random draws of its
initial weights and dropout noise depend on the capacity, since they have its size.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from metahpo_jax.base import Array, Key, Learner
from metahpo_jax.learners.activations import ACTIVATIONS, activate, with_slope
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.learners.lanes import dense, dense_shared, over_lanes, pointwise, relu
from metahpo_jax.learners.noise import kept
from metahpo_jax.learners.settings import MICRO_BATCHES, TRAINING, Settings
from metahpo_jax.learners.supervised import Dropout, Network, TrainConfig, supervised
from metahpo_jax.spaces import Int, Space
from metahpo_jax.tasks.base import Task, TaskShape

DEPTHS, WIDTHS = (1, 2, 3), (16, 32, 64, 96, 128)
Stack = list[tuple[Array, Array]]  # weights `[out, in]` and biases `[out]` of each layer


class Capacity(NamedTuple):
    """What a compiled program is shaped by: hidden layers, largest width, rows per micro-batch."""

    depth: int
    width: int
    micro: int


class MLPConfig(TrainConfig):
    """Hyperparameters as arrays `[]` (or `[C]` for many). `activation` refers to `ACTIVATIONS`."""

    width: Array  # int32
    activation: Array  # int32
    dropout: Array


def mlp_space() -> Space:
    """The ten hyperparameters of small networks on tables, the space of the committed meta-dataset."""
    return Space.of({"depth": Int(1, 3), "width": Int(8, 128, log=True), **TRAINING})


def mlp_configs(u: Array | np.ndarray, settings: Settings | None = None) -> tuple[MLPConfig, list[Capacity]]:
    """Hyperparameters `[N]` (NumPy, float32) and the capacity of each of `N` points `u [N, D]` of `mlp_space()`, or of what `settings` vary."""
    settings = settings or Settings(mlp_space(), {})
    found = settings.arrays(np.asarray(u))
    shapes = (found["depth"], settings.bins("width", found["width"], WIDTHS), found["micro"])
    return MLPConfig.of(found), [Capacity(*map(int, shape)) for shape in zip(*shapes, strict=True)]


def capacities() -> tuple[Capacity, ...]:
    """All capacities that `mlp_space()` can touch: 45."""
    return tuple(Capacity(d, w, m) for d in DEPTHS for w in WIDTHS for m in MICRO_BATCHES)


def coarsen(config: MLPConfig, exact: list[Capacity]) -> tuple[MLPConfig, list[Capacity]]:
    """The same networks, with other draws of initial weights and dropout, in at most 12 capacities.

    Widths are 32 and 128, micro-batches 16 and 64.
    """
    coarse = [Capacity(c.depth, 32 if c.width <= 32 else 128, 64 if c.micro == 64 else 16) for c in exact]
    return config.in_micro_batches([c.micro for c in exact], [c.micro for c in coarse]), coarse


def sizes_of(capacity: Capacity, features: int, classes: int) -> tuple[int, ...]:
    """Layer sizes, padded, from the inputs on."""
    return (features, *[capacity.width] * capacity.depth, classes)


def flops_per_sample(sizes: list[int] | tuple[int, ...]) -> float:
    """Multiply-adds counted twice, of one training sample: forward, weight gradient, and input gradient but for layer 1."""
    products = [a * b for a, b in itertools.pairwise(sizes)]
    return float(6 * sum(products) - 2 * products[0])


def mlp(
    capacity: Capacity, *, horizon: int, points: tuple[int, ...], settings: Settings | None = None, fused: bool = True
) -> Learner:
    """Learner for all configurations of one capacity, on tasks of any one shape.

    Args:
      capacity: depth, largest width and micro-batch. Configurations must fit (`mlp_configs` says which capacity each needs).
      horizon, points, fused: see `supervised`.
      settings: what varies; what does not can be left out of the program.
    """
    settings = settings or Settings(mlp_space(), {})
    return supervised(
        network(capacity.depth, capacity.width, settings.among("activation")), settings, micro=capacity.micro, horizon=horizon,
        points=points, fused=fused,
    )  # fmt: skip


def network(depth: int, width: int, activations: tuple[str, ...] = ACTIVATIONS) -> Network:
    """A stack of `depth` hidden layers of at most `width` units; depth 0 is a linear model."""

    def init(key: Key, h: MLPConfig, task: Task) -> Stack:
        dtype = task.train.x.dtype
        padded = (task.train.x.shape[-1], *[width] * depth, task.class_mask.shape[-1])
        real = [task.n_features, *[h.width for _ in range(depth)], jnp.sum(task.class_mask)]
        total = sum(a * b for a, b in itertools.pairwise(padded))
        noise, at, stack = jax.random.normal(key, (total,), dtype), 0, []
        for (a, b), fan_in, fan_out in zip(itertools.pairwise(padded), real, real[1:], strict=False):
            weights = noise[at : at + a * b].reshape(b, a) / jnp.sqrt(jnp.maximum(fan_in, 1).astype(dtype))
            exists = (jnp.arange(b) < fan_out)[:, None] & (jnp.arange(a) < fan_in)[None, :]
            stack.append((jnp.where(exists, weights, 0.0), jnp.zeros((b,), dtype)))
            at += a * b
        return stack

    def logits(activation: Array, stack: Stack, x: Array, noise: Dropout | None) -> Array:
        hidden = x.T
        for layer, (weights, biases) in enumerate(stack[:-1]):
            hidden = activate(activation, weights @ hidden + biases[:, None], activations)
            if noise is not None:
                hidden = jnp.where(kept(noise.bits[layer], noise.rate), hidden / (1.0 - noise.rate), 0.0)
        weights, biases = stack[-1]
        return weights @ hidden + biases[:, None]

    def lanes(activation: Array, stack: Stack, x: Array, noise: Dropout | None) -> Array:
        hidden = x.T
        for layer, (weights, biases) in enumerate(stack[:-1]):
            z = (dense if layer else dense_shared)(weights, biases, hidden)
            if noise is None and activations == ("relu",):
                hidden = relu(z)
                continue
            value, slope = with_slope(over_lanes(activation), lax.stop_gradient(z), activations)
            if noise is not None:
                rate = over_lanes(noise.rate)
                factor = jnp.where(kept(noise.bits[layer][None], rate), 1.0 / (1.0 - rate), 0.0)
                value, slope = value * factor, slope * factor
            hidden = pointwise(z, value, slope)
        return (dense if depth else dense_shared)(*stack[-1], hidden)

    return Network(
        init=init, kind=lambda h: jnp.asarray(h.activation, jnp.int32), logits=logits, lanes=lanes, noise=(depth, width)
    )


@functools.cache  # one object per setting, so that its programs are compiled once
def mlp_family(**fixed: Any) -> LearnerFamily:
    """Multilayer perceptrons over `mlp_space()`, less what is `fixed`.

    >>> mlp_family(depth=1, optimiser="adam").space.names
    ('width', 'batch_size', 'activation', 'learning_rate', 'weight_decay', 'dropout', 'label_smoothing', 'schedule')

    Raises:
      ConfigError: for an unknown name or an impossible value.
    """
    settings = Settings(mlp_space(), fixed)

    def useful(config: MLPConfig, touched: list[Capacity], task: Task) -> np.ndarray:
        features, classes = int(task.n_features), int(np.sum(np.asarray(task.class_mask)))
        rows = zip(np.asarray(config.width), touched, strict=True)
        return np.asarray([flops_per_sample([features, *[int(w)] * c.depth, classes]) for w, c in rows])

    def working_set(capacity: Capacity, shape: TaskShape) -> int:
        sizes = sizes_of(capacity, shape.features, shape.classes)
        weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
        return 4 * (5 * weights + 3 * capacity.micro * sum(sizes[1:]))

    return LearnerFamily(
        name="mlp",
        space=settings.space,
        fixed=tuple(sorted(settings.fixed.items())),
        configs=lambda u: mlp_configs(u, settings),
        coarsen=coarsen,
        learner=lambda capacity, _shape, horizon, points: mlp(
            capacity, horizon=horizon, points=points, settings=settings
        ),
        useful=useful,
        executed=lambda capacity, shape: flops_per_sample(sizes_of(capacity, shape.features, shape.classes)),
        working_set=working_set,
    )
