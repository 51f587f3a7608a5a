"""What is doubtful about the videos of a catalogue, told before anything is trained on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from usucl._progress import Stage, stage
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.summary import Note
from usucl.data.inspection.duplicates import Duplicate, find_duplicates
from usucl.data.inspection.headers import header_facts
from usucl.data.inspection.pictures import FRAMES, Pictures, look
from usucl.data.inspection.sector import evenly
from usucl.data.video import Video, VideoError
from usucl.data.video.dicom import is_dicom

KINDS = (
    "static",
    "periodic",
    "duplicate",
    "near-duplicate",
    "text",
    "colour",
    "identifiers",
    "unreadable",
)
"""Kinds of notes, in the order in which they are told."""


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        notes: what is doubtful, by kind in the order of ``KINDS``, then as in the catalogue.
        unseen: what was not looked at, in words.
    """

    notes: tuple[Note, ...]
    unseen: tuple[str, ...]


def inspect(catalog: VideoCatalog, *, pictures: bool = True) -> Inspection:
    """Looks at every clip of a catalogue: its motion, pictures and header, and its copies.

    A few frames of each clip are decoded, in threads. A sweep is looked at clip by clip.

    Args:
        catalog: the videos.
        pictures: whether to decode frames, for text and colours; the rest comes from the scan.
    """
    clips = catalog.clips
    notes: list[Note] = []
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    with stage("Looking at videos", len(clips), unit="videos") as bar, threads as pool:
        for found in pool.map(partial(_inspect, pictures=pictures, bar=bar), clips):
            notes += found
    notes += [_duplicate(clips, pair) for pair in find_duplicates(clips)]
    unseen = ["whether the videos show what their labels say"]
    if pictures:
        unseen.append(f"text and colours in other frames than {FRAMES} evenly spaced ones")
        unseen.append(
            "text within the sector of a still video, grey text within any, and single letters"
        )
    else:
        unseen.append("the pictures: text and colours")
    unseen.append("copies that begin or end at another frame (usucl bank duplicates finds them)")
    if without := sum(clip.summary is None for clip in clips):
        unseen.append(f"motion and copies of {without} videos that the scan has not looked at")
    order = {clip.id: i for i, clip in enumerate(clips)}
    notes.sort(key=lambda note: (KINDS.index(note.kind), order[note.video_id]))
    return Inspection(tuple(notes), tuple(unseen))


def _inspect(clip: VideoEntry, *, pictures: bool, bar: Stage) -> list[Note]:
    notes = _motion(clip)
    try:
        video = clip.open()
        notes += _header(clip, video)
        if pictures:
            notes += _pictures(clip, look(video.iter_frames(evenly(len(video), FRAMES))))
    except VideoError as error:
        notes.append(Note(clip.id, "unreadable", error.reason))
    finally:
        bar.advance()
    return notes


def _motion(clip: VideoEntry) -> list[Note]:
    if clip.summary is not None and clip.num_frames > 1 and clip.summary.is_static:
        text = f"all {clip.num_frames} frames show the same: no frame is a hard negative of another"
        return [Note(clip.id, "static", text)]
    if clip.summary is None or clip.summary.period is None:
        return []
    period = clip.summary.period
    per_minute = f", {60 * clip.frame_rate / period:.0f} per minute" if clip.frame_rate else ""
    text = (
        f"repeats every {period:.1f} frames{per_minute}: frames far apart may show the same; use a "
        f"window below {period / 2:.0f} frames, or the pixel guard"
    )
    return [Note(clip.id, "periodic", text)]


def _header(clip: VideoEntry, video: Video) -> list[Note]:
    if not is_dicom(video.path):
        return []
    facts = header_facts(clip.path)
    notes = []
    if facts.keywords or facts.private:
        parts = [", ".join(facts.keywords)] if facts.keywords else []
        parts += [f"{facts.private} private elements"] if facts.private else []
        text = f"the header holds {' and '.join(parts)}"
        if facts.removed:
            text += ", though it says that the patient's identity was removed"
        notes.append(Note(clip.id, "identifiers", text))
    if facts.burned_in:
        text = "the header says that the pixels name the patient (BurnedInAnnotation)"
        notes.append(Note(clip.id, "text", text))
    return notes


def _pictures(clip: VideoEntry, seen: Pictures) -> list[Note]:
    notes = []
    if seen.marks is not None:
        rows = f"{seen.marks.rows} row{'s' * (seen.marks.rows != 1)}"
        text = f"text or marks that do not change ({rows}: {', '.join(seen.marks.where)})"
        notes.append(Note(clip.id, "text", text))
    if seen.colours is not None:
        share = f"{100 * seen.colours.share:.3g} % of the pixels"
        if seen.colours.tinted:
            text = f"most of the picture is coloured ({share}), as by a colour map"
        elif seen.colours.moving:
            text = f"colours that come and go ({share}, {seen.colours.where}), such as Doppler"
        else:
            text = f"colours that stay ({share}, {seen.colours.where}), such as coloured marks"
        notes.append(Note(clip.id, "colour", text))
    return notes


def _duplicate(clips: Sequence[VideoEntry], pair: Duplicate) -> Note:
    clip, other = clips[pair.video], clips[pair.other]
    if pair.equal:
        kind, text = "duplicate", f"the same frames as {other.id}"
    else:
        kind = "near-duplicate"
        text = f"looks like {other.id} ({pair.bits:.1f} of 64 bits differ)"
    if clip.patient_known and other.patient_known and clip.group != other.group:
        text += f", which is of another patient ({other.group}, not {clip.group})"
    if None not in (clip.fold, other.fold) and clip.fold != other.fold:
        text += f", in another fold ({other.fold}, not {clip.fold})"
    return Note(clip.id, kind, text)
