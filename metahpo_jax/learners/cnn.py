"""A convolutional network on small grey images: every hyperparameter but blocks and kernel is a traced value within a capacity.

A block is convolution (stride 1, zero padding), 2 x 2 max pooling where the side is even, activation, and dropout; pooling first changes nothing
where the activation rises, and leaves a quarter of it to compute. The channels of the last block are averaged over the image (Lin, Chen and Yan
2014, section 3.2) and classified by a linear layer. Channels beyond a configuration's own are zero, as in `mlp`.

Layout: `[B, side, side, channels]`. Lanes are trained one after the other, because XLA's convolution is as fast as a CPU's matrix products with
one kernel, and runs at a few per cent of that with a kernel per network, which is what `vmap` makes of it.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from metahpo_jax.base import Array, Key, Learner, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.learners.activations import activate, with_slope
from metahpo_jax.learners.family import LearnerFamily
from metahpo_jax.learners.lanes import apart, pointwise
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


def per_channel(values: Array) -> Array:
    """`[C]` as `[1, 1, 1, C]`, to be combined with `[B, S, S, C]`."""
    return values[None, None, None, :]


def plain_convolution(x: Array, weights: Array, edge: int | None = None) -> Array:
    """`[B, S', S', O]` from `x [B, S, S, I]` and weights `[k, k, I, O]`: stride 1, `edge` rows of zeros on all sides or as many as keep S."""
    padding = "SAME" if edge is None else [(edge, edge)] * 2
    return lax.conv_general_dilated(x, weights, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def bordered(x: Array, kernel: int) -> Array:
    """`x [B, S, S, I]` with the zeros around it that a kernel reaches."""
    edge = (kernel // 2,) * 2
    return jnp.pad(x, ((0, 0), edge, edge, (0, 0)))


def many_channels(x: Array, weights: Array) -> Array:
    """`plain_convolution` that keeps S. XLA:CPU is fast only where the kernel fits into the image: else the zeros must be in memory."""
    if weights.shape[0] <= x.shape[1]:
        return plain_convolution(x, weights)
    return plain_convolution(lax.optimization_barrier(bordered(x, weights.shape[0])), weights, 0)


def shifted(x: Array, kernel: int) -> list[Array]:
    """The `kernel^2` shifted copies of `x [B, S, S, I]`, zero beyond its edges."""
    side, padded = x.shape[1], bordered(x, kernel)
    return [padded[:, i : i + side, j : j + side] for i in range(kernel) for j in range(kernel)]


@jax.custom_vjp
def convolve(x: Array, weights: Array) -> Array:
    """`plain_convolution` that keeps S, with derivatives in the one layout that XLA:CPU computes fast inside a loop.

    Outside loops XLA brings other layouts into that one by itself; inside it falls back to code fifty times slower.
    """
    kernel = weights.shape[0]
    if weights.shape[2] > 1:
        return many_channels(x, weights)

    def added_up(x: Array, weights: Array) -> Array:
        return jnp.asarray(sum(map(operator.mul, shifted(x, kernel), map(per_channel, weights.reshape(kernel**2, -1)))))

    # With a single input there is next to nothing to multiply: shifted copies are scaled and added while the output is written.
    return apart(jnp.isfinite(x[0, 0, 0, 0]), added_up, x, weights)


def _convolve_forward(x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, weights), (x, weights)


def _convolve_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weights = residuals
    kernel, _, inputs, out = weights.shape
    of_x = many_channels(cotangent, weights[::-1, ::-1].transpose(0, 1, 3, 2))
    if inputs == 1:
        copies = jnp.stack(shifted(x, kernel)).reshape(kernel**2, -1)
        return of_x, (copies @ cotangent.reshape(-1, out)).reshape(weights.shape)
    # The images play the channels, the cotangent the kernel.
    of_weights = plain_convolution(x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), kernel // 2)
    return of_x, of_weights.transpose(1, 2, 0, 3)


convolve.defvjp(_convolve_forward, _convolve_backward)


@jax.custom_vjp
def larger(x: Array) -> Array:
    """The larger of each pair of rows, `[..., n]` of `x [..., 2, n]`; of equal numbers, each is held responsible for half."""
    return jnp.maximum(x[..., 0, :], x[..., 1, :])


def _larger_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    value = jnp.maximum(x[..., 0, :], x[..., 1, :])
    return value, (x, value)


def _larger_backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array]:
    x, value = residuals
    share = jnp.where(x[..., 0, :] == x[..., 1, :], 0.5 * cotangent, cotangent)
    return (jnp.where(x == value[..., None, :], share[..., None, :], 0.0),)


larger.defvjp(_larger_forward, _larger_backward)


def pool(x: Array) -> Array:
    """2 x 2 maxima of `[B, S, S, C]` where S is even, else `x`; of rows first, which leaves long runs to compare."""
    batch, side, _, channels = x.shape
    if side % 2:
        return x
    pairs = larger(x.reshape(batch, side // 2, 2, side * channels))
    return larger(pairs.reshape(batch, side // 2, side // 2, 2, channels))


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
            noise = jax.random.normal(keys[layer], (kernel, kernel, before.shape[0], channels), dtype)
            scale = jnp.sqrt(2.0 / (real * kernel * kernel)).astype(dtype)
            layers.append(
                (
                    jnp.where((before[:, None] & exists[None, :])[None, None], noise * scale, 0.0),
                    jnp.zeros((channels,), dtype),
                )
            )
            before, real = exists, jnp.asarray(h.channels, jnp.int32)
        noise = jax.random.normal(keys[-1], (classes, channels), dtype) / jnp.sqrt(real.astype(dtype))
        layers.append((jnp.where(task.class_mask[:, None] & exists[None, :], noise, 0.0), jnp.zeros((classes,), dtype)))
        return layers

    def dropped(noise: Dropout | None, layer: int, hidden: Array) -> Array:
        if noise is None:
            return hidden
        bits = noise.bits[starts[layer] : starts[layer + 1]].reshape(hidden.shape)
        return jnp.where(kept(bits, noise.rate), hidden / (1.0 - noise.rate), 0.0)

    def through(
        convolution: Callable[[Array, Array], Array], activated: Callable[[Array, Array], Array], layers: PyTree, x: Array, noise: Dropout | None
    ) -> Array:  # fmt: skip
        hidden = x.reshape(-1, side, side, 1)
        for layer, (weights, biases) in enumerate(layers[:-1]):
            hidden = dropped(noise, layer, activated(pool(convolution(hidden, weights)), biases))
        weights, biases = layers[-1]
        return weights @ hidden.mean((1, 2)).T + biases[:, None]

    def logits(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        def activated(z: Array, biases: Array) -> Array:
            return activate(activation, z + per_channel(biases), activations)

        return through(plain_convolution, activated, layers, x, noise)

    def fast(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        def activated(z: Array, biases: Array) -> Array:
            def both(z: Array, biases: Array) -> tuple[Array, Array]:
                return with_slope(activation, z + per_channel(biases), activations)

            constant = lax.stop_gradient((z, biases))
            # What dropout writes is in memory; without it the value would be computed again, and slowly, by what transposes it.
            value, slope = apart(jnp.isfinite(x[0, 0]), both, *constant) if noise is None else both(*constant)
            return pointwise(z + per_channel(biases), value, slope)

        return through(convolve, activated, layers, x, noise)

    def lanes(activation: Array, layers: PyTree, x: Array, noise: Dropout | None) -> Array:
        def lane(i: int) -> Array:
            own = None if noise is None else Dropout(noise.rate[i], noise.bits)
            return fast(activation[i], jax.tree.map(lambda leaf: leaf[i], layers), x, own)

        return jnp.stack([lane(i) for i in range(activation.shape[0])])  # not `vmap`: see above

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

    def learner(capacity: CNNCapacity, shape: TaskShape, horizon: int, points: tuple[int, ...]) -> Learner:
        fused = jax.default_backend() == "cpu"  # an accelerator convolves with many kernels at once
        return cnn(
            capacity, side=side_of(shape.features), horizon=horizon, points=points, settings=settings, fused=fused
        )

    def useful(config: CNNConfig, touched: list[CNNCapacity], task: Task) -> np.ndarray:
        side, classes = side_of(task.train.x.shape[-1]), int(np.sum(np.asarray(task.class_mask)))
        rows = zip(np.asarray(config.channels), touched, strict=True)
        return np.asarray([flops_per_sample(c.blocks, int(n), c.kernel, side, classes) for n, c in rows])

    def executed(capacity: CNNCapacity, shape: TaskShape) -> float:
        side = side_of(shape.features)
        return flops_per_sample(capacity.blocks, capacity.channels, capacity.kernel, side, shape.classes)

    def working_set(capacity: CNNCapacity, shape: TaskShape) -> int:
        areas = [s * s for s in sides(side_of(shape.features), capacity.blocks)[:-1]]
        return 4 * capacity.micro * capacity.channels * 3 * sum(areas)  # what is kept for the way back, and two more

    return LearnerFamily(
        name="cnn",
        space=settings.space,
        fixed=tuple(sorted(settings.fixed.items())),
        configs=lambda u: cnn_configs(np.asarray(u), settings),
        coarsen=coarsen,
        learner=learner,
        useful=useful,
        executed=executed,
        working_set=working_set,
    )
