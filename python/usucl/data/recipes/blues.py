"""COVID-BLUES: lung ultrasound at the six points of the BLUE protocol, and sweeps made of it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from usucl.data.catalog.tables.spreadsheet import read_rows
from usucl.data.recipes.recipe import Clip, Contents, Recipe, UnlikeError, distinct, folders_of
from usucl.data.video import natural_key

_NAME = re.compile(r"patient_([0-9]+)_([LR])([123])(_[0-9]+)?")  # the last is a repetition
_TABLES = ("severity.csv", "labels.csv")  # the owner's, and that of a data folder
_COLUMNS = ("video_file", "video_id", "Severity Score", "severity", "A-lines", "B-lines")
_FOLDS = 5


def _read(source: Path, table: Path | None) -> Contents:
    files = [
        file
        for _, inside in folders_of(source)
        for file in inside
        if file.suffix.lower() == ".mp4" and _NAME.fullmatch(file.stem)
    ]
    if not files:
        raise UnlikeError("it holds no such video")
    distinct([file.stem for file in files], "the video")
    if table is None:
        table = next((source / name for name in _TABLES if (source / name).is_file()), None)
    if table is None:
        raise UnlikeError("it has no severity.csv, which may be given as table if it is elsewhere")
    rows = [row for _, row in read_rows(table, (), _COLUMNS)]
    scores = {row["video_file"] or row["video_id"]: row for row in rows}
    if not scores.keys() & {file.stem for file in files}:
        raise UnlikeError(f"{table.name} names none of its videos")
    files.sort(key=lambda file: natural_key(file.stem))
    clips = [_clip(file, scores.get(file.stem, dict.fromkeys(_COLUMNS, ""))) for file in files]
    without = sum(not clip.labels["b_lines"] for clip in clips)
    return Contents(clips, remarks=(f"{without} videos have no labels.",) if without else ())


def _clip(file: Path, row: Mapping[str, str]) -> Clip:
    name = _NAME.fullmatch(file.stem)
    assert name is not None
    patient, side, point, _ = name.groups()
    severity = (row["Severity Score"] or row["severity"]).removesuffix(".0")
    labels = {
        "label": row["B-lines"],
        "zone": side + point,
        "side": side,
        "severity": severity,
        "a_lines": row["A-lines"],
        "b_lines": row["B-lines"],
    }
    return Clip(file.stem, (file,), patient, _fold(patient), labels)


def _fold(patient: str) -> int:
    """Returns a fold that depends on the patient alone, so parts of the data agree."""
    return int(hashlib.sha256(f"fold-{patient}".encode()).hexdigest(), 16) % _FOLDS


def _sweeps(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Returns the three clips of every side that has them, without repetitions."""
    found: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        name = _NAME.fullmatch(clip.id)
        if name is not None and name[4] is None:
            found[f"patient_{name[1]}_{name[2]}"].append(clip.id)
    return {sweep: parts for sweep, parts in found.items() if len(parts) == 3}


BLUES = Recipe(
    name="blues",
    title="COVID-BLUES",
    form="a copy of the repository NinaWie/COVID-BLUES, with videos such as patient_1_L1.mp4",
    address="https://github.com/NinaWie/COVID-BLUES",
    licence="CC BY-NC-ND 4.0",
    terms=(
        "You may use the data for purposes that are not commercial and pass them on unchanged, "
        "with the names of their authors. You may not share anything made from them: no frames, "
        "no crops, no copies in another format, and no pictures that show them. Figures and "
        "tables of numbers are not affected."
    ),
    citation=(
        "Wiedemann et al., COVID-BLUeS - A Prospective Study on the Value of AI in Lung Ultrasound "
        "Analysis, IEEE Journal of Biomedical and Health Informatics 29(9), 2025, "
        "doi:10.1109/JBHI.2025.3543686"
    ),
    published={"videos": 362, "patients": 63},
    read=_read,
    sweeps=_sweeps,
)
