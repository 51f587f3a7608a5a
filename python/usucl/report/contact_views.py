"""The contact sheet as part of the page, where names are whole, and as one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torchvision.io import encode_png

from usucl import _style as style
from usucl.report.contact import NEGATIVES, ContactRow, ContactSheet, Tile
from usucl.report.figures.drawing import panel
from usucl.report.page import address, breakable, escape
from usucl.report.wording import number

ABOVE = style.CATEGORIES[3]
"""Colour of a negative that is more similar than the positive."""

ABOVE_POSITIVE = "more similar to the anchor than its positive"


class _Group(NamedTuple):
    kind: str
    title: str
    colour: str
    columns: int

    def tiles(self, row: ContactRow) -> list[Tile]:
        found = getattr(row, self.kind)
        return [found] if isinstance(found, Tile) else found


GROUPS = (
    _Group("anchor", "Anchor", style.ANCHOR, 1),
    _Group("positive", "Positive", style.POSITIVE, 1),
    _Group("intra", "Hardest intra-video negatives", style.INTRA, NEGATIVES),
    _Group("cross", "Hardest cross-video negatives", style.CROSS, NEGATIVES),
)


def _groups(sheet: ContactSheet) -> list[_Group]:
    return [group for group in GROUPS if sheet.with_intra or group.kind != "intra"]


def as_html(sheet: ContactSheet) -> str:
    """Returns the sheet as pictures with captions, which a narrow page stacks."""
    style = "row" if sheet.with_intra else "row plain"
    rows = []
    for i, row in enumerate(sheet.rows, 1):
        groups = []
        for group in _groups(sheet):
            tiles = "".join(_html(row, tile) for tile in group.tiles(row)) or "no other"
            groups.append(
                f'<div class="group {group.kind}"><p class="kind">{group.title}</p>'
                f'<div class="tiles">{tiles}</div></div>'
            )
        name = f"Anchor {i} of {len(sheet.rows)}"
        rows.append(
            f'<div class="{style}" role="group" aria-label="{name}">{"".join(groups)}</div>'
        )
    return f'<div class="sheet">{"".join(rows)}</div>'


def _html(row: ContactRow, tile: Tile) -> str:
    figure = _similarity(tile)
    parts = [f"<b>{figure}</b>"] if figure else []
    if row.is_above(tile):
        parts.append('<span class="worse">▲ above the positive</span>')
    parts += [
        str(breakable(tile.entry.id) if i == 0 and _is_named(row, tile) else escape(text))
        for i, text in enumerate(_about(row, tile))
    ]
    kind = ' class="above"' if row.is_above(tile) else ""
    alt = escape(f"frame {tile.frame} of {tile.entry.id}")
    source = address(_png(tile.picture()), "png")
    return (
        f'<figure{kind}><img alt="{alt}" src="{source}">'
        f"<figcaption>{'<br>'.join(parts)}</figcaption></figure>"
    )


def _similarity(tile: Tile) -> str:
    return "" if tile.similarity is None else number(tile.similarity, ".3f")


def _is_named(row: ContactRow, tile: Tile) -> bool:
    """Whether a caption names the video: it does unless the video is the anchor's."""
    return tile is row.anchor or tile.entry.id != row.anchor.entry.id


def _about(row: ContactRow, tile: Tile) -> list[str]:
    """Returns the lines below the similarity: video, label and frame, or the distance in time."""
    if not _is_named(row, tile):
        distance = f"{number(tile.frame - row.anchor.frame, '+d')} frames"
        return [distance, *([tile.place] if tile.entry.parts else [])]
    return [tile.entry.id, *filter(None, [tile.label]), tile.place]


def _png(picture: Tensor) -> bytes:
    grey = bool((picture == picture[:1]).all())
    return bytes(encode_png(picture[:1] if grey else picture).numpy().tobytes())


def draw(sheet: ContactSheet, path: Path, *, synthetic: bool = False) -> Path:
    """Draws the sheet as one picture; names are whole, in as many lines as they need."""
    note = f"▲ {ABOVE_POSITIVE}."
    with style.styled():
        return style.save(_figure(sheet, f"{note} Synthetic data." if synthetic else note), path)


def _figure(sheet: ContactSheet, note: str) -> Figure:
    gap, head, line, points = 0.22, 0.42, 0.125, 7.0  # inches, and size of letters
    groups = _groups(sheet)
    columns = sum(group.columns for group in groups)
    cell = min(1.3, (style.WIDTH - gap * (len(groups) - 1)) / columns)
    border = 0.04 * cell
    captions = [
        [
            [_lines(row, tile, points, cell - 2 * border) for tile in group.tiles(row)]
            for group in groups
        ]
        for row in sheet.rows
    ]
    heights = [cell + 0.14 + line * _most(map(_most_lines, row)) for row in captions]
    width = cell * columns + gap * (len(groups) - 1)
    figure = Figure(figsize=(width, head + sum(heights) + 0.2))
    x, y = border / width, 0.06 / figure.get_figheight()
    figure.text(x, y, note, fontsize=points, color=style.MUTED)
    x = 0.0
    for g, group in enumerate(groups):
        left, right = (x + border) / width, (x + cell * group.columns - border) / width
        height = figure.get_figheight()
        figure.text(left, 1 - 0.2 / height, group.title, color=group.colour, weight="bold")
        figure.add_artist(Line2D([left, right], [1 - 0.29 / height] * 2, color=group.colour))
        top = head
        for row, texts, row_height in zip(sheet.rows, captions, heights, strict=True):
            tiles = group.tiles(row)
            for k in range(group.columns):
                side = cell - 2 * border
                axes = panel(figure, x + k * cell + border, top + border, side, side)
                style.bare(axes)
                if k >= len(tiles):
                    axes.set_facecolor(style.MAP)
                    axes.text(
                        0.5, 0.5, "no other", transform=axes.transAxes, color=style.MUTED,
                        ha="center", va="center", fontsize=points,
                    )  # fmt: skip
                    continue
                above = row.is_above(tiles[k])
                image = tiles[k].picture().permute(1, 2, 0).numpy()
                axes.imshow(image, interpolation="lanczos", aspect="auto")
                if above:
                    for spine in axes.spines.values():
                        spine.set(visible=True, color=ABOVE, linewidth=2)
                for n, text in enumerate(texts[g][k]):
                    bold = n == 0 and tiles[k] is not row.anchor
                    colour = group.colour if bold else style.MUTED
                    axes.text(
                        0, -(0.07 + line * n) / side, text, transform=axes.transAxes, va="top",
                        fontsize=points, weight="bold" if bold else "normal",
                        color=ABOVE if bold and above else colour,
                    )  # fmt: skip
            top += row_height
        x += cell * group.columns + gap
    return figure


def _lines(row: ContactRow, tile: Tile, points: float, inches: float) -> list[str]:
    figure = _similarity(tile)
    first = [f"{figure} ▲" if row.is_above(tile) else figure] if figure else []
    return first + [
        line for text in _about(row, tile) for line in style.wrapped(text, points, inches)
    ]


def _most_lines(texts: Sequence[list[str]]) -> int:
    return _most(map(len, texts))


def _most(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)
