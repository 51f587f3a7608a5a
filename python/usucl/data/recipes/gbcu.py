"""GBCU: single images of gallbladders, normal, benign or malignant."""

from __future__ import annotations

from pathlib import Path

from usucl.data.recipes.recipe import (
    AS_OWNED,
    AS_ULTRABENCH,
    TEST,
    TOO_SHORT,
    TRAINING,
    Clip,
    Contents,
    Recipe,
    UnlikeError,
    distinct,
    folder_with,
)
from usucl.data.recipes.ultrabench import examples, ultrabench_folder

_CLASSES = ("normal", "benign", "malignant")  # by their numbers
_PARTS = {"train.txt": TRAINING, "test.txt": TEST}
_REMARKS = (
    f"Every image is a video of one frame, {TOO_SHORT}.",
    "Which images are of one patient is not published: patients are apart between the folds, "
    "training (1) and test (0), but not known within them.",
)


def _read(source: Path, table: Path | None) -> Contents:
    if (folder := ultrabench_folder(source)) is not None:
        found = [
            _clip(image, str(entry["label"]), fold)
            for fold, image, entry in examples(folder, "label", "pathology", "bboxes")
        ]
        layout = AS_ULTRABENCH
    elif (folder := folder_with(source, "imgs", *_PARTS)) is not None:
        found = [clip for name, fold in _PARTS.items() for clip in _part(folder, name, fold)]
        layout = AS_OWNED
    else:
        raise UnlikeError("it has neither imgs, train.txt and test.txt nor UltraBench's files")
    distinct([clip.id for clip in found], "the image")
    return Contents(sorted(found, key=lambda clip: clip.id), layout, _REMARKS)


def _part(folder: Path, name: str, fold: int) -> list[Clip]:
    clips = []
    lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        image, comma, label = (word.strip() for word in line.rpartition(","))
        if not comma or Path(image).name != image:
            raise UnlikeError(f"{name}: line {number} is no image and class, such as im1.jpg,0")
        if not (folder / "imgs" / image).is_file():
            raise UnlikeError(f"{name}: line {number} names imgs/{image}, which is not there")
        clips.append(_clip(folder / "imgs" / image, label, fold))
    if not clips:
        raise UnlikeError(f"{name} names no image")
    return clips


def _clip(image: Path, number: str, fold: int) -> Clip:
    if number not in ("0", "1", "2"):
        raise UnlikeError(f"{image.name} is of class {number!r}, which is none of 0, 1 and 2")
    label = _CLASSES[int(number)]
    malignant = "yes" if label == "malignant" else "no"
    return Clip(image.stem, (image,), fold=fold, labels={"label": label, "malignant": malignant})


GBCU = Recipe(
    name="gbcu",
    title="GBCU",
    form="GBCU as its owners send it (imgs, train.txt, test.txt), or UltraBench's gbcu folder",
    address="https://gbc-iitd.github.io/data/gbcu",
    licence="an agreement that each institute signs with the owners",
    terms=(
        "Without the owners' written approval you may neither pass the data on nor publish any "
        "part of them, change them, or use them commercially."
    ),
    citation=(
        "Basu et al., Surpassing the Human Accuracy: Detecting Gallbladder Cancer from USG Images "
        "with Curriculum Learning, CVPR 2022, doi:10.1109/CVPR52688.2022.02022"
    ),
    published={"videos": 1255, "patients": 218},
    read=_read,
)
