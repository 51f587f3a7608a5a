"""GBUSV: videos of gallbladders, malignant or not."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from usucl.data.catalog.tables.spreadsheet import read_rows
from usucl.data.recipes.recipe import (
    Clip,
    Contents,
    Recipe,
    UnlikeError,
    distinct,
    folders_of,
    images_among,
)
from usucl.data.video import natural_key

_SIZE = (360, 480)
_CLASSES = ("malignant", "non-malignant")
_NOT_MALIGNANT = re.compile(r"non[\W_]*mal|benign|normal", re.IGNORECASE)  # tried first
_MALIGNANT = re.compile(r"malig", re.IGNORECASE)
_NUMBERED = re.compile(r"[0-9]+")


def _read(source: Path, table: Path | None) -> Contents:
    videos: dict[Path, list[Path]] = {}
    for folder, files in folders_of(source):
        images = images_among(files)
        if len(images) > 1 and all(_NUMBERED.fullmatch(image.stem) for image in images):
            videos[folder] = images
    if not videos or source in videos:
        raise UnlikeError("it holds no folders of frames such as 00000.jpg")
    sizes = {folder: _size(images[0]) for folder, images in videos.items()}
    others = [folder for folder, size in sizes.items() if sorted(size) != list(_SIZE)]
    if len(others) == len(videos):
        width, height = sizes[others[0]]
        raise UnlikeError(f"its frames are of {width}x{height} pixels, and those of GBUSV 360x480")
    distinct([folder.name for folder in videos], "the video")
    known = _of_table(table) if table is not None else {}
    if known and not known.keys() & {folder.name for folder in videos}:
        raise UnlikeError(f"{table} names none of its videos")
    labels = {folder: known.get(folder.name) or _label(source, folder) for folder in videos}
    clips = [
        Clip(folder.name, (folder,), labels={"label": labels[folder]})
        for folder in sorted(videos, key=lambda folder: natural_key(folder.name))
    ]
    remarks = ["Whose the videos are is not published: each counts as a patient of its own."]
    if without := sum(not clip.labels["label"] for clip in clips):
        remarks.append(
            f"{without} videos have no label: put them into folders malignant and non-malignant, "
            "or give a table with the columns video_id and label."
        )
    if others:
        remarks.append(f"{len(others)} videos have frames of another size than 360x480.")
    return Contents(clips, remarks=tuple(remarks))


def _size(image: Path) -> tuple[int, int]:
    try:
        with Image.open(image) as opened:
            return opened.size
    except (OSError, ValueError) as error:
        raise UnlikeError(f"{image} cannot be read ({error})") from error


def _label(source: Path, folder: Path) -> str:
    for name in reversed(folder.relative_to(source).parts):
        if _NOT_MALIGNANT.search(name):
            return "non-malignant"
        if _MALIGNANT.search(name):
            return "malignant"
    return ""


def _of_table(table: Path) -> dict[str, str]:
    found = {}
    for line, row in read_rows(table, ("video_id", "label")):
        if row["label"] not in _CLASSES:
            raise ValueError(
                f"{table.name}: line {line}: label must be one of {', '.join(_CLASSES)}, "
                f"got {row['label']!r}"
            )
        found[row["video_id"]] = row["label"]
    return found


GBUSV = Recipe(
    name="gbusv",
    title="GBUSV",
    form="GBUSV as its owners send it, a folder of frames such as 00000.jpg per video",
    address="https://gbc-iitd.github.io/data/gbusv",
    licence="an agreement that each institute signs with the owners",
    terms=(
        "Without the owners' written approval you may neither pass the data on nor publish any "
        "part of them, change them, or use them commercially."
    ),
    citation=(
        "Basu et al., Unsupervised Contrastive Learning of Image Representations from Ultrasound "
        "Videos with Hard Negative Mining, MICCAI 2022, doi:10.1007/978-3-031-16440-8_41"
    ),
    published={"videos": 64, "frames": 15800},
    read=_read,
)
