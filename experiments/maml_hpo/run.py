"""A learning rate learned by MAML through five inner steps, beside a grid of 200 rates: on drawn tasks, real tables, and random labels of both.

python -m experiments.maml_hpo.run            # writes experiments/maml_hpo/results.json and a picture; needs `make datasets`
python -m experiments.maml_hpo.run --quick
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.record import Claim, arguments, at_most, interval, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.maml_hpo import config
from experiments.tables import data_sets
from metahpo_jax.base import Array, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Inner, Theta, classifier, episode, gradient_descent, relative
from metahpo_jax.metalearners import maml
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.tasks.base import Split, Task
from metahpo_jax.training import fit

LABELS = {
    "learnable": "drawn tasks", "random": "drawn tasks, random labels", "tables": "real tables", "tables, random": "real tables, random labels"
}  # fmt: skip
RATES = Free(Space(learning_rate=Float(*config.RATE_BOUNDS, log=True)))
INNER = gradient_descent(classifier(1, config.HIDDEN, activation="relu"), RATES, steps=config.INNER_STEPS)
# On real tables, minibatches of as many rows as a drawn task has; losses in units of that of the class frequencies.
ON_TABLES = gradient_descent(
    relative(classifier(1, config.HIDDEN, batch=config.TRAIN_ROWS, activation="relu")), RATES, steps=config.INNER_STEPS
)


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
    inner: Inner, fresh: Callable[[Key, PyTree], Task], seeds: int, data: PyTree = None, *, shared: bool = False,
    start: float = config.STARTS[0], repeats: int = config.REPEATS,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Learning rates `[seeds]` and losses over meta-training `[seeds, steps]`.

    In every meta-step, each task of a batch `fresh(key, data)` is trained from `repeats` initial weights; `data` has one row per seed unless it
    is `shared`.
    """

    def draw(key: Key, data: PyTree) -> Task:
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, repeats, axis=0), fresh(key, data))

    rate = optax.cosine_decay_schedule(config.META_RATE, config.META_STEPS)
    optimiser = optax.adam(rate, b1=config.META_B1, b2=config.META_B2)
    example = fresh(jax.random.key(0), data if shared or data is None else jax.tree.map(lambda leaf: leaf[0], data))
    learner = maml(inner, free(start), example, optimiser=optimiser, max_norm=None)
    keys, axes = jax.random.split(jax.random.key(config.SEED), seeds), None if shared else 0
    result = fit(
        learner, draw, keys, steps=config.META_STEPS, chunk=config.META_STEPS, data=data, data_axes=axes, batch=True
    )
    theta = jax.vmap(learner.export)(result.meta_state)
    return np.asarray(RATES.decode(theta.z)["learning_rate"]), result.metrics.loss


