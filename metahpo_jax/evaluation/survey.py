"""Looking at a meta-dataset: how its tasks are learned, what matters on them, and how well space and tasks are covered.

Each picture of `summaries` is a matplotlib figure, as in `plots`; `write_survey` puts all of them on one page:

    write_survey("look.html", load_metadataset("tabular"))
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metahpo_jax.evaluation.plots import INK
from metahpo_jax.evaluation.report import Figure, Section, Text, write_report
from metahpo_jax.evaluation.summaries import (
    MANY_LEVELS,
    Importances,
    curves,
    density,
    descriptor_components,
    importances,
    pair_discrepancy,
    rank_correlations,
    similar_together,
)
from metahpo_jax.metadata.quality import summarise
from metahpo_jax.metadata.schema import MetaDataset
from metahpo_jax.spaces import Choice, Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

Array = NDArray[np.floating]

_FAINT, _BLUE, _ORANGE = "#8a93a3", "#1f83c4", "#d55e00"
_ON_LIGHT = "#222222"  # on coloured cells, unlike `INK`, which turns light on a dark page
_WIDTH = 11.0  # inches
_HEIGHT = 0.38  # of the uniform density, in rows
MANY_NAMES = 60  # tasks whose names are written out


def learning_curves_figure(meta: MetaDataset) -> "MatplotlibFigure":
    """A panel per task: best, median and quartiles over the configurations, and the share that failed."""
    from matplotlib.figure import Figure

    drawn = curves(meta)
    tasks = len(meta.tasks)
    columns = min(tasks, max(4, int(np.ceil(np.sqrt(1.6 * tasks)))))
    rows = -(-tasks // columns)
    figure = Figure(figsize=(_WIDTH, 0.9 + max(6.2 * rows / columns, 1.9)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    size = 8 if columns <= 8 else 6.5
    marker = "o" if len(meta.fidelity) == 1 else None  # one point makes no line
    lines: list[Any] = []
    for t, axes in enumerate(grid.flat):
        _plain(axes, size)
        if t >= tasks:
            axes.set_axis_off()
            continue
        band = axes.fill_between(meta.fidelity, drawn.lower[t], drawn.upper[t], color=_BLUE, alpha=0.2, linewidth=0)
        (median,) = axes.plot(meta.fidelity, drawn.median[t], color=_BLUE, linewidth=1.4, marker=marker)
        (best,) = axes.plot(meta.fidelity, drawn.best[t], color=INK, linewidth=1.4, marker=marker)
        (failed,) = axes.plot(meta.fidelity, drawn.failed[t], color=_ORANGE, linewidth=1.2, marker=marker)
        lines = [best, median, band, failed]
        name = meta.tasks[t].name
        axes.set_title(name if len(name) <= 18 else f"{name[:17]}…", fontsize=size, color=INK, pad=3, parse_math=False)
    grid[0, 0].set(xscale="log", ylim=(0, 1.03))
    for axes in grid[-1]:
        axes.minorticks_off()
    figure.supxlabel(meta.unit, fontsize=9.5, color=INK)
    figure.supylabel("validation log-loss / prior entropy", fontsize=9.5, color=INK)
    labels = ["best", "median", "quartiles", "share of runs that failed"]
    figure.legend(lines, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def importance_figure(meta: MetaDataset, found: Importances | None = None) -> "MatplotlibFigure":
    """Shares of variance, hyperparameters x tasks, with the means at the side and the forest's quality below.

    Args:
        meta: the meta-dataset.
        found: what `importances` found; by default it is asked now, which takes a second for some tasks.
    """
    from matplotlib.figure import Figure

    main, explained = importances(meta) if found is None else found
    order = np.argsort(_mean(main), kind="stable")  # from below
    leading = np.argsort(-np.nan_to_num(main[:, order[-1]]), kind="stable")
    shares = main[leading][:, order].T  # `[D, T]`
    names = [meta.space.names[d] for d in order]
    figure = Figure(figsize=(_WIDTH, 2.3 + 0.24 * len(names)), layout="constrained")
    side, axes = figure.subplots(1, 2, width_ratios=(1, 4.2), sharey=True)
    _heat(figure, axes, shares, "Blues", (0.0, max(float(np.nanmax(shares, initial=0.0)), 0.1)), "share of variance")
    _task_names(axes, [meta.tasks[t].name for t in leading])
    if len(leading) <= MANY_NAMES:
        for x, quality in enumerate(explained[leading]):
            text = "–" if np.isnan(quality) else f"{100 * quality:.0f}"
            axes.text(x + 0.5, len(names) + 0.1, text, fontsize=6.5, color=_FAINT, ha="center", va="bottom")
        axes.set_title("variance that the forest predicts out of bag, %", fontsize=8, color=_FAINT, pad=12)
    _plain(side, 9)
    rows, mean = np.arange(len(names)) + 0.5, _mean(main)[order]
    side.barh(rows, mean, color=_BLUE, height=0.7)
    for y, share in zip(rows, mean, strict=True):
        side.text(share, y, f" {100 * share:.0f} %", fontsize=8, va="center", color=INK)
    side.set(xlim=(0, 1.35 * max(float(np.nanmax(mean, initial=0.0)), 1e-6)), xticks=[])
    side.set_yticks(rows, names, parse_math=False)
    side.spines["bottom"].set_visible(False)
    side.set_title("mean over tasks", fontsize=8, color=INK, pad=12)
    return figure


def coverage_figure(meta: MetaDataset) -> "MatplotlibFigure":
    """Density of the configurations along each hyperparameter, and evenness of each pair, both against random search."""
    from matplotlib.figure import Figure

    names = meta.space.names
    figure = Figure(figsize=(_WIDTH, 1.6 + 0.42 * len(names)), layout="constrained")
    axes, pairs = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _plain(axes, 9)
    for d, name in enumerate(names):
        share, base = density(meta, name), len(names) - 1 - d
        edges = np.linspace(0, 1, len(share) + 1)
        height = _HEIGHT * np.minimum(np.nan_to_num(share), 2.0)
        axes.bar(edges[:-1], height, np.diff(edges), base, align="edge", color=_BLUE, edgecolor="white", linewidth=0.4)
        axes.plot([0, 1], [base + _HEIGHT] * 2, color=_ORANGE, linewidth=0.9, linestyle=(0, (4, 3)))
        for place, label, side in _ticks(meta.space[name]):
            axes.text(place, base - 0.03, label, fontsize=6.5, ha=side, va="top", color=_FAINT, parse_math=False)
    axes.set_yticks(np.arange(len(names))[::-1] + _HEIGHT / 2, names, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.25, len(names) - 1 + 2 * _HEIGHT), xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.set_title("configurations; dashed: uniform", fontsize=9.5, color=INK)
    ratio = pair_discrepancy(meta)[::-1]
    _heat(figure, pairs, ratio, "PuOr_r", (0.0, 2.0), "discrepancy / that of random search")
    for y, x in np.ndindex(ratio.shape):
        if len(names) <= 12:
            colour = _ON_LIGHT if abs(ratio[y, x] - 1) < 0.7 else "white"
            pairs.text(x + 0.5, y + 0.5, f"{ratio[y, x]:.2f}", fontsize=6.5, ha="center", va="center", color=colour)
    pairs.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize=8, parse_math=False)
    pairs.set_yticks(np.arange(len(names)) + 0.5, names[::-1], fontsize=8, parse_math=False)
    pairs.set_title("evenness of pairs", fontsize=9.5, color=INK)
    return figure


def descriptors_figure(meta: MetaDataset) -> "MatplotlibFigure":
    """The tasks in the plane of their descriptors' first two principal components; colour is the best loss."""
    from matplotlib.figure import Figure

    found = descriptor_components(meta)
    best = curves(meta).best[:, -1]
    figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
    axes = figure.subplots()
    _plain(axes, 9)
    axes.axhline(0, color=_FAINT, linewidth=0.6, alpha=0.5)
    axes.axvline(0, color=_FAINT, linewidth=0.6, alpha=0.5)
    axes.margins(0.06, 0.08)
    dots = axes.scatter(*found.scores.T, c=best, cmap="viridis", vmin=0, vmax=1, s=34, zorder=3)
    if len(meta.tasks) <= MANY_NAMES:
        _name_points(axes, found.scores, [task.name for task in meta.tasks])
    for label, share, loading in zip((axes.set_xlabel, axes.set_ylabel), found.share, found.loadings, strict=True):
        strongest = np.argsort(-np.abs(loading), kind="stable")[:3]
        parts = [f"{'+' if loading[i] > 0 else '−'}{meta.descriptor_names[i]}" for i in strongest if loading[i]]  # noqa: RUF001
        label(f"{100 * share:.0f} %: {'  '.join(parts)}", fontsize=8.5, color=INK, parse_math=False)
    _colourbar(figure, axes, dots, "best log-loss / prior entropy")
    return figure


