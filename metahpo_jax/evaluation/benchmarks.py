"""The benchmarks: which tables, which tasks are held out, what regret is, and what the authors published on the same tasks."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from metahpo_jax.errors import ConfigError, DataError
from metahpo_jax.evaluation.splits import Fold, by_base, by_group, check_folds, in_folds, one_split, split_named
from metahpo_jax.evaluation.statistics import normalised_regret
from metahpo_jax.metadata import PACKAGED, Archive, Source, archive_of, is_archive, load_archive, load_metadataset
from metahpo_jax.metadata.public import hpob, lcbench, openml100, svm, taskset

HPOB_STARTS = 5
SHARE = "regret is the share of the table's range"


@dataclass(frozen=True, eq=False)
class Benchmark:
    """An archive with a protocol. Methods are told raw losses; best and worst of a table serve for scoring only.

    Attributes:
        name: As on the command line.
        archive: What was recorded.
        folds: Each held-out task in one of them.
        held_out: What is held out, in words.
        rule: What the loss and regret are, in words.
        trials: Usual number of trials of a run.
        budgets: Trials at which tables report.
        raw_regret: Regret in the unit of the loss, rather than as a share of the table's range.
        starts: `[T, S, K]` rows of each task's pool that every method is given before its first trial; None for none.
        published: By name of the method, regret `[T, S, trials]` that its authors reported, NaN on tasks that are not tested.
        source: Where the published rows were read.
        baselines: Methods that verdicts compare with; those that did not run are left out.
    """

    name: str
    archive: Archive
    folds: Sequence[Fold]
    held_out: str
    rule: str
    trials: int
    budgets: tuple[int, ...] = (1, 5, 10, 20, 50)
    raw_regret: bool = False
    starts: np.ndarray | None = None
    published: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = ""
    baselines: tuple[str, ...] = ("random", "portfolio", "gp", "empirical_gaussian", "portfolio_then_gp")

    def __post_init__(self) -> None:
        check_folds(self.archive, self.folds)

    @property
    def protocol(self) -> str:
        """A sentence that says what is held out and what regret is."""
        return f"{self.held_out}; {self.rule}."

    @property
    def tested(self) -> np.ndarray:
        """Indices of the held-out tasks, in the order of the archive."""
        return np.flatnonzero(np.any([fold.test for fold in self.folds], axis=0))

    @property
    def regret_unit(self) -> str:
        """What a regret of 1 means."""
        return self.archive.metric if self.raw_regret else "share of the table's range"

    def regret(self, task: int, incumbent: np.ndarray) -> np.ndarray:
        """Regret `[...]` of incumbents `[...]` on a task; before the first success it is that of the worst configuration."""
        scored = self.archive.tasks[task].scored.astype(np.float64)
        best, worst = scored.min(), scored.max()
        share = normalised_regret(incumbent, best, worst)
        return share * (worst - best) if self.raw_regret else share

    def source_of(self, task: int) -> Source:
        """A task as methods may learn from it where it is not held out."""
        one = self.archive.tasks[task]
        return Source(one.name, one.u, one.scored, self.regret(task, one.scored), one.descriptor)


def lcbench_benchmark(data: Path | None) -> Benchmark:
    """LCBench (Zimmer et al. 2021): final validation accuracy of 2,000 shared networks on 35 data sets."""
    archive = lcbench.read(data)
    return Benchmark(
        "lcbench", archive, by_base(archive),
        "leave one data set out", f"final validation accuracy; {SHARE}", trials=50, budgets=(1, 2, 3, 5, 10, 20, 50, 100),
    )  # fmt: skip


def svm_benchmark(data: Path | None) -> Benchmark:
    """Support vector machines (Schilling et al. 2016) by the split of MetaBO (Volpp et al. 2020): 35 data sets against 15."""
    return _svm("svm", svm.read(data), data)


def svm143_benchmark(data: Path | None) -> Benchmark:
    """`svm` reduced to the 143 RBF configurations that MetaBO's parser kept."""
    return _svm("svm143", svm.read_rbf(data), data)


