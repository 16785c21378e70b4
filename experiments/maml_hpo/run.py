"""A learning rate learned by MAML through five inner steps, on labels that can be learned and on random ones, beside a grid of 200 rates.

python -m experiments.maml_hpo.run            # writes experiments/maml_hpo/results.json and a picture
python -m experiments.maml_hpo.run --quick
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.record import Claim, arguments, at_most, interval, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.maml_hpo import config
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Theta, classifier, gradient_descent
from metahpo_jax.hypergrad.inner import episode
from metahpo_jax.metalearners import maml
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.tasks.base import Split, Task
from metahpo_jax.training import fit

RATES = Free(Space(learning_rate=Float(*config.RATE_BOUNDS, log=True)))
INNER = gradient_descent(classifier(1, config.HIDDEN, activation="relu"), RATES, steps=config.INNER_STEPS)


def drawn(key: Key, *, learnable: bool) -> Task:
    """A task: Gaussian features, and labels on either side of a random plane, or of no relation to them."""
    x_key, plane_key, label_key = jax.random.split(key, 3)
    rows = config.TRAIN_ROWS + config.VALID_ROWS
    x = jax.random.normal(x_key, (rows, config.FEATURES), jnp.float32)
    plane = jax.random.normal(plane_key, (config.FEATURES,), jnp.float32)
    y = x @ plane > 0 if learnable else jax.random.bernoulli(label_key, 0.5, (rows,))

    def split(start: int, stop: int) -> Split:
        return Split(x[start:stop], y[start:stop].astype(jnp.int32), jnp.asarray(stop - start, jnp.int32))

    valid = split(config.TRAIN_ROWS, rows)
    return Task(
        train=split(0, config.TRAIN_ROWS), valid=valid, test=valid, class_mask=jnp.ones(2, bool),
        n_features=jnp.asarray(config.FEATURES, jnp.int32), prior_entropy=jnp.asarray(math.log(2.0), jnp.float32),
        descriptor=jnp.zeros(0, jnp.float32), descriptor_mask=jnp.zeros(0, bool),
    )  # fmt: skip


def batch_of(learnable: bool, tasks: int) -> Callable[[Key, PyTree], Task]:
    """Draws a batch."""
    return lambda key, data: jax.vmap(lambda k: drawn(k, learnable=learnable))(jax.random.split(key, tasks))


def free(rate: float) -> Theta:
    """A learning rate as what is learned."""
    return Theta(RATES.encode({"learning_rate": rate}))


def learned_rates(
    learnable: bool, seeds: int, same: PyTree | None, *, start: float = config.STARTS[0], repeats: int = config.REPEATS
) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates `[seeds]` and losses over meta-training `[seeds, steps]`.

    From the tasks `same [seeds, tasks]`, or fresh ones; in every meta-step each is trained from `repeats` initial weights.
    """
    fresh = batch_of(learnable, config.TASKS)

    def draw(key: Key, data: PyTree) -> Task:
        tasks = fresh(key, data) if same is None else data
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, repeats, axis=0), tasks)

    rate = optax.cosine_decay_schedule(config.META_RATE, config.META_STEPS)
    optimiser = optax.adam(rate, b1=config.META_B1, b2=config.META_B2)
    learner = maml(INNER, free(start), fresh(jax.random.key(0), ()), optimiser=optimiser, max_norm=None)
    keys = jax.random.split(jax.random.key(config.SEED), seeds)
    result = fit(learner, draw, keys, steps=config.META_STEPS, chunk=config.META_STEPS, data=same, batch=True)
    theta = jax.vmap(learner.export)(result.meta_state)
    return np.asarray(RATES.decode(theta.z)["learning_rate"]), result.metrics.loss


def best_of_starts(learnable: bool, seeds: int, same: PyTree | None) -> tuple[np.ndarray, np.ndarray, float]:
    """`learned_rates` of the start that ended with the lower loss, seed by seed, and the seconds of all.

    The loss is that on the tasks learned from, or as many fresh ones as are tested on, none of which is.
    """
    began = time.perf_counter()
    ends = [learned_rates(learnable, seeds, same, start=start) for start in config.STARTS]
    rates, curves = (np.stack(part, axis=1) for part in zip(*ends, strict=True))  # `[seeds, starts, ...]`
    if same is None:
        judged = batch_of(learnable, config.TEST_TASKS)(jax.random.key(config.SEED + 4), ())
        found = losses(rates.reshape(-1), judged, 1, seed=config.SEED + 5).mean(1).reshape(rates.shape)
    else:
        each = [jax.tree.map(lambda leaf, s=s: leaf[s], same) for s in range(seeds)]
        found = np.stack(
            [
                losses(own, one, config.REFINED, seed=config.SEED + 5).mean(1)
                for own, one in zip(rates, each, strict=True)
            ]
        )
    chosen = np.arange(seeds), found.argmin(1)
    return rates[chosen], curves[chosen], time.perf_counter() - began


@functools.partial(jax.jit, static_argnums=2)
def _losses(z: Array, tasks: Task, trainings: int, key: Key) -> Array:
    keys = jax.random.split(key, (tasks.class_mask.shape[0], trainings))

    def at(z: Array) -> Array:
        def of(keys: Key, task: Task) -> Array:
            return jnp.mean(jax.vmap(lambda key: episode(INNER, key, Theta({"learning_rate": z}), task)[0])(keys))

        return jax.vmap(of)(keys, tasks)

    return jax.lax.map(at, z)


