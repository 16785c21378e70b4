"""A benchmark result as a table: on the terminal, in Markdown, or as cells for a report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metahpo_jax.errors import ConfigError
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.statistics import solved

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.table import Table as RichTable

MARK = "\N{DAGGER}"  # of a published row


class Cell(NamedTuple):
    """One cell: what it says, what stands small beneath it, and whether it is the best of its column."""

    text: str
    detail: str = ""
    best: bool = False


def cells(result: BenchmarkResult, at: Sequence[int] | None = None) -> tuple[list[str], list[list[Cell]]]:
    """The columns and rows of the table: one row per method, regret at each budget, the rest at the last budget shown.

    Args:
        result: What to show.
        at: Trials to show, `result.budgets` if none are given; those beyond the run are left out, and if none is left
            the last trial stands alone.

    Raises:
        ConfigError: A trial of `at` is below 1.
    """
    at = result.budgets if at is None else at
    if any(trial < 1 for trial in at):
        raise ConfigError(f"at counts trials from 1, got {list(at)}: leave out what is below 1.")
    shown = [trial for trial in at if trial <= result.trials] or [result.trials]
    last = shown[-1]
    columns, values = ["method"], []
    intervals = [result.interval(run) for run in result.runs]
    means = np.array([interval.mean for interval in intervals])[:, np.array(shown) - 1]
    digits = digits_for(means)
    for trial in shown:
        columns.append(f"regret @{trial}")
        values.append(
            [
                (
                    short(i.mean[trial - 1], digits),
                    _span(i.low[trial - 1], i.high[trial - 1], digits),
                    round(i.mean[trial - 1], digits),
                )
                for i in intervals
            ]
        )
    columns += [f"rank @{last}", f"solved @{last}"]
    values.append([(f"{rank:.2f}", "", round(rank, 2)) for rank in result.ranks()[:, last - 1]])
    shares = [solved(run.regret[..., last - 1]) for run in result.runs]
    values.append([(f"{100 * share:.0f} %", "", -round(share, 2)) for share in shares])
    if any(run.test_accuracy is not None for run in result.runs):
        columns.append(f"test acc. @{last}")
        accuracy = [
            np.nan if run.test_accuracy is None else float(run.test_accuracy[..., last - 1].mean())
            for run in result.runs
        ]
        values.append([("–", "", np.nan) if np.isnan(x) else (f"{100 * x:.1f} %", "", -round(x, 3)) for x in accuracy])
    # Seconds are a price, not a contest: no best among them.
    columns.append("seconds")
    values.append(
        [
            # What others spent is not known.
            ("–", "", np.nan)
            if run.published
            else (_seconds(run.seconds), f"+ {_seconds(run.meta_seconds)} meta" if run.meta_seconds else "", np.nan)
            for run in result.runs
        ]
    )
    rows = [[Cell(marked(run), run.note)] for run in result.runs]
    for column in values:
        # Equal as printed is equal: the digits beyond are below the noise.
        least = np.nanmin([key for *_, key in column]) if not all(np.isnan(key) for *_, key in column) else np.nan
        for row, (text, detail, key) in zip(rows, column, strict=True):
            row.append(Cell(text, detail, bool(key == least)))
    return columns, rows


def terminal_table(result: BenchmarkResult, at: Sequence[int] | None = None) -> "RichTable":
    """A rich table: regret with its interval beneath, rank, solved, test accuracy, seconds; best of column bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns, rows = cells(result, at)
    # Text objects, not markup strings: a method may be called "[red]".
    table = Table(
        title=Text(result.benchmark),
        caption=Text(caption(result)),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    for i, name in enumerate(columns):
        # Two words of a header go above each other, so that five budgets fit a terminal of 100 columns.
        table.add_column(
            Text(name.replace(" @", "\n@").replace("test acc.", "test")),
            justify="right" if i else "left",
            no_wrap=i == 0,
        )
    for row in rows:
        table.add_row(*(_rich(cell, Text) for cell in row))
    return table


def wide_console() -> "RichConsole":
    """Standard output for tables: as wide as the terminal, and wide enough for the intervals where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 160))


def markdown_table(result: BenchmarkResult, at: Sequence[int] | None = None) -> str:
    """The same table in Markdown, ending in a newline; below it a line for each source of published rows."""
    columns, rows = cells(result, at)
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    for row in rows:
        lines.append(
            [
                " ".join(
                    filter(None, [f"**{_plain(cell.text)}**" if cell.best else _plain(cell.text), _plain(cell.detail)])
                )
                for cell in row
            ]
        )
    notes = "".join(f"\n{_plain(note)}\n" for note in published_notes(result))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + notes


def caption(result: BenchmarkResult) -> str:
    """What the table counts, in one line."""
    starts = f" (counted after {result.starts} given evaluations)" if result.starts else ""
    return " ".join(
        [
            f"{result.protocol} Tasks: {len(result.tasks)} ({len(set(result.groups))} base data sets), "
            f"seeds: {result.seeds}, trials: {result.trials}{starts}. "
            f"Mean regret ({result.regret_unit}) with 95 % bootstrap intervals over data sets.",
            *published_notes(result),
        ]
    ).strip()


def published_notes(result: BenchmarkResult) -> list[str]:
    """Where the rows marked with a dagger come from: one sentence per source."""
    sources = dict.fromkeys(run.published for run in result.runs if run.published)
    return [
        f"{MARK} Published, not run by us: {', '.join(run.name for run in result.runs if run.published == source)} "
        f"(from {source})."
        for source in sources
    ]


def marked(run: MethodRun) -> str:
    """The name of a method, with a dagger if its row is published."""
    return f"{run.name} {MARK}" if run.published else run.name


def digits_for(means: NDArray[np.floating]) -> int:
    """Decimals that tell the regrets of a table apart."""
    return 3 if np.abs(means[means != 0]).min(initial=1.0) >= 0.003 else 4


def short(value: float, digits: int) -> str:
    """`.123` rather than `0.123`: regret is nearly always below 1."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-").startswith("0.") else text


def _rich(cell: Cell, text_type):
    text = text_type(cell.text, style="bold" if cell.best else "")
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def _plain(text: str) -> str:
    """A name as literal Markdown: none of its characters marks anything up."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|#" else " " if c in "\r\n" else c for c in text)


def _span(low: float, high: float, digits: int) -> str:
    return "" if np.isnan(low) else f"[{short(low, digits)}, {short(high, digits)}]"


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 1 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
