"""Single images, as they are meant to be displayed: upright, and over black where transparent."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from usucl.data.video.base import THUMBNAIL, VideoError, natural_key
from usucl.data.video.images.grey import GreyRange, Range, spread
from usucl.data.video.limits import check_cost, limit

EIGHT_BITS = "8 bits"
_DEEP = {"I;16": "16 bits", "I;16B": "16 bits", "I": "32 bits", "F": "floating point"}  # by mode
IMAGE_SUFFIXES = frozenset({".apng", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_STACK_SUFFIXES = IMAGE_SUFFIXES - {".bmp", ".jpeg", ".jpg"}
# What Pillow may take a file for, whatever its name: none of these runs other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_SIDEWAYS = (5, 6, 7, 8)  # values of EXIF's orientation that swap width and height
_EXIF_PLACES = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_CHUNK = 2**31 - 1  # bytes
_NOT_A_PAGE = 0b101  # bits of TIFF's NewSubfileType: a smaller copy, a mask


def read_image(file: Path) -> np.ndarray:
    """Returns a still image as uint8 [H, W, 3], RGB, upright, over black where transparent.

    Raises:
        VideoError: the image is broken, too large, or holds several pages.
    """
    with opened_image(file, file) as image:
        if len(pages(image, file)) > 1:
            raise VideoError(file, _several(image, file))
        _check_png(file, file)
        image.load()
        if depth(image) == EIGHT_BITS:
            return displayed(image)
        alone = GreyRange()
        alone.add(np.asarray(image))
        return displayed(image, alone.found)


class Checked(NamedTuple):
    """A still image that could be decoded.

    Attributes:
        size: width and height in pixels, upright.
        depth: of its values, in words.
        small: its thumbnail, uint8 [32, 32]; None if it has more than 8 bits.
    """

    size: tuple[int, int]
    depth: str
    small: np.ndarray | None


def check_image(file: Path, owner: Path, greys: GreyRange) -> Checked:
    """Decodes a still image as cheaply as it goes.

    Args:
        file: the image.
        owner: the path that errors name.
        greys: takes the values if they have more than 8 bits.

    Raises:
        VideoError: see ``read_image``; its path is that of ``owner``.
    """
    with opened_image(file, owner) as image:
        if len(pages(image, file)) > 1:
            raise VideoError(owner, f"{file.name}: {_several(image, file)}")
        _check_png(file, owner)
        width, height = image.size
        # JPEG decodes at an eighth of its size, which is enough to notice missing data.
        image.draft(None, (1, 1))
        image.load()
        if (turn := _orientation(image)) in _SIDEWAYS:
            width, height = height, width
        upright = image if turn == 1 else ImageOps.exif_transpose(image)
        if (bits := depth(image)) != EIGHT_BITS:
            greys.add(np.asarray(upright))
        return Checked((width, height), bits, thumbnail(upright) if bits == EIGHT_BITS else None)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Returns an image in grey and squeezed to a square: uint8 [32, 32]."""
    grey = image if image.mode == "L" else image.convert("L")
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


@contextmanager
def opened_image(file: Path, owner: Path) -> Iterator[Image.Image]:
    """Yields an image whose header is read and affordable; errors in the body name ``owner``.

    Raises:
        VideoError: Pillow cannot read the file, for whatever reason.
    """
    try:
        if (most := limit("USUCL_MAX_FRAME_PIXELS")) > (Image.MAX_IMAGE_PIXELS or most):
            Image.MAX_IMAGE_PIXELS = most  # Pillow's own limit
        with file.open("rb") as content:
            _check_webp(content, owner)
            image = Image.open(content, formats=_FORMATS)
            check_cost(owner, *image.size)
            yield image
    except VideoError as error:
        raise VideoError(owner, _of_file(file, owner, error.reason)) from error
    except Exception as error:  # Pillow's plugins raise errors of any kind for broken files
        raise VideoError(owner, _of_file(file, owner, _trouble(file, error))) from error


def depth(image: Image.Image) -> str:
    """Returns in words how deep the values are: ``EIGHT_BITS``, or more in one channel."""
    return _DEEP.get(image.mode, EIGHT_BITS)


