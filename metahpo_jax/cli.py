"""The `metahpo` command: build a meta-dataset, compare methods on it, see the demo."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from metahpo_jax.errors import ConfigError, MetaHPOError

EPILOGUE = """examples:
  metahpo demo
  metahpo bench --benchmark tabular --methods random,portfolio,gp,pretrained_gp --trials 50 --seeds 5 --out tabular.json
  metahpo build --family tabular --tasks 48 --configurations 256 --out my_metadataset
"""


@dataclass(frozen=True)
class Build:
    """Train the same configurations on many data sets and record every learning curve (resumable)."""

    out: Path
    """Folder of the meta-dataset. Finished parts are kept in OUT.parts until it is complete."""
    family: str = "tabular"
    """Data sets: tabular (needs the extra [datasets]) or bundled (scikit-learn's own)."""
    tasks: int = 48
    """How many data sets, in the order of the catalogue."""
    configurations: int = 256
    """How many scrambled-Sobol points of the space of networks."""
    seed: int = 0
    """Of the configurations, initial weights and minibatches."""
    workers: int = 2
    """Worker processes of one thread each."""


@dataclass(frozen=True)
class Bench:
    """Compare methods on a recorded meta-dataset, each data set held out in turn."""

    out: Path
    """JSON file of the result; the raw curves (.npz) and a picture (.png) go beside it."""
    benchmark: str = "tabular"
    """`tabular`, the meta-dataset that comes with the package, or the folder of one that was built."""
    methods: str = "random,sobol,grid,portfolio,gp,pretrained_gp"
    """Names, separated by commas."""
    trials: int = 50
    """Trials per run."""
    seeds: int = 5
    """Runs per data set."""
    seed: int = 0
    """Of everything that is random."""


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
    import tyro

    # Small networks gain nothing from threads inside an operation; whole trainings run side by side instead.
    if "xla_cpu_multi_thread_eigen" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    subcommands = (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Build, tyro.conf.subcommand("build")]
    )
    try:
        command = tyro.cli(
            tyro.conf.OmitArgPrefixes[subcommands],  # type: ignore[arg-type]  # an alias built at run time, as tyro documents
            prog="metahpo",
            args=arguments,
            description=f"Meta-learned hyperparameter optimisation.\n\n{EPILOGUE}",
        )
        runner = {Build: run_build, Bench: run_bench, Demo: run_demo}[type(command)]
        runner(command)
    except MetaHPOError as error:
        print(f"metahpo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metahpo: stopped; what build and bench had finished is kept for the same command.", file=sys.stderr)
        return 130
    return 0


def run_build(command: Build) -> None:
    """`metahpo build`."""
    from rich.console import Console

    from metahpo_jax.learners import capacities
    from metahpo_jax.metadata import save_metadataset, summarise
    from metahpo_jax.metadata.builder import assemble, build, make_plan
    from metahpo_jax.population import POINTS, R

    if command.workers < 1:
        raise ConfigError(f"workers must be at least 1, got {command.workers}.")
    parts = Path(f"{command.out}.parts")
    plan = make_plan(command.family, command.tasks, command.configurations, command.seed)
    console = Console()
    console.print(
        f"{len(plan.tasks)} data sets x {plan.configurations} configurations x {len(POINTS)} points up to {R:,} samples, "
        f"in at most {len(capacities())} capacities per task shape"
    )
    with _bar("training") as update:
        for done, total in build(plan, parts, workers=command.workers):
            update(done, total)
    dataset = assemble(plan, parts)
    save_metadataset(dataset, command.out)
    for name, value in summarise(dataset).items():
        console.print(f"{name}: {value}")
    console.print(f"written to {command.out}; {parts} can be deleted")


def run_bench(command: Bench) -> None:
    """`metahpo bench`."""
    from metahpo_jax.evaluation import regret_curves, require_writable, save, save_figure, terminal_table, wide_console
    from metahpo_jax.evaluation.protocol import run_benchmark
    from metahpo_jax.metadata import load_metadataset

    require_writable(command.out)
    dataset = load_metadataset(command.benchmark)
    names = [name.strip() for name in command.methods.split(",") if name.strip()]
    words = (
        f"metahpo bench --benchmark {command.benchmark} --methods {','.join(names)} --trials {command.trials} "
        f"--seeds {command.seeds} --seed {command.seed} --out {command.out.name}"
    )
    with _bar("starting") as update:
        result = run_benchmark(
            dataset, names, trials=command.trials, seeds=command.seeds, key_seed=command.seed,
            command=words, progress=lambda what, done, total: update(done, total, what),
            parts=command.out.with_suffix(".parts"),
        )  # fmt: skip
    save(result, command.out)
    picture = command.out.with_suffix(".png")
    save_figure(regret_curves(result), picture)
    console = wide_console()
    console.print(terminal_table(result, at=(1, 5, 10, 20, 50)))
    console.print(f"written to {command.out}, {command.out.with_suffix('.npz')} and {picture}")


def run_demo(command: Demo) -> None:
    """`metahpo demo`."""
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
