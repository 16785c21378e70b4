"""Few-shot regression: a network's initial weights learned by MAML, first-order MAML, Meta-SGD and Reptile, beside pre-training and the oracle.

python -m experiments.maml_sinusoid.run            # writes experiments/maml_sinusoid/results.json and a picture
python -m experiments.maml_sinusoid.run --quick
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.record import arguments, at_most, below, interval, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.maml_sinusoid import config
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Estimator, Inner, Theta, gradient_descent, regressor, reverse
from metahpo_jax.metalearners import descent, maml, reptile
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.training import fit

SIZES = (1, *config.HIDDEN, 1)
ORACLE_SIZES = (3, *config.HIDDEN, 1)  # told amplitude and phase beside the input
PROBLEM = regressor(SIZES)
RATES = Free(Space(learning_rate=Float(1e-4, 1.0, log=True)))


def waves(key: Key, tasks: int, shots: int, query: int, *, told: bool = False) -> PyTree:
    """`tasks` sinusoids: training and validation data, each `(x [T, N, 1], y [T, N, 1])`; `told` adds amplitude and phase to x."""
    amplitude_key, phase_key, x_key = jax.random.split(key, 3)

    def uniform(key: Key, shape: tuple[int, ...], bounds: tuple[float, float]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, *bounds)

    amplitude = uniform(amplitude_key, (tasks, 1, 1), config.AMPLITUDE)
    phase = uniform(phase_key, (tasks, 1, 1), config.PHASE)
    x = uniform(x_key, (tasks, shots + query, 1), config.INPUTS)
    y = amplitude * jnp.sin(x - phase)
    if told:
        x = jnp.concatenate([x, *(jnp.broadcast_to(v, x.shape) for v in (amplitude, phase))], axis=2)
    return (x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:])


def training(steps: int = config.INNER_STEPS, rate: float = config.INNER_RATE, **settings: Any) -> Inner:
    """Gradient descent on a new task at a fixed rate."""
    return gradient_descent(PROBLEM, None, steps=steps, fixed={"learning_rate": rate}, **settings)


def meta_sgd() -> Inner:
    """Gradient descent with a learned rate per parameter."""
    return gradient_descent(PROBLEM, RATES, steps=config.INNER_STEPS, per="parameter")


def pooled(sizes: tuple[int, ...]) -> Callable[[Key, PyTree, PyTree], Array]:
    """The error of one network on the examples of a task, whichever it is."""
    return lambda key, weights, task: regressor(sizes).valid_loss(weights, (task[1], merged(task)))


def merged(task: PyTree) -> PyTree:
    """All examples of a task: what MAML learns from as two halves."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-2), *task)


def first(key: Key, sizes: tuple[int, ...]) -> PyTree:
    """Initial weights."""
    x = jnp.zeros((1, sizes[0]), jnp.float32)
    return regressor(sizes).init(key, ((x, x), (x, x)))


def learn(shots: int, keys: Key, steps: int) -> dict[str, PyTree]:
    """What each method learned, leaves `[seeds, ...]`."""
    example = waves(jax.random.key(0), config.TASKS_PER_STEP, shots, shots)

    def sample(key: Key, data: PyTree) -> PyTree:
        return waves(key, config.TASKS_PER_STEP, shots, shots)

    def whole(key: Key, data: PyTree) -> PyTree:
        both = merged(sample(key, data))
        return both, both

    def told(key: Key, data: PyTree) -> PyTree:
        return waves(key, config.TASKS_PER_STEP, shots, shots, told=True)

    def start(key: Key, rates: bool = False) -> Theta:
        weights = first(key, SIZES)
        count = sum(leaf.size for leaf in jax.tree.leaves(weights))
        z = RATES.encode({"learning_rate": config.INNER_RATE})["learning_rate"]
        return Theta({"learning_rate": jnp.full(count, z)} if rates else {}, weights)

    adam, key = optax.adam(config.META_RATE), jax.random.key(0)
    rates = start(key, rates=True)

    def learner(
        inner: Inner, theta: Theta, estimator: Estimator = "reverse", theta_init: Callable[[Key], Theta] = start
    ):
        return maml(inner, theta, example, estimator=estimator, optimiser=adam, max_norm=None, theta_init=theta_init)

    def pretraining(sizes: tuple[int, ...]):
        return descent(reverse(pooled(sizes)), lambda key: first(key, sizes), adam, max_norm=None)

    repeated = training(config.REPTILE_STEPS, config.REPTILE_RATE)
    learners = {
        "maml": (learner(training(), start(key)), sample),
        "first_order": (learner(training(first_order=True), start(key)), sample),
        "meta_sgd": (learner(meta_sgd(), rates, theta_init=lambda key: start(key, rates=True)), sample),
        "reptile": (learner(repeated, start(key), reptile), whole),
        "pretrained": (pretraining(SIZES), sample),
        "oracle": (pretraining(ORACLE_SIZES), told),
    }
    learned = {}
    for name, (method, draw) in learners.items():
        began = time.perf_counter()
        result = fit(method, draw, keys, steps=steps, chunk=1000, batch=True)
        learned[name] = jax.vmap(method.export)(result.meta_state)
        print(f"{shots} shots, {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return learned


def errors(inner: Inner, thetas: PyTree, tasks: PyTree, steps: int) -> np.ndarray:
    """Mean squared errors `[seeds, tasks, steps + 1]` after each gradient step on each task."""

    def one(theta: Theta, task: PyTree) -> Array:
        key = jax.random.key(0)  # full batches: nothing is random

        def step(state: PyTree, index: Array) -> tuple[PyTree, Array]:
            new = inner.step(key, theta, state, task, index)
            return new, PROBLEM.valid_loss(new.weights, task)

        state = inner.init(key, theta, task)
        _, after = jax.lax.scan(step, state, jnp.arange(steps))
        return jnp.concatenate([PROBLEM.valid_loss(state.weights, task)[None], after])

    return np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(thetas, tasks))