def displayed(image: Image.Image, black_white: Range | None = None) -> np.ndarray:
    """Returns the current page as uint8 [H, W, 3], RGB, upright, over black where transparent.

    Args:
        image: the opened image.
        black_white: what is black and white of values of more than 8 bits.
    """
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if black_white is not None:
        return np.repeat(spread(np.asarray(image), black_white)[..., None], 3, axis=2)
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    return over_black(np.array(image.convert("RGBA")))


def over_black(rgba: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3] of uint8 [H, W, 4], composed over black by its alpha."""
    colours, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colours)
    return ((colours.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def pages(image: Image.Image, path: Path) -> list[int]:
    """Returns the numbers of the pages or pictures that are frames, without thumbnails and masks.

    Raises:
        VideoError: there are more than can be afforded.
    """
    if image.format in ("JPEG", "MPO") or not getattr(image, "is_animated", False):
        return [0]
    count = int(getattr(image, "n_frames", 1))
    check_cost(path, *image.size, count)
    if getattr(image, "default_image", False):  # APNG: shown where animations are not
        return list(range(1, count))
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return list(range(count))
    kept = []
    for page in range(count):
        image.seek(page)
        if not image.tag_v2.get(254, 0) & _NOT_A_PAGE:
            kept.append(page)
    image.seek(0)
    return kept or [0]


def is_image(name: str) -> bool:
    """Returns whether a file of this name may hold a still image."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES and name[0] != "."


def is_stack(file: Path) -> bool:
    """Returns whether an image file holds several pictures; False if it cannot be read."""
    if file.suffix.lower() not in _STACK_SUFFIXES:
        return False
    try:
        if not _may_be_stack(file):
            return False
        with opened_image(file, file) as image:
            return len(pages(image, file)) > 1
    except (VideoError, OSError):
        return False


def frame_files(folder: Path) -> list[Path]:
    """Returns the image files directly in ``folder``, in natural order, without hidden ones."""
    with os.scandir(folder) as entries:  # which knows what is a file without asking for each
        names = [
            entry.name
            for entry in entries
            if is_image(entry.name) and not entry.name.startswith(".") and entry.is_file()
        ]
    return [folder / name for name in sorted(names, key=natural_key)]


def _may_be_stack(file: Path) -> bool:
    """Returns whether the first bytes allow for several pictures, without parsing the image."""
    with open(file, "rb", buffering=0) as content:
        head = content.read(4096)
    if head.startswith(b"\x89PNG"):
        before, found, _ = head.partition(b"IDAT")
        return b"acTL" in before or not found
    if head.startswith(b"RIFF"):
        return head[12:16] == b"VP8X"
    return head.startswith((b"II", b"MM", b"GIF"))


def _check_webp(content: BufferedReader, owner: Path) -> None:
    """Refuses a WebP by its header, since Pillow allocates its canvas while opening it."""
    head = content.peek(30)[:30]
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 30:
        width, height = (1 + int.from_bytes(head[i : i + 3], "little") for i in (24, 27))
        check_cost(owner, width, height)


def _check_png(file: Path, owner: Path) -> None:
    """Refuses a PNG with a wrong checksum: Pillow does not look at those of the pixels."""
    with file.open("rb") as content:
        if content.read(len(_PNG)) != _PNG:
            return
        at, kind = len(_PNG), b""
        while kind != b"IEND":
            head = content.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            chunk = content.read(min(length, _LARGEST_CHUNK) + 4)
            place = f"the part that begins at byte {at}"
            if len(head) < 8 or len(chunk) < length + 4:
                raise VideoError(owner, f"damaged: cut short in {place}")
            if zlib.crc32(chunk[:-4], zlib.crc32(kind)) != int.from_bytes(chunk[-4:], "big"):
                raise VideoError(owner, f"damaged: wrong checksum of {place}")
            at += 12 + length


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation, 1 for upright; call it once the image is loaded."""
    if _EXIF_PLACES.isdisjoint(image.info):
        return 1  # TIFF's own tag is obeyed by Pillow
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _several(image: Image.Image, file: Path) -> str:
    return f"holds {len(pages(image, file))} images: it is a video of its own, not one frame"


def _of_file(file: Path, owner: Path, reason: str) -> str:
    """Returns a reason that names the file, unless it is the one that errors name anyway."""
    name = "" if file == owner else f"{file.name}: "
    return reason if reason.startswith(name) else name + reason


def _trouble(file: Path, error: Exception) -> str:
    if file.is_file() and file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"cannot be decoded ({str(error) or type(error).__name__})"
