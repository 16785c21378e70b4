"""The demo: learn to tune from recorded data sets, then tune three that were never seen, by really training networks."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from metahpo_jax.base import Key, Proposer, run_key
from metahpo_jax.evaluation import BenchmarkResult, regret_curves, require_writable_file, terminal_table, wide_console
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.evaluation.live import Reference, Trials, run_live, score_live
from metahpo_jax.evaluation.protocol import LEARN, RUN
from metahpo_jax.evaluation.report import Figure, ParallelCoordinates, Section, Table, Text, write_report
from metahpo_jax.evaluation.report import Trials as TrialTable
from metahpo_jax.evaluation.table import caption, cells
from metahpo_jax.learners import mlp_family, mlp_space
from metahpo_jax.metadata import MetaDataset, load_metadataset
from metahpo_jax.metadata.builder import task_id
from metahpo_jax.metalearners import STEPS, learn_portfolio, learn_theta, pretrained_gp
from metahpo_jax.population import POINTS, R, train_population
from metahpo_jax.proposers import gp_bo, portfolio, random, sobol
from metahpo_jax.spaces import Choice, Space
from metahpo_jax.tasks import Task, TaskShape, bundled, check_disjoint, to_task

TASKS = ("digits", "breast_cancer", "wine")
SHAPE = TaskShape(rows=4096, eval_rows=1024, features=64, classes=32)  # one for all three: a third of the compilations
BUDGETS = (1, 5, 10, 15)
QUICK_STEPS = 20
PROTOCOL = (
    "Networks really trained ({samples:,} samples each) on data sets that no method has learned from. Regret is against the best "
    "validation loss of 256 recorded configurations, in units of the distance to the class-prior entropy; below 0 means better than "
    "all of those. Seeds vary what is tried, not the training noise; intervals over three data sets are a sketch: `metahpo bench` "
    "compares on all recorded ones."
)

Progress = Callable[[int, int, str], None]


def run(out: Path, *, trials: int, seeds: int, seed: int, quick: bool, progress: Progress) -> Callable[[], None]:
    """Runs the demo and writes the report; what it returns prints the table (once the progress bar is gone).

    Raises:
      StoreError: when the meta-dataset is damaged or `out` cannot be written.
      SplitError: when a data set of the demo is in the meta-dataset.
    """
    require_writable_file(out)
    trials, seeds = (3, 1) if quick else (trials, seeds)
    horizon = R // 9 if quick else R
    points = tuple(p for p in POINTS if p <= horizon)
    key = jax.random.key(seed)
    learned_from, recorded = load_metadataset("tabular"), load_metadataset("bundled")
    family = bundled()
    check_disjoint([task.name for task in learned_from.tasks], TASKS, family)

    proposers, meta_seconds = learn(learned_from, jax.random.fold_in(key, LEARN), trials, quick, progress)
    tasks = [to_task(family.load(name), SHAPE) for name in TASKS]

    def evaluate(task: int, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        training_key = run_key(jax.random.key(seed), task_id(TASKS[task]), 0)[None, None]
        result = train_population(
            mlp_family(), u, [tasks[task]], training_key, horizon=horizon, points=points, coarse=True
        )
        # Capped as the recorded losses are; np.minimum keeps the NaN of a diverged run.
        loss = np.minimum(np.asarray(result.curve.valid_loss)[0, 0, :, -1], float(tasks[task].prior_entropy))
        return loss, np.asarray(result.curve.test_accuracy)[0, 0, :, -1]

    began = time.perf_counter()
    space = mlp_space()
    contexts = [
        space.context(budget=trials, max_fidelity=horizon, descriptor=recorded.tasks[recorded.index(name)].descriptor)
        for name in TASKS
    ]
    done = run_live(
        proposers, contexts, evaluate, trials=trials, seeds=seeds, key=jax.random.fold_in(key, RUN),
        progress=lambda now, total: progress(now, total, "tuning by real training"),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    reference = reference_of(recorded)
    result = BenchmarkResult(
        benchmark="demo",
        protocol=PROTOCOL.format(samples=horizon),
        tasks=TASKS,
        groups=TASKS,
        runs=tuple(score_live(name, done[name], reference, meta_seconds[name]) for name in proposers),
        versions=versions(),
        command="metahpo demo --quick" if quick else f"metahpo demo --trials {trials} --seeds {seeds} --seed {seed}",
    )
    trained = trials * seeds * len(TASKS) * len(proposers)
    write_report(
        out, title="Tuning networks on unseen data sets", lead=lead(result, learned_from, trained, seconds),
        sections=sections(result, done, tasks),
    )  # fmt: skip

    def finish() -> None:
        console = wide_console()
        console.print(terminal_table(result, at=[b for b in BUDGETS if b <= trials]))
        console.print(f"{trained} trials asked for in {seconds:.0f} s; report: {out.resolve()}", soft_wrap=True)

    return finish


def learn(
    dataset: MetaDataset, key: Key, trials: int, quick: bool, progress: Progress
) -> tuple[dict[str, Proposer], dict[str, float]]:
    """The four competitors, and the seconds of meta-training behind each."""
    space, loss = dataset.space, dataset.objective()
    progress(0, 2, "learning a portfolio")
    began = time.perf_counter()
    listed = learn_portfolio(dataset.u, loss, max(trials, 16))
    portfolio_seconds = time.perf_counter() - began
    progress(1, 2, f"pre-training a GP on {len(dataset.tasks)} data sets")
    began = time.perf_counter()
    theta = learn_theta(dataset, key, steps=QUICK_STEPS if quick else STEPS)
    seconds = {"random": 0.0, "gp": 0.0, "portfolio": portfolio_seconds, "pretrained_gp": time.perf_counter() - began}
    proposers = {
        "random": random(space),
        "gp": gp_bo(space, opening=sobol(space)),
        "portfolio": portfolio(listed, space),
        "pretrained_gp": pretrained_gp(theta, space),
    }
    return proposers, seconds


def reference_of(recorded: MetaDataset) -> Reference:
    """Best recorded validation loss, and class-prior entropy, of the demo's tasks."""
    rows = [recorded.index(name) for name in TASKS]
    prior = np.asarray([recorded.tasks[row].prior_entropy for row in rows])
    return Reference(best=recorded.objective()[rows].min(1).astype(np.float64), worst=prior)