def _svm(name: str, archive: Archive, data: Path | None) -> Benchmark:
    _, test = svm.published_split(data)
    folds = one_split(archive, "published split", [task.name in test for task in archive.tasks])
    held_out = "the published split, 35 data sets to learn from and 15 to test on"
    return Benchmark(
        name, archive, folds, held_out, "regret is in accuracy", trials=20, budgets=(1, 3, 5, 10, 20), raw_regret=True
    )


def taskset_benchmark(data: Path | None) -> Benchmark:
    """TaskSet (Metz et al. 2020): 1,000 shared Adam configurations on 12 recurrent text classifiers, one task left out."""
    archive = taskset.read(data)
    return _taskset("taskset", archive, by_base(archive), "leave one task out")


def taskset_family_benchmark(data: Path | None) -> Benchmark:
    """`taskset`, leaving one architecture family out: LSTM, GRU, IRNN or VRNN."""
    archive = taskset.read(data)
    return _taskset("taskset-family", archive, by_group(archive), "leave one architecture family out")


def taskset_shift_benchmark(data: Path | None) -> Benchmark:
    """`taskset`, from gated (LSTM, GRU) to plain recurrent networks (IRNN, VRNN)."""
    archive = taskset.read(data)
    folds = one_split(archive, "gated to plain", [task.group in ("IRNN", "VRNN") for task in archive.tasks])
    return _taskset("taskset-shift", archive, folds, "learn on LSTM and GRU, test on IRNN and VRNN")


def _taskset(name: str, archive: Archive, folds: Sequence[Fold], held_out: str) -> Benchmark:
    rule = f"final validation loss capped at the median initial loss of the task, diverged runs count as the cap in scoring; {SHARE}"
    return Benchmark(name, archive, folds, held_out, rule, trials=100, budgets=(1, 2, 5, 10, 20, 50, 100))


def openml100_benchmark(data: Path | None) -> Benchmark:
    """Adaboost and random forests on OpenML-100 (van Rijn and Hutter 2018): different configurations per task, descriptors."""
    archive = openml100.read(data)
    return Benchmark(
        "openml100", archive, in_folds(10)(archive),
        "ten folds over data sets, each held out over both spaces",
        f"cross-validated accuracy, different configurations per task; {SHARE}", trials=50,
    )  # fmt: skip


def hpob_benchmark(data: Path | None) -> Benchmark:
    """HPO-B (Pineda Arango et al. 2021), discrete track, every method from the 5 starts of the published runs."""
    cold = hpob_cold_benchmark(data)
    published = hpob.read_published(data)
    archive = cold.archive
    first = next(iter(published.values()))
    seeds = next(iter(first.values())).shape[0]
    starts = np.zeros((len(archive.tasks), seeds, HPOB_STARTS), np.int64)
    for t in cold.tested:
        for s in range(seeds):
            task = archive.tasks[t]
            starts[t, s] = hpob_starts(task.scored, first[task.name][s, 0], zlib.crc32(f"{task.name} {s}".encode()))
    trials = cold.trials
    rows = {}
    for method, curves in published.items():
        rows[method] = np.full((len(archive.tasks), seeds, trials), np.nan)
        for t in cold.tested:
            name = archive.tasks[t].name
            if name not in curves:
                raise DataError(f"the published runs of {method} lack task {name}; get the authors' files again.")
            rows[method][t] = 1.0 - curves[name][:, 1 : trials + 1]
    return replace(
        cold,
        name="hpob",
        rule=f"{cold.rule}; every method is given the same {HPOB_STARTS} evaluations first, whose best is that of the published runs, and @k "
        "counts trials after them",
        starts=starts,
        published=rows,
        source="HPO-B, the authors' result files; what these learned from is not ours to vouch for, and they were given targets scaled by each "
        "table's extremes",
        baselines=("random", "portfolio", "gp", "GP (published)", "FSBO2 (published)"),
    )


def hpob_cold_benchmark(data: Path | None) -> Benchmark:
    """`hpob` without given starts."""
    archive = hpob.read(data)
    tests = hpob.test_tasks(data)
    names = [task.name for task in archive.tasks]
    folds = [
        fold._replace(test=fold.test & np.isin(names, list(tests))) for fold in by_base(archive)
    ]  # the rest of the held-out data set is neither tested nor learned from
    return Benchmark(
        "hpob-cold", archive, [fold for fold in folds if fold.test.any()],
        "the data set of the task is left out within and across spaces", f"HPO-B's test tasks, discrete track; {SHARE}",
        trials=100, budgets=(5, 10, 25, 50, 100),
    )  # fmt: skip


