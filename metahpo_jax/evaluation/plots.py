"""Curves of a benchmark result: matplotlib `Figure` objects, made without pyplot, so without global state."""

import io
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metahpo_jax.errors import ConfigError
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun
from metahpo_jax.evaluation.table import marked
from metahpo_jax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d2433"  # text and axes; `figure_svg` turns it into the page's own text colour
_FAINT = "#8a93a3"
# After Okabe and Ito (2008), which the colour-blind tell apart: yellow darkened to be read on white, blue lightened and
# black left out to be read on black.
_PALETTE = ("#1f83c4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b3a100")
_KNOWN = {
    "random": "#8a93a3",
    "sobol": "#56b4e9",
    "grid": "#b3a100",
    "portfolio": "#e69f00",
    "portfolio_imagined": "#a8743a",
    "gp": "#1f83c4",
    "empirical_gaussian": "#009e73",
    "portfolio_then_gp": "#7b7be0",
    "portfolio_then_empirical_gaussian": "#6aa84f",
    "pretrained_gp": "#d55e00",
    # Published rows: the colour of our own run of the same method, where there is one; dashed, so told apart from it.
    "Random (published)": "#8a93a3",
    "GP (published)": "#1f83c4",
    "DNGO (published)": "#c9a227",
    "BOHAMIANN (published)": "#b07a8c",
    "DGP (published)": "#4aa3a2",
    "RGPE (published)": "#9a7fc0",
    "TAF (published)": "#8fa34a",
    "TST (published)": "#7d8f69",
    "FSBO (published)": "#d98880",
    "FSBO2 (published)": "#c2477f",
}
_FORMATS = (".png", ".svg", ".pdf")


def colour(name: str) -> str:
    """The colour of a method, as `#rrggbb`: a function of its name alone, so the same in every figure and session.

    >>> colour("random")
    '#8a93a3'
    """
    return _KNOWN.get(name) or _PALETTE[zlib.crc32(name.encode()) % len(_PALETTE)]