def losses(rates: np.ndarray, tasks: Task, trainings: int, *, seed: int = config.SEED + 2) -> np.ndarray:
    """Validation losses `[rates, tasks]` after the inner training, means over initial weights that all rates share."""
    z = jnp.stack([free(float(rate)).z["learning_rate"] for rate in rates])
    return np.asarray(_losses(z, tasks, trainings, jax.random.key(seed)))


def study(learnable: bool, seeds: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Figures of one kind of labels, the grid's rates and its mean losses, with fresh tasks in every meta-step and on fresh tasks."""
    grid = np.geomspace(*config.RATE_BOUNDS, config.GRID)
    test = batch_of(learnable, config.TEST_TASKS)(jax.random.key(config.SEED + 1), ())
    rates, curve, seconds = best_of_starts(learnable, seeds, None)
    on_grid, own = losses(grid, test, 1), losses(rates, test, 1)
    best = int(on_grid.mean(1).argmin())
    advantage = interval(math.log(2.0) - own.mean(0))
    return {
        "learned_rates": rates.tolist(), "learned_loss": interval(own.mean(0)), "worst_seed": float(own.mean(1).max()),
        "grid_best_rate": float(grid[best]), "grid_best_loss": interval(on_grid[best]), "untrained_loss": interval(on_grid[0]),
        "first_meta_loss": float(curve[:, :10].mean()), "last_meta_loss": float(curve[:, -10:].mean()),
        "below_class_frequencies_by": advantage,
        "verdict": "something is learned" if advantage[1] > 0 else "nothing is learned: no better than the class frequencies",
        "seconds": round(seconds, 1),
    }, grid, on_grid.mean(1)  # fmt: skip


def example(seeds: int) -> dict[str, Any]:
    """The published example as it is: ten tasks, the same in every meta-step, with labels that can be learned; and the grid on these ten."""
    grid = np.geomspace(*config.RATE_BOUNDS, config.GRID)
    same = jax.vmap(lambda key: batch_of(True, config.TASKS)(key, ()))(
        jax.random.split(jax.random.key(config.SEED + 3), seeds)
    )
    learned = {
        "as it is": learned_rates(True, seeds, same, repeats=1)[0],
        "less noise, two starts": best_of_starts(True, seeds, same)[0],
    }  # fmt: skip
    ratios: dict[str, list[float]] = {name: [] for name in learned}
    best_rates = []
    for s in range(seeds):
        tasks = jax.tree.map(lambda leaf, s=s: leaf[s], same)
        likely = grid[np.argsort(losses(grid, tasks, config.TRAININGS).mean(1))[: config.LIKELY]]
        refined = losses(likely, tasks, config.REFINED).mean(1)
        own = losses(np.stack([rates[s] for rates in learned.values()]), tasks, config.REFINED).mean(1)
        for name, loss in zip(learned, own, strict=True):
            ratios[name].append(float(loss / refined.min()))
        best_rates.append(float(likely[refined.argmin()]))
    return {
        "learned_rates": {name: rates.tolist() for name, rates in learned.items()}, "grid_best_rates": best_rates,
        "loss_over_best_of_grid": ratios,
    }  # fmt: skip


def main() -> None:
    """Learns, compares with the grid, draws, writes."""
    options = arguments(__doc__ or "", "experiments/maml_hpo/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    figures, curves = {}, {}
    for name, learnable in (("learnable", True), ("random", False)):
        figures[name], grid, curves[name] = study(learnable, seeds)
        print(f"{name} labels: {figures[name]['verdict']}")
    figures["example"] = example(seeds)
    learnable, random = figures["learnable"], figures["random"]
    nothing = random["below_class_frequencies_by"][1]
    claims = [
        *(
            at_most(
                f"the example's ten tasks, {name}: loss of the worst seed's rate over that of the best of the grid", max(ratios), config.WITHIN
            )
            for name, ratios in figures["example"]["loss_over_best_of_grid"].items()
        ),
        at_most(
            "learnable labels, fresh tasks: loss of the worst seed's rate over that of the best of the grid",
            learnable["worst_seed"] / learnable["grid_best_loss"][0], config.WITHIN,
        ),
        Claim(
            "learnable labels, fresh tasks: advantage over the class frequencies, lower end of the interval",
            learnable["below_class_frequencies_by"][1], "> 0", learnable["below_class_frequencies_by"][1] > 0,
        ),
        Claim("random labels: the same, where nothing can be learned", nothing, "<= 0", nothing <= 0),
    ]  # fmt: skip
    draw(grid, curves, figures, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.maml_hpo.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=[f"seeds {seeds} to {config.SEEDS - 1}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(grid: np.ndarray, curves: dict[str, np.ndarray], figures: dict[str, Any], path: Path) -> None:
    """Loss over the learning rate, with what was learned."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.6), layout="constrained")
    for panel, (name, values) in zip(picture.subplots(1, 2), curves.items(), strict=True):
        panel.semilogx(grid, values, label="grid")
        for i, rate in enumerate(figures[name]["learned_rates"]):
            panel.axvline(rate, color="tab:orange", alpha=0.5, label="learned, one line per seed" if i == 0 else None)
        panel.axhline(math.log(2.0), color="grey", linestyle=":", label="class frequencies")
        panel.set(
            title=f"{name} labels",
            xlabel="learning rate",
            ylabel="validation loss after 5 steps (nats)",
            ylim=(0.2, 1.5),
        )
        panel.legend()
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
