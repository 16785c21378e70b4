"""The `metahpo` command: make meta-datasets, compare methods on them, see the demo."""

import contextlib
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metahpo_jax.errors import ConfigError, MetaHPOError

if TYPE_CHECKING:
    from rich.table import Table

    from metahpo_jax.evaluation.benchmarks import Benchmark

EPILOGUE = """examples:
  metahpo demo
  metahpo bench --benchmark tabular --methods random,portfolio,gp,pretrained_gp --trials 50 --seeds 5 --out tabular.json
  metahpo build --family tabular --tasks 48 --configurations 256 --out my_metadataset
  metahpo look my_metadataset --out look.html
  metahpo select my_metadataset --configurations 64 --out small
  metahpo import runs.csv --space space.toml --task dataset --loss error --out my_table
  metahpo bench --benchmark my_table --methods random,portfolio,gp --trials 20 --out my_table.json
  metahpo bench --benchmark lcbench --data DATA --out lcbench.json
  metahpo report lcbench.json my_table.json --out benchmarks.html
"""

AUDITED_TRIALS = 20  # beyond the openings of all methods, so that their models choose as well


@dataclass(frozen=True)
class Build:
    """Train the same configurations on many data sets and record every learning curve (resumable)."""

    out: Path
    """Folder of the meta-dataset. What is finished is kept in OUT.log until all is."""
    family: str = "tabular"
    """Tasks: tabular (needs the extra [datasets]), images (likewise), or bundled (scikit-learn's own data sets)."""
    tasks: int | None = None
    """How many, in the order of the family; all of them by default."""
    configurations: int = 256
    """How many scrambled-Sobol points of the space of networks."""
    again: int = 0
    """So many of them are trained a second time with other weights and minibatches, into OUT-again: what noise is measured by."""
    data: Path | None = None
    """Folder of further images: fashion-mnist/, cifar-10-batches-bin/, NPZ files."""
    seed: int = 0
    """Of the configurations, initial weights and minibatches."""
    devices: int = 0
    """Host devices that share the work on a CPU; 0 is one per core."""


@dataclass(frozen=True)
class Select:
    """Write part of a meta-dataset: some of its tasks, or its first configurations."""

    dataset: tyro.conf.Positional[str]
    """Folder of a meta-dataset, or tabular, images or bundled."""
    out: Path
    """Folder of the part."""
    tasks: str = ""
    """Names, separated by commas; all by default."""
    configurations: int | None = None
    """How many, from the first; all by default."""


@dataclass(frozen=True)
class Look:
    """Draw a meta-dataset on one page: learning curves, which hyperparameters matter, what is covered, which tasks are alike."""

    dataset: tyro.conf.Positional[str]
    """Folder of a meta-dataset, or tabular, images or bundled."""
    out: Path = Path("look.html")
    """The page: self-contained."""


@dataclass(frozen=True)
class Bench:
    """Compare methods on recorded tables, each data set held out in turn (resumable)."""

    out: Path
    """JSON file of the result; raw curves (.npz), a picture (.png) and a page (.html) go beside it."""
    benchmark: str = "tabular"
    """tabular, images, bundled, lcbench, svm, svm143, taskset, taskset-family, taskset-shift, openml100, hpob, hpob-cold, or the folder of a
    meta-dataset that `metahpo import` or `metahpo build` wrote."""
    methods: str = ""
    """Names, separated by commas; portfolio_then_X opens any method X with a portfolio. All that apply by default."""
    data: Path | None = None
    """Folder that holds lcbench/, svm/, taskset/, openml100/ and hpob/."""
    split: str | None = None
    """What is held out together, where it is not the benchmark's own: base, group, space, size or tenfold."""
    trials: int | None = None
    """Trials per run; the benchmark's own number by default."""
    seeds: int = 5
    """Runs per data set."""
    seed: int = 0
    """Of everything that is random."""
    workers: int = 0
    """Processes side by side; 0 is one per core, and a single one where there is an accelerator."""
    audit: bool = False
    """Also check each method for leaks: run the first 20 trials of the first fold again on tables whose untold losses were replaced."""


@dataclass(frozen=True)
class Report:
    """Put several results of `metahpo bench` on one HTML page."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """JSON files."""
    out: Path = Path("benchmarks.html")
    """The page: self-contained."""


@dataclass(frozen=True)
class Import:
    """Make a meta-dataset of one's own table, a row per run or per point of a learning curve."""

    file: tyro.conf.Positional[Path]
    """CSV or Parquet file whose columns are called as the hyperparameters. An empty loss is a failed run."""
    space: Path
    """TOML file of the search space: a table per hyperparameter, such as [lr] type = "float" low = 1e-4 high = 1.0."""
    task: str
    """Column of the task."""
    loss: str
    """Column of the loss, in raw units."""
    out: Path
    """Folder of the meta-dataset."""
    maximise: bool = False
    """The column of the loss is a score, of which more is better."""
    fidelity: str | None = None
    """Column of the fidelity, such as the epoch; without it each row is a whole run."""
    group: str | None = None
    """Column of what the tasks of one data set share, so that no split separates them."""
    cost: str | None = None
    """Column of the cost."""
    status: str | None = None
    """Column of ok, diverged or failed."""


