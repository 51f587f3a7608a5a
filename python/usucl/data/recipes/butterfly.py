"""Butterfly: nine views of the body, of 31 people, with a handheld probe."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from usucl.data.recipes.recipe import (
    AS_OWNED,
    AS_ULTRABENCH,
    TEST,
    TRAINING,
    Clip,
    Contents,
    Recipe,
    UnlikeError,
    folders_of,
    images_among,
)
from usucl.data.recipes.ultrabench import examples, ultrabench_folder
from usucl.data.video import natural_key

_VIEWS = frozenset(
    {"2ch", "4ch", "bladder", "carotid", "ivc", "lungs", "morisons_pouch", "plax", "thyroid"}
)
_Key = tuple[int, str, int]  # patient, view, fold


def _read(source: Path, table: Path | None) -> Contents:
    frames: dict[_Key, list[Path]] = defaultdict(list)
    folder = ultrabench_folder(source)
    if folder is not None:
        for fold, image, entry in examples(folder, "patient", "class", "label"):
            if not isinstance(entry["patient"], int) or entry["class"] not in _VIEWS:
                raise UnlikeError(f"{image.name} is of no person or view of Butterfly")
            frames[entry["patient"], entry["class"], fold].append(image)
    else:
        for below, files in folders_of(source):
            if (key := _key(source, below)) is not None:
                frames[key] += images_among(files)
    frames = {key: images for key, images in frames.items() if images}
    if not frames:
        raise UnlikeError("it holds no folder of images such as training/1/lungs")
    folds: dict[int, int] = {}
    for patient, _, fold in frames:
        if folds.setdefault(patient, fold) != fold:
            raise UnlikeError(f"person {patient} is in both of its parts")
    clips = [
        Clip(f"{patient}_{view}", _sorted(images), str(patient), fold, {"label": view})
        for (patient, view, fold), images in sorted(frames.items())
    ]
    return Contents(clips, AS_OWNED if folder is None else AS_ULTRABENCH)


def _key(source: Path, folder: Path) -> _Key | None:
    *above, patient, view = ("", "", *folder.relative_to(source).parts)
    part = next((name for name in reversed(above) if "train" in name or "test" in name), "")
    if view not in _VIEWS or not patient.isdecimal() or not part:
        return None
    return int(patient), view, TRAINING if "train" in part else TEST


def _sorted(images: list[Path]) -> tuple[Path, ...]:
    return tuple(sorted(images, key=lambda image: natural_key(image.name)))


BUTTERFLY = Recipe(
    name="butterfly",
    title="Butterfly",
    form=(
        "the unpacked release files of ButterflyNetwork/MITGrandHack2018, with images such as "
        "training/1/lungs/img001.png, or UltraBench's butterfly folder"
    ),
    address="https://github.com/ButterflyNetwork/MITGrandHack2018",
    licence="Butterfly Network's own terms",
    terms=(
        "The owner published the images for the MIT Grand Hack 2018 alone, and forbids any other "
        "use and any new publication without its written permission. For the Yale Hackathon 2018 "
        "it published them for non-commercial research. Ask the owner before you rely on either."
    ),
    citation="Butterfly Network Inc., MIT Grand Hack 2018, release v.0.0.1",
    published={"patients": 31},
    read=_read,
)
