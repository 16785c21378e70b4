"""A result as one HTML file that can be mailed: no script, no remote asset, a strict security policy, light and dark.

Every name, value and message is escaped. The page is a list of sections, each a small frozen record that can draw
itself:

    write_report("report.html", title="Tuning digits", lead="Four methods, 15 trials each.", sections=[
        Table("Results", *cells(result)),
        Figure("Regret", regret_curves(result), "Lower is better."),
    ])
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metahpo_jax.errors import ConfigError, DataError
from metahpo_jax.evaluation.plots import figure_svg
from metahpo_jax.evaluation.table import Cell
from metahpo_jax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

# Nothing may be fetched, run, framed or sent; styles stand in the file itself.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_BEST, _MIDDLE, _WORST = (
    (222, 86, 20),
    (150, 108, 190),
    (128, 150, 184),
)  # told apart on white and on black, by the colour-blind too


class Section(Protocol):
    """A part of a report."""

    @property
    def heading(self) -> str:
        """Its title."""
        ...

    def html(self, key: str) -> str:
        """Its content below the heading; `key` is unique in the page and starts every id in it."""
        ...


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by blank lines; a paragraph whose lines are all indented by four spaces is kept as code."""

    heading: str
    body: str

    def html(self, key: str) -> str:
        """See `Section`."""
        return _paragraphs(self.body)


@dataclass(frozen=True)
class Table:
    """Rows of strings, numbers or `Cell`s; columns of numbers, and of cells beyond the first, are set right."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ConfigError(
                    f"Row {i} of table {self.heading!r} has {len(row)} cells, "
                    f"but there are {len(self.columns)} columns."
                )

    def html(self, key: str) -> str:
        """See `Section`."""
        return _table(self.columns, self.rows) + _note(self.caption)


@dataclass(frozen=True)
class Figure:
    """A matplotlib figure, drawn as vectors within the page."""

    heading: str
    figure: "MatplotlibFigure"
    caption: str = ""

    def html(self, key: str) -> str:
        """See `Section`."""
        return (
            f'<figure role="img" aria-label="{escape(self.heading)}">{figure_svg(self.figure, key)}</figure>'
            + _note(self.caption)
        )


@dataclass(frozen=True)
class ParallelCoordinates:
    """Configurations as lines across one axis per hyperparameter, coloured by rank of loss; the best lies on top.

    Attributes:
        heading: Its title.
        dimensions: Name and ticks of each of `D` axes; a tick is a position in [0, 1] and its label.
        lines: `[n, D]`, in the unit cube; NaN where a hyperparameter is not active (the line has a gap there).
        colours: `[n]`, loss; not finite for a failed trial, which is dashed.
        caption: A sentence below.
    """

    heading: str
    dimensions: Sequence[tuple[str, Sequence[tuple[float, str]]]]
    lines: ArrayLike
    colours: ArrayLike
    caption: str = ""

    def __post_init__(self) -> None:
        lines, colours = np.asarray(self.lines, np.float64), np.asarray(self.colours, np.float64)
        if (
            lines.ndim != 2
            or lines.shape[1] != len(self.dimensions)
            or colours.shape != lines.shape[:1]
            or not self.dimensions
        ):
            raise ConfigError(
                "Parallel coordinates need lines `[n, D]` and colours `[n]` for "
                f"D = {len(self.dimensions)} dimensions, at least one, got shapes {lines.shape} and {colours.shape}."
            )
        if ((lines < 0) | (lines > 1)).any():
            raise DataError(
                "lines of parallel coordinates must lie in the unit cube: encode configurations with the space's codec."
            )

    def html(self, key: str) -> str:
        """See `Section`."""
        svg = _parallel_svg(
            self.dimensions, np.asarray(self.lines, np.float64), np.asarray(self.colours, np.float64), key
        )
        return f'<figure role="img" aria-label="{escape(self.heading)}">{svg}</figure>' + _note(self.caption)


@dataclass(frozen=True)
class Trials:
    """Every trial as a row, folded away.

    A row is a mapping; in it `loss` (the least is bold) and `status` (other than OK is dimmed) are known by name.
    """

    heading: str
    rows: Sequence[Mapping[str, object]]

    def html(self, key: str) -> str:
        """See `Section`."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        losses = [loss for row in self.rows if isinstance(loss := row.get("loss"), Real) and np.isfinite(float(loss))]
        best = min(losses, default=None)
        body = [
            [
                Cell(_text(row.get(name, "")), best=True)
                if name == "loss" and row.get(name) == best
                else row.get(name, "")
                for name in columns
            ]
            for row in self.rows
        ]
        failed = [str(row.get("status", "OK")).upper() != "OK" for row in self.rows]
        return f"<details><summary>{len(self.rows)} trials</summary>{_table(columns, body, failed)}</details>"


