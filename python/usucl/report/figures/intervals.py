"""The chart of the figures: a dot with its interval for each encoder, one panel per quantity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from usucl import _style as style
from usucl.report.figures.drawing import Entry, Legend, panel, rendered
from usucl.report.page import Drawing
from usucl.report.verdicts import Row

ROW, HEAD, FOOT, LABELS = 0.52, 0.58, 0.48, 2.75  # inches
NAMES = ("trained", "random initialisation", "raw pixels")
CHANCE = "#4b5663"
BOLD = 1.15  # bold letters are wider


def interval_chart(rows: Sequence[Row], path: Path) -> Drawing:
    """Draws the rows, apart by quantity, probe and whether videos were held out."""
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.unit, row.how), []).append(row)
    return rendered(lambda narrow: _draw(panels, narrow), path)


def _draw(panels: dict[tuple[str, str], list[Row]], narrow: bool) -> Figure:
    across = style.NARROW if narrow else style.WIDTH
    indent = 0.12 if narrow else LABELS
    row_height = ROW + 0.3 if narrow else ROW  # on a phone names stand above their dots
    entries = list(map(Entry, style.ENCODER_COLOUR.values(), NAMES))
    entries.append(Entry(CHANCE, "chance", "|"))
    legend = Legend(entries, across)
    heads = [style.wrapped(f"{unit}, {how}", BOLD * 10.5, across) for unit, how in panels]
    heights = [
        HEAD + 0.18 * (len(head) - 1) + row_height * len(rows) + FOOT
        for head, rows in zip(heads, panels.values(), strict=True)
    ]
    figure = Figure(figsize=(across, legend.height + sum(heights)))
    legend.draw(figure, 0, 0)
    top = legend.height
    for ((unit, _), rows), head, height in zip(panels.items(), heads, heights, strict=True):
        size = row_height * len(rows)
        axes = panel(figure, indent, top + height - FOOT - size, across - indent - 0.15, size)
        for i, line in enumerate(head):
            at = 1 - (top + 0.4 + 0.18 * i) / figure.get_figheight()
            figure.text(0, at, line, fontsize=10.5, weight="bold", va="center")
        _panel(axes, rows, unit, narrow)
        top += height
    return figure


def _panel(axes: Axes, rows: Sequence[Row], unit: str, narrow: bool) -> None:
    shift = 0.2 if narrow else 0.0
    for i, row in enumerate(rows):
        y = i + shift
        axes.plot([row.chance] * 2, [y - 0.3, y + 0.3], color=CHANCE, linewidth=1.2)
        for offset, (name, colour) in zip(
            (-0.17, 0.0, 0.17), style.ENCODER_COLOUR.items(), strict=True
        ):
            e = row.estimates[name]
            if e.value is None:
                continue
            if e.low is not None and e.high is not None:
                axes.plot([e.low, e.high], [y + offset] * 2, color=colour, linewidth=2)
            axes.plot(e.value, y + offset, "o", color=colour, markersize=5.5)
        name = row.name.split(",\n")[0]
        if narrow:
            axes.text(0, i - 0.32, name, fontsize=9.5, va="center")
            continue
        across: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "ha": "right",
        }
        axes.text(-0.025, y - 0.14, name, fontsize=9.5, **across)
        chance = f"chance {row.chance:.3g}"
        axes.text(-0.025, y + 0.2, chance, fontsize=8.5, color=style.MUTED, **across)
    axes.set(yticks=[], ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.0), xlabel=unit)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
