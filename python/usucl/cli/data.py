"""``usucl data check``: shows what a folder of videos holds, before any training."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from usucl.cli.console import say, table
from usucl.cli.errors import as_typed
from usucl.cli.parameters import Count, Data, Label, Pattern, Sweep

if TYPE_CHECKING:
    from usucl.data import VideoCatalog

NOT_USABLE = 1
EXAMPLES = 5  # of patients
Damaged = Literal["skip", "keep"]


def check(
    data: Data,
    *,
    patient_pattern: Pattern | None = None,
    label: Label = "label",
    sweep: Sweep | None = None,
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
        label: column of labels.csv and frame_labels.csv that holds the labels.
        sweep: regular expression with groups, ( ), around everything in which the clips of one
            examination agree, such as "patient_([0-9]+)_([LR])"; they are then one video. none
            leaves every clip a video (default: sweeps as in sweeps.csv, if there is one).
        min_frames: videos with fewer frames are left out.
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
    """
    from usucl.data import VideoCatalog

    try:
        catalog = VideoCatalog.scan(
            data, min_frames=min_frames, damaged=damaged, label=label, sweep=sweep
        )
    except ValueError as error:
        typed = {"data": "DATA", "label": "--label", "sweep": "--sweep"}
        for line in str(error).splitlines():
            say(as_typed(line, typed), stderr=True)
        return NOT_USABLE
    if patient_pattern is not None:
        catalog = catalog.with_patients(patient_pattern)
    _show(catalog, sweep)
    given = {"--patient-pattern": patient_pattern, "--sweep": sweep}
    given |= {"--label": None if label == "label" else label}
    _show_patients(catalog, patient_pattern, given)
    return _show_split(catalog)


def _show(catalog: VideoCatalog, sweep: str | None) -> None:
    from usucl.data.catalog.columns import label_columns
    from usucl.data.catalog.labels import some
    from usucl.data.catalog.sweeps import SWEEPS

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
