"""Sheets of pictures: the results of a search, and pairs of near-identical frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from usucl import _style as style
from usucl.data import VideoError
from usucl.gallery import Found, Gallery, Pair
from usucl.gallery.pairs import SAME_PICTURE
from usucl.report.figures.drawing import panel
from usucl.report.wording import count, number

TILE = 224
GAP, LINE, MARGIN = 0.08, 0.14, 0.1  # inches
SMALL, TITLE = 7.5, 11.0  # size of letters
BOLD = 1.15  # bold letters are wider

LEAK = style.INTRA
SAME = style.CATEGORIES[3]
ALIKE = style.CROSS
OWN = style.INTRA
DIFFERENCE = 128
"""Difference of grey levels, of 255, from which the scale of colours ends."""


class _Line(NamedTuple):
    """A line of a caption."""

    text: str
    colour: str = style.MUTED
    bold: bool = False


def _caption(inches: float, *lines: _Line) -> list[_Line]:
    """Returns the lines, each broken where the width needs it; empty ones are left out."""
    return [
        line._replace(text=part)
        for line in lines
        if line.text
        for part in style.wrapped(line.text, SMALL * (BOLD if line.bold else 1), inches)
    ]


def _write(figure: Figure, left: float, top: float, lines: Sequence[_Line]) -> None:
    """Writes lines at a place in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    for i, (text, colour, bold) in enumerate(lines):
        y = 1 - (top + LINE * i) / down
        weight = "bold" if bold else "normal"
        figure.text(left / across, y, text, fontsize=SMALL, color=colour, weight=weight, va="top")


def _head(title: str, notes: str, width: float) -> tuple[list[str], list[str], float]:
    """Returns the lines of a title and of the notes below it, and their height."""
    above = style.wrapped(title, TITLE * BOLD, width - 2 * MARGIN)
    below = style.wrapped(notes, SMALL + 0.5, width - 2 * MARGIN) if notes else []
    return above, below, MARGIN + 0.2 * len(above) + 0.15 * len(below) + 0.16


def _draw_head(figure: Figure, above: Sequence[str], below: Sequence[str], height: float) -> None:
    across, down = figure.get_size_inches()
    top = MARGIN
    for text in above:
        figure.text(MARGIN / across, 1 - top / down, text, fontsize=TITLE, weight="bold", va="top")
        top += 0.2
    for text in below:
        at = {"fontsize": SMALL + 0.5, "color": style.MUTED, "va": "top"}
        figure.text(MARGIN / across, 1 - (top + 0.02) / down, text, **at)  # type: ignore[arg-type]
        top += 0.15
    _rule(figure, height - 0.08)


def _rule(figure: Figure, top: float, left: float = MARGIN, right: float | None = None) -> None:
    across, down = figure.get_size_inches()
    ends = [left / across, ((across - MARGIN) if right is None else right) / across]
    figure.add_artist(Line2D(ends, [1 - top / down] * 2, color=style.RULE, linewidth=0.8))