def lead(result: BenchmarkResult, dataset: MetaDataset, trained: int, seconds: float) -> str:
    """The first sentence of the report."""
    last = result.trials - 1
    means = {run.name: run.regret.mean((0, 1)) for run in result.runs}
    best = min(means, key=lambda name: means[name][last])
    return (
        f"Four methods tuned {len(TASKS)} data sets that were never learned from, {result.trials} networks per run, {trained} trials in "
        f"{seconds:.0f} s. The learned ones had seen {len(dataset.tasks)} other data sets. After {result.trials} trials the lowest mean "
        f"regret is that of {best}: {means[best][last]:.4f}."
    )


def sections(result: BenchmarkResult, done: dict[str, Trials], tasks: list[Task]) -> list[Section]:
    """Results, curves, and what was tried on each data set."""
    space = mlp_space()
    at = [b for b in BUDGETS if b <= result.trials]
    out: list[Section] = [
        Table("Results", *cells(result, at), caption(result)),
        Figure("Regret after each trial", regret_curves(result), result.protocol),
    ]
    for t, name in enumerate(TASKS):
        u = np.concatenate([done[m].u[t].reshape(-1, space.size) for m in done])
        loss = np.concatenate([done[m].loss[t].reshape(-1) for m in done])
        out.append(
            ParallelCoordinates(
                f"Every configuration tried on {name}",
                [(n, ticks(space, n)) for n in space],
                u,
                loss,
                "One line per trial, warm and on top for a low validation loss; dashed where the training diverged.",
            )
        )
        out.append(TrialTable(f"Trials on {name}", trial_rows(space, done, t)))
    out.append(
        Text(
            "How to repeat this",
            f"    {result.command}\n\nVersions: " + ", ".join(f"{k} {v}" for k, v in result.versions.items()),
        )
    )
    return out


def ticks(space: Space, name: str) -> list[tuple[float, str]]:
    """Positions and labels of an axis: every choice, or the ends and the middle."""
    dimension = space[name]
    if isinstance(dimension, Choice):
        return [(dimension.encode(v), str(v)) for v in dimension.values]
    return [(u, f"{dimension.decode(u):.3g}") for u in (0.0, 0.5, 1.0)]


def trial_rows(space: Space, done: dict[str, Trials], task: int) -> list[dict[str, object]]:
    """All trials on a task, one row each."""
    rows: list[dict[str, object]] = []
    for method, trials in done.items():
        for seed in range(trials.loss.shape[1]):
            for i, (u, loss) in enumerate(zip(trials.u[task, seed], trials.loss[task, seed], strict=True)):
                ok = bool(np.isfinite(loss))
                row: dict[str, object] = {"method": method, "seed": seed, "trial": i + 1}
                row["loss"] = round(float(loss), 4) if ok else ""
                row["test accuracy"] = round(float(trials.accuracy[task, seed, i]), 4) if ok else ""
                row["status"] = "OK" if ok else "DIVERGED"
                config = space.decode(u)
                rows.append(row | {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in config.items()})
    return rows
