"""Writing a data folder: links to unchanged files or copies of them, tables, and the licence."""

from __future__ import annotations

import csv
import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from usucl._progress import track
from usucl.data.catalog.sweeps import SWEEPS
from usucl.data.catalog.tables.columns import LABEL, LABELS, VIDEO_ID
from usucl.data.recipes.recipe import Clip, Contents, Recipe
from usucl.data.video import is_image

LICENCE = "LICENCE.txt"


def write(
    folder: Path,
    recipe: Recipe,
    found: Contents,
    sweeps: Mapping[str, Sequence[str]],
    *,
    copy: bool,
) -> None:
    """Writes a data folder.

    Args:
        folder: exists and is empty.
        recipe: whose data they are.
        found: the videos and what is known of them.
        sweeps: clips of each sweep in order, by its name.
        copy: copy the files instead of linking to them.

    Raises:
        ValueError: a clip's name cannot be the name of a file.
    """
    for clip in track(found.clips, "Copying" if copy else "Linking", unit="videos"):
        if PurePath(clip.id).name != clip.id or clip.id.startswith("."):
            raise ValueError(f"id must be a plain name of a file, got {clip.id!r}")
        place = folder / clip.id
        if is_image(clip.files[0].name):
            place.mkdir()
            for image in clip.files:
                _put(image, place / image.name, copy)
        else:
            (file,) = clip.files
            _put(file, place if file.is_dir() else folder / f"{clip.id}{file.suffix}", copy)
    write_table(folder / LABELS, *_labels(found.clips))
    if sweeps:
        rows = [(id, part, n) for id, parts in sweeps.items() for n, part in enumerate(parts)]
        write_table(folder / SWEEPS, ("sweep_id", "part", "order"), rows)
    (folder / LICENCE).write_text(_licence(recipe, found), encoding="utf-8")


def _put(source: Path, target: Path, copy: bool) -> None:
    if not copy:
        target.symlink_to(os.path.abspath(source))
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _labels(clips: Sequence[Clip]) -> tuple[list[str], list[tuple[object, ...]]]:
    columns = list(dict.fromkeys(name for clip in clips for name in clip.labels if name != LABEL))
    about: dict[str, list[object]] = {
        "patient": [clip.patient for clip in clips],
        "fold": ["" if clip.fold is None else clip.fold for clip in clips],
    }
    known = {name: cells for name, cells in about.items() if any(cell != "" for cell in cells)}
    rows = [
        (
            clip.id,
            clip.labels.get(LABEL, ""),
            *(cells[i] for cells in known.values()),
            *(clip.labels.get(name, "") for name in columns),
        )
        for i, clip in enumerate(clips)
    ]
    return [VIDEO_ID, LABEL, *known, *columns], rows


def write_table(table: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table as the catalogue reads it."""
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _licence(recipe: Recipe, found: Contents) -> str:
    paragraphs = [
        f"{recipe.title}, {recipe.address}",
        f"Licence: {recipe.licence}",
        recipe.terms,
        f"To be cited as: {recipe.citation}",
        "This note sums up what the owner states, and does not replace it.",
    ]
    for licence, names in found.licences.items():
        paragraphs.append(f"{licence}: {', '.join(names)}")
    filled = (textwrap.fill(text, 100, break_long_words=False) for text in paragraphs)
    return "\n\n".join(filled) + "\n"