def rank_correlation_figure(meta: MetaDataset) -> "MatplotlibFigure":
    """Spearman's correlation between tasks, below the diagonal, similar tasks together."""
    from matplotlib.figure import Figure

    correlation = rank_correlations(meta)
    order = similar_together(correlation)
    names = [meta.tasks[t].name for t in order]
    below = np.where(np.tri(len(order), k=-1, dtype=bool), correlation[order][:, order], np.nan)
    size = min(max(3.2, 1.6 + 0.17 * len(order)), 8.5)
    figure = Figure(figsize=(size + 1.4, size), layout="constrained")
    axes = figure.subplots()
    _heat(figure, axes, below[::-1], "RdBu_r", (-1.0, 1.0), "rank correlation")
    _task_names(axes, names)
    if len(names) <= MANY_NAMES:
        axes.set_yticks(np.arange(len(names)) + 0.5, names[::-1], fontsize=7, parse_math=False)
    axes.set_aspect("equal")
    return figure


def _name_points(axes: "Axes", points: Array, names: Sequence[str]) -> None:
    """Writes a name above its point, or where that is taken below, right or left of it."""
    span = np.maximum(np.ptp(points, axis=0), 1e-9)
    inches = points / span * (8.5, 4.2)  # about: the layout is not known before all is drawn
    boxes = [(x - 0.05, y - 0.05, x + 0.05, y + 0.05) for x, y in inches]
    for (x, y), at, name in zip(inches, points, names, strict=True):
        width, height = 0.055 * len(name), 0.11
        places = [(0.0, 0.11, "center"), (0.0, -0.11, "center"), (0.08, 0.0, "left"), (-0.08, 0.0, "right")]
        tried = []
        for right, up, side in places:
            left = x + right - {"left": 0.0, "center": width / 2, "right": width}[side]
            box = (left, y + up - height / 2, left + width, y + up + height / 2)
            hits = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes)
            tried.append((hits, len(tried), box, (72 * right, 72 * up), side))
        _, _, box, offset, side = min(tried)
        boxes.append(box)
        axes.annotate(
            name, tuple(at), offset, textcoords="offset points", ha=side, va="center", fontsize=7, color=INK,
            parse_math=False,
        )  # fmt: skip


