"""What was mined, over the optimiser steps: shares, ages, histograms; and the probes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from usucl import _style as style
from usucl.report.figures.curves import Panel, Series, draw_panels, plot_lines
from usucl.report.figures.drawing import rendered
from usucl.report.page import Drawing
from usucl.report.record import RunRecord, as_number

MOST_COLUMNS = 150  # of a histogram over the steps
GROUPS = {
    "positive": ("Positives", style.POSITIVE),
    "intra": ("Intra-video negatives", style.INTRA),
    "cross": ("Cross-video negatives", style.CROSS),
}
SHARES: dict[str, Series] = {
    "Suspicious negatives": {
        "above_positive": (style.CATEGORIES[3], "hardest above the positive"),
        "near_duplicates": (style.CROSS, "near-duplicates"),
    },
    "Struck out, and the mix": {
        "intra_share": (style.INTRA, "intra-video among the selected"),
        "struck_by_margin": (style.CATEGORIES[4], "struck by the margin"),
        "struck_by_max_similarity": (style.CATEGORIES[6], "struck by max_similarity"),
    },
    "Soft nearest neighbour": {"soft_nn_weight": (style.CROSS, "greatest weight")},
}
AGES: Series = {
    "bank_age": (style.INK, "mean"),
    "bank_age_oldest": (style.MUTED, "oldest"),
}


def mining_curves(record: RunRecord, path: Path) -> Drawing | None:
    """Draws a panel per quantity that the run has; None if it has none, as of earlier versions."""
    panels = _panels(record)
    if not panels:
        return None
    return rendered(lambda narrow: draw_panels(record, panels, 1 if narrow else 3), path)


def mining_legend(record: RunRecord) -> str:
    """Returns what the panels mean, as far as there are such panels."""
    words = ""
    if record.series("above_positive")[1].size:
        words += (
            "Hardest above the positive: the share of anchors that are more similar to a negative "
            "than to their positive. Near-duplicates: the share of the selected frames of other "
            "videos with a similarity of 0.98 or more, which may show the same patient or scene. "
        )
    if record.hardness:
        words += (
            "The darker a place of a histogram, the more of the step's similarities are there. "
        )
    if record.probe:
        words += (
            "The probes see labelled videos that are trained on, with no patient on both sides; "
            "held-out videos were not touched. The dashed line is chance."
        )
    return words.rstrip()


def _panels(record: RunRecord) -> list[Panel]:
    panels: list[Panel] = []
    if record.probe:
        panels.append(("Probe", "balanced accuracy", lambda axes: _probe(axes, record)))
    for title, series in SHARES.items():
        known = {name: drawn for name, drawn in series.items() if record.series(name)[1].size}
        if known:
            panels.append((title, "share", _shares(record, known)))
    if record.series("bank_age")[1].size:
        panels.append(("Age of the bank", "steps", lambda axes: plot_lines(axes, record, AGES)))
    for group, (title, colour) in GROUPS.items():
        rows = [row for row in record.hardness if row["group"] == group]
        if rows:
            panels.append((title, "cosine similarity", _histogram(rows, colour)))
    return panels


def _shares(record: RunRecord, series: Series) -> Callable[[Axes], None]:
    return lambda axes: plot_lines(axes, record, series, from_zero=True)


def _probe(axes: Axes, record: RunRecord) -> None:
    colours = {"knn": style.TRAINED, "linear": style.CROSS}
    for name in dict.fromkeys(row["probe"] for row in record.probe):
        own = [row for row in record.probe if row["probe"] == name]
        steps, values, chance = (
            np.array([as_number(row.get(column)) for row in own])
            for column in ("step", "balanced_accuracy", "chance")
        )
        colour = colours.get(name, style.INK)
        axes.plot(steps, values, color=colour, label=name, marker="o", markersize=3)
        axes.plot(steps, chance, color=style.MUTED, linestyle=(0, (4, 2)), linewidth=1)
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.5, 1])
    axes.legend(loc="upper left", borderaxespad=0.1, ncols=2)


def _histogram(rows: list[dict[str, str]], colour: str) -> Callable[[Axes], None]:
    edges = np.array([as_number(name) for name in rows[0] if name not in ("step", "group")])
    bins = [name for name in rows[0] if name not in ("step", "group")]
    steps = np.array([as_number(row["step"]) for row in rows])
    counts = np.array([[as_number(row[name]) for name in bins] for row in rows])
    counts = np.nan_to_num(counts)
    steps, shares = _thinned(steps, counts / np.maximum(counts.sum(1, keepdims=True), 1))
    used = np.flatnonzero(shares.any(0))
    cmap = LinearSegmentedColormap.from_list(colour, [style.PAPER, colour])

    def draw(axes: Axes) -> None:
        width = 2 / len(edges)
        heights = np.append(edges, edges[-1] + width)
        axes.pcolormesh(_edges(steps), heights, shares.T, cmap=cmap, vmin=0, rasterized=True)
        if used.size:
            axes.set_ylim(heights[max(used[0] - 1, 0)], heights[min(used[-1] + 2, len(edges))])
        axes.grid(False)

    return draw


def _thinned(
    steps: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns means of neighbouring rows where there are more than a picture shows."""
    parts = np.array_split(np.arange(len(steps)), min(len(steps), MOST_COLUMNS))
    means = [(steps[part].mean(), shares[part].mean(0)) for part in parts]
    return np.array([step for step, _ in means]), np.array([share for _, share in means])


def _edges(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the borders between steps, half-way."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    between = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - between[0]], between, [2 * steps[-1] - between[-1]]])
