"""Our methods beside the authors' own runs on HPO-B: the 82 test tasks, the 5 published starts, 100 trials.

python -m experiments.hpob.run --data DIR            # about 30 minutes on 2 cores; resumable
python -m experiments.hpob.run --data DIR --quick
"""

import sys
import time
from dataclasses import replace

from experiments.record import Claim, arguments, at_least, at_most, one_thread_each, write

one_thread_each()

import numpy as np

from experiments.hpob import config
from metahpo_jax.cli import default_workers
from metahpo_jax.evaluation import page_from_files, save, sentences, terminal_table, wide_console
from metahpo_jax.evaluation.benchmarks import Benchmark, load_benchmark
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.evaluation.protocol import run_benchmark
from metahpo_jax.evaluation.results import BenchmarkResult


def main() -> None:
    """Runs what is not there yet, then draws the page and states the claims."""
    options = arguments(__doc__ or "", "experiments/hpob/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    command = "python -m experiments.hpob.run --data DIR" + (" --quick" if options.quick else "")
    resumed = options.out.with_suffix(".parts").exists()
    benchmark = load_benchmark("hpob", options.data)
    result = run_benchmark(
        smallest(benchmark) if options.quick else benchmark, config.METHODS, seeds=seeds, key_seed=config.SEED, command=command,
        workers=default_workers(), parts=options.out.with_suffix(".parts"),
        progress=lambda what, done, total: print(f"{what} {done}/{total}", file=sys.stderr, flush=True),
    )  # fmt: skip
    curves = options.out.with_name(f"{options.out.stem}_curves.json")
    save(result, curves)
    page_from_files([curves], options.out.with_suffix(".html"))
    wide_console().print(terminal_table(result))
    print("\n".join(sentences(result)))
    total = time.perf_counter() - began
    not_tested = ["seconds"] if resumed or options.quick else []
    if options.quick:
        not_tested += [
            "the portfolio's figures",
            f"spaces beyond {', '.join(config.QUICK_SPACES)}",
            f"seeds {seeds} to {config.SEEDS - 1}",
        ]
    claims = claims_of(result, whole=not options.quick)
    if not not_tested:
        claims.append(at_most("seconds", total, config.SECONDS))
    write(
        options.out, command=command, seeds=list(range(seeds)), seconds=total, figures=figures(result), claims=claims,
        not_tested=not_tested, versions=versions(),
    )  # fmt: skip


def smallest(benchmark: Benchmark) -> Benchmark:
    """The benchmark with the test tasks of a few spaces only."""
    chosen = np.array([task.space in config.QUICK_SPACES for task in benchmark.archive.tasks])
    folds = [fold._replace(test=fold.test & chosen) for fold in benchmark.folds]
    return replace(benchmark, folds=[fold for fold in folds if fold.test.any()])


def figures(result: BenchmarkResult) -> dict:
    """Mean regret and paired differences to the published rows, each with its interval over data sets."""
    runs = {run.name: run for run in result.runs}
    out: dict = {
        "tasks": len(result.tasks),
        "data_sets": len(set(result.groups)),
        "regret": {
            run.name: {str(t): float(run.regret[..., t - 1].mean()) for t in result.shown} for run in result.runs
        },
        "seconds": {
            run.name: [round(run.seconds, 1), round(run.meta_seconds, 1)] for run in result.runs if not run.published
        },
    }
    for name, other in config.PUBLISHED.items():
        if name in runs and other in runs:
            gap = result.difference(runs[name], runs[other])
            out[f"{name} - {other}"] = {
                str(t): [float(gap.mean[t - 1]), float(gap.low[t - 1]), float(gap.high[t - 1])] for t in result.shown
            }
    return out


def claims_of(result: BenchmarkResult, *, whole: bool) -> list[Claim]:
    """The intervals of our random and plain GP less the published ones include 0; the static list is where two independent ones are."""
    runs = {run.name: run for run in result.runs}
    out = []
    for name in ("random", "gp"):
        gap = result.difference(runs[name], runs[config.PUBLISHED[name]])
        low, high = (end[np.array(result.shown) - 1] for end in (gap.low, gap.high))
        out.append(at_most(f"{name} - published, lower end of the interval at the worst budget", float(low.max()), 0.0))
        out.append(
            at_least(f"{name} - published, upper end of the interval at the worst budget", float(high.min()), 0.0)
        )
    if whole:
        for t, limit in config.PORTFOLIO.items():
            value = float(runs["portfolio"].regret[..., t - 1].mean())
            out.append(at_most(f"portfolio @{t}", value, limit))
    return out


if __name__ == "__main__":
    main()
