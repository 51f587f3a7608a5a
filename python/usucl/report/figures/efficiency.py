"""What probes tell that were fitted on a few patients: a panel per label and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from usucl import _style as style
from usucl.evaluation.schema import Efficiency
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.figures.intervals import BOLD, CHANCE
from usucl.report.page import Drawing

HEIGHT, LEFT, HEAD, FOOT = 2.0, 0.62, 0.55, 0.5  # inches
ENCODERS = {"trained": "trained", "random": "random initialisation"}
APART = 1.03  # factor between the dots of one share, whose intervals would cover each other


def label_efficiency(
    curves: Mapping[str, tuple[Sequence[Efficiency], float]], noun: str, path: Path
) -> Drawing:
    """Draws balanced accuracy over the number of labelled patients.

    Args:
        curves: by title, the points of a curve, and the figure of guessing.
        noun: what is counted, such as "patient".
        path: where the PNG goes.
    """
    return rendered(lambda narrow: _draw(curves, noun, narrow), path)


def _draw(
    curves: Mapping[str, tuple[Sequence[Efficiency], float]], noun: str, narrow: bool
) -> Figure:
    across = style.NARROW if narrow else style.WIDTH
    columns = 1 if narrow else min(2, len(curves))
    entries = [Entry(style.ENCODER_COLOUR[name], title) for name, title in ENCODERS.items()]
    legend = Legend([*entries, Entry(CHANCE, "chance", "|")], across)
    rows, cell = -(-len(curves) // columns), across / columns
    height = HEAD + HEIGHT + FOOT
    figure = Figure(figsize=(across, legend.height + rows * height))
    legend.draw(figure, 0, 0)
    for i, (title, (points, chance)) in enumerate(curves.items()):
        left, top = i % columns * cell, legend.height + i // columns * height
        axes = panel(figure, left + LEFT, top + HEAD, cell - LEFT - 0.15, HEIGHT)
        axes.set_title("\n".join(style.wrapped(title, BOLD * 10.5, cell - LEFT - 0.15)))
        _panel(axes, points, chance, noun)
    return figure


def _panel(axes: Axes, points: Sequence[Efficiency], chance: float, noun: str) -> None:
    axes.axhline(chance, color=CHANCE, linewidth=1.2, linestyle=":")
    for name, shift in zip(ENCODERS, (1 / APART, APART), strict=True):
        colour = style.ENCODER_COLOUR[name]
        known = [
            (point.patients * shift, of)
            for point in points
            if (of := point.figures["balanced_accuracy"][name]).value is not None
        ]
        axes.plot([x for x, _ in known], [of.value for _, of in known], "o-", color=colour)  # type: ignore[arg-type]
        for x, of in known:
            if of.low is not None and of.high is not None:
                axes.plot([x, x], [of.low, of.high], color=colour, linewidth=2, alpha=0.6)
    axes.set_xscale("log")
    places = {point.patients: f"{point.patients:.3g}" for point in points}
    axes.set_xticks(list(places), list(places.values()))
    axes.minorticks_off()
    axes.set(ylim=(0, 1), xlabel=f"labelled {noun}s", ylabel="balanced accuracy")