def hpob_starts(loss: np.ndarray, best: float, seed: int) -> np.ndarray:
    """Rows `[5]` whose best is the published one: it, and four drawn uniformly from rows no better.

    Args:
        loss: `[n]` of the pool.
        best: Published best of the five, as accuracy scaled by the table's extremes.
        seed: Of the draw; rows that share the published value are equally likely.

    Raises:
        DataError: when no row has the published value, or too few are no better.
    """
    rng = np.random.default_rng(seed)
    scaled = (loss.max() - loss.astype(np.float64)) / (loss.max() - loss.min())
    gap = np.abs(scaled - best)
    if gap.min() > 1e-4:
        raise DataError(
            f"no configuration of the pool has the published value {best:.6f}; check where the two files come from."
        )
    first = int(rng.choice(np.flatnonzero(gap == gap.min())))
    others = np.setdiff1d(np.flatnonzero(scaled <= scaled[first]), [first])
    if len(others) < HPOB_STARTS - 1:
        raise DataError(
            f"only {len(others)} configurations are no better than the published start; check where the files come from."
        )
    return np.concatenate([[first], rng.choice(others, HPOB_STARTS - 1, replace=False)])


def recorded_benchmark(name: str) -> Benchmark:
    """A meta-dataset that comes with the package, or lies in a folder: one's own import, or one that `metahpo build` recorded."""
    if name not in PACKAGED and is_archive(name):
        archive = load_archive(name)
        return Benchmark(
            archive.name, archive, by_group(archive),
            "leave one group out", f"loss is {archive.metric}, of a curve that of the last point it reached; {SHARE}", trials=50,
        )  # fmt: skip
    archive = archive_of(load_metadataset(name))
    return tabular_benchmark(archive)


def tabular_benchmark(archive: Archive) -> Benchmark:
    """Trainings of small networks that this project recorded (`archive_of` a `MetaDataset`)."""
    return Benchmark(
        archive.name, archive, by_base(archive),
        "leave one base data set out",
        f"table look-up; loss is validation log-loss capped at the class-prior entropy (a diverged run counts as the cap); {SHARE}", trials=50,
    )  # fmt: skip


BENCHMARKS: dict[str, Callable[[Path | None], Benchmark]] = {
    **{name: lambda data, name=name: recorded_benchmark(name) for name in PACKAGED},
    "lcbench": lcbench_benchmark,
    "svm": svm_benchmark,
    "svm143": svm143_benchmark,
    "taskset": taskset_benchmark,
    "taskset-family": taskset_family_benchmark,
    "taskset-shift": taskset_shift_benchmark,
    "openml100": openml100_benchmark,
    "hpob": hpob_benchmark,
    "hpob-cold": hpob_cold_benchmark,
}


def load_benchmark(name: str, data: Path | None = None, split: str | None = None) -> Benchmark:
    """A benchmark by its name, or the folder of a meta-dataset.

    Args:
        name: Of `BENCHMARKS`, or a folder.
        data: Folder that holds lcbench/, svm/, taskset/, openml100/ and hpob/.
        split: Another split of the same tasks, of `splits.SPLITS`: what is held out together.

    Raises:
        ConfigError: for an unknown split, or a name that is neither a benchmark nor a folder.
        StoreError: when files are missing or damaged.
    """
    if name not in BENCHMARKS and not Path(name).exists():
        from difflib import get_close_matches

        near = get_close_matches(name, BENCHMARKS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(BENCHMARKS)
        raise ConfigError(f"benchmark {name!r} is neither a folder nor known by name; {hint}known are {known}.")
    benchmark = BENCHMARKS[name](data) if name in BENCHMARKS else recorded_benchmark(name)
    if split is None:
        return benchmark
    tested = np.isin(np.arange(len(benchmark.archive.tasks)), benchmark.tested)
    folds = [fold._replace(test=fold.test & tested) for fold in split_named(split)(benchmark.archive)]
    return replace(
        benchmark,
        name=f"{benchmark.name}/{split}",
        folds=[fold for fold in folds if fold.test.any()],
        held_out=f"split by {split}",
    )
