"""The common look of all pictures: a colour has the same meaning wherever it appears.

Names and labels reach a picture through :func:`shortened`, so they are text, whatever characters
they hold.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

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

WIDTH = 9.6
"""Inches; at 160 dots per inch a picture is sharp on the page, which shows it 960 px wide."""


@contextmanager
def styled() -> Iterator[None]:
    """Applies the Matplotlib settings of every picture inside the block, none of the user's."""
    look = {
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": FONT,
        "font.size": 8.5,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": RULE,
        "axes.titlesize": 9.5,
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
        "legend.fontsize": 8,
        "lines.linewidth": 1.5,
        "figure.facecolor": PAPER,
        "savefig.dpi": 160,
    }
    with matplotlib.style.context(["default", look]):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG in one piece, and makes its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png")
    return path


def bare(axes: Axes) -> None:
    """Removes ticks, grid and frame, for pictures and maps without meaningful axes."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shortened(text: str, length: int) -> str:
    """Returns text for a picture, cut in the middle, because names often differ at their ends.

    A character that the font lacks is an escape, so that different names look different.
    """
    if len(text) > 2 * length:
        text = text[:length] + text[-length:]
    drawn = "".join(
        c if c.isprintable() and _has_glyph(c) else c.encode("unicode_escape").decode()
        for c in text
    )
    half = (length - 1) // 2
    return drawn if len(drawn) <= length else f"{drawn[: length - 1 - half]}…{drawn[-half:]}"


@functools.cache
def _has_glyph(character: str) -> bool:
    return get_font(findfont(FONT)).get_char_index(ord(character)) != 0
