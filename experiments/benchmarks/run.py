"""Every method on the public tables `lcbench`, `svm`, `svm143`, `taskset` (three splits) and `openml100`, on one page.

python -m experiments.benchmarks.run --data DIR            # about 20 minutes on 2 cores; resumable
python -m experiments.benchmarks.run --data DIR --quick
"""

import sys
import time

from experiments.record import Claim, arguments, at_most, one_thread_each, write

one_thread_each()

import numpy as np

from experiments.benchmarks import config
from metahpo_jax.cli import default_workers
from metahpo_jax.evaluation import page_from_files, save, sentences, terminal_table, wide_console
from metahpo_jax.evaluation.benchmarks import Benchmark, load_benchmark
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.evaluation.protocol import applicable_methods, run_benchmark
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.statistics import expected_minimum


def main() -> None:
    """Runs what is not there yet, then draws the page and states the claims."""
    options = arguments(__doc__ or "", "experiments/benchmarks/results.json").parse_args()
    began = time.perf_counter()
    names = config.QUICK_BENCHMARKS if options.quick else config.BENCHMARKS
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    command = "python -m experiments.benchmarks.run --data DIR" + (" --quick" if options.quick else "")
    resumed = options.out.with_suffix(".parts").exists()
    benchmarks = {name: load_benchmark(name, options.data) for name in names}
    results, files, seconds = {}, [], {}
    for name in names:
        started = time.perf_counter()
        results[name] = run_one(options, benchmarks[name], seeds, command)
        seconds[name] = round(time.perf_counter() - started, 1)
        files.append(options.out.with_name(f"{options.out.stem}_{name}.json"))
        save(results[name], files[-1])
        wide_console().print(terminal_table(results[name]))
        print("\n".join(sentences(results[name])))
    page_from_files(files, options.out.with_suffix(".html"))
    total = time.perf_counter() - began
    claims = [claim for name, result in results.items() for claim in claims_of(name, benchmarks[name], result)]
    if not options.quick and not resumed:
        claims.append(at_most("seconds for all benchmarks", total, config.SECONDS))
    left_out = [name for name in config.BENCHMARKS if name not in names]
    write(
        options.out, command=command, seeds=list(range(seeds)), seconds=total,
        figures={"regret": {name: means(result) for name, result in results.items()}, "seconds": seconds}, claims=claims,
        not_tested=[*left_out, *([f"seeds {seeds} to {config.SEEDS - 1}"] if options.quick else []),
                    *(["seconds for all benchmarks"] if options.quick or resumed else [])],
        versions=versions(),
    )  # fmt: skip


def run_one(options, benchmark: Benchmark, seeds: int, command: str) -> BenchmarkResult:
    """One benchmark, with all methods that its tables allow."""
    wanted = config.OWN_METHODS if "empirical_gaussian" not in applicable_methods(benchmark) else config.SHARED_METHODS
    return run_benchmark(
        benchmark, wanted, seeds=seeds, key_seed=config.SEED, command=command, workers=default_workers(),
        parts=options.out.with_suffix(".parts") / benchmark.name,
        progress=lambda what, done, total: print(f"{benchmark.name}: {what} {done}/{total}", file=sys.stderr, flush=True),
    )  # fmt: skip


def means(result: BenchmarkResult) -> dict[str, dict[str, float]]:
    """Mean regret by method at the benchmark's budgets."""
    return {run.name: {str(t): at(run, t) for t in result.shown} for run in result.runs}


def at(run: MethodRun, trial: int) -> float:
    """Mean regret after `trial` trials."""
    return float(run.regret[..., trial - 1].mean())


def claims_of(name: str, benchmark: Benchmark, result: BenchmarkResult) -> list[Claim]:
    """What a benchmark must reproduce, and where the learned GP must not lose."""
    runs = {run.name: run for run in result.runs}
    out = []
    exact = {t: random_search(benchmark, t, result.seeds) for t in result.shown}
    for whose, values in (
        ("random", {t: at(runs["random"], t) for t in result.shown}),
        ("reference of random", config.RANDOM.get(name, {})),
    ):
        away = {t: abs(value - exact[t][0]) / exact[t][1] for t, value in values.items() if t in exact}
        if away:
            worst = max(away, key=lambda t: away[t])
            what = f"{name}: {whose}, standard errors from the exact expectation at the worst trial ({worst})"
            out.append(at_most(what, away[worst], config.DEVIATIONS))
    for method, reference in (("portfolio", config.PORTFOLIO), ("empirical_gaussian", config.EMPIRICAL_GAUSSIAN)):
        if name in reference:
            off = {t: abs(at(runs[method], t) - value) for t, value in reference[name].items()}
            worst = max(off, key=lambda t: off[t])
            out.append(
                at_most(
                    f"{name}: {method}, distance from its reference at the worst trial ({worst})",
                    off[worst],
                    config.TOLERANCE,
                )
            )
    learned = runs["pretrained_gp"]
    for t in config.LEARNED_EARLY.get(name, ()):
        out.append(at_most(f"{name}: pretrained_gp - portfolio @{t}", at(learned, t) - at(runs["portfolio"], t), 0.0))
    for t in config.LEARNED_LATE.get(name, ()):
        out.append(at_most(f"{name}: pretrained_gp - gp @{t}", at(learned, t) - at(runs["gp"], t), 0.0))
    return out


def random_search(benchmark: Benchmark, trial: int, seeds: int) -> tuple[float, float]:
    """Expected mean regret of random search over the held-out tasks, and the standard error of a run with so many seeds: both exact."""
    tasks = benchmark.archive.tasks
    regrets = [benchmark.regret(t, tasks[t].scored.astype(np.float64)) for t in benchmark.tested]
    mean = np.array([expected_minimum(regret, trial) for regret in regrets])
    square = np.array([expected_minimum(regret**2, trial) for regret in regrets])
    return float(mean.mean()), float(np.sqrt(np.sum(square - mean**2) / seeds) / len(regrets))


if __name__ == "__main__":
    main()
