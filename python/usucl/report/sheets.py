"""Sheets of pictures: the results of a search, and pairs of near-identical frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from usucl import _style as style
from usucl.data import VideoError
from usucl.gallery import Found, Gallery, Pair

TILE = 224
GAP = 0.07  # inches between pictures
HEAD = 0.5
CAPTION = 0.52
LETTERS_PER_INCH = 15.5

LEAK = style.INTRA
SAME = style.CATEGORIES[3]
ALIKE = style.CROSS


def search_sheet(gallery: Gallery, found: Found, path: Path) -> Path:
    """Draws the query at the left, larger, and the frames found in reading order."""
    query, matches = found.query, found.matches
    columns = min(len(matches), 4 if len(matches) <= 8 else 6)
    lines = -(-len(matches) // columns)
    span = 2 if lines > 1 else 1
    pictures = gallery.contents.pictures([match.slot for match in matches], TILE)
    with style.styled():
        note = f"of {found.searched:,} frames"
        sheet = _Sheet(columns + span, lines, f"Nearest to {style.shortened(query.name, 60)}", note)
        axes = sheet.cell(0, 0, span)
        _picture(axes, query.image)
        _caption(axes, "Query", style.ANCHOR, [query.name])
        for i, (slot, similarity) in enumerate(matches):
            axes = sheet.cell(i // columns, span + i % columns)
            _picture(axes, pictures[slot])
            frame = gallery.describe(slot)
            about = " · ".join(filter(None, (frame.label, frame.patient)))
            _caption(axes, f"{similarity:.3f}", style.CROSS, [frame.name, about])
        return style.save(sheet.figure, path)


class _Sheet:
    """A grid of square cells under a title; a cell is a picture with its caption below."""

    def __init__(self, columns: float, lines: int, title: str, note: str) -> None:
        self.size = min(1.9, style.WIDTH / columns)
        self.width = max(self.size * columns, 5.6)
        self.height = HEAD + lines * (self.size + CAPTION)
        self.figure = Figure(figsize=(self.width, self.height))
        left, top = GAP / 2 / self.width, 1 - 0.2 / self.height
        self.figure.text(left, top, title, weight="bold", fontsize=10)
        self.figure.text(1 - left, top, note, color=style.MUTED, fontsize=8, ha="right")
        self.figure.add_artist(
            Line2D([left, 1 - left], [1 - 0.3 / self.height] * 2, color=style.RULE, linewidth=0.8)
        )

    def cell(self, line: int, column: float, span: int = 1) -> Axes:
        """Returns axes for a square picture, ``span`` cells wide."""
        side = self.size * span - GAP
        bottom = self.height - HEAD - line * (self.size + CAPTION) - side
        box = (column * self.size + GAP / 2, bottom, side, side)
        axes = self.figure.add_axes(
            (box[0] / self.width, box[1] / self.height, side / self.width, side / self.height)
        )
        style.bare(axes)
        return axes

    def mark(self, axes: Sequence[Axes], colour: str) -> None:
        """Draws a line over neighbouring pictures."""
        first, last = axes[0].get_position(), axes[-1].get_position()
        y = first.y1 + 0.03 / self.height
        line = Line2D([first.x0, last.x1], [y, y], color=colour, linewidth=1.6)
        self.figure.add_artist(line)


def _picture(axes: Axes, picture: Tensor | VideoError) -> None:
    if isinstance(picture, VideoError):
        axes.set_facecolor(style.MAP)
        axes.text(
            0.5, 0.5, "cannot\nbe read", transform=axes.transAxes, color=style.MUTED,
            ha="center", va="center", fontsize=7,
        )  # fmt: skip
    else:
        image = picture.permute(1, 2, 0).numpy()
        axes.imshow(image, interpolation="lanczos", aspect="auto")


def _caption(axes: Axes, bold: str, colour: str, lines: Sequence[str]) -> None:
    """Writes a bold line below a picture, and small lines below that."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    inches = axes.get_position().height * figure.get_figheight()
    below: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
    axes.text(0, -0.05 / inches, bold, fontsize=8, color=colour, weight="bold", **below)
    for number, text in enumerate(lines):
        shade = style.MUTED if number else style.INK
        y = -(0.19 + 0.125 * number) / inches
        shown = style.shortened(text, int(inches * LETTERS_PER_INCH))
        axes.text(0, y, shown, fontsize=6.6, color=shade, **below)


def pairs_sheet(
    gallery: Gallery, pairs: Sequence[Pair], total: int, threshold: float, path: Path
) -> Path:
    """Draws two pairs per line, each with the difference of its pictures; leaks are marked."""
    pictures = gallery.contents.pictures(
        [slot for pair in pairs for slot in (pair.a, pair.b)], TILE
    )
    with style.styled():
        lines = max(1, -(-len(pairs) // 2))
        note = f"{len(pairs)} of {total} pairs with a similarity of {threshold:g} or more"
        sheet = _Sheet(6.4, lines, "Near-identical frames, and where they differ", note)
        for i, pair in enumerate(pairs):
            _pair(sheet, gallery, pictures, pair, i // 2, 3.4 * (i % 2))
        if not pairs:
            sheet.figure.text(0.5, 0.5, "no pair", ha="center", color=style.MUTED)
        return style.save(sheet.figure, path)


def _pair(
    sheet: _Sheet,
    gallery: Gallery,
    pictures: dict[int, Tensor | VideoError],
    pair: Pair,
    line: int,
    column: float,
) -> None:
    a, b = pictures[pair.a], pictures[pair.b]
    axes = [sheet.cell(line, column + k) for k in range(3)]
    leaks = ("patient", pair.other_patient), ("fold", pair.other_fold)
    leak = " and ".join(what for what, differs in leaks if differs)
    marks = [
        (f"{pair.similarity:.4f}", style.INK),
        (f"other {leak}", LEAK) if leak else ("", style.MUTED),
    ]
    for one, slot, (mark, colour) in zip(axes, (pair.a, pair.b), marks, strict=False):
        _picture(one, pictures[slot])
        frame = gallery.describe(slot)
        fold = None if frame.fold is None else f"fold {frame.fold}"
        about = " · ".join(filter(None, (frame.patient, fold)))
        _caption(one, mark, colour, [frame.name, about])
    if leak:
        sheet.mark(axes, LEAK)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        gap = (a.float().mean(0) - b.float().mean(0)).abs().numpy()
        axes[2].imshow(gap, cmap="magma", vmin=0, vmax=128, aspect="auto")
    else:
        _picture(axes[2], VideoError("", ""))
    if pair.correlation is None:
        _caption(axes[2], "not compared", style.MUTED, [])
    else:
        verdict = ("same picture", SAME) if pair.same_picture else ("alike", ALIKE)
        figures = [f"correlation {pair.correlation:.2f}", f"differ by {pair.difference:.1f} of 255"]
        _caption(axes[2], *verdict, figures)