def best_of_starts(
    inner: Inner, fresh: Callable[[Key, PyTree], Task], seeds: int, data: PyTree, judged: list[Task], trainings: int, *, shared: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """`learned_rates` of the start that ended with the lower loss, seed by seed, and the seconds of all.

    The loss is that of so many trainings on the tasks `judged` of each seed, or of all where there is one batch: never those that are tested on.
    """
    began = time.perf_counter()
    ends = [learned_rates(inner, fresh, seeds, data, shared=shared, start=start) for start in config.STARTS]
    rates, curves = (np.stack(part, axis=1) for part in zip(*ends, strict=True))  # `[seeds, starts, ...]`
    if len(judged) == 1:
        found = (
            losses(inner, rates.reshape(-1), judged[0], trainings, seed=config.SEED + 5).mean(1).reshape(rates.shape)
        )
    else:
        found = np.stack(
            [
                losses(inner, own, one, trainings, seed=config.SEED + 5).mean(1)
                for own, one in zip(rates, judged, strict=True)
            ]
        )
    chosen = np.arange(seeds), found.argmin(1)
    return rates[chosen], curves[chosen], time.perf_counter() - began


@functools.partial(jax.jit, static_argnums=(0, 3))
def _losses(inner: Inner, z: Array, tasks: Task, trainings: int, key: Key) -> Array:
    keys = jax.random.split(key, (tasks.class_mask.shape[0], trainings))

    def at(z: Array) -> Array:
        def of(keys: Key, task: Task) -> Array:
            return jnp.mean(jax.vmap(lambda key: episode(inner, key, Theta({"learning_rate": z}), task)[0])(keys))

        return jax.vmap(of)(keys, tasks)

    return jax.lax.map(at, z)


def losses(inner: Inner, rates: np.ndarray, tasks: Task, trainings: int, *, seed: int = config.SEED + 2) -> np.ndarray:
    """Validation losses `[rates, tasks]` after the inner training, means over initial weights that all rates share."""
    z = jnp.stack([free(float(rate)).z["learning_rate"] for rate in rates])
    return np.asarray(_losses(inner, z, tasks, trainings, jax.random.key(seed)))


class Study(NamedTuple):
    """What is learned from and tested on."""

    inner: Inner
    fresh: Callable[[Key, PyTree], Task]  # a batch of tasks to learn from
    data: PyTree  # that all seeds draw it from
    judged: Task  # on which the better of two starts is chosen
    test: Task
    trainings: int  # of each task on which a rate is judged or tested
    nothing: float  # loss of the class frequencies


def of_drawn_tasks(learnable: bool, tests: int) -> Study:
    """Fresh tasks in every meta-step."""
    many = batch_of(learnable, tests)
    judged, test = (many(jax.random.key(config.SEED + n), ()) for n in (4, 1))
    return Study(INNER, batch_of(learnable, config.TASKS), None, judged, test, 1, math.log(2.0))


def of_tables(learnable: bool, most: int | None, trainings: int) -> Study:
    """Every other real table is learned from, the others are tested on; labels as they are, or in random order within each split."""
    _, tasks = data_sets(most)
    tasks = (
        tasks
        if learnable
        else jax.vmap(shuffled)(jax.random.split(jax.random.key(config.SEED + 6), len(tasks.n_features)), tasks)
    )
    known, held_out = (jax.tree.map(lambda leaf, start=start: leaf[start::2], tasks) for start in (0, 1))

    def some(key: Key, data: Task) -> Task:
        chosen = jax.random.choice(key, data.n_features.shape[0], (config.TASKS,), replace=False)
        return jax.tree.map(lambda leaf: leaf[chosen], data)

    return Study(ON_TABLES, some, known, known, held_out, trainings, 1.0)


def shuffled(key: Key, task: Task) -> Task:
    """The task with its labels in random order, so that they say nothing about the features."""

    def mixed(key: Key, split: Split) -> Split:
        rows = jnp.arange(split.y.shape[0])
        order = jnp.argsort(
            jnp.where(rows < split.count, jax.random.uniform(key, rows.shape), 2.0)
        )  # padding stays behind
        return split.replace(y=split.y[order])

    keys = jax.random.split(key, 2)
    return task.replace(train=mixed(keys[0], task.train), valid=mixed(keys[1], task.valid))


def results_of(study: Study, seeds: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Figures of a study, the grid's rates and its mean losses on what is tested."""
    inner, fresh, data, judged, test, trainings, nothing = study
    grid = np.geomspace(*config.RATE_BOUNDS, config.GRID)
    rates, curve, seconds = best_of_starts(inner, fresh, seeds, data, [judged], trainings, shared=data is not None)
    on_grid, own = losses(inner, grid, test, trainings), losses(inner, rates, test, trainings)
    best = int(on_grid.mean(1).argmin())
    advantage = interval(nothing - own.mean(0))
    return {
        "learned_rates": rates.tolist(), "learned_loss": interval(own.mean(0)), "worst_seed": float(own.mean(1).max()),
        "grid_best_rate": float(grid[best]), "grid_best_loss": interval(on_grid[best]), "untrained_loss": interval(on_grid[0]),
        "first_meta_loss": float(curve[:, :10].mean()), "last_meta_loss": float(curve[:, -10:].mean()),
        "class_frequencies_loss": nothing, "below_class_frequencies_by": advantage,
        "verdict": "something is learned" if advantage[1] > 0 else "nothing is learned: no better than the class frequencies",
        "seconds": round(seconds, 1),
    }, grid, on_grid.mean(1)  # fmt: skip


def given(key: Key, data: Task) -> Task:
    """The same tasks in every meta-step."""
    return data


def example(seeds: int) -> dict[str, Any]:
    """The published example as it is: ten tasks, the same in every meta-step, with labels that can be learned; and the grid on these ten."""
    grid = np.geomspace(*config.RATE_BOUNDS, config.GRID)
    same = jax.vmap(lambda key: batch_of(True, config.TASKS)(key, ()))(
        jax.random.split(jax.random.key(config.SEED + 3), seeds)
    )
    each = [jax.tree.map(lambda leaf, s=s: leaf[s], same) for s in range(seeds)]
    learned = {
        "as it is": learned_rates(INNER, given, seeds, same, repeats=1)[0],
        "less noise, two starts": best_of_starts(INNER, given, seeds, same, each, config.REFINED)[0],
    }  # fmt: skip
    ratios: dict[str, list[float]] = {name: [] for name in learned}
    best_rates = []
    for s, tasks in enumerate(each):
        likely = grid[np.argsort(losses(INNER, grid, tasks, config.TRAININGS).mean(1))[: config.LIKELY]]
        refined = losses(INNER, likely, tasks, config.REFINED).mean(1)
        own = losses(INNER, np.stack([rates[s] for rates in learned.values()]), tasks, config.REFINED).mean(1)
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
    tests = config.QUICK_TEST_TASKS if options.quick else config.TEST_TASKS
    tables = (
        (config.QUICK_DATA_SETS, config.QUICK_TRAININGS_ON_TABLES)
        if options.quick
        else (None, config.TRAININGS_ON_TABLES)
    )
    studies = {
        "learnable": lambda: of_drawn_tasks(True, tests), "random": lambda: of_drawn_tasks(False, tests),
        "tables": lambda: of_tables(True, *tables), "tables, random": lambda: of_tables(False, *tables),
    }  # fmt: skip
    for name, study in studies.items():
        figures[name], grid, curves[name] = results_of(study(), seeds)
        print(f"{LABELS[name]}: {figures[name]['verdict']}")
    figures["example"] = example(seeds)
    claims = [
        *(
            at_most(
                f"the example's ten tasks, {name}: loss of the worst seed's rate over that of the best of the grid", max(ratios), config.WITHIN
            )
            for name, ratios in figures["example"]["loss_over_best_of_grid"].items()
        ),
        *(
            at_most(
                f"{LABELS[name]}: loss of the worst seed's rate over that of the best of the grid",
                figures[name]["worst_seed"] / figures[name]["grid_best_loss"][0], config.WITHIN,
            )
            for name in ("learnable", "tables")
        ),
    ]  # fmt: skip
    for name, label in LABELS.items():
        low, random = figures[name]["below_class_frequencies_by"][1], name.endswith("random")
        what = f"{label}: advantage over the class frequencies, lower end of the interval"
        claims.append(Claim(what, low, "<= 0" if random else "> 0", low <= 0 if random else low > 0))
    quick_leaves_out = [
        f"seeds {seeds} to {config.SEEDS - 1}", f"tables after the first {config.QUICK_DATA_SETS}",
        f"{config.TEST_TASKS} drawn tasks, and {config.TRAININGS_ON_TABLES} trainings of a table, to test on",
    ]  # fmt: skip
    draw(grid, curves, figures, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.maml_hpo.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=quick_leaves_out if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(grid: np.ndarray, curves: dict[str, np.ndarray], figures: dict[str, Any], path: Path) -> None:
    """Loss over the learning rate, with what was learned."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 6.5), layout="constrained")
    for panel, (name, values) in zip(picture.subplots(2, 2).flat, curves.items(), strict=True):
        nothing = figures[name]["class_frequencies_loss"]
        panel.semilogx(grid, values, label="grid")
        for i, rate in enumerate(figures[name]["learned_rates"]):
            panel.axvline(rate, color="tab:orange", alpha=0.5, label="learned, one line per seed" if i == 0 else None)
        panel.axhline(nothing, color="grey", linestyle=":", label="class frequencies")
        unit = "of that of the class frequencies" if nothing == 1.0 else "nats"
        panel.set(title=LABELS[name], xlabel="learning rate", ylabel=f"validation loss after 5 steps\n({unit})")
        panel.set_ylim(0.3 * nothing, 2.2 * nothing)
        panel.legend()
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
