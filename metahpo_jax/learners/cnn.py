"""A convolutional network on small grey images: every hyperparameter but blocks and kernel is a traced value within a capacity.

A block is convolution (stride 1, zero padding), activation, 2 x 2 max pooling where the side is even, and dropout. The channels of the last
one are averaged over the image (Lin, Chen and Yan 2014, section 3.2) and classified by a linear layer. Channels beyond a configuration's own
are zero, as in `mlp`.

Layout: batch-last, `[channels, side, side, B]`. A convolution is one matrix product with shifted copies of its input: XLA's own convolution
with a kernel per network runs at a few per cent of a CPU's speed. Lanes are trained one after the other: the copies of one fill the cache.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from metahpo_jax.base import Array, Key, Learner, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners.activations import activate, with_slope
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.learners.lanes import pointwise
from metahpo_jax.learners.noise import kept
from metahpo_jax.learners.settings import MICRO_BATCHES, TRAINING, Settings
from metahpo_jax.learners.supervised import Dropout, Network, TrainConfig, supervised
from metahpo_jax.spaces import Choice, Int, Space
from metahpo_jax.tasks.base import Task, TaskShape

BLOCKS, CHANNELS, KERNELS = (1, 2, 3), (8, 16, 32, 64), (3, 5)


class CNNCapacity(NamedTuple):
    """What a compiled program is shaped by: blocks, most channels, kernel side, rows per micro-batch."""

    blocks: int
    channels: int
    kernel: int
    micro: int


class CNNConfig(TrainConfig):
    """Hyperparameters as arrays `[]` (or `[C]` for many)."""

    channels: Array  # int32
    activation: Array  # int32
    dropout: Array


def cnn_space() -> Space:
    """The eleven hyperparameters of small convolutional networks."""
    return Space.of(
        {"blocks": Int(1, 3), "channels": Int(8, 64, log=True), "kernel": Choice(*KERNELS, ordered=True), **TRAINING}
    )


def side_of(features: int) -> int:
    """Side of a square image of so many pixels.

    Raises:
      ConfigError: when it is not square.
    """
    side = math.isqrt(features)
    if side * side != features:
        raise ConfigError(
            f"cnn: a task must hold square grey images, got {features} features per row; use mlp for other data."
        )
    return side


def sides(side: int, blocks: int) -> tuple[int, ...]:
    """Side of the image before each block and after the last."""
    out = [side]
    for _ in range(blocks):
        out.append(out[-1] // 2 if out[-1] % 2 == 0 else out[-1])
    return tuple(out)


def shifted(x: Array, kernel: int) -> Array:
    """The `kernel^2` shifted copies of `x [I, S, S, B]`, zero beyond its edges, as rows `[kernel^2 * I, S * S * B]`."""
    inputs, side, _, batch = x.shape
    edge = kernel // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    copies = [padded[:, i : i + side, j : j + side] for i in range(kernel) for j in range(kernel)]
    return jnp.stack(copies).reshape(kernel * kernel * inputs, side * side * batch)


@jax.custom_vjp
def convolve(weights: Array, x: Array) -> Array:
    """`[O, S, S, B]` from weights `[O, I, k, k]` and `x [I, S, S, B]`: stride 1, zero padding."""
    out, _, kernel, _ = weights.shape
    flat = weights.transpose(0, 2, 3, 1).reshape(out, -1)
    return (flat @ shifted(x, kernel)).reshape(out, *x.shape[1:])


def _convolve_forward(weights: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(weights, x), (weights, x)


def _convolve_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    weights, x = residuals
    out, inputs, kernel, _ = weights.shape
    of_weights = (
        cotangent.reshape(out, -1) @ shifted(x, kernel).T
    )  # the copies are made again: cheaper than keeping them
    # Back-propagation is a convolution with the kernel turned round and its channels exchanged.
    of_x = convolve(weights.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], cotangent)
    return of_weights.reshape(out, kernel, kernel, inputs).transpose(0, 3, 1, 2), of_x


convolve.defvjp(_convolve_forward, _convolve_backward)


def pool(x: Array) -> Array:
    """2 x 2 maxima of `[I, S, S, B]` where S is even, else `x`."""
    channels, side, _, batch = x.shape
    if side % 2:
        return x
    return x.reshape(channels, side // 2, 2, side // 2, 2, batch).max((2, 4))


def network(blocks: int, channels: int, kernel: int, side: int, activations: tuple[str, ...]) -> Network:
    """A stack of blocks of at most `channels` channels, for images of one side."""
    steps = sides(side, blocks)
    sizes = [channels * s * s for s in steps[1:]]
    starts = np.cumsum([0, *sizes])

    def init(key: Key, h: CNNConfig, task: Task) -> PyTree:
        dtype, classes = task.train.x.dtype, task.class_mask.shape[-1]
        exists = jnp.arange(channels) < h.channels
        keys = jax.random.split(key, blocks + 1)
        layers, before, real = [], jnp.ones((1,), bool), jnp.ones((), jnp.int32)
        for layer in range(blocks):
            noise = jax.random.normal(keys[layer], (channels, before.shape[0], kernel, kernel), dtype)
            scale = jnp.sqrt(2.0 / (real * kernel * kernel)).astype(dtype)
            mask = exists[:, None, None, None] & before[None, :, None, None]
            layers.append((jnp.where(mask, noise * scale, 0.0), jnp.zeros((channels,), dtype)))
            before, real = exists, jnp.asarray(h.channels, jnp.int32)
        noise = jax.random.normal(keys[-1], (classes, channels), dtype) / jnp.sqrt(real.astype(dtype))
        layers.append((jnp.where(task.class_mask[:, None] & exists[None, :], noise, 0.0), jnp.zeros((classes,), dtype)))
        return layers

    def images(x: Array) -> Array:
        return x.T.reshape(1, side, side, x.shape[0])

    def dropped(noise: Dropout | None, layer: int, hidden: Array) -> Array:
        if noise is None:
            return hidden
        bits = noise.bits[starts[layer] : starts[layer + 1]].reshape(hidden.shape)
        return jnp.where(kept(bits, noise.rate), hidden / (1.0 - noise.rate), 0.0)

    def logits(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        hidden = images(x)
        for layer, (weights, biases) in enumerate(layers[:-1]):
            z = lax.conv_general_dilated(hidden, weights, (1, 1), "SAME", dimension_numbers=("CHWN", "OIHW", "CHWN"))
            hidden = dropped(noise, layer, pool(activate(activation, z + biases[:, None, None, None], activations)))
        weights, biases = layers[-1]
        return weights @ hidden.mean((1, 2)) + biases[:, None]

    def fast(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        hidden = images(x)
        for layer, (weights, biases) in enumerate(layers[:-1]):
            z = convolve(weights, hidden) + biases[:, None, None, None]
            hidden = pointwise(z, *with_slope(activation, lax.stop_gradient(z), activations))
            hidden = dropped(noise, layer, pool(hidden))
        weights, biases = layers[-1]
        return weights @ hidden.mean((1, 2)) + biases[:, None]

    def lanes(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        if noise is None:
            return jax.vmap(lambda a, p: fast(a, p, x, None))(activation, layers)
        return jax.vmap(lambda a, p, rate: fast(a, p, x, Dropout(rate, noise.bits)))(activation, layers, noise.rate)

    return Network(
        init=init,
        kind=lambda h: jnp.asarray(h.activation, jnp.int32),
        logits=logits,
        lanes=lanes,
        noise=(int(starts[-1]),),
    )


def cnn(
    capacity: CNNCapacity, *, side: int, horizon: int, points: tuple[int, ...], settings: Settings | None = None, fused: bool = True
) -> Learner:  # fmt: skip
    """Learner for all configurations of one capacity, on tasks of images of one side; other arguments as of `mlp`."""
    settings = settings or Settings(cnn_space(), {})
    blocks, channels, kernel, micro = capacity
    return supervised(
        network(blocks, channels, kernel, side, settings.among("activation")), settings, micro=micro, horizon=horizon, points=points,
        fused=fused, together=False,
    )  # fmt: skip


def flops_per_sample(blocks: int, channels: int, kernel: int, side: int, classes: int) -> float:
    """Multiply-adds counted twice, of one training sample: forward, weight gradient, and input gradient but for block 1."""
    area = [s * s for s in sides(side, blocks)[:-1]]
    products = [area[0] * channels * kernel**2, *(a * channels**2 * kernel**2 for a in area[1:]), channels * classes]
    return float(6 * sum(products) - 2 * products[0])


def cnn_configs(u: np.ndarray, settings: Settings) -> tuple[CNNConfig, list[CNNCapacity]]:
    """Hyperparameters `[N]` (NumPy) and the capacity of each of `N` points `u [N, D]` of `cnn_space()`, or of what `settings` vary."""
    found = settings.arrays(u)
    shapes = (found["blocks"], settings.bins("channels", found["channels"], CHANNELS), found["kernel"], found["micro"])
    return CNNConfig.of(found), [CNNCapacity(*map(int, shape)) for shape in zip(*shapes, strict=True)]


def coarsen(config: CNNConfig, exact: list[CNNCapacity]) -> tuple[CNNConfig, list[CNNCapacity]]:
    """The same networks in fewer capacities: the smallest micro-batch serves all."""
    least = MICRO_BATCHES[0]
    return config.in_micro_batches([c.micro for c in exact], least), [c._replace(micro=least) for c in exact]


@functools.cache  # one object per setting, so that its programs are compiled once
def cnn_family(**fixed: Any) -> LearnerFamily:
    """Convolutional networks over `cnn_space()`, less what is `fixed`, on tasks of square grey images."""
    settings = Settings(cnn_space(), fixed)

    def useful(config: CNNConfig, touched: list[CNNCapacity], task: Task) -> np.ndarray:
        side, classes = side_of(task.train.x.shape[-1]), int(np.sum(np.asarray(task.class_mask)))
        rows = zip(np.asarray(config.channels), touched, strict=True)
        return np.asarray([flops_per_sample(c.blocks, int(n), c.kernel, side, classes) for n, c in rows])

    def executed(capacity: CNNCapacity, shape: TaskShape) -> float:
        side = side_of(shape.features)
        return flops_per_sample(capacity.blocks, capacity.channels, capacity.kernel, side, shape.classes)

    def working_set(capacity: CNNCapacity, shape: TaskShape) -> int:
        areas = [s * s for s in sides(side_of(shape.features), capacity.blocks)[:-1]]
        per_row = [area * capacity.channels * (capacity.kernel**2 + 3) for area in areas]
        return 4 * capacity.micro * max(per_row)

    return LearnerFamily(
        name="cnn",
        space=settings.space,
        configs=lambda u: cnn_configs(np.asarray(u), settings),
        coarsen=coarsen,
        learner=lambda capacity, shape, horizon, points: cnn(
            capacity, side=side_of(shape.features), horizon=horizon, points=points, settings=settings
        ),
        useful=useful,
        executed=executed,
        working_set=working_set,
    )