def _mean(shares: Array) -> Array:
    """Mean over the tasks that have any."""
    known = np.isfinite(shares)
    return np.where(known, shares, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _plain(axes: "Axes", size: float) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(which="both", length=0, labelsize=size, labelcolor=INK)
    axes.tick_params(axis="x", which="major", length=2, color=_FAINT)


def _heat(
    figure: "MatplotlibFigure", axes: "Axes", cells: Array, colours: str, limits: tuple[float, float], label: str
) -> None:
    """Cells `[rows, columns]` from below, as vectors: the policy of a page shows no embedded bitmaps."""
    mesh = axes.pcolormesh(np.ma.masked_invalid(cells), cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set(xticks=[], yticks=[])
    _colourbar(figure, axes, mesh, label)


def _colourbar(figure: "MatplotlibFigure", axes: "Axes", drawn: Any, label: str) -> None:
    from matplotlib.cm import ScalarMappable

    # In 32 steps: matplotlib makes a bitmap of more than 50.
    steps = ScalarMappable(drawn.norm, drawn.cmap)
    values = np.linspace(drawn.norm.vmin, drawn.norm.vmax, 33)
    bar = figure.colorbar(steps, ax=axes, pad=0.015, aspect=30, values=values)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.set_label(label, fontsize=8.5, color=INK)


def _task_names(axes: "Axes", names: Sequence[str]) -> None:
    if len(names) <= MANY_NAMES:
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90, fontsize=7, parse_math=False)
    else:
        axes.set_xlabel(f"{len(names)} tasks", fontsize=9, color=INK)


def _ticks(dimension: Dimension) -> list[tuple[float, str, str]]:
    """Place, text and alignment of what is written below a hyperparameter's axis: its levels if few, else its ends."""
    if isinstance(dimension, Choice) and dimension.levels <= MANY_LEVELS:
        return [(dimension.encode(value), str(value), "center") for value in dimension.values]
    if 0 < dimension.levels <= MANY_LEVELS:
        step = (np.arange(dimension.levels) + 0.5) / dimension.levels
        return [(float(u), str(dimension.decode(u)), "center") for u in step]
    return [(0.0, f"{dimension.decode(0.0):g}", "left"), (1.0, f"{dimension.decode(1.0):g}", "right")]


def survey(meta: MetaDataset) -> list[Section]:
    """The pictures as sections of a report, each with a sentence that says what is to be seen."""
    facts, found, correlation = summarise(meta), importances(meta), rank_correlations(meta)
    mean, best = _mean(found.main), curves(meta).best[:, -1]
    lead = int(np.argmax(mean))
    others = correlation[~np.eye(len(correlation), dtype=bool)]
    alike = f"On average it is {np.nanmean(others):.2f}" if np.isfinite(others).any() else "There is no pair to compare"
    ratio = facts["discrepancy"] / facts["random_discrepancy"]
    share = descriptor_components(meta).share.sum()
    return [
        Figure(
            "Learning curves", learning_curves_figure(meta),
            f"The best configuration removes {100 * (1 - np.median(best)):.0f} % of the prior entropy on the median task; "
            f"{100 * facts['failed']:.1f} % of the runs failed, most on {facts['worst_task']} "
            f"({100 * facts['worst_failed']:.1f} %).",
        ),
        Figure(
            "Importance", importance_figure(meta, found),
            f"{meta.space.names[lead]} alone explains {100 * mean[lead]:.0f} % of the loss's variance, the most of all; "
            f"all hyperparameters one by one explain {100 * mean.sum():.0f} %, and the rest is due to interactions. "
            "Functional ANOVA of a random forest per task (Hutter, Hoos and Leyton-Brown 2014), its trees marginalised "
            "exactly. Where a forest predicts little out of bag, read its column as noise.",
        ),
        Figure(
            "Coverage of the space", coverage_figure(meta),
            f"The centred L2 discrepancy of the {facts['configurations']} configurations is {ratio:.2f} times that of as "
            "many random ones: below 1 they fill the space more evenly. The cells say the same of every two "
            "hyperparameters, and on the diagonal of one.",
        ),
        Figure(
            "Coverage of tasks", descriptors_figure(meta),
            f"The first two principal components hold {100 * share:.0f} % of the variance of the standardised descriptors. "
            "Tasks far from all others are those on which transfer is least to be expected.",
        ),
        Figure(
            "Rank correlation between tasks", rank_correlation_figure(meta),
            f"How alike two tasks rank the configurations. {alike}: at 1 one ranking would serve all, at 0 nothing could "
            "be carried over without telling the tasks apart.",
        ),
        Text("The record", f"Content hash {meta.content_hash}. {facts['flops']:.3g} useful floating-point operations."),
    ]  # fmt: skip


def write_survey(path: str | os.PathLike[str], meta: MetaDataset) -> None:
    """Writes the survey as one page that loads nothing, atomically.

    Raises:
        ConfigError: `path` does not end in .html.
        StoreError: Its directory cannot be written.
    """
    bases, tasks = len(meta.bases), len(meta.tasks)
    lead = (
        f"{tasks} tasks of {bases} data sets, on each the same {len(meta.u)} configurations of {meta.space.size} "
        f"hyperparameters, recorded at {len(meta.fidelity)} points up to {meta.fidelity[-1]:,.0f} {meta.unit}."
    )
    write_report(path, title=f"The meta-dataset {meta.name}", lead=lead, sections=survey(meta))
