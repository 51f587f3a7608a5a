"""What is looked for: an image, a frame of a video or of a DICOM file, or a slot of the bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from usucl.cli.bank.stored import StoredBank, encoder_fingerprint
from usucl.data import VideoError, normalise, open_video
from usucl.data.dicom import dicom_frame
from usucl.data.search import DICOM_SUFFIXES
from usucl.data.transforms import resize_short_side
from usucl.data.video import IMAGE_SUFFIXES
from usucl.models import load_encoder

SHOWN = 320
"""Side in pixels of a query in a sheet."""


@dataclass(frozen=True)
class Query:
    """``embedding`` [1, D]; ``image`` uint8 [3, S, S], or why there is none; ``slot`` if stored."""

    name: str
    embedding: Tensor
    image: Tensor | VideoError
    slot: int | None = None


def query_of_slot(stored: StoredBank, slot: int) -> Query:
    """A frame of the bank itself: no encoder is needed.

    Raises:
        ValueError: there is no such slot.
    """
    if not 0 <= slot < len(stored.bank):
        raise ValueError(f"slot must be 0 to {len(stored.bank) - 1}, got {slot}")
    image = stored.pictures([slot], SHOWN)[slot]
    embedding = stored.bank.frames().embedding[slot : slot + 1]
    return Query(stored.name(slot), embedding, image, slot)


def query_of_file(stored: StoredBank, text: str, run: Path | None) -> Query:
    """A file or folder of frames, ``@`` and a frame number for one that holds several.

    Raises:
        ValueError: it cannot be read, has no such frame, or the encoder is another than the bank's.
        FileNotFoundError: the encoder is not where it was.
    """
    encoder = load_encoder(_encoder_folder(stored, run))
    image, name = _read(text)
    size = encoder.config.image_size
    with torch.no_grad():
        embedding = encoder(normalise(_square(image, size)[None]))
    return Query(name, embedding.to(stored.bank.frames().embedding.device), _square(image, SHOWN))


def _encoder_folder(stored: StoredBank, run: Path | None) -> Path:
    """The run whose encoder made the bank: similarities with another's mean nothing."""
    folder = Path(stored.source["run"]) if run is None else run
    if not (folder / "encoder.safetensors").is_file():
        hint = "; name it with --run" if run is None else ""
        raise FileNotFoundError(f"{folder} holds no encoder{hint}")
    if encoder_fingerprint(folder) != stored.source["encoder"]:
        raise ValueError(
            f"the encoder in {folder} is not the one that made the bank in {stored.folder}"
        )
    return folder


def _read(text: str) -> tuple[Tensor, str]:
    """The frame meant, uint8 [3, H, W], and its name."""
    path, number = _parted(text)
    ending = path.suffix.lower()
    if ending in IMAGE_SUFFIXES and path.is_file():
        if number is not None:
            raise ValueError(f"query: {path} is one image and has no frame @{number}")
        try:
            with Image.open(path) as image:
                array = np.array(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"query: {path} cannot be read ({error})") from error
        return torch.from_numpy(array).permute(2, 0, 1), path.name
    if ending in DICOM_SUFFIXES and path.is_file():
        try:
            frame, number = dicom_frame(path, number)
        except IndexError as error:
            raise ValueError(f"query: {error}") from error
        return frame, f"{path.name} @{number}"
    video = open_video(path)
    number = len(video) // 2 if number is None else number
    if number >= len(video):
        raise ValueError(f"query: {path} has {len(video)} frames, got @{number}")
    return video.frames([number])[0], f"{path.name} @{number}"


def _parted(text: str) -> tuple[Path, int | None]:
    """Path and frame number; a path that exists as it stands has no number."""
    path, at, number = text.rpartition("@")
    if Path(text).exists() or not at or not number.isdecimal():
        return Path(text), None
    return Path(path), int(number)


def _square(image: Tensor, size: int) -> Tensor:
    """What the encoder sees of a frame."""
    return F.center_crop(resize_short_side(image.contiguous(), size), [size, size])