def regret_curves(result: BenchmarkResult) -> "Figure":
    """Mean regret per trial with intervals over data sets, logarithmic where positive over a factor of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    intervals = [result.interval(run) for run in result.runs]
    means = np.array([interval.mean for interval in intervals])
    logarithmic = bool(means.min() > 0 and means.max() >= 10 * means.min())
    figure, axes = _canvas(result)
    at = _thinned(result.trials)
    trials = at + 1
    shade = 0.13 if len(result.runs) <= 7 else 0.06  # many bands over each other would hide the lines
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        bottom, top = means.min() / 1.6, means.max() * 1.3
    else:
        margin = 0.06 * max(float(np.ptp(means)), 1e-6)
        bottom, top = min(0.0, means.min() - margin), means.max() + 2 * margin
    for run, interval in zip(result.runs, intervals, strict=True):
        if np.isfinite(interval.low).all():
            low, high = np.maximum(interval.low, bottom)[at], interval.high[at]
            axes.fill_between(trials, low, high, color=colour(run.name), alpha=shade, linewidth=0)
        axes.plot(trials, interval.mean[at], **_line(run, result))
    axes.set_ylim(bottom, top)
    axes.set_ylabel(f"regret of the incumbent, mean over tasks\n({result.regret_unit})")
    _label_ends(axes, result.runs, means[:, -1])
    return figure


def rank_curves(result: BenchmarkResult) -> "Figure":
    """Mean rank per trial, 1 at the top."""
    ranks = result.ranks()
    figure, axes = _canvas(result)
    at = _thinned(result.trials)
    for run, rank in zip(result.runs, ranks, strict=True):
        axes.plot(at + 1, rank[at], **_line(run, result))
    margin = 0.1 * max(float(np.ptp(ranks)), 0.5)
    axes.set_ylim(ranks.max() + margin, max(0.9, ranks.min() - margin))
    axes.set_ylabel("rank, mean over tasks (1 is best)")
    _label_ends(axes, result.runs, ranks[:, -1])
    return figure


def critical_difference_diagram(result: BenchmarkResult, trial: int) -> "Figure":
    """Mean ranks over data sets after a trial; bars join methods that the Nemenyi test cannot tell apart.

    Demsar (2006), section 3.2.2 and figure 1. The best rank is at the left.

    Raises:
        ConfigError: There is only one method, or `trial` is not within the run.
    """
    from matplotlib.figure import Figure

    test = result.friedman(trial)
    order = np.argsort(test.rank, kind="stable")
    ranks = test.rank[order]
    runs = [result.runs[i] for i in order]
    bars = _bars(ranks, test.critical_difference)
    left = (len(runs) + 1) // 2
    first, last = float(np.floor(ranks[0])), float(max(np.ceil(ranks[-1]), np.floor(ranks[0]) + 1))
    groups = len(set(result.groups))
    title = f"{result.benchmark}: mean rank at {trial} {'trial' if trial == 1 else 'trials'}, {groups} data sets"
    # In inches: margins for names either side of the axis, below it bars and then one storey of names per method.
    margin, right = (0.75 + 0.082 * max(len(marked(run)) for run in side) for side in (runs[:left], runs[left:]))
    middle, storey, gap = 3.8, 0.24, 0.11
    width = max(margin + middle + right, 0.2 + 0.1 * len(title))
    depth = 0.2 + gap * len(bars) + storey * left
    height = 1.25 + depth
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-depth - 0.1, 1.15))
    axes.set_axis_off()

    def place(rank: float) -> float:
        return margin + middle * (rank - first) / (last - first)

    axes.plot([margin, margin + middle], [0, 0], color=INK, linewidth=1.2)
    for tick in np.arange(first, last + 1):
        axes.plot([place(tick)] * 2, [0, 0.07], color=INK, linewidth=1.2)
        axes.text(place(tick), 0.12, f"{tick:g}", color=INK, fontsize=9, ha="center", va="bottom")
    axes.text(0.1, 1.0, title, color=INK, fontsize=11, fontweight="bold", va="center", parse_math=False)
    cd, known = test.critical_difference, f"critical difference {test.critical_difference:.2f}"
    if place(first + cd) <= width - 0.1:
        axes.plot([margin, place(first + cd)], [0.55, 0.55], color=INK, linewidth=1.2, marker="|", markersize=7)
        axes.text(margin, 0.68, known, color=INK, fontsize=8.5, va="center")
    else:
        axes.text(margin, 0.68, f"{known}, wider than the axis", color=INK, fontsize=8.5, va="center")
    for row, (low, high) in enumerate(bars, start=1):
        ends = [place(ranks[low]) - 0.04, place(ranks[high]) + 0.04]
        axes.plot(ends, [-gap * row] * 2, color=INK, linewidth=3.2, solid_capstyle="round", zorder=3, gid=f"bar{row}")
    for i, (run, rank) in enumerate(zip(runs, ranks, strict=True)):
        at_left = i < left
        level = -(0.2 + gap * len(bars) + storey * (i if at_left else len(runs) - 1 - i))
        end = margin - 0.45 if at_left else margin + middle + 0.45
        style: dict = {"color": colour(run.name)}
        look: dict = {"linestyle": "--"} if run.published else {}
        axes.plot([place(rank), place(rank), end], [0, level, level], linewidth=1.4, **look, **style)
        side: dict = {"x": end - 0.05, "ha": "right"} if at_left else {"x": end + 0.05, "ha": "left"}
        axes.text(y=level, s=marked(run), fontsize=9.5, va="center", parse_math=False, **side, **_face(run), **style)
        axes.text(
            end + (0.03 if at_left else -0.03), level + 0.02, f"{rank:.2f}", fontsize=7.5, va="bottom",
            ha="left" if at_left else "right", **style,
        )  # fmt: skip
    return figure


def _bars(ranks: NDArray[np.floating], difference: float) -> list[tuple[int, int]]:
    """First and last index of every longest run of sorted ranks that spans less than `difference`, alone ones left out.

    >>> _bars(np.array([1.0, 1.5, 2.2, 5.0]), 1.0)
    [(0, 1), (1, 2)]
    """
    bars: list[tuple[int, int]] = []
    for low in range(len(ranks)):
        high = int(np.flatnonzero(ranks - ranks[low] < difference)[-1])
        if high > low and (not bars or high > bars[-1][1]):
            bars.append((low, high))
    return bars


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure atomically, in the format that the suffix names.

    Raises:
        ConfigError: The suffix is none of .png, .svg and .pdf.
        StoreError: The directory cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(
            f"A figure is written as one of {', '.join(_FORMATS)}, but the path is {str(path)!r}: change its suffix."
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lower()[1:], dpi=160, facecolor="white")
    write_atomically(path, buffer.getvalue())


def figure_svg(figure: "Figure", prefix: str) -> str:
    """A figure as one `<svg>` element for a page: transparent, in the page's text colour, without any address in it.

    Args:
        figure: What to draw.
        prefix: Put before every id, so that several figures can share a page.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Inside HTML the parser supplies the namespaces.
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg, flags=re.DOTALL).replace("xlink:href", "href")
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'<svg([^>]*?)\swidth="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?)\sheight="[^"]*"', r"<svg\1", svg, count=1)
    # A hundredth of a point is finer than any screen, and half the size of the file.
    svg = re.sub(r'(?<=\sd=")[^"]*', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), svg)
    return svg.replace(INK, "currentColor").strip()


