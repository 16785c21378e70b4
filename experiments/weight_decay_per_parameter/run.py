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

from experiments.mnist import CLASSES, Images, accuracy, cross_entropies, drawn
from experiments.weight_decay_per_parameter import config
from metahpo_jax.base import Array, Key
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Inner, advance, implicit, reverse
from metahpo_jax.metalearners import descent
from metahpo_jax.training import fit


class Splits(NamedTuple):
    """Three draws."""

    train: Images
    valid: Images
    test: Images


class State(NamedTuple):
    """Weights `[F, K]` and their velocity."""

    weights: Array
    velocity: Array


def cross_entropy(w: Array, images: Images) -> Array:
    """Mean in nats."""
    return jnp.mean(cross_entropies(w, images))


def penalised(key: Key, theta: Array, w: Array, task: Splits) -> Array:
    """The training loss; `theta` are the logarithms of the decays, `[F, K]` or one for all `[1, 1]`."""
    decays = jnp.exp(jnp.minimum(theta, config.MOST))
    return cross_entropy(w, task.train) + 0.5 * jnp.sum(decays * w**2)


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
    task, inner = Splits(*drawn((config.SEED, seed), (config.TRAIN, config.VALID, config.TEST))), training()
    shape, one = (task.train[0].shape[1], CLASSES), (1, 1)
    grid = {g: scores(jnp.full(one, g, jnp.float32), task) for g in config.GRID}
    best = min(grid, key=lambda g: grid[g]["valid_loss"])
    found = {"one for all, best of a grid": grid[best] | {"log_decay": best}}
    exact = jax.jit(reverse(inner).step)(jax.random.key(0), jnp.full(shape, best, jnp.float32), (), task)[0].gradient
    learned = {}
    for name, (how, parts) in {
        "one for all, learned": ("cg", one), "one for each, cg": ("cg", shape), "one for each, neumann": ("neumann", shape),
    }.items():  # fmt: skip
        estimator, start = implicit(inner, **config.SOLVERS[how]), jnp.full(parts, best, jnp.float32)
        learner = descent(estimator, lambda key, start=start: start, optax.adam(config.META_RATE), max_norm=None)
        began = time.perf_counter()
        tasks = jax.tree.map(lambda x: x[None], task)
        result = fit(
            learner, lambda key, data: data, jax.random.key(seed), steps=meta_steps, chunk=10, data=tasks, progress=True
        )
        learned[name] = learner.export(result.meta_state)
        found[name] = scores(learned[name], task) | {"seconds": time.perf_counter() - began}
        if parts == shape:
            own = jax.jit(estimator.step)(jax.random.key(0), start, (), task)[0].gradient
            cosine = jnp.vdot(own, exact) / jnp.linalg.norm(own) / jnp.linalg.norm(exact)
            found[name]["cosine_to_unrolled"] = float(cosine)
        print(f"draw {seed}, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found, learned["one for each, cg"]


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
    each = mean["one for each, cg"]
    claims = []
    for other in ("one for all, best of a grid", "one for all, learned"):
        worst = max(found["one for each, cg"]["test_loss"] - found[other]["test_loss"] for found, _ in draws)
        claims += [
            below(f"one decay for each - {other}, test loss, worst draw", worst, 0.0),
            at_least(
                f"one decay for each - {other}, test accuracy, mean",
                each["test_accuracy"] - mean[other]["test_accuracy"],
                0.0,
            ),
        ]
    claims.append(
        at_least("cosine of the implicit gradient (cg) to the unrolled one", each["cosine_to_unrolled"], 0.95)
    )
    for method, row in mean.items():
        print(f"{method:28}", *(f"{what} {value:.4g}" for what, value in row.items()))
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
