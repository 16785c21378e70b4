"""A configuration learned by MAML on real tables beside random search of equal cost, a portfolio and Gaussian processes, on held-out tables.

python -m experiments.maml_tables.run            # writes experiments/maml_tables/results.json and a picture; needs `make datasets`
python -m experiments.maml_tables.run --quick
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.record import Claim, arguments, interval, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.maml_tables import config
from experiments.tables import FREE, INNER, SEARCHED, data_sets, free_numbers, usable
from metahpo_jax.base import Key, Proposer, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.evaluation.live import run_live
from metahpo_jax.hypergrad import Theta, episode, forward
from metahpo_jax.metalearners import adapt, configuration, greedy_picks, listed, maml, started_at
from metahpo_jax.proposers import gp_bo, portfolio, random
from metahpo_jax.tasks.base import Task
from metahpo_jax.training import fit

LABELS = {
    "default": "default", "random": "random search", "fixed, gp": "best of random search, then GP", "gp": "GP without transfer",
    "portfolio": "portfolio", "portfolio of equal cost": "portfolio of equal cost", "maml, gp": "MAML, then GP",
    "maml, adapted": "MAML, then hypergradient steps",
}  # fmt: skip


def some(key: Key, data: tuple[jax.Array, Task]) -> Task:
    """A batch of different data sets of a fold."""
    known, tasks = data
    chosen = jax.random.choice(key, known.shape[0], (config.TASKS,), replace=False, p=known / jnp.sum(known))
    return jax.tree.map(lambda leaf: leaf[chosen], tasks)


def learned(known: np.ndarray, tasks: Task, steps: int) -> tuple[list[np.ndarray], float]:
    """A configuration in the unit cube for every fold `known [folds, data sets]`, all learned side by side, and the seconds it took."""
    optimiser = optax.adam(optax.cosine_decay_schedule(config.META_RATE, steps))
    example = jax.tree.map(lambda leaf: leaf[: config.TASKS], tasks)
    learner = maml(INNER, Theta(FREE.encode(config.START)), example, estimator=forward, optimiser=optimiser)
    keys = jax.random.split(jax.random.key(config.SEED), len(known))
    began = time.perf_counter()
    result = fit(
        learner, some, keys, steps=steps, chunk=5, data=(jnp.asarray(known, jnp.float32), tasks), data_axes=(0, None), batch=True,
        progress=True,
    )  # fmt: skip
    theta = jax.vmap(learner.export)(result.meta_state)
    folds = [jax.tree.map(lambda leaf, f=f: leaf[f], theta) for f in range(len(known))]
    return [configuration(one, FREE, {}, SEARCHED) for one in folds], time.perf_counter() - began


def trained(z: PyTree, task: Task) -> jax.Array:
    """Losses `[EVALUATIONS]` of a trial."""
    return usable(jax.vmap(lambda key: episode(INNER, key, Theta(z), task)[0])(training_keys()))


def training_keys() -> Key:
    """Of the trainings of a trial: common to all configurations."""
    return jax.random.split(jax.random.key(config.SEED + 1), config.EVALUATIONS)


def table_of(u: np.ndarray, tasks: Task) -> np.ndarray:
    """Losses `[data sets, configurations, EVALUATIONS]`."""
    call = jax.jit(lambda z: jax.lax.map(lambda one: jax.vmap(lambda task: trained(one, task))(tasks), z))
    return np.asarray(call(free_numbers(jnp.asarray(u, jnp.float32)))).transpose(1, 0, 2)


@jax.jit
def adapted(u: jax.Array, tasks: Task) -> tuple[PyTree, jax.Array]:
    """Free numbers `[data sets, rates, trials]` that hypergradients go through from `u [D]` on, and the losses of the trainings that they see.

    A hypergradient differentiates the first of the trainings of a trial, and so costs its multiple of a training less one.
    """

    def one(task: Task) -> tuple[PyTree, jax.Array]:
        def at(rate: jax.Array) -> tuple[PyTree, jax.Array]:
            start = Theta(free_numbers(u))
            steps = adapt(forward(INNER), start, task, training_keys()[0], evaluations=config.TRIALS, rate=rate)
            return steps.z, usable(steps.loss)

        return jax.vmap(at)(jnp.asarray(config.RATES))

    return jax.lax.map(one, tasks)


@jax.jit
def tried(z: PyTree, tasks: Task) -> jax.Array:
    """Losses `[data sets, trials]` of free numbers `[data sets, trials]`."""
    return jax.lax.map(lambda one: jax.lax.map(lambda z: jnp.mean(trained(z, one[1])), one[0]), (z, tasks))


def multiple(tasks: Task) -> float:
    """Seconds of a hypergradient over those of a training, side by side on the same batch."""
    batch = jax.tree.map(lambda leaf: leaf[: config.TASKS], tasks)
    keys, theta = jax.random.split(jax.random.key(0), config.TASKS), Theta(FREE.encode(config.START))
    plain = jax.jit(lambda: jax.vmap(lambda key, task: episode(INNER, key, theta, task)[0])(keys, batch))
    slopes = jax.jit(lambda: jax.vmap(lambda key, task: forward(INNER).step(key, theta, (), task)[0])(keys, batch))
    seconds: dict[str, list[float]] = {"plain": [], "slopes": []}
    for round_ in range(6):
        for name, call in (("plain", plain), ("slopes", slopes)):
            began = time.perf_counter()
            jax.block_until_ready(call())
            if round_:  # the first compiles
                seconds[name].append(time.perf_counter() - began)
    return float(np.median(seconds["slopes"]) / np.median(seconds["plain"]))


def live(tasks: Task, most: int) -> Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """What trains up to `most` configurations of a trial on one task."""
    call = jax.jit(lambda z, task: jax.lax.map(lambda one: jnp.mean(trained(one, task)), z))

    def evaluate(task: int, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.concatenate([u, np.repeat(u[-1:], most - len(u), 0)])
        losses = np.asarray(
            call(free_numbers(jnp.asarray(padded, jnp.float32)), jax.tree.map(lambda leaf: leaf[task], tasks))
        )[: len(u)]
        return losses, np.full(len(u), np.nan)

    return evaluate


def proposers_of(maml_u: np.ndarray, u: np.ndarray, losses: np.ndarray, fixed: int, trials: int) -> dict[str, Proposer]:
    """The competitors of a fold; `losses [data sets, configurations, EVALUATIONS]` are of those that are known.

    The best of random search and the portfolio of equal cost train each of `fixed` configurations once on every known data set, as MAML trains
    once for a gradient. The other portfolio knows the whole table.
    """
    gp = gp_bo(SEARCHED, opening_trials=1)
    once = losses[:, :fixed, 0]
    best = u[once.mean(0).argmin()]
    return {
        "default": started_at(SEARCHED.encode(config.START), SEARCHED, random(SEARCHED)),
        "random": random(SEARCHED),
        "gp": gp_bo(SEARCHED),
        "fixed, gp": started_at(best, SEARCHED, gp),
        "portfolio": portfolio(listed(u, greedy_picks(losses.mean(-1), trials)), SEARCHED),
        "portfolio of equal cost": portfolio(listed(u, greedy_picks(once, trials)), SEARCHED),
        "maml, gp": started_at(maml_u, SEARCHED, gp),
    }


def main() -> None:
    """Learns in every fold, tunes what was held out, draws, writes."""
    options = arguments(__doc__ or "", "experiments/maml_tables/results.json").parse_args()
    began, quick = time.perf_counter(), options.quick
    names, tasks = data_sets(config.QUICK_DATA_SETS if quick else None)
    folds = config.QUICK_FOLDS if quick else config.FOLDS
    steps = config.QUICK_META_STEPS if quick else config.META_STEPS
    group = np.random.default_rng(config.SEED).permutation(len(names)) % folds
    known = np.stack([group != f for f in range(folds)])

    times = multiple(tasks)
    rng = np.random.default_rng(config.SEED)
    drawn = rng.random((config.QUICK_TABLE if quick else config.TABLE, SEARCHED.size))
    # Where MAML starts from is a candidate of the others as well.
    u = np.asarray([SEARCHED.encode(each) for each in (config.START, *(SEARCHED.decode(row) for row in drawn))])
    losses = table_of(u, tasks)
    print(f"{u.shape[0]} configurations on {len(names)} data sets: {time.perf_counter() - began:.0f} s")
    configurations, meta_seconds = learned(known, tasks, steps)
    # Trainings that meta-learning cost, with the choice of an adaptation's rate, spent by random search on the data sets of a fold.
    choice = len(config.RATES) * ((config.TRIALS - 1) * times + 1)
    fixed = [min(max(round(steps * config.TASKS * times / k.sum() + choice), 1), len(u)) for k in known]

    adapted_trainings = config.TRIALS * config.EVALUATIONS + (config.TRIALS - 1) * (times - 1)
    others = math.ceil(adapted_trainings / config.EVALUATIONS)  # trials of the competitors at no fewer trainings

    best_so_far: dict[str, np.ndarray] = {}
    rates = []
    for f in range(folds):
        held_out = np.flatnonzero(~known[f])
        mine = jax.tree.map(lambda leaf, rows=held_out: leaf[rows], tasks)
        z, seen = adapted(jnp.asarray(configurations[f], jnp.float32), tasks)
        rate = int(np.asarray(seen)[known[f]].min(-1).mean(0).argmin())
        rates.append(config.RATES[rate])
        proposers = proposers_of(configurations[f], u, losses[known[f]], fixed[f], others)
        contexts = [SEARCHED.context(budget=others) for _ in held_out]
        done = run_live(
            proposers, contexts, live(mine, len(proposers)), trials=others, seeds=1, key=jax.random.key(config.SEED + f)
        )  # fmt: skip
        steps_of = jax.tree.map(lambda leaf, rows=held_out, rate=rate: leaf[rows, rate], z)
        losses_of = {name: trials.loss[:, 0] for name, trials in done.items()}
        losses_of["maml, adapted"] = np.asarray(tried(steps_of, mine))
        for name, own in losses_of.items():
            curve = np.minimum.accumulate(own, axis=1)
            best_so_far.setdefault(name, np.zeros((len(names), own.shape[1])))[held_out] = curve
        print(f"fold {f + 1} of {folds}: {SEARCHED.decode(configurations[f])}, rate {rates[-1]}")

    figures: dict[str, Any] = {
        "data_sets": names, "folds": group.tolist(), "hypergradient_in_trainings": times, "configurations_of_equal_cost": fixed,
        "meta_seconds": round(meta_seconds, 1), "learned": [SEARCHED.decode(one) for one in configurations], "rates": rates,
        "trainings": {
            f"{config.TRIALS} trials": config.TRIALS * config.EVALUATIONS,
            f"{config.TRIALS} adapted trials": adapted_trainings,
            f"{others} trials": others * config.EVALUATIONS,
        },
        "loss": {name: {str(t + 1): interval(curve[:, t]) for t in range(curve.shape[1])} for name, curve in best_so_far.items()},
    }  # fmt: skip
    claims = []

    def compare(mine: str, trial: int, other: str, others: int) -> None:
        difference = interval(best_so_far[mine][:, trial - 1] - best_so_far[other][:, others - 1])
        name = f"{LABELS[mine]} at {trial} minus {LABELS[other]} at {others}"
        figures[name] = difference
        claims.append(Claim(f"{name}, upper end", difference[2], "< 0", difference[2] < 0))

    compare("maml, gp", 1, "fixed, gp", 1)
    rivals = ("portfolio", "portfolio of equal cost", "fixed, gp")
    for other in rivals:
        compare("maml, gp", config.TRIALS, other, config.TRIALS)
    for other in rivals:  # at as many trainings: hypergradients count
        compare("maml, adapted", config.TRIALS, other, others)
    draw(figures, options.out.with_suffix(".png"))
    not_tested = [
        f"data sets after the first {config.QUICK_DATA_SETS}", f"{config.FOLDS} folds", f"{config.META_STEPS} meta-steps",
        f"a table of {config.TABLE} configurations",
    ]  # fmt: skip
    write(
        options.out, command="python -m experiments.maml_tables.run" + (" --quick" if quick else ""), seeds=[config.SEED],
        seconds=time.perf_counter() - began, figures=figures, claims=claims, not_tested=not_tested if quick else [], versions=versions(),
    )  # fmt: skip


def draw(figures: dict[str, Any], path: Path) -> None:
    """Mean loss after each trial, with intervals over data sets."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.5, 4), layout="constrained")
    panel = picture.subplots()
    for i, (name, label) in enumerate(LABELS.items()):
        values = np.asarray(list(figures["loss"][name].values()))
        at = np.arange(1, len(values) + 1) + 0.06 * (i - 3)
        panel.errorbar(
            at, values[:, 0], yerr=np.abs(values[:, 1:] - values[:, :1]).T, marker="o", capsize=2, label=label
        )
    panel.set(
        xticks=range(1, len(figures["loss"]["portfolio"]) + 1), xlabel="trials",
        ylabel="best loss so far on held-out data sets\n(1: the class frequencies)",
    )  # fmt: skip
    panel.legend()
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
