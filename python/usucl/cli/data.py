"""``usucl data check``: shows what a folder of videos holds, before any training."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Literal

from usucl.cli.console import say, table
from usucl.cli.errors import as_typed
from usucl.cli.parameters import Count, Data, Pattern

if TYPE_CHECKING:
    from usucl.data import VideoCatalog

NOT_USABLE = 1
EXAMPLES = 5  # of patients
Damaged = Literal["skip", "keep"]


def check(
    data: Data,
    *,
    patient_pattern: Pattern | None = None,
    min_frames: Count = 2,
    damaged: Damaged = "skip",
) -> int:
    """List the videos of a folder, and the files that cannot be used, with reasons.

    The exit code is 1 if nothing can be used, if a table of labels is damaged or contradicts the
    videos or itself, or if train would refuse the videos. Rows for videos that are not there are
    told, but are no error.

    Args:
        data: folder of videos: folders of frames and video files, mixed and nested.
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder, such as "^([^/]+)/" for the first folder (default:
            patients as in labels.csv).
        min_frames: videos with fewer frames are left out.
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
    """
    from usucl.data import VideoCatalog

    try:
        catalog = VideoCatalog.scan(data, min_frames=min_frames, damaged=damaged)
    except ValueError as error:
        for line in str(error).splitlines():
            say(as_typed(line, {"data": "DATA"}), stderr=True)
        return NOT_USABLE
    if patient_pattern is not None:
        catalog = catalog.with_patients(patient_pattern)
    _show(catalog)
    _show_patients(catalog, patient_pattern)
    return _show_split(catalog)


def _show(catalog: VideoCatalog) -> None:
    from usucl.data.catalog.labels import some

    rows = []
    for entry in catalog:
        video = entry.open()
        rate = None if entry.frame_rate is None else f"{entry.frame_rate:.4g}"
        size = f"{video.width}x{video.height}"
        patient = entry.group if entry.patient_known else None
        rows.append((entry.id, entry.num_frames, size, rate, entry.label, patient, entry.fold))
    columns = ["video", "frames", "size", "Hz", "label", "patient", "fold"]
    used = [c for i, c in enumerate(columns) if any(row[i] is not None for row in rows)]
    kept = [[cell for c, cell in zip(columns, row, strict=True) if c in used] for row in rows]
    table(used, kept, title=str(catalog.root), numbers=["frames", "size", "Hz", "fold"])
    if catalog.skipped:
        skipped = [(item.path.relative_to(catalog.root), item.reason) for item in catalog.skipped]
        table(["left out", "reason"], skipped)
    damage = [(entry.id, reason) for entry in catalog if (reason := entry.open().damage)]
    if damage:
        table(["damaged, but taken", "reason"], damage)
    frames = sum(entry.num_frames for entry in catalog)
    labels = {entry.label for entry in catalog if entry.label}
    patients = {entry.group for entry in catalog if entry.patient_known}
    parts = [f"{len(catalog)} videos", f"{frames} frames", f"{len(catalog.skipped)} left out"]
    parts += [f"{len(damage)} damaged"] if damage else []
    parts += [f"{len(labels)} labels" if labels else "no labels: no probes in the evaluation"]
    parts += [f"{len(patients)} patients" if patients else "patients unknown"]
    say(", ".join(parts))
    without = [entry.id for entry in catalog if entry.label is None]
    if labels and without:
        say(f"{len(without)} videos without a label in labels.csv: {some(without)}")


def _show_patients(catalog: VideoCatalog, pattern: str | None) -> None:
    """Shows whom a pattern finds, or patterns that the names suggest where none is given."""
    from usucl.data.catalog.labels import some

    say()
    if pattern is not None:
        found = Counter(entry.group for entry in catalog if entry.patient_known)
        examples = {name: [e.id for e in catalog if e.group == name] for name in found}
        rows = [(name, n, some(examples[name])) for name, n in found.most_common()]
        title = f"Patients by {pattern} and labels.csv: is each row one patient?"
        table(["patient", "videos", "which"], rows, title=title, numbers=["videos"])
    if catalog.patient_doubt:
        say(f"{catalog.patient_doubt[0].upper()}{catalog.patient_doubt[1:]}.")
    if catalog.patients == "unknown":
        suggestions = catalog.suggested_patterns()
        if not suggestions:
            say("Name the patients in labels.csv (column patient), or by --patient-pattern.")
            return
        say("The names suggest patients. To see who they would be, try:")
        for suggestion in suggestions:
            command = ["usucl", "data", "check", str(catalog.root), "--patient-pattern"]
            say(f"  {shlex.join([*command, suggestion.pattern])}")
            shown = [f"{name} ({n})" for name, n in suggestion.videos.most_common(EXAMPLES)]
            rest = f", no patient found for {suggestion.unknown}" if suggestion.unknown else ""
            more = ", ..." if len(suggestion.videos) > EXAMPLES else ""
            say(f"    {len(suggestion.videos)} patients: {', '.join(shown)}{more}{rest}")
    elif pattern is not None:
        command = ["usucl", "train", str(catalog.root), "--patient-pattern", pattern]
        say(f"If so: {shlex.join(command)} --out RUN")


def _show_split(catalog: VideoCatalog) -> int:
    """Shows what train would hold out by default; returns 1 if it would refuse the videos."""
    try:
        training, held_out = catalog.hold_out()
    except ValueError as error:
        say(f"train would refuse this: {error}", stderr=True)
        return NOT_USABLE
    counts = [
        f"{_counted(part)} {verb}"
        for part, verb in ((training, "to train on"), (held_out, "held out"))
    ]
    say(f"By default train would have {' and '.join(counts)}.")
    if len({entry.group for entry in training}) < 2:
        say("All to train on are of one patient or video: no frame has negatives of another.")
    return 0


def _counted(catalog: VideoCatalog) -> str:
    text = f"{len(catalog)} video{'s' * (len(catalog) != 1)}"
    if len(catalog) and catalog.patients == "known":
        patients = len({entry.group for entry in catalog})
        text += f" of {patients} patient{'s' * (patients != 1)}"
    return text
