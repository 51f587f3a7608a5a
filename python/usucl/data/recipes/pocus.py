"""POCUS: lung videos from public sources, with what each shows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from usucl.data.catalog.tables.spreadsheet import read_rows
from usucl.data.recipes.recipe import (
    AS_ULTRABENCH,
    TOO_SHORT,
    Clip,
    Contents,
    Recipe,
    UnlikeError,
    distinct,
    folder_with,
    folders_of,
    images_among,
)
from usucl.data.recipes.ultrabench import examples, ultrabench_folder
from usucl.data.video import VIDEO_SUFFIXES, natural_key

_TABLE = "dataset_metadata.csv"
_CLASSES = {
    "covid-19": "covid",
    "bacterial pneumonia": "pneumonia",
    "viral pneumonia": "viral",
    "regular": "regular",
}
_FINDINGS = {
    "A-lines": "a_lines",
    "B-lines": "b_lines",
    "Consolidations": "consolidation",
    "Effusion": "effusion",
    "Pleural line irregularities": "pleural_irregularity",
    "Air bronchogram": "air_bronchogram",
}
_SUFFIX = re.compile(r"\.(avi|gif|jpe?g|m4v|mov|mp4|mpe?g|png)$", re.IGNORECASE)
_ANSWERS = {"1": "yes", "0": "no"}
_SCORE = "Lung Severity Score"  # of the newer tables
_PATIENT = "Patient ID / Name"
_NEEDED = ("Filename", "Label", "Probe", _PATIENT, *_FINDINGS)
_UNCERTAIN = "label_uncertain"
_KEPT = ("patient", "group", "fold", "source")  # of a labels.csv that is there already
# The table numbers these files one by one, but each set was delivered together.
_DELIVERED = (
    (re.compile(r"northumbria(\d{4})set(\d+)"), "northumbria-{}-set{}"),
    (re.compile(r"reg_?avi_?image\d"), "northumbria-reg-image"),
    (re.compile(r"reg_?avi_?lungsliding"), "northumbria-reg-sliding"),
    (re.compile(r"pneu_?avi_?video00[56]$"), "northumbria-pneu-image"),
)
_IN_BOTH_PARTS = (
    "UltraBench parts these data by file, and not by patient: by the owner's table, at least 14 of "
    "the 38 files of its test part show patients of the training part, too. Figures on its split "
    "are comparable with each other, but flatter."
)


def _read(source: Path, table: Path | None) -> Contents:
    if (folder := ultrabench_folder(source)) is not None:
        return _of_ultrabench(folder)
    if table is None:
        above = folder_with(source, _TABLE)
        if above is None:
            raise UnlikeError(f"it has no {_TABLE}, which may be given as table if it is elsewhere")
        table = above / _TABLE
    listed = read_rows(table, _NEEDED, ("License", _SCORE))
    rows = {_plain(row["Filename"]): row for _, row in listed}
    found: dict[str, Path] = {}
    unknown = []
    for path in _videos(source):
        name = path.name if path.is_dir() else path.stem
        key = _plain(name)
        if key in found:
            raise UnlikeError(f"{found[key]} and {path} have the same name")
        if key in rows:
            found[key] = path
        elif path.is_file():
            unknown.append(path.name)
    if not found:
        raise UnlikeError(f"{table.name} names none of the videos in it")
    known = _kept(source)
    clips = [_clip(path, rows[key], known) for key, path in found.items()]
    clips.sort(key=lambda clip: natural_key(clip.id))
    distinct([clip.id for clip in clips], "the video")
    licences = defaultdict(list)
    for key, path in sorted(found.items()):
        licences[rows[key]["License"] or "not stated"].append(path.name)
    remarks = [f"Left out, as {table.name} does not name them: {', '.join(unknown)}."]
    return Contents(clips, remarks=tuple(remarks if unknown else ()), licences=licences)


def _videos(source: Path) -> Iterator[Path]:
    """Yields video files, and folders of frames, whose label is certain."""
    for folder, files in folders_of(source):
        if _UNCERTAIN in folder.relative_to(source).parts:
            continue
        yield from (file for file in files if file.suffix.lower() in VIDEO_SUFFIXES)
        if folder != source and len(images_among(files)) > 1:
            yield folder


def _plain(name: str) -> str:
    """Returns a name without its suffix and signs, which files and the table write differently."""
    return re.sub(r"[\W_]", "", _SUFFIX.sub("", name.strip())).casefold()


def _kept(source: Path) -> dict[str, dict[str, str]]:
    """Returns what a data folder says of its videos already."""
    table = source / "labels.csv"
    if not table.is_file():
        return {}
    return {_plain(row["video_id"]): row for _, row in read_rows(table, ("video_id",), _KEPT)}


def _clip(path: Path, row: Mapping[str, str], known: Mapping[str, Mapping[str, str]]) -> Clip:
    id = path.name if path.is_dir() else path.stem
    own = known.get(_plain(id), dict.fromkeys(_KEPT, ""))
    findings = {column: _ANSWERS.get(row[name], "") for name, column in _FINDINGS.items()}
    labels = {"label": _CLASSES.get(row["Label"].casefold(), ""), "probe": row["Probe"], **findings}
    if row[_SCORE] in ("0", "1", "2", "3"):
        labels["severity"] = row[_SCORE]
    if own["source"]:
        labels["source"] = own["source"]
    fold = int(own["fold"]) if own["fold"].isdecimal() else None
    return Clip(id, (path,), own["patient"] or own["group"] or _patient(id, row), fold, labels)


def _patient(id: str, row: Mapping[str, str]) -> str:
    for pattern, name in _DELIVERED:
        if (set_ := pattern.search(_plain(id))) is not None:
            return name.format(*set_.groups())
    number = row[_PATIENT]
    return f"patient-{number}" if number.isdecimal() else ""


def _of_ultrabench(folder: Path) -> Contents:
    images: dict[str, list[Path]] = defaultdict(list)
    about: dict[str, tuple[int, str]] = {}
    for fold, image, entry in examples(folder, "source", "pathology"):
        name, label = Path(str(entry["source"])).name, str(entry["pathology"])
        if label not in _CLASSES.values():
            raise UnlikeError(f"{image.name} is of class {label!r}, which is none of POCUS")
        if about.setdefault(name, (fold, label)) != (fold, label):
            raise UnlikeError(f"{name} is in both of its parts, or of two classes")
        images[name].append(image)
    stems = Counter(Path(name).stem for name in images)
    clips = [
        Clip(
            Path(name).stem if stems[Path(name).stem] == 1 else name.replace(".", "_"),
            tuple(sorted(images[name], key=lambda image: natural_key(image.name))),
            fold=fold,
            labels={"label": label},
        )
        for name, (fold, label) in sorted(about.items())
    ]
    single = sum(len(clip.files) == 1 for clip in clips)
    remarks = [_IN_BOTH_PARTS]
    if single:
        remarks.append(f"{single} files are single images, {TOO_SHORT}.")
    return Contents(clips, AS_ULTRABENCH, tuple(remarks))


POCUS = Recipe(
    name="pocus",
    title="POCUS",
    form=(
        "a copy of the repository jannisborn/covid19_ultrasound, with "
        f"data/{_TABLE} and data/pocus_videos, or UltraBench's pocus folder"
    ),
    address="https://github.com/jannisborn/covid19_ultrasound",
    licence="a licence per video",
    terms=(
        "Every video has its own licence, from CC BY to all rights reserved; most forbid "
        "commercial use, and some forbid to share anything made from the video. Files named under "
        "'None' must not be passed on. The 'COVID-19 emergency license' was for the time of the "
        "pandemic."
    ),
    citation=(
        "Born et al., Accelerating Detection of Lung Pathologies with Explainable Ultrasound Image "
        "Analysis, Applied Sciences 11(2), 2021, doi:10.3390/app11020672"
    ),
    published={},
    read=_read,
)
