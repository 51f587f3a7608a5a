"""The mistakes of a classifier of which it was surest, as pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.io import encode_png

from usucl import _style as style
from usucl.data import VideoCatalog, VideoError, load_frames
from usucl.finetuning.predictions import Tested
from usucl.report.figures.drawing import panel
from usucl.report.page import address, breakable, escape

MOST, PIXELS = 8, 192
logger = logging.getLogger(__name__)


class Mistake(NamedTuple):
    """A video that was taken for another class, with the frame that most looked like it."""

    video_id: str
    frame: int
    truth: str
    predicted: str
    probability: float
    picture: Tensor  # uint8 [3, S, S]


def mistakes(
    catalog: VideoCatalog, videos: Tested, frames: Tested, classes: Sequence[str]
) -> list[Mistake]:
    """Returns the surest mistakes first; videos that cannot be read are left out."""
    predicted = videos.probability.argmax(1)
    surest = np.argsort(-videos.probability.max(1), kind="stable")
    entries = {entry.id: entry for entry in catalog}
    found: list[Mistake] = []
    for i in surest:
        c, truth, name = int(predicted[i]), int(videos.truth[i]), videos.video_id[i]
        if truth in (c, -1) or name not in entries or len(found) == MOST:
            continue
        rows = np.array([j for j, of in enumerate(frames.video_id) if of == name])
        best = rows[int(frames.probability[rows, c].argmax())]
        frame = int(frames.frame[best])
        try:
            picture = load_frames(entries[name], [frame], PIXELS)[0]
        except (VideoError, IndexError) as error:
            logger.warning("left out: %s", error)
            continue
        sure = float(videos.probability[i, c])
        found.append(Mistake(name, frame, classes[truth], classes[c], sure, picture))
    return found


def as_html(found: Sequence[Mistake]) -> str:
    """Returns the pictures with captions, which a narrow page stacks."""
    tiles = []
    for m in found:
        source = address(bytes(encode_png(m.picture).numpy()), "png")
        alt = escape(f"frame {m.frame} of {m.video_id}")
        tiles.append(
            f'<figure><img alt="{alt}" src="{source}"><figcaption><b>{escape(m.truth)}</b> taken '
            f'for <span class="worse">{escape(m.predicted)}</span> at {m.probability:.2f}<br>'
            f"{breakable(m.video_id)}, frame {m.frame}</figcaption></figure>"
        )
    return f'<div class="tiles four">{"".join(tiles)}</div>'


def draw(found: Sequence[Mistake], path: Path) -> None:
    """Writes the same as one PNG."""
    columns = min(4, len(found))
    side, below = (style.WIDTH - 0.15 * (columns + 1)) / 4, 0.62
    rows = -(-len(found) // columns)
    with style.styled():
        figure = Figure(figsize=(0.15 + columns * (side + 0.15), rows * (side + below) + 0.1))
        for i, m in enumerate(found):
            row, column = divmod(i, columns)
            left, top = 0.15 + column * (side + 0.15), 0.1 + row * (side + below)
            axes = panel(figure, left, top, side, side)
            axes.imshow(m.picture.permute(1, 2, 0).numpy())
            style.bare(axes)
            lines = [
                f"{style.shortened(m.truth, 15)} taken for {style.shortened(m.predicted, 15)}",
                f"at {m.probability:.2f}; frame {m.frame} of",
                style.shortened(m.video_id, 34),
            ]
            for n, line in enumerate(lines):
                axes.text(
                    0, -0.03 - 0.075 * n, line, transform=axes.transAxes, va="top", fontsize=8,
                    color=style.MUTED if n == 2 else style.INK,
                )  # fmt: skip
        style.save(figure, path)
