"""Bias, variance, memory and time of every hypergradient estimator against the exact gradient, over horizons from 5 to 10,000 updates.

python -m experiments.estimators.run            # writes experiments/estimators/results.json and a picture
python -m experiments.estimators.run --quick
"""

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.record import arguments, at_most, one_thread_each, write

one_thread_each()

import jax
import jax.numpy as jnp
import numpy as np

from experiments.estimators import config
from metahpo_jax.base import Array, Estimate, HyperGrad, Key
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.hypergrad import (
    SPACE,
    Inner,
    Theta,
    checkpointed,
    classifier,
    es_single,
    forward,
    forward_sharing,
    full_es,
    gradient_descent,
    growth,
    hyperdistill,
    implicit,
    nres,
    one_step,
    pes,
    reverse,
    truncated,
)  # fmt: skip
from metahpo_jax.spaces import Free, Space
from metahpo_jax.tasks import Task, TaskShape, bundled, to_task

FREE = Free(Space.of({name: SPACE[name] for name in config.LEARNED}))
EXACT = {"forward": forward, "reverse": reverse, "checkpointed": checkpointed}


def window_of(inner: Inner) -> int:
    """Steps of a window."""
    return inner.horizon // config.WINDOWS


def shared(inner: Inner) -> HyperGrad:
    """`forward_sharing` where the windows happen to share their hyperparameters as well: the sum of its gradients is the exact one."""
    windows = forward_sharing(inner, config.WINDOWS)

    def step(key: Key, theta: Theta, carry: Any, task: Task) -> tuple[Estimate, Any]:
        tiled = jax.tree.map(lambda x: jnp.broadcast_to(x, (config.WINDOWS, *x.shape)), theta)
        estimate, carry = windows.step(key, tiled, carry, task)
        return estimate.replace(gradient=jax.tree.map(lambda g: jnp.sum(g, 0), estimate.gradient)), carry

    return HyperGrad(windows.init, step)


ESTIMATORS: dict[str, Callable[[Inner], HyperGrad]] = EXACT | {
    "sharing": shared,
    "truncated": lambda inner: truncated(inner, window_of(inner)),
    "one_step": one_step,
    "hyperdistill": lambda inner: hyperdistill(inner, gamma=config.GAMMA),
    "implicit, cg": lambda inner: implicit(inner, solver="cg", terms=20, damping=1e-3),
    "neumann": lambda inner: implicit(inner, solver="neumann", terms=20, rate=0.05),
    "full_es": lambda inner: full_es(inner, sigma=config.SIGMA, pairs=config.PAIRS),
    "pes": lambda inner: pes(inner, window_of(inner), sigma=config.SIGMA, pairs=config.PAIRS),
    "nres": lambda inner: nres(inner, window_of(inner), sigma=config.SIGMA, pairs=config.PAIRS),
    "es_single": lambda inner: es_single(inner, window_of(inner), sigma=config.SIGMA, pairs=config.PAIRS),
}


def task_of() -> Task:
    """The data set."""
    family = bundled()
    data = family.load(config.DATA_SET)
    shape = TaskShape(
        len(data.y_train), max(len(data.y_valid), len(data.y_test)), data.x_train.shape[1], data.n_classes
    )
    return jax.tree.map(jnp.asarray, to_task(data, shape))


def whole_episode(name: str, inner: Inner) -> Callable[[Key, Theta, Task], Array]:
    """One episode's estimate `[hyperparameters]`."""
    estimator = ESTIMATORS[name](inner)
    windows = inner.horizon if name in ("one_step", "hyperdistill") else config.WINDOWS

    def flat(theta: Theta) -> Array:
        return jnp.stack([theta.z[n] for n in FREE.space.names])

    def run(key: Key, theta: Theta, task: Task) -> Array:
        init_key, key = jax.random.split(key)
        carry = estimator.init(init_key, theta, task)
        if not jax.tree.leaves(carry):
            return flat(estimator.step(key, theta, carry, task)[0].gradient)

        def one(carry: Any, i: Array) -> tuple[Any, Array]:
            estimate, carry = estimator.step(jax.random.fold_in(key, i), theta, carry, task)
            return carry, flat(estimate.gradient)

        gradients = jax.lax.scan(one, carry, jnp.arange(windows))[1]
        return gradients[-1]

    return run


