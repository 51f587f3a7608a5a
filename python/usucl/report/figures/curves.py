"""The curves of a training over its optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from usucl import _style as style
from usucl.data.sampling.clock import UNIT_WORDS
from usucl.evaluation.metrics import FloatArray
from usucl.report.figures.drawing import panel, rendered
from usucl.report.page import Drawing
from usucl.report.record import RunRecord

HEIGHT, LEFT, RIGHT, TITLE, FOOT = 2.6, 0.78, 0.12, 0.38, 0.52  # inches of a panel
SMOOTHED = 25
"""Steps that a running mean leaves of a long run."""

Series: TypeAlias = Mapping[str, tuple[str, str]]
"""Colour and label of each metric, by its name."""

Panel: TypeAlias = tuple[str, str, Callable[[Axes], None]]
"""Title, unit, and what draws a panel."""


def training_curves(record: RunRecord, path: Path) -> Drawing:
    """Draws a panel per quantity."""
    return rendered(lambda narrow: _draw(record, 1 if narrow else 3), path)


def curves_legend(record: RunRecord) -> str:
    """Returns what the lines mean, as far as there are such lines; each sentence after a space."""
    text = ""
    if len(record.series("loss")[1]) >= 2 * SMOOTHED:
        text += " Faint lines are single steps, strong lines are running means."
    if np.isfinite(uninformed_loss(record)[1]).any():
        text += (
            " The dashed line is the loss if an anchor's positive and negatives were all equally "
            "similar to it; it is left out where it is not defined."
        )
    if not len(record.series("learning_rate")[0]) and len(learning_rate(record)[0]):
        text += " The learning rate is that of the configuration; it was not logged."
    return text


def _draw(record: RunRecord, columns: int) -> Figure:
    panels: list[Panel] = [
        ("Loss", "", lambda axes: _loss(axes, record)),
        ("Learning rate", "", lambda axes: _learning_rate(axes, record)),
        ("Similarity to the anchor", "cosine similarity", lambda axes: _similarity(axes, record)),
        ("Effective rank of a batch", "directions", plain(record, "effective_rank", True)),
        ("Uniformity of a batch", "", plain(record, "uniformity", False)),
        (
            "Anchors short of negatives",
            "share of the batch",
            plain(record, "short_of_negatives", True),
        ),
        ("Intra-video window", "", lambda axes: _window(axes, record)),
        ("Speed", "images per second", plain(record, "images_per_second", True)),
        ("Where the time goes", "share of the time", lambda axes: _time_shares(axes, record)),
    ]
    return draw_panels(record, panels, columns)


def draw_panels(record: RunRecord, panels: Sequence[Panel], columns: int) -> Figure:
    """Draws panels over the steps of a run, each with its title and unit."""
    across = style.WIDTH if columns > 1 else style.NARROW
    figure = Figure(figsize=(across, HEIGHT * -(-len(panels) // columns)))
    cell = across / columns
    steps = record.metrics.get("step", np.zeros(1))
    for number, (title, unit, draw) in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = column * cell + LEFT, row * HEIGHT + TITLE
        axes = panel(figure, left, top, cell - LEFT - RIGHT, HEIGHT - TITLE - FOOT)
        axes.set_title(title)
        axes.set(xlabel="step", ylabel=unit)
        draw(axes)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_label_coords((0.22 - LEFT) / (cell - LEFT - RIGHT), 0.5)
        if axes.axison and steps.size and np.nanmax(steps) > 0:
            axes.set_xlim(-0.02 * np.nanmax(steps), 1.02 * np.nanmax(steps))
    return figure


def plain(record: RunRecord, name: str, from_zero: bool) -> Callable[[Axes], None]:
    """Returns what draws the curve of one metric."""
    return lambda axes: plot_lines(axes, record, {name: (style.INK, "")}, from_zero)


def _loss(axes: Axes, record: RunRecord) -> None:
    steps, chance = uninformed_loss(record)
    known = bool(np.isfinite(chance).any())
    if known:
        axes.plot(
            steps, chance, color=style.INTRA, linestyle=(0, (4, 2)), linewidth=1.2,
            label="if nothing were told apart",
        )  # fmt: skip
    plot_lines(axes, record, {"loss": (style.INK, "of the batch" if known else "")}, True)


def _learning_rate(axes: Axes, record: RunRecord) -> None:
    steps, rates = learning_rate(record)
    if not len(steps):
        say_none(axes, "not logged in this run")
        return
    axes.plot(steps, rates, color=style.INK, clip_on=False)
    axes.set_ylim(0, 1.05 * (rates.max() or 1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def _similarity(axes: Axes, record: RunRecord) -> None:
    series = {
        "positive_similarity": (style.POSITIVE, "positive"),
        "intra_similarity": (style.INTRA, "intra-video negatives"),
        "cross_similarity": (style.CROSS, "cross-video negatives"),
    }
    plot_lines(axes, record, series)


def plot_lines(axes: Axes, record: RunRecord, series: Series, from_zero: bool = False) -> None:
    """Draws the curves of metrics, with a running mean where they are long."""
    drawn = False
    for name, (colour, label) in series.items():
        steps, values = record.series(name)
        if not values.size:
            continue
        drawn = True
        width = len(values) // SMOOTHED
        if width > 1:  # the raw line stays visible behind its running mean
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
            steps, values = _running_mean(steps, width), _running_mean(values, width)
        marker = "o" if len(values) == 1 else None
        axes.plot(steps, values, color=colour, label=label or None, marker=marker)
    if not drawn:
        say_none(axes, "not logged in this run")
        return
    if from_zero:
        most = max(axes.dataLim.y1, 0)
        axes.set_ylim(0, 1.05 * (most if most > 1e-3 else 1))
    entries, _ = axes.get_legend_handles_labels()
    if entries:
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        axes.set_ylim(low, high + (0.1 + 0.12 * len(entries)) * (high - low))  # for the legend
        axes.set_yticks(ticks)
        axes.legend(loc="upper left", borderaxespad=0.1, labelspacing=0.25)


def _window(axes: Axes, record: RunRecord) -> None:
    steps, lo = record.series("window_lo")
    _, hi = record.series("window_hi")
    if record.window is None or len(lo) != len(hi):
        say_none(axes, "no intra-video negatives in this run")
        return
    if len(steps) == 1:
        axes.plot(np.repeat(steps, 2), [lo[0], hi[0]], color=style.INTRA, marker="o")
    axes.fill_between(steps, lo, hi, step="post", color=style.INTRA, alpha=0.25, linewidth=0)
    axes.step(steps, np.c_[lo, hi], where="post", color=style.INTRA)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(UNIT_WORDS[record.config.sampling.time_unit])


def _time_shares(axes: Axes, record: RunRecord) -> None:
    parts = {
        "data": (style.PIXELS, "data_share"),
        "encoder": (style.CROSS, "encoder_share"),
        "loss": (style.TRAINED, "loss_share"),
    }
    shares = {label: record.series(name) for label, (_, name) in parts.items()}
    steps = next(iter(shares.values()))[0]
    if not steps.size or any(len(s) != len(steps) for s, _ in shares.values()):
        say_none(axes, "not logged in this run")
        return
    width = max(1, len(steps) // SMOOTHED)
    stacked = [_running_mean(values, width) for _, values in shares.values()]
    colours = [colour for colour, _ in parts.values()]
    axes.stackplot(_running_mean(steps, width), stacked, colors=colours, alpha=0.75, linewidth=0)
    axes.set_ylim(0, 1.45)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            linewidth=6,
            alpha=0.75,
            label=f"{label} {100 * values.mean():.0f} %",
        )
        for (label, (_, values)), colour in zip(shares.items(), colours, strict=True)
    ]
    axes.legend(
        handles=handles, loc="upper left", ncols=2, handlelength=0.8, columnspacing=1.0,
        borderaxespad=0.1, labelspacing=0.25,
    )  # fmt: skip


def learning_rate(record: RunRecord) -> tuple[FloatArray, FloatArray]:
    """Returns steps and learning rates as logged, or as the configuration gives them."""
    steps, rates = record.series("learning_rate")
    if len(steps):
        return steps, rates
    every, epoch = (record.metrics.get(name, np.empty(0)) for name in ("step", "epoch"))
    known = np.isfinite(every) & np.isfinite(epoch) if len(every) == len(epoch) else np.empty(0)
    if not np.any(known):
        return np.empty(0), np.empty(0)
    per_epoch = np.ceil((every[known] / (epoch[known] + 1)).max())
    ends = per_epoch * np.array([0, *record.config.ends])  # a half cosine up to each
    steps = np.linspace(0, every[known].max(), 200)
    part = np.clip(np.searchsorted(ends, steps, side="right"), 1, len(ends) - 1)
    share = (steps - ends[part - 1]) / (ends[part] - ends[part - 1])
    return steps, record.config.optimiser.lr * (1 + np.cos(np.pi * share)) / 2


def uninformed_loss(record: RunRecord) -> tuple[FloatArray, FloatArray]:
    """Returns steps and the loss if positive and negatives were equally similar, where defined.

    It is the logarithm of the number of logits. It is not defined where anchors were short of
    negatives, or where a margin strikes some out.
    """
    options = record.config.loss
    steps = record.metrics.get("step", np.empty(0))
    short = record.metrics.get("short_of_negatives", np.full(len(steps), np.nan))
    low = record.metrics.get("window_lo", np.full(len(steps), np.nan))
    cross = options.cross_k if options.soft_nn_temperature is None else min(options.cross_k, 1)
    logits = 1 + cross + np.where(np.isfinite(low), options.intra_k, 0)
    defined = (short == 0) & (options.margin is None) & np.isfinite(steps)
    return steps, np.where(defined, np.log(logits), np.nan)


def say_none(axes: Axes, text: str) -> None:
    """Says in an empty panel why it is empty."""
    style.bare(axes)
    axes.set(facecolor=style.MAP, xlabel="", ylabel="")
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=style.MUTED)


def _running_mean(values: FloatArray, width: int) -> FloatArray:
    return np.convolve(values, np.full(width, 1 / width), mode="valid")
