"""How much of the executed work is useful, how few programs serve a random population, and how fast it trains.

python -m experiments.population.run         # writes experiments/population/results.json
python -m experiments.population.run --quick
"""

import time

from experiments.record import Claim, arguments, at_least, at_most, one_thread_each, write

one_thread_each()

import jax
import numpy as np

from experiments.population import config
from metahpo_jax import population
from metahpo_jax.evaluation.protocol import versions
from metahpo_jax.learners import capacities, mlp_configs, mlp_space
from metahpo_jax.tasks import bundled


def random_population(count: int, seed: int) -> np.ndarray:
    """`count` uniform configurations `[count, D]` of `mlp_space()`, snapped."""
    space = mlp_space()
    rows = np.random.default_rng(seed).random((count, space.size))
    return np.asarray([space.encode(space.decode(row)) for row in rows], np.float32)


def useful_share(count: int, seed: int, task, shape) -> float:
    """Useful over executed FLOPs of a random population on a task padded to `shape`."""
    settings, touched = mlp_configs(random_population(count, seed))
    chunks = population.plan(touched, settings.accumulate)
    useful = population.useful_flops(
        settings, [c.depth for c in touched], int(task.n_features), int(task.class_mask.sum())
    )
    return float(useful.sum() / population.executed_flops(chunks, shape))


def main() -> None:
    """Counts, trains, writes."""
    options = arguments(__doc__ or "", "experiments/population/results.json").parse_args()
    began = time.perf_counter()
    count = config.QUICK_TRAINED if options.quick else config.TRAINED
    family = bundled()
    share: dict[str, dict[str, float]] = {}
    for name in family.names:
        task = family.task(name)
        share[name] = {str(n): useful_share(n, config.SEED, task, population.shape_of(task)) for n in config.SIZES}

    population.program.cache_clear()
    task, u = family.task(config.TASK), random_population(count, config.SEED)
    seconds = []
    for _ in range(2):  # the first run compiles
        start = time.perf_counter()
        done = population.train_population(jax.random.key(config.SEED), u, task, workers=2)
        seconds.append(time.perf_counter() - start)
    useful = float(done.flops[:, -1].sum())
    touched = set(mlp_configs(u)[1])
    programs = sum(population.program(capacity, population.R, population.POINTS)._cache_size() for capacity in touched)
    largest = str(max(config.SIZES))
    claims = [
        at_least(
            f"useful / executed FLOPs, {largest} random configurations, least of the bundled tasks",
            min(s[largest] for s in share.values()),
            0.5,
        ),
        at_most("compiled programs per capacity that is touched", programs / len(touched), 1.0),
        Claim("capacities in all", len(capacities()), "== 36", len(capacities()) == 36),
    ]
    write(
        options.out, command="python -m experiments.population.run" + (" --quick" if options.quick else ""), seeds=[config.SEED],
        seconds=time.perf_counter() - began,
        figures={
            "useful_over_executed_flops": share, "trained_on": config.TASK, "trained": count, "capacities_touched": len(touched),
            "programs": programs, "seconds_with_compilation": round(seconds[0], 1), "seconds": round(seconds[1], 1),
            "trainings_per_second": round(count / seconds[1], 2), "useful_gflops_per_second": round(useful / seconds[1] / 1e9, 1),
            "diverged": float(np.isfinite(done.diverged_at).mean()),
        },
        claims=claims, not_tested=["throughput of a population of the full size"] if options.quick else [], versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