def measured(name: str, inner: Inner, keys: Key, theta: Theta, task: Task) -> dict[str, Any]:
    """Estimates of all episodes, one after the other; seconds and temporary memory of one."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # implicit differentiation says that it does not see the learning rate: the table shows it
        call = jax.jit(whole_episode(name, inner)).lower(keys[0], theta, task).compile()
    analysis = call.memory_analysis()
    jax.block_until_ready(call(keys[0], theta, task))
    began = time.perf_counter()
    found = np.stack([np.asarray(call(key, theta, task)) for key in keys])
    return {
        "gradients": found, "seconds": (time.perf_counter() - began) / len(keys),
        "megabytes": analysis.temp_size_in_bytes / 1e6 if analysis else float("nan"),
    }  # fmt: skip


def main() -> None:
    """All estimators at all horizons."""
    options = arguments(__doc__ or "", "experiments/estimators/results.json").parse_args()
    began = time.perf_counter()
    horizons = config.QUICK_HORIZONS if options.quick else config.HORIZONS
    episodes = config.QUICK_EPISODES if options.quick else config.EPISODES
    task, theta = task_of(), Theta(FREE.encode(config.LEARNED))
    problem = classifier(1, config.HIDDEN, batch=config.BATCH, noisy=True)
    keys = jax.random.split(jax.random.key(config.SEED), episodes)
    figures: dict[str, Any] = {}
    for horizon in horizons:
        inner = gradient_descent(problem, FREE, steps=horizon, fixed=config.FIXED)
        rows = {}
        for name in ESTIMATORS:
            rows[name] = measured(name, inner, keys, theta, task)
            print(f"{horizon} updates, {name}: {rows[name]['seconds']:.3g} s", file=sys.stderr, flush=True)
        exact = rows["forward"]["gradients"]
        figures[str(horizon)] = {name: compared(row, exact) for name, row in rows.items()}
        stretch = float(jax.jit(lambda key, inner=inner: growth(inner, key, theta, task))(keys[0]))
        figures[str(horizon)]["growth_per_update"] = stretch
        table(horizon, figures[str(horizon)])
    claims = [
        at_most(f"{horizon} updates: {name} - forward, relative", figures[str(horizon)][name]["deviation"], config.EXACT)
        for horizon in horizons for name in ("reverse", "checkpointed", "sharing")
    ]  # fmt: skip
    few, many = (figures[str(h)]["forward"]["megabytes"] for h in (horizons[0], horizons[-1]))
    claims.append(at_most(f"forward: memory at {horizons[-1]} updates over that at {horizons[0]}", many / few, 2.0))
    draw(figures, options.out.with_suffix(".png"))
    write(
        options.out, command="python -m experiments.estimators.run" + (" --quick" if options.quick else ""),
        seeds=[config.SEED], seconds=time.perf_counter() - began, figures=figures, claims=claims,
        not_tested=[f"horizons beyond {horizons[-1]}", f"episodes beyond {episodes}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


def compared(row: dict[str, Any], exact: np.ndarray) -> dict[str, float]:
    """Against the mean exact gradient: relative bias and its standard error, cosine, relative standard deviation of one estimate."""
    found, truth = row["gradients"], exact.mean(0)
    size, mean = np.linalg.norm(truth), found.mean(0)
    error = np.sqrt((found - exact).var(0, ddof=1).sum() / len(found))
    return {
        "bias": float(np.linalg.norm(mean - truth) / size),
        "bias_error": float(error / size),
        "cosine": float(mean @ truth / max(np.linalg.norm(mean) * size, 1e-30)),
        "deviation": float(np.abs(found - exact).max() / np.abs(exact).max()),
        "noise": float(np.sqrt(found.var(0, ddof=1).sum()) / size),
        "seconds": row["seconds"],
        "megabytes": row["megabytes"],
    }


def table(horizon: int, rows: dict[str, Any]) -> None:
    """Prints what one horizon gave."""
    print(f"\n{horizon} updates (growth {rows['growth_per_update']:+.4f} per update)")
    print(f"{'estimator':14} {'bias':>8} {'+-':>8} {'cosine':>7} {'noise':>8} {'ms':>9} {'MB':>8}")
    for name in ESTIMATORS:
        r = rows[name]
        print(f"{name:14} {r['bias']:8.3g} {r['bias_error']:8.2g} {r['cosine']:7.3f} {r['noise']:8.3g}", end=" ")
        print(f"{1e3 * r['seconds']:9.3g} {r['megabytes']:8.3g}")


def draw(figures: dict[str, Any], path: Path) -> None:
    """Cosine, noise, time and memory over the horizon."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(13, 3.6), layout="constrained")
    horizons = [int(h) for h in figures]
    titles = {
        "cosine": "cosine to the exact gradient", "noise": "relative noise of one estimate", "seconds": "seconds", "megabytes": "memory (MB)",
    }  # fmt: skip
    for panel, (what, title) in zip(picture.subplots(1, 4), titles.items(), strict=True):
        for i, name in enumerate(ESTIMATORS):
            values = [figures[str(h)][name][what] for h in horizons]
            panel.plot(
                horizons,
                values,
                marker="o",
                markersize=3,
                label=name,
                linestyle=("-", "--")[i // 10],
                color=f"C{i % 10}",
            )
        panel.set(xscale="log", xlabel="updates", title=title, yscale="linear" if what == "cosine" else "log")
    handles = picture.axes[0].get_legend_handles_labels()
    picture.legend(*handles, loc="outside right upper")
    picture.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
