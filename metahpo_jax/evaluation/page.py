"""One HTML page over several benchmark results: what stands out of each, then every benchmark in full.

    page_from_files(["lcbench.json", "svm.json"], "results.html")

The page is `report.write_report`'s: it loads nothing, runs nothing, and escapes every name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from metahpo_jax.errors import ConfigError
from metahpo_jax.evaluation.plots import critical_difference_diagram, rank_curves, regret_curves
from metahpo_jax.evaluation.report import Figure, Section, Table, Text, write_report
from metahpo_jax.evaluation.results import BenchmarkResult, load
from metahpo_jax.evaluation.table import Cell, caption, cells, digits_for, marked, published_notes, short
from metahpo_jax.evaluation.verdicts import POINTWISE, sentences

TITLE = "Benchmarks of metahpo-jax"
LEAD = (
    "Every method saw the same tasks, seeds and budgets; what ours learned from never held a task's own data set. "
    "Regret is what the best configuration found so far still lacks: lower is better, 0 is the best of the table."
)
_RANKED = (
    "Mean rank over data sets, tasks and seeds of a data set averaged first; 1 is best, at the left. A bar joins methods "
    "that are closer than the critical difference: the Nemenyi test at 5 %, over all pairs together, cannot tell them "
    "apart (Demsar 2006)."
)


@dataclass(frozen=True)
class Group:
    """Several sections under one heading."""

    heading: str
    sections: Sequence[Section]

    def html(self, key: str) -> str:
        """See `Section`."""
        return "".join(
            f'<div id="{key}-{i}"><h3>{escape(section.heading)}</h3>{section.html(f"{key}-{i}")}</div>'
            for i, section in enumerate(self.sections)
        )


def write_page(
    path: str | os.PathLike[str], results: Sequence[BenchmarkResult], *, title: str = TITLE, lead: str = LEAD
) -> None:
    """Writes one page over several results, atomically.

    Args:
        path: Where to, ending in .html.
        results: In the order of the page.
        title: Of the page.
        lead: A sentence or two below the title.

    Raises:
        ConfigError: There is no result, or `path` does not end in .html.
        StoreError: The directory of `path` cannot be written.
    """
    if not results:
        raise ConfigError("A page needs at least one result, got none: pass what `load` returned.")
    groups = [Group(result.benchmark, benchmark_sections(result)) for result in results]
    write_report(path, title=title, lead=lead, sections=[overview(results), *groups])


def page_from_files(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    title: str = TITLE,
    lead: str = LEAD,
) -> None:
    """Writes the page of results that `results.save` wrote.

    Args:
        paths: The .json file of each, with its .npz beside it.
        out: Where to, ending in .html.
        title: As of `write_page`.
        lead: Likewise.

    Raises:
        ConfigError: As of `write_page`.
        DataError: As of `results.load`.
        StoreError: A result cannot be read, or the page cannot be written.
    """
    write_page(out, [load(path) for path in paths], title=title, lead=lead)


def overview(results: Sequence[BenchmarkResult]) -> Table:
    """Mean regret of every method on every benchmark at an early and at the last budget, best of column bold."""
    names = list(dict.fromkeys(marked(run) for result in results for run in result.runs))
    rows = [[Cell(name)] for name in names]
    columns = ["method"]
    for result in results:
        means = {marked(run): result.interval(run).mean for run in result.runs}
        for trial in early_and_last(result):
            columns.append(f"{result.benchmark} @{trial}")
            at = {name: float(mean[trial - 1]) for name, mean in means.items()}
            digits = digits_for(np.array(list(at.values())))
            best = min(round(value, digits) for value in at.values())
            for name, row in zip(names, rows, strict=True):
                known = name in at
                row.append(Cell(short(at[name], digits), best=round(at[name], digits) == best) if known else Cell("–"))
    notes = dict.fromkeys(note for result in results for note in published_notes(result))
    return Table("Overview", columns, rows, " ".join(["Mean regret after so many trials.", *notes]))


def benchmark_sections(result: BenchmarkResult) -> list[Section]:
    """Everything there is to say about one result."""
    sections: list[Section] = [
        Table("Results", *cells(result), caption(result)),
        Figure("Regret", regret_curves(result), "Lower is better. Bands: 95 % bootstrap intervals over data sets."),
    ]
    if len(result.runs) > 1:
        sections.append(Figure("Rank", rank_curves(result), "Mean rank over tasks and seeds, ties averaged."))
        for trial in early_and_last(result):
            heading = f"Critical difference at {trial} {'trial' if trial == 1 else 'trials'}"
            note = f"{_RANKED} Friedman's test that all rank alike: {_p_value(result.friedman(trial).p_value)}."
            sections.append(Figure(heading, critical_difference_diagram(result, trial), note))
    if said := sentences(result):
        sections.append(Text("In words", "\n\n".join([*said, POINTWISE])))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    command = "\n".join(f"    {line}" for line in result.command.splitlines() if line.strip())
    made = [f"Versions: {versions}." if versions else "", command]
    if any(made):
        sections.append(Text("How it was made", "\n\n".join(filter(None, made))))
    return sections


def early_and_last(result: BenchmarkResult) -> list[int]:
    """The two budgets that a summary shows: 5 trials (or the first budget) and the last one."""
    shown = result.shown
    return sorted({5 if 5 in shown else shown[0], shown[-1]})


def _p_value(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".", 1)
