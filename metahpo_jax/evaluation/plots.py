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
from metahpo_jax.evaluation.results import BenchmarkResult
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
    "gp": "#1f83c4",
    "pretrained_gp": "#d55e00",
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
    trials = np.arange(1, result.trials + 1)
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
            axes.fill_between(
                trials, np.maximum(interval.low, bottom), interval.high, color=colour(run.name), alpha=0.13, linewidth=0
            )
        axes.plot(
            trials, interval.mean, color=colour(run.name), linewidth=2.0, solid_capstyle="round", **_point(result)
        )
    axes.set_ylim(bottom, top)
    axes.set_ylabel("regret of the incumbent, mean over tasks")
    _label_ends(axes, [run.name for run in result.runs], means[:, -1])
    return figure


def rank_curves(result: BenchmarkResult) -> "Figure":
    """Mean rank per trial, 1 at the top."""
    ranks = result.ranks()
    figure, axes = _canvas(result)
    trials = np.arange(1, result.trials + 1)
    for run, rank in zip(result.runs, ranks, strict=True):
        axes.plot(trials, rank, color=colour(run.name), linewidth=2.0, solid_capstyle="round", **_point(result))
    margin = 0.1 * max(float(np.ptp(ranks)), 0.5)
    axes.set_ylim(ranks.max() + margin, max(0.9, ranks.min() - margin))
    axes.set_ylabel("rank, mean over tasks (1 is best)")
    _label_ends(axes, [run.name for run in result.runs], ranks[:, -1])
    return figure


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
    return svg.replace(INK, "currentColor").strip()


def _canvas(result: BenchmarkResult) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
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
    axes.set_xlabel("trials")
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


def _point(result: BenchmarkResult) -> dict:
    """One trial makes no line: draw a dot."""
    return {"marker": "o", "clip_on": False} if result.trials == 1 else {}


def _label_ends(axes: "Axes", names: Sequence[str], values: NDArray[np.floating]) -> None:
    """Names beside the ends of their lines, in the lines' colours, moved apart where they would overlap."""
    ends = axes.transLimits.transform(axes.transScale.transform([(axes.get_xlim()[1], value) for value in values]))[
        :, 1
    ]
    for name, end, place in zip(names, ends, _spread(ends, 0.058), strict=True):
        style = {"color": colour(name), "transform": axes.transAxes, "clip_on": False}
        axes.plot([1.004, 1.022], [end, place], linewidth=1.0, alpha=0.7, **style)
        axes.text(1.03, place, name, fontsize=9.5, fontweight="bold", va="center", parse_math=False, **style)


def _spread(places: NDArray[np.floating], gap: float) -> NDArray[np.floating]:
    """Moves places within [0, 1] at least `gap` apart (less if they are too many), keeping their order."""
    order = np.argsort(places, kind="stable")
    moved = places[order].astype(np.float64)
    gap = min(gap, 1.0 / max(len(moved) - 1, 1))
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1] = min(moved[-1], 1.0)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    spread = np.empty_like(moved)
    spread[order] = moved
    return spread
