"""Warm starts on real tables: below a cold start where the source is alike, and hardly worse where it misleads.

Two sources mislead: one whose labels are all wrong, so that its weights do harm, and one that ranks its configurations backwards.

python -m experiments.transfer.run            # writes experiments/transfer/results.json and a picture; needs `make datasets`
python -m experiments.transfer.run --quick
"""

import time
from pathlib import Path
from typing import Any

from experiments.record import Claim, arguments, at_most, interval, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np

from experiments.tables import INNER, SEARCHED, STEPS, data_sets, free_numbers, usable
from experiments.transfer import config
from metahpo_jax import driver
from metahpo_jax.base import Array, Evaluation, Objective, PyTree, Status, no_candidates
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import Theta, advance
from metahpo_jax.metalearners import warm_start, warm_weights
from metahpo_jax.proposers import PortfolioTheta, random
from metahpo_jax.tasks.base import Split, Task

LABELS = {
    "cold": "cold start", "warm": "warm start", "warm, unguarded": "warm start without guard",
    "negated": "from wrong labels", "negated, unguarded": "from wrong labels without guard",
    "backwards": "from a backward ranking", "backwards, unguarded": "from a backward ranking without guard",
}  # fmt: skip


def source_of(task: Task) -> Task:
    """The task without its last training rows; it is tuned on the test rows, since the target is tuned on the validation rows."""
    return task.replace(train=task.train.replace(count=task.train.count - config.TARGET_ROWS), valid=task.test)


def target_of(task: Task) -> Task:
    """The task with its last training rows alone."""
    rows = task.train.count - config.TARGET_ROWS + jnp.arange(config.TARGET_ROWS)
    few = Split(task.train.x[rows], task.train.y[rows], jnp.asarray(config.TARGET_ROWS, jnp.int32))
    return task.replace(train=few)


def negated(task: Task) -> Task:
    """The task with every class called by the name of the next one: what a source would say that has got it all wrong."""
    classes = jnp.sum(task.class_mask)
    return task.replace(
        train=task.train.replace(y=(task.train.y + 1) % classes), valid=task.valid.replace(y=(task.valid.y + 1) % classes)
    )  # fmt: skip


def run(key: Array, theta: Theta, task: Task, inner=INNER) -> tuple[Array, PyTree]:
    """Loss after training, at most 1, and the weights."""
    init_key, step_key, loss_key = jax.random.split(key, 3)
    state = advance(inner, step_key, theta, inner.init(init_key, theta, task), task, 0, STEPS)
    loss = inner.loss(loss_key, theta, state, task)
    return usable(loss), inner.weights(state)


def tuned(sources: Task, *, backwards: bool = False) -> tuple[np.ndarray, PyTree]:
    """Best configurations `[data sets, HANDED_ON, D]` of each source, and the weights that the first left; or the worst ones."""
    rng = np.random.default_rng(config.SEED)
    rows = rng.random((config.SOURCE_CONFIGURATIONS, SEARCHED.size))
    u = np.asarray([SEARCHED.encode(SEARCHED.decode(row)) for row in rows])
    z, key = free_numbers(jnp.asarray(u, jnp.float32)), jax.random.key(config.SEED)

    def best(task: Task) -> tuple[Array, PyTree]:
        losses, weights = jax.lax.map(lambda one: run(key, Theta(one), task), z)
        chosen = jnp.argsort(-losses if backwards else losses)[: config.HANDED_ON]
        return chosen, jax.tree.map(lambda leaf: leaf[chosen[0]], weights)

    chosen, weights = jax.jit(lambda tasks: jax.lax.map(best, tasks))(sources)
    return u[np.asarray(chosen)], weights


