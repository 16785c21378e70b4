"""A learning rate learned over 10 updates and used for 1,000, on real tables: how much that costs, and what mends it.

python -m experiments.short_horizon.run            # writes experiments/short_horizon/results.json and a picture; needs `make datasets`
python -m experiments.short_horizon.run --quick
"""

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

from experiments.short_horizon import config
from experiments.tables import data_sets, usable
from metahpo_jax.base import Array, HyperGrad, Key, PyTree
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import (
    Inner,
    Theta,
    classifier,
    episode,
    forward,
    forward_sharing,
    gradient_descent,
    nres,
    pes,
    relative,
    truncated,
)  # fmt: skip
from metahpo_jax.metalearners import maml
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.tasks.base import Task
from metahpo_jax.training import fit

RATES = Free(Space(learning_rate=Float(*config.RATE_BOUNDS, log=True)))
LABELS = {
    "short": "10 steps, exact",
    "truncated": "1,000 steps, windows of 10",
    "pes": "1,000 steps, PES",
    "nres": "1,000 steps, NRES",
    "full": "1,000 steps, forward mode",
    "sharing": "1,000 steps, five rates",
}


def training(steps: int) -> Inner:
    """The training of a network whose loss is in units of the data set's prior entropy: that of having learned nothing."""
    problem = relative(classifier(config.DEPTH, config.WIDTH, batch=config.BATCH))
    return gradient_descent(problem, RATES, steps=steps, fixed={"momentum": config.MOMENTUM})


def learners() -> dict[str, tuple[Inner, Callable[[Inner], HyperGrad]]]:
    """The ways to learn a rate: what is trained, and the estimator."""
    long, noise = training(config.LONG), {"sigma": config.SIGMA, "pairs": config.PAIRS}
    return {
        "short": (training(config.SHORT), forward),
        "truncated": (long, lambda inner: truncated(inner, config.SHORT)),
        "pes": (long, lambda inner: pes(inner, config.PES_WINDOW, **noise)),
        "nres": (long, lambda inner: nres(inner, config.PES_WINDOW, **noise)),
        "full": (long, forward),
        "sharing": (long, lambda inner: forward_sharing(inner, config.WINDOWS)),
    }


def some(key: Key, tasks: Task) -> Task:
    """A batch of different data sets."""
    chosen = jax.random.choice(key, tasks.class_mask.shape[0], (config.TASKS,), replace=False)
    return jax.tree.map(lambda leaf: leaf[chosen], tasks)


