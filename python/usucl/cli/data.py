"""``usucl data check``: shows what a folder of videos holds, before any training."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from usucl.cli.console import hint, say, table
from usucl.cli.errors import as_typed
from usucl.cli.parameters import Count, Data, Label, Pattern, Sweep

if TYPE_CHECKING:
    from usucl.data import VideoCatalog
    from usucl.data.inspection import Inspection

NOT_USABLE = 1
EXAMPLES = 5  # of patients
NAMED = 2  # videos with the same warning
Damaged = Literal["skip", "keep"]


def check(
    data: Data,
    *,
    patient_pattern: Pattern | None = None,
    label: Label = "label",
    sweep: Sweep | None = None,
    min_frames: Count = 2,
    damaged: Damaged = "skip",
    quick: bool = False,
    strict: bool = False,
    json_: bool = False,
) -> int:
    """List the videos of a folder, the files that cannot be used, and what is doubtful.

    Warnings are told of videos that do not move or repeat a motion, that show the same as others
    (by patient and fold, where known), that have text or colours drawn into them, or a DICOM header
    that names people. Of a header only the names of its elements are printed, and the patient's
    number as the patient.

    The exit code is 1 if nothing can be used, if a table of labels is damaged or contradicts the
    videos or itself, or if train would refuse the videos. Warnings are no error, and neither are
    rows for videos that are not there.

    Args:
        data: folder of videos: folders of frames and video files, mixed and nested.
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder, such as "^([^/]+)/" for the first folder (default:
            patients as in labels.csv).
        label: column of labels.csv and frame_labels.csv that holds the labels.
        sweep: regular expression with groups, ( ), around everything in which the clips of one
            examination agree, such as "patient_([0-9]+)_([LR])"; they are then one video. none
            leaves every clip a video (default: sweeps as in sweeps.csv, if there is one).
        min_frames: videos with fewer frames are left out.
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
        quick: do not decode frames again to look for text and colours.
        strict: warnings make the exit code 1 too.
        json_: print one JSON object instead of tables: root, exit_code, error, videos, left_out,
            notes (each with video, kind and text), not_looked_at, patients, train, held_out.
    """
    from usucl.data import VideoCatalog
    from usucl.data.inspection import inspect

    try:
        catalog = VideoCatalog.scan(
            data, min_frames=min_frames, damaged=damaged, label=label, sweep=sweep
        )
    except ValueError as error:
        typed = {"data": "DATA", "label": "--label", "sweep": "--sweep"}
        lines = [as_typed(line, typed) for line in str(error).splitlines()]
        if json_:
            _print_json({"root": str(data), "exit_code": NOT_USABLE, "error": lines})
        for line in lines if not json_ else ():
            say(line, stderr=True)
        return NOT_USABLE
    if patient_pattern is not None:
        catalog = catalog.with_patients(patient_pattern)
    found = inspect(catalog, pictures=not quick)
    doubtful = NOT_USABLE if strict and found.notes else 0
    if json_:
        content = _as_json(catalog, found, doubtful)
        _print_json(content)
        return int(content["exit_code"])
    _show(catalog, sweep)
    _show_notes(found)
    given = {"--patient-pattern": patient_pattern, "--sweep": sweep}
    given |= {"--label": None if label == "label" else label}
    _show_patients(catalog, patient_pattern, given)
    return _show_split(catalog) or doubtful


def _print_json(content: Mapping[str, Any]) -> None:
    print(json.dumps(content, indent=2))  # in ASCII, so no name acts on a terminal


def _as_json(catalog: VideoCatalog, found: Inspection, doubtful: int) -> dict[str, Any]:
    """Returns the whole result; paths are relative to the root."""
    videos = []
    for entry in catalog:
        video = entry.open()
        videos.append(
            {
                "id": entry.id,
                "path": None if entry.parts else entry.path.relative_to(catalog.root).as_posix(),
                "clips": [part.video.id for part in entry.parts],
                "frames": entry.num_frames,
                "width": video.width,
                "height": video.height,
                "frame_rate": entry.frame_rate,
                "label": entry.label,
                "patient": entry.group if entry.patient_known else None,
                "fold": entry.fold,
                "damage": video.damage,
            }
        )
    error, parts = None, None
    try:
        parts = catalog.hold_out()
    except ValueError as refusal:
        error = [f"train would refuse this: {refusal}"]
    return {
        "root": str(catalog.root),
        "exit_code": NOT_USABLE if error else doubtful,
        "error": error,
        "videos": videos,
        "left_out": [
            {"path": item.path.relative_to(catalog.root).as_posix(), "reason": item.reason}
            for item in catalog.skipped
        ],
        "notes": [
            {"video": note.video_id, "kind": note.kind, "text": note.text} for note in found.notes
        ],
        "not_looked_at": list(found.unseen),
        "patients": catalog.patients,
        "train": [entry.id for entry in parts[0]] if parts else None,
        "held_out": [entry.id for entry in parts[1]] if parts else None,
    }


def _show_notes(found: Inspection) -> None:
    from usucl.data.catalog.tables.labels import some

    say()
    if found.notes:
        alike: dict[tuple[str, str], list[str]] = {}  # a whole archive may deserve one warning
        for note in found.notes:
            alike.setdefault((note.kind, note.text), []).append(note.video_id)
        rows = [(kind, some(names, most=NAMED), text) for (kind, text), names in alike.items()]
        table(["warning", "video", "why"], rows)
        counts = Counter(note.kind for note in found.notes)
        videos = len({note.video_id for note in found.notes})
        of = f"{videos} video{'s' * (videos != 1)}"
        say(f"Warnings of {of}: {', '.join(f'{n} {k}' for k, n in counts.items())}.")
        if "text" in counts:
            command = "usucl data convert DATA --out NEW --crop sector --mask"
            say(f"Text may name patients: look at it. To leave it out: {command}")
    else:
        say("No warnings.")
    hint(f"Not looked at: {'; '.join(found.unseen)}.")


def _show(catalog: VideoCatalog, sweep: str | None) -> None:
    from usucl.data.catalog.sweeps import SWEEPS
    from usucl.data.catalog.tables.columns import label_columns
    from usucl.data.catalog.tables.labels import some

    rows = []
    for entry in catalog:
        video = entry.open()
        rate = None if entry.frame_rate is None else f"{entry.frame_rate:.4g}"
        size = f"{video.width}x{video.height}"
        patient = entry.group if entry.patient_known else None
        clips = len(entry.parts) or None
        about = (size, rate, entry.label, patient, entry.fold)
        rows.append((entry.id, clips, entry.num_frames, *about))
    columns = ["video", "clips", "frames", "size", "Hz", catalog.label, "patient", "fold"]
    used = [c for i, c in enumerate(columns) if any(row[i] is not None for row in rows)]
    kept = [[cell for c, cell in zip(columns, row, strict=True) if c in used] for row in rows]
    table(used, kept, title=str(catalog.root), numbers=["clips", "frames", "size", "Hz", "fold"])
    if catalog.skipped:
        skipped = [(item.path.relative_to(catalog.root), item.reason) for item in catalog.skipped]
        table(["left out", "reason"], skipped)
    damage = [(entry.id, reason) for entry in catalog if (reason := entry.open().damage)]
    if damage:
        table(["damaged, but taken", "reason"], damage)
    frames = sum(entry.num_frames for entry in catalog)
    labels = {label for entry in catalog for label in (entry.label, *(entry.frame_labels or ()))}
    labels.discard(None)
    patients = {entry.group for entry in catalog if entry.patient_known}
    parts = [f"{len(catalog)} videos", f"{frames} frames", f"{len(catalog.skipped)} left out"]
    parts += [f"{len(damage)} damaged"] if damage else []
    parts += [f"{len(labels)} labels" if labels else "no labels: no probes in the evaluation"]
    parts += [f"{len(patients)} patients" if patients else "patients unknown"]
    say(", ".join(parts))
    if catalog.sweeps:
        clips = sum(len(entry.parts) for entry in catalog.sweeps)
        say(
            f"{len(catalog.sweeps)} of the videos are sweeps of {clips} clips, by {sweep or SWEEPS}"
        )
    without = [entry.id for entry in catalog.clips if entry.label is None]
    if labels and without:
        what = "clips" if catalog.sweeps else "videos"
        say(f"{len(without)} {what} without a label in labels.csv: {some(without)}")
    partial = [entry for entry in catalog if entry.frame_labels and None in entry.frame_labels]
    if partial:
        frames = sum(entry.num_frames for entry in partial)
        labelled = frames - sum((entry.frame_labels or ()).count(None) for entry in partial)
        what = "video has" if len(partial) == 1 else "videos have"
        say(f"{len(partial)} {what} labels of some frames only: {labelled} of {frames}")
    others = [name for name in label_columns(catalog.root) if name != catalog.label]
    if others:
        say(f"Other columns that may be the label (--label): {', '.join(others)}")


def _show_patients(
    catalog: VideoCatalog, pattern: str | None, given: Mapping[str, str | None]
) -> None:
    """Shows whom a pattern finds, or patterns that the names suggest where none is given."""
    from usucl.data.catalog.tables.labels import some

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
        options = [word for name, value in given.items() if value for word in (name, value)]
        command = ["usucl", "train", str(catalog.root), *options]
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