def search(targets: Task, sources: tuple[np.ndarray, PyTree] | None, *, guard: bool, seeds: int) -> np.ndarray:
    """Best loss so far `[data sets, seeds, trials]` on the targets, with what the sources hand on or without."""
    inner = INNER if sources is None else warm_weights(INNER, guard=guard)
    cold, context = random(SEARCHED), SEARCHED.context(budget=config.TRIALS)
    train_key, keys = jax.random.key(config.SEED + 1), jax.random.split(jax.random.key(config.SEED + 2), seeds)

    def of(task: Task, handed: tuple[Array, PyTree] | None) -> Array:
        weights = () if handed is None else handed[1]
        proposer = cold if handed is None else warm_start(PortfolioTheta(handed[0]), SEARCHED, cold, guard=guard)

        def trained(u: Array, fidelity: Array) -> tuple[Evaluation, Array]:
            loss, _ = run(train_key, Theta(free_numbers(u), weights), task, inner)
            return Evaluation(loss, jnp.ones(()), fidelity, jnp.asarray(int(Status.OK), jnp.int32)), u

        objective = Objective(lambda key, proposal: proposal.u, trained)
        found = jax.vmap(
            lambda key: driver.search(
                key, proposer, objective, context, no_candidates(SEARCHED.size), steps=config.TRIALS
            )
        )(keys)
        return found.loss[:, : config.TRIALS]

    handed = None if sources is None else (jnp.asarray(sources[0], jnp.float32), sources[1])
    losses = jax.jit(lambda tasks, handed: jax.lax.map(lambda one: of(*one), (tasks, handed)))(targets, handed)
    return np.minimum.accumulate(np.asarray(losses), axis=-1)


def main() -> None:
    """Tunes the sources, starts on the targets, draws, writes."""
    options = arguments(__doc__ or "", "experiments/transfer/results.json").parse_args()
    began, quick = time.perf_counter(), options.quick
    seeds = config.QUICK_SEEDS if quick else config.SEEDS
    names, tasks = data_sets(config.QUICK_DATA_SETS if quick else None)
    targets = jax.vmap(target_of)(tasks)
    sources = jax.vmap(source_of)(tasks)
    handed_on = {
        "warm": tuned(sources), "negated": tuned(jax.vmap(negated)(sources)), "backwards": tuned(sources, backwards=True)
    }  # fmt: skip
    curves = {"cold": search(targets, None, guard=False, seeds=seeds).mean(1)}
    for name, handed in handed_on.items():
        curves[name] = search(targets, handed, guard=True, seeds=seeds).mean(1)
        curves[f"{name}, unguarded"] = search(targets, handed, guard=False, seeds=seeds).mean(1)
    for name, curve in curves.items():
        print(f"{LABELS[name]}: {np.round(curve.mean(0), 4).tolist()}")
    at = (1, config.TRIALS)
    figures: dict[str, Any] = {
        "data_sets": names,
        "loss": {name: {str(t + 1): interval(curve[:, t]) for t in range(config.TRIALS)} for name, curve in curves.items()},
        "minus_cold": {
            name: {str(t): interval(curve[:, t - 1] - curves["cold"][:, t - 1]) for t in at} for name, curve in curves.items()
        },
        "guarded_minus_unguarded": {
            name: {str(t): interval(curves[name][:, t - 1] - curves[f"{name}, unguarded"][:, t - 1]) for t in at} for name in handed_on
        },
    }  # fmt: skip
    claims = []
    for t in at:
        difference, wrong = figures["minus_cold"]["warm"][str(t)], figures["loss"]["negated"][str(t)][0]
        claims += [
            Claim(f"at {t}: warm start minus cold start, upper end", difference[2], "< 0", difference[2] < 0),
            at_most(
                f"at {t}: from wrong labels, against the upper end of cold start's interval",
                wrong,
                figures["loss"]["cold"][str(t)][2],
            ),
        ]
    for name in ("negated", "backwards"):
        gained = figures["guarded_minus_unguarded"][name][str(config.TRIALS)][2]
        claims.append(
            Claim(f"at {config.TRIALS}: {LABELS[name]}, with guard minus without, upper end", gained, "< 0", gained < 0)
        )
    draw(figures, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.transfer.run" + (" --quick" if quick else ""), seeds=list(range(seeds)),
        seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=[f"data sets after the first {config.QUICK_DATA_SETS}", f"seeds {seeds} to {config.SEEDS - 1}"] if quick else [],
        versions=versions(),
    )  # fmt: skip


def draw(figures: dict[str, Any], path: Path) -> None:
    """Mean loss after each trial, with intervals over data sets."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 4), layout="constrained")
    panel = picture.subplots()
    for i, (name, label) in enumerate(LABELS.items()):
        values = np.asarray([figures["loss"][name][str(t + 1)] for t in range(config.TRIALS)])
        at = np.arange(1, config.TRIALS + 1) + 0.06 * (i - 3)
        panel.errorbar(
            at, values[:, 0], yerr=np.abs(values[:, 1:] - values[:, :1]).T, marker="o", capsize=2, label=label
        )
    panel.set(xticks=range(1, config.TRIALS + 1), xlabel="trials", ylabel="best loss so far (1: the class frequencies)")
    picture.legend(loc="outside right upper")
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
