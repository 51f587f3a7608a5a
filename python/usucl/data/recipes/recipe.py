"""What a recipe knows of a data set, and what it finds in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from usucl.data.video import is_image

AS_OWNED = "as its owner distributes it"
AS_ULTRABENCH = "as UltraBench lays it out"
TOO_SHORT = (
    "read with min_frames=1 (data check --min-frames 1, and an option of evaluate, embed, finetune "
    "and compare) and left out otherwise"
)
TEST, TRAINING = 0, 1
"""Folds of a data set that has a test part of its own: the smallest is held out by default."""


class UnlikeError(ValueError):
    """A folder does not hold the data set that a recipe is for; says what is missing."""


@dataclass(frozen=True)
class Clip:
    """One video of a data set.

    Attributes:
        id: its name in the data folder, without a suffix.
        files: a video file, a folder of frames, or the images that are its frames.
        patient: whose it is; empty if that is not known.
        fold: where the data set is divided already.
        labels: what it shows, by column of ``labels.csv``; empty if that is not known.
    """

    id: str
    files: tuple[Path, ...]
    patient: str = ""
    fold: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What a recipe found in a folder.

    Attributes:
        clips: the videos, in natural order of their names.
        layout: who laid the folder out, in words.
        remarks: what a user has to know of these data, one sentence each.
        licences: names of the clips under each licence, if the clips have licences of their own.
    """

    clips: Sequence[Clip]
    layout: str = AS_OWNED
    remarks: tuple[str, ...] = ()
    licences: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How a published data set is read.

    Attributes:
        name: as in the shell.
        title: as in texts.
        form: what its folder looks like, after "must be".
        address: where its owner offers it.
        licence: the licence in a few words.
        terms: what the licence allows and forbids.
        citation: what its owner asks to cite.
        published: its numbers of videos, frames and patients by what its owner says.
        read: returns what a folder holds, given the folder and a table that lies elsewhere.
        sweeps: returns the clips of each sweep by the sweep's name, in natural order, from all
            clips; None if the data set has none.
    """

    name: str
    title: str
    form: str
    address: str
    licence: str
    terms: str
    citation: str
    published: Mapping[str, int]
    read: Callable[[Path, Path | None], Contents]
    sweeps: Callable[[Sequence[Clip]], Mapping[str, Sequence[str]]] | None = None


def folder_with(source: Path, *names: str) -> Path | None:
    """Returns ``source``, or else the first folder directly in it, that holds all the names."""
    inside = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in (source, *inside):
        if all((folder / name).exists() for name in names):
            return folder
    return None


def folders_of(source: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields every visible folder from ``source`` down once, and the visible files in it."""
    todo, seen = [source], set()
    while todo:
        folder = todo.pop()
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        yield folder, [path for path in entries if path.is_file()]
        todo += [path for path in reversed(entries) if path.is_dir()]


def images_among(files: Sequence[Path]) -> list[Path]:
    """Returns the files that are still images by their names."""
    return [file for file in files if is_image(file.name)]


def distinct(names: Sequence[str], what: str) -> None:
    """Checks that names are different.

    Raises:
        UnlikeError: two are the same.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UnlikeError(f"it holds {what} {name!r} twice")
        seen.add(name)
