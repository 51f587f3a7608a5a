"""The common look of all pictures: a colour has the same meaning wherever it appears.

Names and labels reach a picture through :func:`drawable`, so they are text, whatever characters
they hold.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ft2font import LoadFlags

from usucl._files import replacing

INK = "#1f2a37"
MUTED = "#6b7785"
RULE = "#d8dee5"
GRID = "#edf0f3"
PAPER = "#ffffff"
MAP = "#f6f8fa"
"""Background of a panel without axes."""

TRAINED = "#0f766e"
RANDOM = "#8a94a1"
PIXELS = "#b98a4a"
ENCODER_COLOUR = {"trained": TRAINED, "random": RANDOM, "pixels": PIXELS}

ANCHOR = INK
POSITIVE = TRAINED
INTRA = "#c2571a"
CROSS = "#4452a8"

CATEGORIES = (
    "#0f766e", "#c2571a", "#4452a8", "#b4325a", "#8a7a1f",
    "#3d8fc0", "#7b4fa3", "#5f8a3a", "#9a5b3c", "#50606f",
)  # fmt: skip

TIME = LinearSegmentedColormap.from_list("time", ["#c9dfe3", "#5aa0a4", "#0f5c63", "#0b2f3a"])

FONT = "DejaVu Sans"
"""Comes with Matplotlib."""

WIDTH, NARROW = 9.6, 3.35
"""Widths of a picture on a screen and on a phone, in inches of 100 px on the page."""

LONGEST_TEXT = 1000  # letters; a longer one is cut in the middle
_PARTS = re.compile(r"[_\-/.·]*(?:[^\s_\-/.·]|(?<=\d)\.(?=\d))*[_\-/.·]*\s*")


@contextmanager
def styled() -> Iterator[None]:
    """Applies the Matplotlib settings of every picture inside the block, none of the user's."""
    look = {
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": FONT,
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": RULE,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.5,
        "figure.facecolor": PAPER,
        "savefig.dpi": 160,
        "svg.hashsalt": "usucl",  # the same picture is the same file
    }
    with matplotlib.style.context(["default", look]):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG in one piece, and makes its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png")
    return path


def vector(figure: Figure) -> bytes:
    """Returns an SVG, whose letters are outlines and need no font."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def bare(axes: Axes) -> None:
    """Removes ticks, grid and frame, for pictures and maps without meaningful axes."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shortened(text: str, length: int) -> str:
    """Returns :func:`drawable` text cut in the middle, because names often differ at their ends."""
    if len(text) > 2 * length:
        text = text[:length] + text[-length:]
    drawn = "".join(
        c if c.isprintable() and _has_glyph(c) else c.encode("unicode_escape").decode()
        for c in text
    )
    half = (length - 1) // 2
    return drawn if len(drawn) <= length else f"{drawn[: length - 1 - half]}…{drawn[-half:]}"


def drawable(text: str) -> str:
    """Returns text for a picture, whole unless it is longer than any name of a file.

    A character that the font lacks is an escape, so that different names look different.
    """
    return shortened(text, LONGEST_TEXT)


def wrapped(text: str, points: float, inches: float) -> list[str]:
    """Returns the lines of :func:`drawable` text that fit a width, in letters of a size.

    Lines end after a space, a stroke or the like if there is one, otherwise anywhere; the point of
    a number is none.
    """
    lines = [""]
    for part in _PARTS.findall(drawable(text)):
        if lines[-1] and width_of(lines[-1] + part.rstrip(), points) > inches:
            lines.append("")
        for letter in part:
            if lines[-1] and width_of(lines[-1] + letter, points) > inches and letter != " ":
                lines.append("")
            lines[-1] += letter
    return [line.strip() for line in lines if line.strip()] or [""]


def width_of(text: str, points: float) -> float:
    """Returns the width of a line in letters of a size, in inches."""
    return 1.05 * sum(map(_advance, text)) * points / 72  # hinting may widen letters


@functools.cache
def _advance(character: str) -> float:
    """Returns the width of a letter as a share of the size."""
    font = get_font(findfont(FONT))
    return font.load_char(ord(character), flags=LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM


@functools.cache
def _has_glyph(character: str) -> bool:
    return get_font(findfont(FONT)).get_char_index(ord(character)) != 0