def write_report(path: str | os.PathLike[str], *, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Writes the page atomically.

    Args:
        path: Where to, ending in .html.
        title: Of the page.
        lead: What was done and what came out, in a sentence or two, below the title.
        sections: In order.

    Raises:
        ConfigError: `path` does not end in .html.
        StoreError: Its directory cannot be written.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ConfigError(f"A report is an .html file, but the path is {str(path)!r}: let it end in .html.")
    parts = [
        f'<section id="s{i}"><h2>{escape(s.heading)}</h2>{s.html(f"s{i}")}</section>' for i, s in enumerate(sections)
    ]
    links = "".join(f'<a href="#s{i}">{escape(s.heading)}</a>' for i, s in enumerate(sections))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1><div class="lead">{_paragraphs(lead)}</div><nav>{links}</nav></header>
{chr(10).join(parts)}
<footer>Written by metahpo-jax. This file is complete in itself and loads nothing.</footer>
</main>
</body>
</html>
"""
    write_atomically(path, page.encode())


def _text(value: object) -> str:
    if isinstance(value, Real) and not isinstance(value, bool | int | np.integer | np.bool_):
        return "–" if np.isnan(float(value)) else f"{float(value):.4g}"
    return str(value)


def _paragraphs(body: str) -> str:
    blocks = []
    for block in body.strip("\n").split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            blocks.append(f"<pre>{escape(chr(10).join(line[4:] for line in lines))}</pre>")
        elif lines:
            blocks.append(f"<p>{escape(' '.join(line.strip() for line in lines))}</p>")
    return "".join(blocks)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], dimmed: Sequence[bool] = ()) -> str:
    numeric = [
        bool(rows) and all(isinstance(row[i], Real) or (i > 0 and isinstance(row[i], Cell)) for row in rows)
        for i in range(len(columns))
    ]
    kind = [' class="num"' if right else "" for right in numeric]
    head = "".join(f"<th{k}>{escape(str(name))}</th>" for name, k in zip(columns, kind, strict=True))
    body = ""
    for i, row in enumerate(rows):
        dim = ' class="dim"' if i < len(dimmed) and dimmed[i] else ""
        body += (
            f"<tr{dim}>" + "".join(f"<td{k}>{_cell(value)}</td>" for value, k in zip(row, kind, strict=True)) + "</tr>"
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    if not isinstance(value, Cell):
        return escape(_text(value))
    text = f"<b>{escape(value.text)}</b>" if value.best else escape(value.text)
    return text + (f"<small>{escape(value.detail)}</small>" if value.detail else "")


def _parallel_svg(
    dimensions: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    lines: NDArray[np.float64],
    loss: NDArray[np.float64],
    key: str,
) -> str:
    """The drawing of `ParallelCoordinates`, in a user space of 1000 x 400."""
    left, right, top, bottom = 50.0, 950.0, 62.0, 350.0
    x = np.linspace(left, right, len(dimensions)) if len(dimensions) > 1 else np.array([left])
    half = (x[1] - x[0]) / 2 if len(x) > 1 else 0.0
    y = bottom - (bottom - top) * lines
    finite = np.isfinite(loss)
    order = np.argsort(np.where(finite, -loss, -np.inf), kind="stable")  # failed first, best last and so on top
    # Colour goes by rank: one diverged loss would otherwise leave all others the same colour.
    rank = np.searchsorted(np.sort(loss[finite]), loss) / max(finite.sum() - 1, 1)
    paths = []
    for i in order:
        path, drawn = "", False
        for j in range(len(x)):
            if np.isnan(y[i, j]):
                drawn = False
                continue
            if drawn:
                path += (
                    f"C{x[j - 1] + half:.1f} {y[i, j - 1]:.1f} {x[j] - half:.1f} {y[i, j]:.1f} {x[j]:.1f} {y[i, j]:.1f}"
                )
            else:
                path += f"M{x[j]:.1f} {y[i, j]:.1f}h0"
            drawn = True
        best = bool(finite[i]) and i == order[-1]
        look = (
            f'stroke="{_shade(rank[i])}" stroke-opacity="{1 if best else 0.75 - 0.4 * rank[i]:.2f}"'
            if finite[i]
            else 'class="failed"'
        )
        told = f"loss {loss[i]:.4g}" if finite[i] else "failed"
        paths.append(f'<path d="{path}" {look} stroke-width="{3.2 if best else 1.4}"><title>{told}</title></path>')
    axes = ""
    for j, (name, ticks) in enumerate(dimensions):
        # Neighbouring names stand in two storeys where they would touch.
        height = top - (36 if len(dimensions) > 6 and j % 2 else 18)
        axes += f'<line class="axis" x1="{x[j]:.1f}" x2="{x[j]:.1f}" y1="{top}" y2="{bottom}"/>'
        axes += f'<text class="name" x="{x[j]:.1f}" y="{height}">{escape(name)}</text>'
        for place, label in ticks:
            level = bottom - (bottom - top) * place
            # The last axis has no room to its right.
            side = f'x="{x[j] - 5:.1f}" text-anchor="end"' if j == len(x) - 1 else f'x="{x[j] + 5:.1f}"'
            axes += f'<text class="tick" {side} y="{level + 3.5:.1f}">{escape(label)}</text>'
    legend = ""
    if finite.any():
        stops = "".join(f'<stop offset="{share}" stop-color="{_shade(share)}"/>' for share in (0, 0.5, 1))
        legend = (
            f'<defs><linearGradient id="{key}-shade">{stops}</linearGradient></defs>'
            f'<rect x="{left}" y="378" width="150" height="8" rx="4" fill="url(#{key}-shade)"/>'
            f'<text class="tick" x="{left + 160}" y="386">loss, by rank: '
            f"{loss[finite].min():.4g} (best) to {loss[finite].max():.4g}"
            f"{'' if finite.all() else f'; {(~finite).sum()} failed, dashed'}</text>"
        )
    drawn_lines = f'<g fill="none" stroke-linecap="round">{"".join(paths)}</g>'
    return f'<svg class="parallel" viewBox="0 0 1000 400">{drawn_lines}{axes}{legend}</svg>'


def _shade(rank: float) -> str:
    """Colour of a rank in [0, 1], 0 best."""
    colour = [np.interp(rank, (0.0, 0.5, 1.0), channel) for channel in zip(_BEST, _MIDDLE, _WORST, strict=True)]
    return "#" + "".join(f"{round(c):02x}" for c in colour)


_STYLE = """
:root {
  --ink: #1d2433; --soft: #5b6577; --rule: #e2e6ed; --page: #f6f7f9; --sheet: #ffffff; --accent: #b8480b;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --soft: #98a2b3; --rule: #2c3442; --page: #10141b; --sheet: #181d26; --accent: #ff9a5c; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); line-height: 1.6; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 3.5rem 1.25rem 2rem; }
h1, h2, h3, p { overflow-wrap: anywhere; }
h1 { font-size: clamp(1.8rem, 4vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 0 0 .9rem; }
h3 { font-size: 1rem; margin: 1.7rem 0 .6rem; }
p { margin: 0 0 .8rem; max-width: 46rem; }
.lead { font-size: 1.12rem; color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1.2rem 0 1.8rem; font-size: .92rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section {
  background: var(--sheet); border: 1px solid var(--rule); border-radius: 12px;
  padding: 1.4rem 1.5rem 1.1rem; margin-bottom: 1.25rem;
}
.note, footer { color: var(--soft); font-size: .88rem; margin: .7rem 0 0; }
footer { padding: .6rem 0 0; }
pre {
  background: var(--page); border: 1px solid var(--rule); border-radius: 8px; padding: .7rem .9rem;
  overflow-x: auto; font-size: .86rem;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .82rem; vertical-align: bottom; }
td { vertical-align: top; }
th, td { padding: .45rem .5rem; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child td { border-bottom: 0; }
th.num, td.num { text-align: right; }
td.num { white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: .74rem; line-height: 1.3; }
td b { color: var(--accent); }
tr.dim td { color: var(--soft); font-style: italic; }
details { margin-bottom: .3rem; }
details summary { cursor: pointer; color: var(--accent); }
details table { font-size: .84rem; margin-top: .6rem; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; max-height: 34rem; }
svg text { font-family: inherit !important; }
.parallel .axis { stroke: var(--soft); stroke-opacity: .55; }
.parallel .name { fill: var(--ink); font-size: 12.5px; font-weight: 600; text-anchor: middle; }
.parallel .tick {
  fill: var(--ink); font-size: 11px; paint-order: stroke; stroke: var(--sheet); stroke-width: 4px;
  stroke-linejoin: round;
}
.parallel .failed { stroke: var(--soft); stroke-opacity: .5; stroke-dasharray: 3 5; }
.parallel path:hover { stroke-width: 4.5px; stroke-opacity: 1; }
@media print {
  body { background: none; }
  section { break-inside: avoid; border: 0; padding: 0; }
  nav { display: none; }
}
"""
