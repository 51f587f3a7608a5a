"""The temporal windows of a run that has not started."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from usucl import _style as style
from usucl.data.sampling.clock import UNIT_WORDS
from usucl.report.figures.drawing import panel
from usucl.training.planning import Plan

HEIGHT, LEFT, RIGHT, TITLE, FOOT = 3.2, 0.78, 0.2, 0.42, 0.52  # inches
FORMATS = ("png", "svg", "pdf")


def draw_curriculum(plan: Plan, path: Path) -> Path:
    """Draws the window of every epoch, and writes a picture in the format of the file's name.

    Raises:
        ValueError: see :func:`check_plot`.
    """
    check_plot(path)
    with style.styled():
        return style.save(_figure(plan), path)


def check_plot(path: Path) -> None:
    """Raises ValueError if a name has another ending than .png, .svg and .pdf."""
    if path.suffix[1:].lower() not in FORMATS:
        raise ValueError(f"plot must be a name that ends in .png, .svg or .pdf, got {path}")


def _figure(plan: Plan) -> Figure:
    curriculum, epochs = plan.config.curriculum, plan.config.epochs
    figure = Figure(figsize=(style.WIDTH, HEIGHT))
    axes = panel(figure, LEFT, TITLE, style.WIDTH - LEFT - RIGHT, HEIGHT - TITLE - FOOT)
    intra = np.array([plan.intra(epoch) for epoch in range(epochs)])
    windows = np.array([plan.batches.window(epoch) for epoch in range(epochs)])
    edges = np.arange(1, epochs + 2) - 0.5
    lo, hi = np.where(intra[:, None], windows, np.nan).T
    lo, hi = (np.append(bound, bound[-1]) for bound in (lo, hi))
    axes.fill_between(edges, lo, hi, step="post", color=style.INTRA, alpha=0.25, linewidth=0)
    axes.step(edges, np.c_[lo, hi], where="post", color=style.INTRA)
    if plan.cross_only:
        axes.axvspan(0.5, plan.cross_only + 0.5, color=style.CROSS, alpha=0.12, linewidth=0)
        words = "cross-video only" if plan.cross_only > epochs / 8 else "cross-video\nonly"
        axes.text(
            0.5 + plan.cross_only / 2, 0.97, words, color=style.CROSS, ha="center", va="top",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    title = f"Intra-video negatives: {curriculum.kind}"
    if curriculum.kind == "hardness":
        title += f"; the next window (dotted) once similarity is below {curriculum.narrow_below:g}"
        for later in curriculum.windows[1:]:
            begin = plan.cross_only + 0.5
            axes.hlines(later, begin, epochs + 0.5, color=style.INTRA, linestyle="dotted")
    axes.set_title(title)
    axes.set(xlabel="epoch", xlim=(0.5, epochs + 0.5))
    axes.set_ylabel(f"distance ({UNIT_WORDS[plan.config.sampling.time_unit]})")
    axes.set_ylim(0, 1.15 * max(float(np.max(windows)), 1e-9))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    return figure
