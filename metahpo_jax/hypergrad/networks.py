"""Multilayer perceptrons as `Problem`s: classifiers of the library's tasks, and regressors of arrays."""

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad.gradient_descent import Problem
from metahpo_jax.tasks.base import Split, Task

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu
}  # fmt: skip
Layers = list[tuple[Array, Array]]  # weights `[out, in]`, biases `[out]`


def layers(key: Key, sizes: tuple[int, ...], dtype: jnp.dtype, real_inputs: Array | int | None = None) -> Layers:
    """Normal weights of variance 1 / fan-in, zero biases; `real_inputs` where the first layer's inputs are padded."""
    keys, out = jax.random.split(key, len(sizes) - 1), []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        real = fan_in if i or real_inputs is None else real_inputs
        scale = 1.0 / jnp.sqrt(jnp.asarray(real, dtype))
        out.append((scale * jax.random.normal(keys[i], (fan_out, fan_in), dtype), jnp.zeros((fan_out,), dtype)))
    return out


def outputs(stack: Layers, x: Array, activation: str, key: Key | None = None, noise: Array | float = 0.0) -> Array:
    """`[K, B]` of inputs `x [B, F]`; with a key, hidden units are multiplied with 1 + noise N(0, 1) (Srivastava et al. 2014, section 10)."""
    hidden = x.T
    for i, (weights, biases) in enumerate(stack[:-1]):
        hidden = ACTIVATIONS[activation](weights @ hidden + biases[:, None])
        if key is not None:
            hidden = hidden * (1.0 + noise * jax.random.normal(jax.random.fold_in(key, i), hidden.shape, hidden.dtype))
    weights, biases = stack[-1]
    return weights @ hidden + biases[:, None]


def classifier(
    depth: int, width: int, *, batch: int | None = None, activation: str = "tanh", noisy: bool = False
) -> Problem:  # fmt: skip
    """A network on a `Task`: cross-entropy in nats on minibatches of the training rows, and on all validation rows.

    Args:
      depth, width: hidden layers and their units.
      batch: rows of a minibatch, drawn with replacement; None for all rows in every step.
      noisy: whether `gaussian_dropout` and `data_noise` can differ from zero; without, the noise is left out of the program.
    """
    _check(depth, width, activation)

    def init(key: Key, task: Task) -> Layers:
        sizes = (task.train.x.shape[-1], *[width] * depth, task.class_mask.shape[-1])
        return layers(key, sizes, task.train.x.dtype, jnp.maximum(task.n_features, 1))

    def cross_entropy(logits: Array, y: Array, task: Task, smoothing: Array | float) -> Array:
        """`[B]` in nats."""
        exists = task.class_mask[:, None]
        log_p = jax.nn.log_softmax(jnp.where(exists, logits, -1e9), axis=0)
        hot = jax.nn.one_hot(y, logits.shape[0], axis=0, dtype=log_p.dtype)
        wanted = (1.0 - smoothing) * hot + smoothing * exists / jnp.sum(exists)
        return -jnp.sum(jnp.where(exists, wanted * log_p, 0.0), axis=0)

    def mean_over(split: Split, losses: Array) -> Array:
        real = jnp.arange(split.y.shape[0]) < split.count
        return jnp.sum(jnp.where(real, losses, 0.0)) / jnp.maximum(split.count, 1).astype(losses.dtype)

    def train_loss(key: Key, stack: Layers, task: Task, values: Mapping[str, Array]) -> Array:
        rows_key, data_key, unit_key = jax.random.split(key, 3)
        x, y = task.train.x, task.train.y
        if batch is not None:
            rows = jax.random.randint(rows_key, (batch,), 0, task.train.count)
            x, y = x[rows], y[rows]
        if noisy:
            real = (jnp.arange(x.shape[1]) < task.n_features).astype(x.dtype)
            x = x + values["data_noise"] * real[None, :] * jax.random.normal(data_key, x.shape, x.dtype)
        logits = outputs(stack, x, activation, unit_key if noisy else None, values["gaussian_dropout"])
        losses = cross_entropy(logits, y, task, values["label_smoothing"])
        return jnp.mean(losses) if batch is not None else mean_over(task.train, losses)

    def valid_loss(stack: Layers, task: Task) -> Array:
        return mean_over(task.valid, cross_entropy(outputs(stack, task.valid.x, activation), task.valid.y, task, 0.0))

    def full_loss(stack: Layers, task: Task, values: Mapping[str, Array]) -> Array:
        logits = outputs(stack, task.train.x, activation)
        return mean_over(task.train, cross_entropy(logits, task.train.y, task, values["label_smoothing"]))

    uses = ("label_smoothing", "gaussian_dropout", "data_noise") if noisy else ("label_smoothing",)
    return Problem(init, train_loss, valid_loss, full_loss, uses)


def relative(problem: Problem) -> Problem:
    """The same problem with its validation loss in units of the data set's prior entropy: 1 is to have learned nothing."""

    def valid_loss(weights: Layers, task: Task) -> Array | tuple[Array, object]:
        out = problem.valid_loss(weights, task)
        return (out[0] / task.prior_entropy, out[1]) if isinstance(out, tuple) else out / task.prior_entropy

    return problem._replace(valid_loss=valid_loss)


def regressor(sizes: tuple[int, ...], *, activation: str = "relu") -> Problem:
    """A network on a pair of training and validation data, each `(x [N, F], y [N, K])`: mean squared error over all rows."""
    _check(len(sizes) - 2, min(sizes), activation)

    def error(stack: Layers, data: tuple[Array, Array]) -> Array:
        x, y = data
        return jnp.mean((outputs(stack, x, activation) - y.T) ** 2)

    def init(key: Key, task: PyTree) -> Layers:
        return layers(key, sizes, task[0][0].dtype)

    return Problem(
        init,
        train_loss=lambda key, stack, task, values: error(stack, task[0]),
        valid_loss=lambda stack, task: error(stack, task[1]),
        full_loss=lambda stack, task, values: error(stack, task[0]),
    )


def _check(depth: int, width: int, activation: str) -> None:
    if depth < 0 or width < 1 or activation not in ACTIVATIONS:
        raise ConfigError(
            f"network: expected a depth of at least 0, a positive width and one of {', '.join(ACTIVATIONS)}, got {depth}, {width}, "
            f"{activation!r}."
        )
