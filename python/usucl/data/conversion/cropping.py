"""What of each frame is copied: the ultrasound sector, alone or with black around it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from usucl.data.inspection.sector import Sector, find_sector
from usucl.data.transforms import resize_short_side
from usucl.data.video import Video, VideoError

if TYPE_CHECKING:
    from PIL.Image import Image

Crop = Literal["none", "sector"]
TILE = 240  # pixels: the long side of a picture in the sheet
MARK = "<!-- usucl: sheet of sectors -->\n"


@dataclass(frozen=True)
class Cut:
    """Makes the copy of a frame: masked, cropped, resized, in this order.

    Attributes:
        sector: the sector of the video, None if all of the frame is copied.
        crop: whether only the box around the sector is copied.
        mask: whether everything outside the sector becomes black.
        size: short side of the copy in pixels, None to leave it as it is.
    """

    sector: Sector | None
    crop: bool
    mask: bool
    size: int | None

    @classmethod
    def of(cls, video: Video, crop: Crop, mask: bool, size: int | None) -> Cut:
        """Returns the cut of a video, whose sector is found where it is needed.

        Raises:
            VideoError: no sector can be found, or the video cannot be read.
        """
        if crop == "none" and not mask:
            return cls(None, False, False, size)
        sector = find_sector(video)
        if sector is None:
            raise VideoError(video.path, "no ultrasound sector was found in it")
        return cls(sector, crop == "sector", mask, size)

    @property
    def made(self) -> Callable[[Tensor], Tensor]:
        """A function from uint8 [3, H, W] to uint8 [3, h, w]."""
        inside = None
        if self.sector is not None and self.mask:
            inside = torch.from_numpy(self.sector.mask())

        def cut(frame: Tensor) -> Tensor:
            if inside is not None:
                frame = frame * inside
            if self.sector is not None and self.crop:
                left, top, right, bottom = self.sector.box
                frame = frame[:, top:bottom, left:right]
            return frame if self.size is None else resize_short_side(frame, self.size)

        return cut


@dataclass(frozen=True)
class Tile:
    """One video in the sheet: its middle frame with the sector drawn, and the copy of it."""

    name: str
    text: str
    before: str  # JPEG in base64
    after: str

    @classmethod
    def of(cls, name: str, video: Video, cut: Cut) -> Tile:
        """Makes the tile of a video.

        Raises:
            VideoError: the video cannot be read.
        """
        from PIL import Image, ImageDraw

        frame = next(video.iter_frames([len(video) // 2]))
        before = Image.fromarray(frame.permute(1, 2, 0).numpy())
        before.thumbnail((TILE, TILE))
        text = f"{video.width}x{video.height}"
        if cut.sector is not None:
            scale = np.array(before.size) / (video.width, video.height)
            corners = [tuple(corner) for corner in np.array(cut.sector.polygon) * scale]
            drawing = ImageDraw.Draw(before)
            left, top, right, bottom = cut.sector.box
            drawing.rectangle(
                [(left * scale[0], top * scale[1]), (right * scale[0] - 1, bottom * scale[1] - 1)],
                outline=(255, 200, 0),
            )
            drawing.polygon(corners, outline=(0, 220, 255))
            text += f", sector {right - left}x{bottom - top} at {left}, {top}"
        copy = cut.made(frame)
        after = Image.fromarray(copy.permute(1, 2, 0).contiguous().numpy())
        text += f", copied as {after.width}x{after.height}"
        after.thumbnail((TILE, TILE))
        return cls(name, text, _encoded(before), _encoded(after))


def sheet(title: str, tiles: Iterable[Tile | tuple[str, str]]) -> bytes:
    """Returns a page of all tiles; a video without a tile is its name and the reason."""
    rows = []
    for tile in tiles:
        if isinstance(tile, Tile):
            pictures = "".join(
                f'<img src="data:image/jpeg;base64,{picture}" alt="{what}">'
                for picture, what in ((tile.before, "frame"), (tile.after, "copy"))
            )
            name, text = tile.name, tile.text
        else:
            (name, text), pictures = tile, ""
        caption = f"<b>{html.escape(name)}</b><br>{html.escape(text)}"
        rows.append(f"<figure><div>{pictures}</div><figcaption>{caption}</figcaption></figure>\n")
    page = (
        f'{MARK}<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width">'
        "<style>body{background:#111;color:#ddd;font:13px sans-serif;margin:16px}"
        "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(490px,100%),1fr))}"
        f"main{{gap:20px}}figure{{margin:0}}div{{display:grid;gap:6px;align-items:start;"
        f"grid-template-columns:repeat(2,minmax(0,{TILE}px))}}img{{max-width:100%}}"
        "figcaption{overflow-wrap:anywhere;margin-top:4px}b{color:#fff}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>Left: the middle frame with the sector (blue) and the "
        f"box around it (yellow). Right: what is copied.</p>\n<main>{''.join(rows)}</main>\n"
    )
    return page.encode("utf-8", "backslashreplace")


def _encoded(image: Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return base64.b64encode(content.getvalue()).decode()