def learned(name: str, tasks: Task, seeds: int, share: float) -> tuple[np.ndarray, float]:
    """Rates `[seeds, windows]` and the seconds that learning them took."""
    inner, estimator = learners()[name]
    whole, meta_rate = config.META[name]
    steps = max(round(whole * share), 1)
    number = (config.WINDOWS,) if name == "sharing" else ()
    start = RATES.encode({"learning_rate": config.RATE_START})["learning_rate"]
    optimiser = optax.adam(optax.cosine_decay_schedule(meta_rate, steps))
    learner = maml(
        inner, Theta({"learning_rate": jnp.full(number, start)}), some(jax.random.key(0), tasks), estimator=estimator, optimiser=optimiser
    )  # fmt: skip
    began = time.perf_counter()
    keys = jax.random.split(jax.random.key(config.SEED), seeds)
    result = fit(
        learner, some, keys, steps=steps, chunk=max(steps // 20, 1), data=tasks, data_axes=None, batch=True, progress=True
    )  # fmt: skip
    theta = jax.vmap(learner.export)(result.meta_state)
    return np.asarray(RATES.decode(theta.z)["learning_rate"]).reshape(seeds, -1), time.perf_counter() - began


def losses(rates: np.ndarray, tasks: Task) -> np.ndarray:
    """Losses `[rates, data sets]` after the long training under rates `[rates, windows]`, at most 1; all share weights and minibatches."""
    inner, keys = training(config.LONG), jax.random.split(jax.random.key(config.SEED + 1), config.EVALUATIONS)
    encoded = [[RATES.encode({"learning_rate": float(rate)})["learning_rate"] for rate in row] for row in rates]
    windowed = inner._replace(
        step=lambda key, theta, state, task, index: inner.step(
            key, Theta({"learning_rate": theta[index * theta.shape[0] // config.LONG]}), state, task, index
        )
    )

    def of(z: Array, key: Key, task: PyTree) -> Array:
        return usable(episode(windowed._replace(init=lambda k, _, t: inner.init(k, Theta({}), t)), key, z, task)[0])

    over_keys = jax.vmap(of, (None, 0, None))
    call = jax.jit(lambda z: jax.lax.map(lambda row: jax.vmap(over_keys, (None, None, 0))(row, keys, tasks), z))
    return np.asarray(call(jnp.asarray(encoded))).mean(-1)


def main() -> None:
    """Learns, compares with the grid on data sets that were held out, draws, writes."""
    options = arguments(__doc__ or "", "experiments/short_horizon/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    names, tasks = data_sets(config.QUICK_DATA_SETS if options.quick else None)
    known, held_out = (jax.tree.map(lambda leaf, s=s: leaf[s::2], tasks) for s in (0, 1))
    grid = np.geomspace(*config.RATE_BOUNDS, config.GRID)[:, None]
    on_known, on_held_out = losses(grid, known), losses(grid, held_out)
    chosen = int(on_known.mean(1).argmin())
    baseline = on_held_out[chosen]
    figures: dict[str, Any] = {
        "data_sets": {"known": names[0::2], "held_out": names[1::2]},
        "grid": {"rates": grid[:, 0].tolist(), "known": on_known.mean(1).tolist(), "held_out": on_held_out.mean(1).tolist()},
        "best_constant": {"rate": float(grid[chosen, 0]), "loss": interval(baseline)},
    }  # fmt: skip
    for name in config.META:
        rates, seconds = learned(name, known, seeds, config.QUICK_META_STEPS if options.quick else 1.0)
        own = losses(rates, held_out).mean(0)
        figures[name] = {
            "rates": rates.tolist(), "loss": interval(own), "minus_best_constant": interval(own - baseline), "seconds": round(seconds, 1)
        }  # fmt: skip
        print(f"{LABELS[name]}: rates {np.round(rates, 4).tolist()}, loss {own.mean():.4f}")
    draw(figures, options.out.with_suffix(".png"))
    best = figures["best_constant"]["loss"][0]
    short, full, sharing = figures["short"], figures["full"], figures["sharing"]
    claims = [
        Claim(
            "learned over 10 steps, used for 1,000: loss above the best constant rate, lower end of the interval",
            short["minus_best_constant"][1], "> 0", short["minus_best_constant"][1] > 0,
        ),
        at_most("learned over 1,000 steps: loss over that of the best constant rate", full["loss"][0] / best, config.WITHIN),
        Claim(
            "share of the bias that forward mode takes away", 1 - full["minus_best_constant"][0] / short["minus_best_constant"][0],
            ">= 0.9", full["minus_best_constant"][0] <= 0.1 * short["minus_best_constant"][0],
        ),
        at_most("five rates, one after the other: loss over that of the best constant rate", sharing["loss"][0] / best, 1.0),
    ]  # fmt: skip
    not_tested = [
        f"data sets after the first {config.QUICK_DATA_SETS}", f"seeds {seeds} to {config.SEEDS - 1}", "half of the meta-steps"
    ]  # fmt: skip
    write(
        options.out, command="python -m experiments.short_horizon.run" + (" --quick" if options.quick else ""),
        seeds=list(range(seeds)), seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=not_tested if options.quick else [], versions=versions(),
    )  # fmt: skip


def draw(figures: dict[str, Any], path: Path) -> None:
    """Loss over the learning rate with what was learned, and the loss of each."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = picture.subplots(1, 2)
    grid = figures["grid"]
    left.semilogx(grid["rates"], grid["held_out"], color="black", label="constant rates")
    for i, name in enumerate(name for name in LABELS if name != "sharing"):
        rate = float(np.exp(np.mean(np.log(figures[name]["rates"]))))
        left.axvline(rate, color=f"C{i}", label=LABELS[name], linestyle="--" if i % 2 else "-")
    left.set(xlabel="learning rate", ylabel="loss after 1,000 steps\n(1: the class frequencies)")
    left.legend(fontsize=8)
    names = ["best_constant", *LABELS]
    means = np.asarray([figures[name]["loss"] for name in names])
    spread = np.abs(means[:, 1:] - means[:, :1]).T
    right.errorbar(means[:, 0], range(len(names)), xerr=spread, fmt="o")
    right.set_yticks(range(len(names)), ["best constant rate of the grid", *LABELS.values()])
    right.invert_yaxis()
    right.set(xlabel="loss on held-out data sets (95 %)")
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