def search_sheet(gallery: Gallery, found: Found, path: Path) -> Path:
    """Draws the query at the left, larger, and the frames found in reading order.

    Frames of the query's own video are marked: they are near it for no other reason.
    """
    query, matches = found.query, found.matches
    known = query.video is None or query.video in query.name
    asked = query.name if known else f"{query.video} / {query.name}"
    columns = min(len(matches), 4 if len(matches) <= 8 else 6)
    lines = -(-len(matches) // columns)
    span = 2 if lines > 1 else 1
    pictures = gallery.contents.pictures([match.slot for match in matches], TILE)
    cell = min(1.9, (style.WIDTH - 2 * MARGIN) / (columns + span))
    side = cell - GAP
    captions = []
    for rank, (slot, similarity) in enumerate(matches, 1):
        frame = gallery.describe(slot)
        own = query.video is not None and frame.video == query.video
        captions.append(
            _caption(
                side,
                _Line(f"{rank}   {similarity:.3f}", style.CROSS, True),
                _Line("the query's own video" if own else "", OWN, True),
                _Line(frame.video, style.INK),
                _Line(f"frame {frame.frame}"),
                _Line(" · ".join(filter(None, (frame.label, frame.patient)))),
            )
        )
    about = _caption(
        cell * span - GAP,
        _Line("Query", style.ANCHOR, True),
        _Line(asked, style.INK),
    )
    owned = sum(gallery.describe(match.slot).video == query.video for match in matches)
    note = f"The {count(len(matches), 'most similar frame')} of {found.searched:,} searched"
    note += ", most similar first, in rows from the left; numbers are cosine similarities."
    if owned:
        which = "All" if owned == len(matches) > 1 else f"{owned:,}"
        note += (
            f" {which} of them {'is' if owned == 1 else 'are'} of the query's own video:"
            f" --exclude-video {query.video} leaves it out."
        )
    width = max(cell * (columns + span) + 2 * MARGIN, 5.6)
    above, below, top = _head(f"Nearest to {asked}", note, width)
    rows = [captions[i * columns : (i + 1) * columns] for i in range(lines)]
    heights = [cell + LINE * max(map(len, row)) + 0.1 for row in rows]
    queried = cell * span + LINE * len(about) + 0.1
    with style.styled():
        figure = Figure(figsize=(width, top + max(sum(heights), queried) + MARGIN))
        _draw_head(figure, above, below, top)
        _picture(panel(figure, MARGIN, top, cell * span - GAP, cell * span - GAP), query.image)
        _write(figure, MARGIN, top + cell * span - GAP / 2, about)
        for line, (row, height) in enumerate(zip(rows, heights, strict=True)):
            for k, caption in enumerate(row):
                left = MARGIN + (span + k) * cell
                slot = matches[line * columns + k].slot
                _picture(panel(figure, left, top, side, side), pictures[slot])
                _write(figure, left, top + side + GAP / 2, caption)
            top += height
        return style.save(figure, path)


def pairs_sheet(
    gallery: Gallery, pairs: Sequence[Pair], total: int, threshold: float, path: Path
) -> Path:
    """Draws numbered pairs, two per line, each with the difference of its pictures.

    The title says how many show the same picture and how many are only alike; leaks are marked.
    """
    pictures = gallery.contents.pictures(
        [slot for pair in pairs for slot in (pair.a, pair.b)], TILE
    )
    width, column = style.WIDTH, (style.WIDTH - 2 * MARGIN - 0.3) / 2
    side = (column - 2 * GAP) / 3
    captions = [_pair_caption(gallery, i, pair, column) for i, pair in enumerate(pairs, 1)]
    rows = [captions[i : i + 2] for i in range(0, len(captions), 2)]
    heights = [side + 0.2 + LINE * max(map(len, row)) for row in rows]
    title, note = _pairs_title(pairs, total, threshold)
    above, below, head = _head(title, note, width)
    scale = 0.42 if pairs else 0.4
    with style.styled():
        figure = Figure(figsize=(width, head + scale + sum(heights) + MARGIN))
        _draw_head(figure, above, below, head)
        if not pairs:
            figure.text(0.5, 0.3, "no pair", ha="center", color=style.MUTED)
            return style.save(figure, path)
        _key(figure, head)
        top = head + scale
        for i, pair in enumerate(pairs):
            left = MARGIN + (i % 2) * (column + 0.3)
            _pair(figure, left, top, side, pictures, pair)
            _write(figure, left, top + side + 0.05, captions[i])
            if i % 2 or i == len(pairs) - 1:
                top += heights[i // 2]
        return style.save(figure, path)


def _pairs_title(pairs: Sequence[Pair], total: int, threshold: float) -> tuple[str, str]:
    same = sum(bool(pair.same_picture) for pair in pairs)
    unread = sum(pair.same_picture is None for pair in pairs)
    alike = len(pairs) - same - unread
    counts = [f"{same} {'shows' if same == 1 else 'show'} the same picture"]
    counts.append(f"{alike} {'is' if alike == 1 else 'are'} only alike to the encoder")
    if unread:
        counts.append(f"{unread} cannot be compared")
    title = f"{count(len(pairs), 'pair')} of similar frames: {', '.join(counts)}"
    leaks = sum(bool(pair.other_patient or pair.other_fold) for pair in pairs)
    shown = f"{len(pairs)} of {count(total, 'pair')}" if total > len(pairs) else "All pairs"
    note = (
        f"{shown} with a similarity of {threshold:g} or more, the most similar first, in rows from "
        f"the left. The same picture: details correlate with {SAME_PICTURE:g} or more."
    )
    if leaks:
        joined = (
            f"{leaks:,} of them {'joins' if leaks == 1 else 'join'} different patients or folds"
        )
        note += f" {joined} (marked by a line above the pictures)."
    else:
        note += " None is known to join different patients or folds."
    if unknown := sum(pair.other_patient is None for pair in pairs):
        note += f" For {unknown} it is not known whether the patients differ."
    return (title, note) if pairs else ("No pair of similar frames", f"Threshold {threshold:g}.")


def _pair_caption(gallery: Gallery, rank: int, pair: Pair, inches: float) -> list[_Line]:
    verdict = {None: "not compared", True: "same picture", False: "alike"}[pair.same_picture]
    colour = {None: style.MUTED, True: SAME, False: ALIKE}[pair.same_picture]
    figures = f"similarity {pair.similarity:.4f}"
    if pair.correlation is not None:
        figures += f" · correlation {number(pair.correlation)}"
        figures += f" · differ by {pair.difference:.1f} of 255 on average"
    leaks = ("patient", pair.other_patient), ("fold", pair.other_fold)
    leak = " and ".join(f"{what}s" for what, differs in leaks if differs)
    sides = []
    for slot in (pair.a, pair.b):
        frame = gallery.describe(slot)
        fold = None if frame.fold is None else f"fold {frame.fold}"
        known = " · ".join(filter(None, (frame.patient, fold)))
        sides.append(f"{frame.name}   {known}" if known else frame.name)
    return _caption(
        inches,
        _Line(f"{rank}   {verdict}" + (f", of different {leak}" if leak else ""), colour, True),
        _Line(figures, style.INK),
        _Line(f"left: {sides[0]}"),
        _Line(f"right: {sides[1]}"),
    )


def _pair(
    figure: Figure,
    left: float,
    top: float,
    side: float,
    pictures: dict[int, Tensor | VideoError],
    pair: Pair,
) -> None:
    a, b = pictures[pair.a], pictures[pair.b]
    axes = [panel(figure, left + k * (side + GAP), top, side, side) for k in range(3)]
    _picture(axes[0], a)
    _picture(axes[1], b)
    style.bare(axes[2])
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        gap = (a.float().mean(0) - b.float().mean(0)).abs().numpy()
        axes[2].imshow(gap, cmap="magma", vmin=0, vmax=DIFFERENCE, aspect="auto")
    else:
        _picture(axes[2], VideoError("", ""))
    if pair.other_patient or pair.other_fold:
        across, down = figure.get_size_inches()
        ends = [left / across, (left + 3 * side + 2 * GAP) / across]
        at = [1 - (top - 0.035) / down] * 2
        figure.add_artist(Line2D(ends, at, color=LEAK, linewidth=1.8))


def _key(figure: Figure, top: float) -> None:
    """Draws what the colours of the third picture mean."""
    words = "Third picture: difference of grey levels, of 255"
    _write(figure, MARGIN, top + 0.01, [_Line(words, style.INK)])
    left = MARGIN + style.width_of(words, SMALL) + 0.12
    axes = panel(figure, left, top + 0.02, 1.6, 0.09)
    style.bare(axes)
    axes.imshow(np.linspace(0, 1, 64)[None], cmap="magma", aspect="auto")
    _write(figure, left, top + 0.14, [_Line("0")])
    most = f"{DIFFERENCE} or more"
    _write(figure, left + 1.6 - style.width_of(most, SMALL), top + 0.14, [_Line(most)])


def _picture(axes: Axes, picture: Tensor | VideoError) -> None:
    style.bare(axes)
    if isinstance(picture, VideoError):
        axes.set_facecolor(style.MAP)
        axes.text(
            0.5, 0.5, "cannot\nbe read", transform=axes.transAxes, color=style.MUTED,
            ha="center", va="center", fontsize=SMALL,
        )  # fmt: skip
    else:
        image = picture.permute(1, 2, 0).numpy()
        axes.imshow(image, interpolation="lanczos", aspect="auto")
