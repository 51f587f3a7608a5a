"""The one call: from a folder that the user has to a data folder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from usucl._files import remove, remove_left_over, temporary_of
from usucl.data.catalog.tables.columns import ABOUT_VIDEOS
from usucl.data.recipes.blues import BLUES
from usucl.data.recipes.butterfly import BUTTERFLY
from usucl.data.recipes.folder import write
from usucl.data.recipes.gbcu import GBCU
from usucl.data.recipes.gbusv import GBUSV
from usucl.data.recipes.pocus import POCUS
from usucl.data.recipes.recipe import Clip, Contents, Recipe, UnlikeError, images_among
from usucl.data.video import is_image

RECIPES = {recipe.name: recipe for recipe in (BLUES, GBUSV, GBCU, BUTTERFLY, POCUS)}


@dataclass(frozen=True)
class Prepared:
    """A data folder that a recipe has written.

    Attributes:
        folder: where it is.
        recipe: whose data they are.
        layout: who had laid the source out, in words.
        counts: numbers of videos, of patients if they are known, of frames if they are images, and
            of sweeps if there are any.
        labels: how many videos have each label, by column; videos without one are left out.
        remarks: what a user has to know of these data, one sentence each.
    """

    folder: Path
    recipe: Recipe
    layout: str
    counts: Mapping[str, int]
    labels: Mapping[str, Counter[str]]
    remarks: tuple[str, ...]


def prepare(
    recipe: str,
    source: str | Path,
    out: str | Path,
    *,
    table: str | Path | None = None,
    sweeps: bool = False,
    seed: int = 0,
    copy: bool = False,
) -> Prepared:
    """Makes a data folder of a published data set, from a folder of it that the user has.

    Args:
        recipe: one of ``RECIPES``.
        source: the data set, as its owner distributes it or as UltraBench lays it out; is only
            read.
        out: the data folder, new or empty: links to the videos or folders of frames, which are not
            changed, ``labels.csv``, and ``LICENCE.txt`` with what the licence forbids.
        table: the owner's table of labels, if it does not lie in ``source``.
        sweeps: join clips of one examination to videos by ``sweeps.csv``, in a random order; other
            clips are left out.
        seed: decides the order of the clips of a sweep.
        copy: copy the files instead of linking to them.

    Returns:
        What was found.

    Raises:
        ValueError: ``recipe`` is unknown or has no sweeps, ``source`` does not look like the data
            set, or ``out`` holds something.
        OSError: a file cannot be read or written; ``out`` is as it was.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
    chosen, source, out = RECIPES[recipe], Path(source), Path(out)
    if sweeps and chosen.sweeps is None:
        with_sweeps = ", ".join(r.name for r in RECIPES.values() if r.sweeps)
        raise ValueError(f"sweeps must be asked for with {with_sweeps} only, got {recipe!r}")
    if not source.is_dir():
        raise ValueError(f"source must be {chosen.form}, got {source}, which is no folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {out}")
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"out must be outside of source, got {out} in {source}")
    if table is not None and not Path(table).is_file():
        raise ValueError(f"table must be a file, got {table}")
    try:
        found = chosen.read(source, None if table is None else Path(table))
    except UnlikeError as error:
        raise ValueError(f"source must be {chosen.form}, got {source}: {error}") from error
    joined: dict[str, list[str]] = {}
    if sweeps and chosen.sweeps is not None:
        joined = {id: _shuffled(parts, seed) for id, parts in chosen.sweeps(found.clips).items()}
        if not joined:
            raise ValueError(f"sweeps must be made of clips, got none that go together in {source}")
        found = _only(found, {part for parts in joined.values() for part in parts})
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(out.parent, out)
    unfinished = temporary_of(out)
    try:
        unfinished.mkdir()
        write(unfinished, chosen, found, joined, copy=copy)
        os.replace(unfinished, out)
    finally:
        remove(unfinished)
    return _summary(out, chosen, found, joined)


def _shuffled(parts: Sequence[str], seed: int) -> list[str]:
    """Returns a random order that is the same everywhere, whatever other clips there are."""
    return sorted(parts, key=lambda part: hashlib.sha256(f"{seed}-{part}".encode()).digest())


def _only(found: Contents, ids: Collection[str]) -> Contents:
    kept = [clip for clip in found.clips if clip.id in ids]
    left_out = len(found.clips) - len(kept)
    remark = f"{left_out} videos are left out, because they are part of no sweep."
    return replace(found, clips=kept, remarks=(*found.remarks, *([remark] if left_out else [])))


def _summary(
    out: Path, recipe: Recipe, found: Contents, sweeps: Mapping[str, Sequence[str]]
) -> Prepared:
    counts = {"videos": len(found.clips)}
    frames = [_frames(clip) for clip in found.clips]
    if None not in frames:
        counts["frames"] = sum(filter(None, frames))
    if patients := {clip.patient for clip in found.clips if clip.patient}:
        counts["patients"] = len(patients)
    if sweeps:
        counts["sweeps"] = len(sweeps)
    labels: dict[str, Counter[str]] = {}
    for clip in found.clips:
        for column, label in clip.labels.items():
            if column in ABOUT_VIDEOS:
                continue
            labels.setdefault(column, Counter()).update([label] if label else [])
    return Prepared(out, recipe, found.layout, counts, labels, found.remarks)


def _frames(clip: Clip) -> int | None:
    """Returns the number of frames; None for a video file, which would have to be decoded."""
    if clip.files[0].is_dir():
        return len(images_among(list(clip.files[0].iterdir())))
    return len(clip.files) if is_image(clip.files[0].name) else None
