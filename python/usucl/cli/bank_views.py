"""How frames of a bank, and pairs of them, are shown and written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usucl.cli.console import hint, say, table

if TYPE_CHECKING:
    from usucl.gallery import Found, Gallery, Pair

BRIEF = {  # headings where the table is wide
    "similarity": "sim.",
    "correlation": "corr.",
    "difference": "diff.",
}
PAIR_FIELDS = (
    "similarity",
    "correlation",
    "difference",
    "same_picture",
    "frames",
    "other_patient",
    "other_fold",
)


def described(gallery: Gallery, slot: int) -> dict[str, Any]:
    """Returns everything known about a frame, as for JSON and CSV."""
    known = asdict(gallery.describe(slot))
    return {**known, "time": round(known["time"], 6)}


def described_pair(gallery: Gallery, pair: Pair) -> dict[str, Any]:
    """Returns everything known about a pair, as for JSON and CSV."""
    values = (
        round(pair.similarity, 6),
        None if pair.correlation is None else round(pair.correlation, 4),
        None if pair.difference is None else round(pair.difference, 2),
        pair.same_picture,
        pair.frames,
        pair.other_patient,
        pair.other_fold,
    )
    sides = {"a": described(gallery, pair.a), "b": described(gallery, pair.b)}
    return {**dict(zip(PAIR_FIELDS, values, strict=True)), **sides}


def write_pairs(gallery: Gallery, pairs: Sequence[Pair], path: Path) -> None:
    """Writes one row per pair; the fields of the two frames end in _a and _b."""
    from usucl._tables import write_table
    from usucl.gallery import StoredFrame

    sides = [f"{field.name}_{side}" for side in "ab" for field in fields(StoredFrame)]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for pair in pairs:
        row = described_pair(gallery, pair)
        a, b = row.pop("a"), row.pop("b")
        rows.append((*row.values(), *a.values(), *b.values()))
    write_table(path, (*PAIR_FIELDS, *sides), rows)


def fact_rows(known: dict[str, Any]) -> list[tuple[str, object]]:
    """Returns the rows that say what a bank holds."""
    rows: list[tuple[str, object]] = [
        ("frames", f"{known['frames']:,} in {known['capacity']:,} slots"),
        ("embedding", f"{known['dim']} x {known['dtype']}"),
        ("search", known["search"]),
        ("index", f"about {known['index_bytes'] / 2**20:.1f} MiB while it is built"),
        ("on disk", f"{known['bytes'] / 2**20:.1f} MiB, format {known['format']}"),
        ("videos", f"{known['videos']:,}"),
    ]
    if spread := known["frames_per_video"]:
        counts = f"{spread['least']} to {spread['most']}, median {spread['median']:g}"
        rows.append(("frames per video", counts))
    rows.append(("patients", known["patients"] or "none known"))
    if not known["described"]:
        return [*rows, ("made by", "something other than 'usucl bank build': no names are known")]
    for key, what in (("labels", known["label"]), ("folds", "fold")):
        counted = ", ".join(f"{name}: {count}" for name, count in known[key].items())
        rows.append((f"videos by {what}", counted or "none known"))
    return [
        *rows,
        ("encoder", f"{known['run']} (SHA-256 {str(known['encoder'])[:16]})"),
        ("data", known["data"]),
    ]


def show_found(gallery: Gallery, found: Found) -> None:
    """Prints the frames nearest to a query."""
    rows = []
    for rank, (slot, similarity) in enumerate(found.matches, 1):
        frame = gallery.describe(slot)
        about = (frame.video, frame.frame, f"{frame.time:.2f}", frame.patient, frame.label)
        rows.append((rank, f"{similarity:.4f}", slot, *about))
    columns = ["rank", "similarity", "slot", "video", "frame", "time", "patient", "label"]
    numbers = ["rank", "similarity", "slot", "frame", "time"]
    title = f"Nearest to {found.query.name} of {found.searched:,} frames"
    table(columns, rows, title=title, numbers=numbers, brief=BRIEF)
    video = found.query.video
    if own := sum(gallery.describe(slot).video == video for slot, _ in found.matches):
        option = f"--exclude-video {shlex.quote(str(video))}"
        say(f"{own} of {len(rows)} are of the query's own video: {option} leaves it out")


def show_pairs(
    gallery: Gallery,
    listed: Sequence[Pair],
    counts: dict[str, int],
    threshold: float,
    every_frame: bool,
) -> None:
    """Prints the most similar pairs, and how many there are."""
    what = "pairs of frames" if every_frame else "pairs of videos"
    if not listed:
        say(f"No {what} at or above a similarity of {threshold:g}")
        return
    rows = []
    for pair in listed:
        picture = {None: "unreadable", True: "same", False: "alike"}[pair.same_picture]
        figures = ("-", "-")
        if pair.correlation is not None:
            figures = (f"{pair.correlation:.3f}", f"{pair.difference:.1f}")
        both = (gallery.describe(pair.a).name, gallery.describe(pair.b).name)
        about = (both, pair.frames, _word(pair.other_patient), _word(pair.other_fold))
        rows.append((f"{pair.similarity:.4f}", picture, *figures, *about))
    columns = ["similarity", "picture", "correlation", "difference"]
    columns += ["frame and frame", "frames", "patient", "fold"]
    numbers = ["similarity", "correlation", "difference", "frames"]
    title = f"Most similar of {counts['pairs']} {what} with a similarity of {threshold:g} or more"
    table(columns, rows, title=title, numbers=numbers, brief=BRIEF)
    if len(listed) < counts["pairs"]:
        hint(f"{counts['pairs'] - len(listed)} more: --top lists them, --csv FILE writes all")
    for key, kind in (("pairs", "alike or the same"), ("same_picture", "the same picture")):
        of = "" if key == "pairs" else f"{key}_"
        say(
            f"{counts[key]} {what} {kind}: {counts[f'{of}across_patients']} across patients, "
            f"{counts[f'{of}across_folds']} across folds"
        )
    for key, of_pairs in (
        ("patients_unknown", "have a video without a patient in labels.csv"),
        ("folds_unknown", "have a video without a fold in labels.csv"),
        ("unreadable", "cannot be compared by pixels: a video can no longer be read"),
    ):
        if counts[key]:
            say(f"{counts[key]} {of_pairs}")


def _word(differs: bool | None) -> str:
    return {None: "unknown", True: "OTHER", False: "same"}[differs]