@dataclass(frozen=True)
class Demo:
    """Pre-train on the recorded meta-dataset, then tune three unseen data sets by really training networks."""

    out: Path = field(default=Path("report.html"))
    """The report: one self-contained HTML file."""
    trials: int = 15
    """Networks that each method may train per data set and seed."""
    seeds: int = 3
    """Runs per data set and method."""
    seed: int = 0
    """Of everything that is random."""
    quick: bool = False
    """A smoke run: 3 trials, 1 seed, a short pre-training, runs of 1/9 of the length. Its figures mean nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; bad input is one sentence on standard error and exit code 2."""
    # Small networks gain nothing from threads inside an operation; whole trainings run side by side instead.
    if "xla_cpu_multi_thread_eigen" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    subcommands = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Build, tyro.conf.subcommand("build")]
        | Annotated[Import, tyro.conf.subcommand("import")]
        | Annotated[Look, tyro.conf.subcommand("look")]
        | Annotated[Select, tyro.conf.subcommand("select")]
    )
    try:
        command = tyro.cli(
            tyro.conf.OmitArgPrefixes[subcommands],  # type: ignore[arg-type]  # an alias built at run time, as tyro documents
            prog="metahpo",
            args=arguments,
            description=f"Meta-learned hyperparameter optimisation.\n\n{EPILOGUE}",
        )
        runners = {
            Build: run_build,
            Bench: run_bench,
            Report: run_report,
            Demo: run_demo,
            Import: run_import,
            Look: run_look,
            Select: run_select,
        }
        runners[type(command)](command)
    except MetaHPOError as error:
        print(f"metahpo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metahpo: stopped; what build and bench had finished is kept for the same command.", file=sys.stderr)
        return 130
    return 0


def share_cores(devices: int = 0) -> None:
    """Splits a CPU into host devices: so many, or one per core where JAX has not started in this process (else it stays as it is)."""
    from metahpo_jax.population import configure

    if devices:
        configure(devices=devices)
    else:
        with contextlib.suppress(ConfigError):
            configure()


def task_table(per_task: dict[str, dict[str, float]]) -> "Table":
    """What each task of a meta-dataset has to gain."""
    from rich.table import Table

    columns = ("best", "median", "worst", "failed")
    table = Table("task", *columns, caption="objective in nats, over the configurations; share of runs that failed")
    for name, facts in per_task.items():
        table.add_row(name, *(f"{facts[column]:.4f}" for column in columns))
    return table


def run_build(command: Build) -> None:
    """`metahpo build`."""
    from rich.console import Console

    if command.devices < 0 or command.again < 0 or command.again == 1:
        raise ConfigError(
            f"devices must be at least 0, again 0 or at least 2, got {command.devices} and {command.again}."
        )
    share_cores(command.devices)
    from metahpo_jax.metadata import save_metadataset, summarise
    from metahpo_jax.metadata.builder import build, make_plan

    plan = make_plan(command.family, command.tasks, command.configurations, command.seed, command.data)
    console = Console(markup=False, soft_wrap=True)
    console.print(
        f"{len(plan.tasks)} tasks x {plan.configurations} configurations x {len(plan.points)} points up to {plan.samples:,} samples"
    )
    for sentence in plan.family.absences:
        console.print(f"left out: {sentence}")
    jobs = [(plan, command.out)]
    if command.again:
        jobs.append((plan.again(min(command.again, plan.configurations)), Path(f"{command.out}-again")))
    for job, out in jobs:
        log = Path(f"{out}.log")
        with _bar("training") as update:
            dataset = build(
                job,
                log,
                lambda now: update(now.done, now.total, f"{now.per_second:.1f} trainings/s, {now.gflops:.1f} GFLOP/s"),
            )
        save_metadataset(dataset, out)
        facts = summarise(dataset)
        per_task = facts.pop("per_task")
        for name, value in (facts | dataset.provenance[0]).items():
            console.print(f"{name}: {value}", highlight=False)
        console.print(task_table(per_task))
        console.print(f"written to {out}; {log} can be deleted")


def run_look(command: Look) -> None:
    """`metahpo look`."""
    from metahpo_jax.evaluation import require_writable_file
    from metahpo_jax.evaluation.survey import write_survey
    from metahpo_jax.metadata import load_metadataset

    require_writable_file(command.out)
    write_survey(command.out, load_metadataset(command.dataset, strict=False))
    print(f"written to {command.out}")


def run_select(command: Select) -> None:
    """`metahpo select`."""
    from metahpo_jax.metadata import load_metadataset, save_metadataset

    whole = dataset = load_metadataset(command.dataset, strict=False)
    if command.tasks:
        dataset = dataset.select(name.strip() for name in command.tasks.split(","))
    if command.configurations is not None:
        dataset = dataset.first(command.configurations)
    origin = {"part_of": whole.content_hash, "tasks": len(dataset.tasks), "configurations": len(dataset.u)}
    dataset = replace(dataset, provenance=(*dataset.provenance, origin))
    save_metadataset(dataset, command.out)
    print(f"{len(dataset.tasks)} tasks x {len(dataset.u)} configurations written to {command.out}")


