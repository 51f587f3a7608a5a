"""The query of a search: an image, a frame of a video or DICOM file, or a slot of the gallery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from usucl.bank import NegativeBank
from usucl.data import VideoError, normalise, open_video
from usucl.data.transforms import centre_view
from usucl.data.video import IMAGE_SUFFIXES, is_stack, read_image
from usucl.gallery.contents import Contents

if TYPE_CHECKING:
    from usucl.models import FrameEncoder

SHOWN = 320
"""Side in pixels of a query in a sheet."""


@dataclass(frozen=True)
class Query:
    """A frame to search for.

    Attributes:
        name: name of the file with the frame's number, or of the stored frame.
        embedding: ``[1, D]``.
        image: uint8 ``[3, S, S]``, or why there is none.
        slot: slot of a stored frame, None for a frame from elsewhere.
        video: id of the stored video that the frame is of, None if it is of none.
    """

    name: str
    embedding: Tensor
    image: Tensor | VideoError
    slot: int | None = None
    video: str | None = None


def query_of_slot(bank: NegativeBank, contents: Contents, slot: int) -> Query:
    """Returns a stored frame as a query, which needs no encoder.

    Raises:
        ValueError: there is no such slot.
    """
    if not 0 <= slot < len(bank):
        raise ValueError(f"slot must be 0 to {len(bank) - 1}, got {slot}")
    image = contents.pictures([slot], SHOWN)[slot]
    embedding = bank.frames().embedding[slot : slot + 1]
    frame = contents.describe(slot)
    return Query(frame.name, embedding, image, slot, frame.video)


def query_of_file(encoder: FrameEncoder, contents: Contents, text: str) -> Query:
    """Reads a query from a file or folder, with ``@`` and a frame number if it holds several.

    Raises:
        ValueError: it cannot be read, or has no such frame.
    """
    image, name = _read(text)
    with torch.no_grad():
        embedding = encoder(normalise(centre_view(image, encoder.config.image_size)[None]))
    shown, path = centre_view(image, SHOWN), _parted(text)[0]
    return Query(name, embedding, shown, video=_video(contents, path))


def _video(contents: Contents, path: Path) -> str | None:
    """Returns the id of the stored video that a file is, or is a frame of."""
    own = {path.resolve(), path.resolve().parent}
    return next((v.id for v in contents.videos if any(p.resolve() in own for p in v.paths)), None)


def _read(text: str) -> tuple[Tensor, str]:
    """Reads the frame, uint8 ``[3, H, W]``, and its name."""
    path, number = _parted(text)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not is_stack(path):
        if number is not None:
            raise ValueError(f"query must have no frame number for the image {path}, got @{number}")
        return torch.from_numpy(read_image(path)).permute(2, 0, 1), path.name
    video = open_video(path)
    number = len(video) // 2 if number is None else number
    if number >= len(video):
        raise ValueError(f"query: {path} has {len(video)} frames, got @{number}")
    return video[number], f"{path.name} @{number}"


def _parted(text: str) -> tuple[Path, int | None]:
    """Splits path and frame number; a path that exists as it is has no number."""
    path, at, number = text.rpartition("@")
    if Path(text).exists() or not at or not number.isdecimal():
        return Path(text), None
    return Path(path), int(number)
