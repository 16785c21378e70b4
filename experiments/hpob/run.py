"""Our methods beside the authors' own runs on HPO-B: the 82 test tasks, the 5 published starts, 100 trials.

python -m experiments.hpob.run --data DIR            # about 30 minutes on 2 cores; resumable
python -m experiments.hpob.run --data DIR --quick
"""

import sys
import time
from dataclasses import replace

from experiments.record import Claim, arguments, at_most, one_thread_each, write

one_thread_each()

import numpy as np

from experiments.hpob import config
from metahpo_jax.cli import default_workers
from metahpo_jax.evaluation import page_from_files, save, sentences, terminal_table, wide_console
from metahpo_jax.evaluation.benchmarks import Benchmark, load_benchmark
from metahpo_jax.evaluation.protocol import run_benchmark, versions
from metahpo_jax.evaluation.results import BenchmarkResult


def main() -> None:
    """Runs what is not there yet, then draws the page and states the claims."""
    options = arguments(__doc__ or "", "experiments/hpob/results.json").parse_args()
    began = time.perf_counter()
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    command = "python -m experiments.hpob.run --data DIR" + (" --quick" if options.quick else "")
    results, files = {}, []
    for name, methods in (("hpob", config.METHODS), ("hpob-cold", config.COLD_METHODS)):
        benchmark = load_benchmark(name, options.data)
        if options.quick:
            benchmark = smallest(benchmark)
        results[name] = run_benchmark(
            benchmark, methods, seeds=seeds, key_seed=config.SEED, command=command, workers=default_workers(),
            parts=options.out.with_suffix(".parts") / name,
            progress=lambda what, done, total, name=name: print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True),
        )  # fmt: skip
        files.append(options.out.with_name(f"{options.out.stem}_{name}.json"))
        save(results[name], files[-1])
        wide_console().print(terminal_table(results[name]))
        print("\n".join(sentences(results[name])))
    page_from_files(files, options.out.with_suffix(".html"))
    total = time.perf_counter() - began
    claims = claims_of(results["hpob"], whole=not options.quick)
    if not options.quick:
        claims.append(at_most("seconds", total, config.SECONDS))
    write(
        options.out, command=command, seeds=list(range(seeds)), seconds=total,
        figures={name: figures(result) for name, result in results.items()}, claims=claims,
        not_tested=["the portfolio's figures and the seconds", "spaces beyond " + ", ".join(config.QUICK_SPACES),
                    f"seeds {seeds} to {config.SEEDS - 1}"] if options.quick else [],
        versions=versions(),
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
    """Our random and plain GP are not above the published ones; the static list is where two independent ones are."""
    runs = {run.name: run for run in result.runs}
    out = []
    for name in ("random", "gp"):
        gap = result.difference(runs[name], runs[config.PUBLISHED[name]])
        low = max(float(gap.low[t - 1]) for t in result.shown)
        out.append(at_most(f"{name} - published, lower end of the interval at the worst budget", low, 0.0))
    if whole:
        for t, limit in config.PORTFOLIO.items():
            value = float(runs["portfolio"].regret[..., t - 1].mean())
            out.append(at_most(f"portfolio @{t}", value, limit))
    return out


if __name__ == "__main__":
    main()
