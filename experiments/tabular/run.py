"""Does what was learned on other data sets help on a new one? Every method on every recorded data set, each held out in turn.

python -m experiments.tabular.run            # about 20 minutes on 2 cores; writes experiments/tabular/results.json
python -m experiments.tabular.run --quick
"""

import sys
import time

from experiments.record import Claim, arguments, at_most, below, one_thread_each, write

one_thread_each()

import jax
import numpy as np

from experiments.tabular import config
from metahpo_jax.cli import default_workers
from metahpo_jax.evaluation import rank_curves, regret_curves, save, save_figure, terminal_table, wide_console
from metahpo_jax.evaluation.benchmarks import tabular_benchmark
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.evaluation.protocol import run_benchmark
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.statistics import trials_to_reach
from metahpo_jax.metadata import MetaDataset, archive_of, load_metadataset
from metahpo_jax.metalearners import learn_theta


def main() -> None:
    """Runs the comparison, then times one pre-training, then writes curves, pictures and claims."""
    options = arguments(__doc__ or "", "experiments/tabular/results.json").parse_args()
    began = time.perf_counter()
    dataset = load_metadataset(options.data or "tabular")
    if options.quick:
        dataset = dataset.select([task.name for task in dataset.tasks[: config.QUICK_TASKS]])
    seeds = config.QUICK_SEEDS if options.quick else config.SEEDS
    command = "python -m experiments.tabular.run" + (" --quick" if options.quick else "")
    result = run_benchmark(
        tabular_benchmark(archive_of(dataset)), config.METHODS, trials=config.TRIALS, seeds=seeds, key_seed=config.SEED,
        command=command, workers=default_workers(),
        progress=lambda what, done, total: print(f"{what} {done}/{total}", file=sys.stderr, flush=True),
    )  # fmt: skip
    curves = options.out.with_name(options.out.stem + "_curves.json")
    save(result, curves)
    save_figure(regret_curves(result), options.out.with_name(options.out.stem + "_regret.png"))
    save_figure(rank_curves(result), options.out.with_name(options.out.stem + "_rank.png"))
    wide_console().print(terminal_table(result, at=(1, 5, 10, 20, 50)))
    runs = {run.name: run for run in result.runs}
    cost = meta_training_cost(dataset, runs)
    write(
        options.out, command=command, seeds=list(range(seeds)), seconds=time.perf_counter() - began,
        figures=figures(result) | {"below_random_until_trial": below_until(result), "cost_of_meta_training": cost},
        claims=claims(result),
        not_tested=["seeds 1 to 4", f"tasks beyond the first {config.QUICK_TASKS}"] if options.quick else [],
        versions=versions(),
    )  # fmt: skip


def mean_at(run: MethodRun, trial: int) -> float:
    """Mean normalised regret after `trial` trials."""
    return float(run.regret[..., trial - 1].mean())


def figures(result: BenchmarkResult) -> dict:
    """Mean regret, rank and seconds by method at the reported trials."""
    ranks = result.ranks()
    budgets = sorted({*config.EARLY, *config.LATE})
    return {
        "tasks": len(result.tasks),
        "base_data_sets": len(set(result.groups)),
        "regret": {run.name: {str(t): mean_at(run, t) for t in budgets} for run in result.runs},
        "rank": {run.name: {str(t): float(ranks[i][t - 1]) for t in budgets} for i, run in enumerate(result.runs)},
        "seconds": {
            run.name: {"tuning": round(run.seconds, 1), "learning_all_folds": round(run.meta_seconds, 1)}
            for run in result.runs
        },
    }


def claims(result: BenchmarkResult) -> list[Claim]:
    """The statements of the issue, each with the figure that decides it."""
    runs = {run.name: run for run in result.runs}
    learned = runs["pretrained_gp"]
    out = [
        at_most(f"pretrained_gp - portfolio @{t}", mean_at(learned, t) - mean_at(runs["portfolio"], t), 0.0)
        for t in config.EARLY
    ]
    out += [at_most(f"pretrained_gp - gp @{t}", mean_at(learned, t) - mean_at(runs["gp"], t), 0.0) for t in config.LATE]
    for name in ("portfolio_imagined", "pretrained_gp"):
        gap = result.difference(runs[name], runs["random"])
        worst = int(np.argmax(gap.high))
        out.append(
            below(
                f"{name} - random, upper end of the interval at the worst trial ({worst + 1})",
                float(gap.high[worst]),
                0.0,
            )
        )
    return out


def below_until(result: BenchmarkResult) -> dict[str, int]:
    """The last trial up to which every interval of the difference to random search lies below 0."""
    runs = {run.name: run for run in result.runs}
    out = {}
    for name in ("portfolio", "portfolio_imagined", "gp", "pretrained_gp"):
        above = np.flatnonzero(result.difference(runs[name], runs["random"]).high >= 0)
        out[name] = int(above[0]) if len(above) else result.trials
    return out


def meta_training_cost(dataset: MetaDataset, runs: dict[str, MethodRun]) -> dict:
    """Seconds of one pre-training, and after how many new tasks the trials that it saves have paid for it."""
    began = time.perf_counter()
    learn_theta(dataset, jax.random.key(config.SEED))
    pretraining = time.perf_counter() - began
    parts = [entry for entry in dataset.provenance if "seconds" in entry]
    per_training = sum(entry["seconds"] for entry in parts) / sum(
        entry["trainings"] if "trainings" in entry else entry["configurations"] for entry in parts
    )
    plain = runs["gp"].regret.mean((0, 1))
    learned = runs["pretrained_gp"].regret.mean((0, 1))
    saved = {}
    for trial in (5, 10, 20):
        reached = trials_to_reach(plain, learned[trial - 1])
        saved[str(trial)] = (len(plain) if reached is None else reached) - trial
    least, most = min(saved.values()), max(saved.values())
    recording = per_training * len(dataset.tasks) * len(dataset.u)
    return {
        "pretraining_seconds": round(pretraining, 1),
        "seconds_per_training": round(per_training, 3),
        "trials_saved_against_gp_at_equal_regret": saved,
        "tasks_until_pretraining_has_paid": tasks_until(pretraining, least * per_training, most * per_training),
        "recording_seconds": round(recording),
        "tasks_until_recording_has_paid_too": tasks_until(
            recording + pretraining, least * per_training, most * per_training
        ),
    }


def tasks_until(cost: float, least: float, most: float) -> dict[str, int | None]:
    """After how many tasks the seconds saved on each exceed `cost`, at the least and the most that a task saves."""
    return {name: int(np.ceil(cost / gain)) if gain > 0 else None for name, gain in (("most", least), ("least", most))}


if __name__ == "__main__":
    main()