def curves(shots: int, learned: dict[str, PyTree]) -> tuple[dict[str, np.ndarray], list[float]]:
    """Errors of each method on the test tasks, and the step size that fine-tuning took for each number of steps."""
    most = max(config.REPORTED)
    valid_key, test_key = jax.random.split(jax.random.key(config.SEED + 1))
    valid = waves(valid_key, config.VALID_TASKS, shots, config.TEST_POINTS)
    test = waves(test_key, config.TEST_TASKS, shots, config.TEST_POINTS)
    told = waves(test_key, config.TEST_TASKS, shots, config.TEST_POINTS, told=True)
    weights = Theta({}, learned["pretrained"])
    by_rate = [errors(training(rate=r), weights, valid, most).mean((0, 1)) for r in config.FINE_TUNING_RATES]
    best = np.nanargmin(
        by_rate, axis=0
    )  # `[steps]`: the pre-trained network has the best step size for each number of steps
    out = {name: errors(training(), learned[name], test, most) for name in ("maml", "first_order")}
    out["meta_sgd"] = errors(meta_sgd(), learned["meta_sgd"], test, most)
    out["reptile"] = errors(training(rate=config.REPTILE_RATE), learned["reptile"], test, most)
    tuned = [errors(training(rate=r), weights, test, most) for r in config.FINE_TUNING_RATES]
    out["pretrained"] = np.stack([tuned[i][..., step] for step, i in enumerate(best)], axis=-1)
    oracle = regressor(ORACLE_SIZES)
    known = np.asarray(jax.vmap(jax.vmap(oracle.valid_loss, (None, 0)), (0, None))(learned["oracle"], told))
    out["oracle"] = np.repeat(known[..., None], most + 1, axis=-1)
    return out, [config.FINE_TUNING_RATES[i] for i in best]


def reported(found: np.ndarray) -> dict[str, list[float]]:
    """Mean over seeds and test tasks at the reported steps, with a 95 % bootstrap interval over tasks."""
    return {str(step): interval(found[..., step].mean(0)) for step in config.REPORTED}


def main() -> None:
    """Learns, tests, draws, writes."""
    options = arguments(__doc__ or "", "experiments/maml_sinusoid/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    steps = config.QUICK_META_STEPS if options.quick else config.META_STEPS
    keys = jax.random.split(jax.random.key(config.SEED), seeds)
    figures, claims, drawn = {}, [], {}
    for shots in config.SHOTS:
        found, rates = curves(shots, learn(shots, keys, steps))
        table = {name: reported(values) for name, values in found.items()}
        published = config.PUBLISHED_ONE_STEP[str(shots)]
        figures[str(shots)] = {"error": table, "published_after_one_step": published, "fine_tuning_rates": rates}
        drawn[shots] = found
        for name, figure in published.items():
            claims.append(
                at_most(f"{shots} shots: {name} after 1 step, beside the published figure", table[name]["1"][0], figure)
            )
        for at in ("1", "5", "10"):
            claims.append(
                below(
                    f"{shots} shots: maml - pretrained after {at}",
                    table["maml"][at][0] - table["pretrained"][at][0],
                    0.0,
                )
            )
    draw(drawn, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.maml_sinusoid.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=["seeds 1 and 2", f"meta-steps beyond {steps}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(found: dict[int, dict[str, np.ndarray]], path: Path) -> None:
    """Error against gradient steps, one panel per number of shots."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 3.8), layout="constrained")
    panels = picture.subplots(1, len(found), sharey=True)
    for panel, (shots, methods) in zip(panels, found.items(), strict=True):
        for name, values in methods.items():
            panel.plot(values.mean((0, 1)), marker="o", markersize=3, label=name.replace("_", " "))
        panel.set(xlabel="gradient steps on the new task", title=f"{shots} shots", yscale="log")
    panels[0].set(ylabel="mean squared error")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
