"""Figures laid out in inches, and their two renderings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from usucl import _style as style
from usucl.report.page import Drawing


def rendered(draw: Callable[[bool], Figure], path: Path) -> Drawing:
    """Calls ``draw(narrow)`` for both renderings, and writes the wide one as a PNG, too."""
    with style.styled():
        wide = draw(False)
        style.save(wide, path)
        return Drawing(style.vector(wide), style.vector(draw(True)))


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Returns axes at a place in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


class Entry(NamedTuple):
    """An entry of a legend, with a dot or a line."""

    colour: str
    name: str
    mark: str = "o"


class Legend:
    """Entries of a mark and a name, in lines that fit a width; long names take several lines."""

    POINTS = 9
    LINE = 0.17  # inches
    DOT = 0.17  # inches before a name
    GAP = 0.16  # inches between entries

    def __init__(self, entries: Sequence[Entry], width: float) -> None:
        self.width = width
        self.places: list[tuple[float, float, Entry, list[str]]] = []
        x = y = 0.0
        for entry in entries:
            lines = style.wrapped(entry.name, self.POINTS, width - self.DOT)
            across = self.DOT + max(style.width_of(line, self.POINTS) for line in lines) + self.GAP
            if x and x + across - self.GAP > width:
                x, y = 0.0, y + self.LINE
            self.places.append((x, y, entry, lines))
            if len(lines) > 1:
                x, y = 0.0, y + self.LINE * len(lines)
            else:
                x += across
        self.height = y + self.LINE if x else y

    def draw(self, figure: Figure, left: float, top: float) -> None:
        """Draws the entries at a place in inches from the figure's upper left corner."""
        axes = panel(figure, left, top, self.width, max(self.height, self.LINE))
        style.bare(axes)
        axes.set(xlim=(0, self.width), ylim=(max(self.height, self.LINE), 0))
        axes.set_label("legend")
        axes.patch.set_visible(False)
        for x, y, entry, lines in self.places:
            size = 10 if entry.mark == "|" else 5.5
            axes.plot(x + 0.06, y + self.LINE / 2, entry.mark, color=entry.colour, markersize=size)
            for i, line in enumerate(lines):
                axes.text(
                    x + self.DOT, y + self.LINE * (i + 0.5), line, fontsize=self.POINTS,
                    color=style.INK, va="center_baseline",
                )  # fmt: skip