def run_import(command: Import) -> None:
    """`metahpo import`."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from metahpo_jax.base import Status
    from metahpo_jax.metadata import import_table, load_space, save_archive

    archive = import_table(
        command.file, load_space(command.space), task=command.task, loss=command.loss, maximise=command.maximise,
        fidelity=command.fidelity, group=command.group, cost=command.cost, status=command.status,
    )  # fmt: skip
    save_archive(archive, command.out)
    counts = [len(task.u) for task in archive.tasks]
    status = np.concatenate([task.status for task in archive.tasks])
    diverged, failed = ((status == s).sum() for s in (Status.DIVERGED, Status.FAILED))
    table = Table(show_header=False)
    table.add_row("tasks", str(len(counts)))
    table.add_row("configurations per task", f"{min(counts)} / {np.median(counts):g} / {max(counts)} (min/median/max)")
    table.add_row("fidelities", f"{len(archive.fidelity)}, in {archive.unit}")
    table.add_row("failures", f"{diverged + failed} of {len(status)} runs ({diverged} diverged, {failed} failed)")
    table.add_row("groups", str(len(archive.bases)))
    console = Console(markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"written to {command.out}; next: metahpo bench --benchmark {command.out} --out result.json")


def run_bench(command: Bench) -> None:
    """`metahpo bench`."""
    from metahpo_jax.evaluation import (
        page_from_files,
        regret_curves,
        require_writable,
        save,
        save_figure,
        sentences,
        terminal_table,
        wide_console,
    )  # fmt: skip
    from metahpo_jax.evaluation.benchmarks import load_benchmark
    from metahpo_jax.evaluation.protocol import applicable_methods, default_trials, run_benchmark

    require_writable(command.out)
    benchmark = load_benchmark(command.benchmark, command.data, command.split)
    names = [name.strip() for name in command.methods.split(",") if name.strip()] or applicable_methods(benchmark)
    trials = default_trials(benchmark) if command.trials is None else command.trials
    words = f"metahpo bench --benchmark {command.benchmark} --methods {','.join(names)} --trials {trials} --seeds {command.seeds}"
    words += f" --seed {command.seed}" + (f" --split {command.split}" if command.split else "")
    words += (" --data DIR" if command.data else "") + f" --out {command.out.name}"
    if command.audit:
        audit_methods(benchmark, names, min(trials, AUDITED_TRIALS))
    with _bar("starting") as update:
        result = run_benchmark(
            benchmark, names, trials=trials, seeds=command.seeds, key_seed=command.seed, command=words,
            progress=lambda what, done, total: update(done, total, what), parts=command.out.with_suffix(".parts"),
            workers=command.workers or default_workers(),
        )  # fmt: skip
    save(result, command.out)
    picture, page = command.out.with_suffix(".png"), command.out.with_suffix(".html")
    save_figure(regret_curves(result), picture)
    page_from_files([command.out], page)
    console = wide_console()
    console.print(terminal_table(result))
    for sentence in sentences(result):
        console.print(sentence, markup=False)
    console.print(f"written to {command.out}, {command.out.with_suffix('.npz')}, {picture} and {page}", markup=False)


def audit_methods(benchmark: "Benchmark", names: list[str], trials: int) -> None:
    """Audits each method on the first fold, with a line for each."""
    from metahpo_jax.evaluation.audit import audit
    from metahpo_jax.evaluation.methods import methods_named

    for name, method in methods_named(names).items():
        audit(benchmark, lambda _, method=method: method, trials=trials)
        print(f"audit: {name} proposes the same whatever it was not told", file=sys.stderr)


def default_workers() -> int:
    """One process per core; a single one where there is an accelerator, which they would have to share."""
    import jax

    from metahpo_jax.population.devices import cores

    return cores() if jax.default_backend() == "cpu" else 1


def run_report(command: Report) -> None:
    """`metahpo report`."""
    from metahpo_jax.evaluation import page_from_files

    if not command.results:
        raise ConfigError("name at least one result of `metahpo bench`.")
    page_from_files(command.results, command.out)
    print(f"written to {command.out}")


def run_demo(command: Demo) -> None:
    """`metahpo demo`."""
    share_cores()
    from metahpo_jax.demo import run

    with _bar("starting") as update:
        finish = run(
            command.out,
            trials=command.trials,
            seeds=command.seeds,
            seed=command.seed,
            quick=command.quick,
            progress=update,
        )
    finish()


class _bar:
    """A progress bar on standard error: `update(done, total, what)`."""

    def __init__(self, what: str):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self):
        self._progress.start()
        return self.update

    def update(self, done: int, total: int, what: str | None = None) -> None:
        """Moves the bar."""
        self._progress.update(
            self._task, completed=done, total=total, description=what or self._progress.tasks[0].description
        )

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()


if __name__ == "__main__":
    sys.exit(main())