def _canvas(result: BenchmarkResult) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    # Room for the names beside the lines.
    longest, methods = max(len(marked(run)) for run in result.runs), len(result.runs)
    size = (7.4 + 0.08 * max(longest - 15, 0), 4.2 + 0.14 * max(methods - 9, 0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    last = result.trials
    if last > 30:  # the first trials are where methods differ most
        axes.set_xscale("log")
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= last]
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        ticks = list(range(1, last + 1)) if last <= 12 else [1, *range(5, last + 1, 5)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
    axes.set_xlim(1 if last > 1 else 0.5, last if last > 1 else 1.0)
    axes.set_xlabel(f"trials after {result.starts} given evaluations" if result.starts else "trials")
    axes.set_title(result.benchmark, loc="left", fontsize=11, fontweight="bold", color=INK, parse_math=False)
    axes.grid(axis="y", color=_FAINT, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=INK)
    axes.tick_params(axis="x", which="major", length=3, color=_FAINT)
    axes.xaxis.label.set(color=INK, fontsize=9.5)
    axes.yaxis.label.set(color=INK, fontsize=9.5)
    axes.yaxis.labelpad = 8
    return figure, axes


def _thinned(trials: int) -> NDArray[np.integer]:
    """At most 100 indices of trials, all of the first ones: long curves are as good with fewer points."""
    return (
        np.unique(np.geomspace(1, trials, min(trials, 100)).round().astype(int)) - 1
        if trials > 100
        else np.arange(trials)
    )


def _line(run: MethodRun, result: BenchmarkResult) -> dict:
    look: dict = {"color": colour(run.name), "linewidth": 2.0, "solid_capstyle": "round"}
    if run.published:
        look |= {"linestyle": (0, (4, 2)), "linewidth": 1.5}
    if result.trials == 1:  # one trial makes no line: draw a dot
        look |= {"marker": "o", "clip_on": False}
    return look


def _face(run: MethodRun) -> dict:
    """How the name of a method is set: published ones in italics."""
    return {"fontstyle": "italic"} if run.published else {"fontweight": "bold"}


def _label_ends(axes: "Axes", runs: Sequence[MethodRun], values: NDArray[np.floating]) -> None:
    """Names beside the ends of their lines, in the lines' colours, moved apart where they would overlap."""
    ends = axes.transLimits.transform(axes.transScale.transform([(axes.get_xlim()[1], value) for value in values]))[
        :, 1
    ]
    for run, end, place in zip(runs, ends, _spread(ends, 0.058), strict=True):
        style = {"color": colour(run.name), "transform": axes.transAxes, "clip_on": False}
        axes.plot([1.004, 1.022], [end, place], linewidth=1.0, alpha=0.7, **style)
        axes.text(1.03, place, marked(run), fontsize=9.5, va="center", parse_math=False, **_face(run), **style)


def _spread(places: NDArray[np.floating], gap: float) -> NDArray[np.floating]:
    """Moves places within [0, 1] at least `gap` apart (less if they are too many), as little as that takes, in order."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    gap = min(gap, 1.0 / max(len(places) - 1, 1))
    steps = gap * np.arange(len(places))
    # Less a gap for every place below, "at least a gap apart" reads "not falling".
    rising = isotonic_regression(places[order].astype(np.float64) - steps).x
    spread = np.empty(len(places))
    spread[order] = np.clip(rising, 0.0, max(1.0 - steps[-1], 0.0)) + steps
    return spread
