"""The layout of UltraBench (PyPI ``ultrabench``): images, and JSON files that part them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from usucl.data.recipes.recipe import TEST, TRAINING, UnlikeError, folder_with

LAYOUTS: tuple[dict[str, int], ...] = (
    {"train_val.json": TRAINING, "test.json": TEST},  # its repository in 2026
    {"train.json": TRAINING, "validation.json": TRAINING, "test.json": TEST},  # its release 1.0.1
)


def ultrabench_folder(source: Path) -> Path | None:
    """Returns the folder of a data set in UltraBench's layout, None if there is none."""
    found = (folder_with(source, "images", *parts) for parts in LAYOUTS)
    return next((folder for folder in found if folder is not None), None)


def examples(folder: Path, *keys: str) -> Iterator[tuple[int, Path, Mapping[str, Any]]]:
    """Yields the fold, the image and the entry of every example.

    Args:
        folder: holds the images and the JSON files.
        keys: what an entry of this data set says besides ``image``.

    Raises:
        UnlikeError: the files are damaged, or of another data set.
    """
    present = (parts for parts in LAYOUTS if all((folder / name).exists() for name in parts))
    for name, fold in next(present).items():
        try:
            entries = json.loads((folder / name).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UnlikeError(f"{name} is no JSON ({error})") from error
        if not isinstance(entries, list) or not entries:
            raise UnlikeError(f"{name} is no list of images")
        for entry in entries:
            if not isinstance(entry, dict) or (missing := {"image", *keys} - entry.keys()):
                lacks = ", ".join(sorted(missing)) if isinstance(entry, dict) else "its names"
                raise UnlikeError(f"{name} is of another data set: an entry lacks {lacks}")
            image = PurePosixPath(str(entry["image"]))
            if image.is_absolute() or ".." in image.parts or not (folder / image).is_file():
                raise UnlikeError(f"{name} names {image}, which is not there")
            yield fold, folder / image, entry
