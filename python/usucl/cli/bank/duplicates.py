"""``usucl bank duplicates``: near-identical frames in different videos, patients and folds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from usucl.cli.console import say, table

if TYPE_CHECKING:
    from usucl.cli.bank.pairs import Pair
    from usucl.cli.bank.stored import StoredBank

LISTED = 20  # in the table
DRAWN = 24  # in the sheet
FIELDS = (
    "similarity",
    "correlation",
    "difference",
    "same_picture",
    "frames",
    "other_patient",
    "other_fold",
)


def duplicates(
    bank: Path,
    *,
    threshold: float = 0.98,
    top: int | None = None,
    across: Literal["video", "patient", "fold"] = "video",
    every_frame: bool = False,
    out: Path | None = None,
    csv_: Path | None = None,
    json_: bool = False,
) -> None:
    """Find near-identical frames in different videos, patients and folds.

    A picture in two patients or two folds leaks from training into evaluation. Pairs are found by
    the similarity of their embeddings, and then compared by pixels: the same picture, or only alike
    to the encoder. Of each two videos the most similar pair of frames is listed. Patients and folds
    are those of labels.csv when the bank was built.

    Args:
        bank: folder of the bank.
        threshold: least cosine similarity of the embeddings. With a briefly trained encoder, 99 of
            100 copies of lung frames that were recompressed, scaled or cropped by 2 % had 0.98 or
            more; with a gain changed by 20 or 30 % half of them had that, and 99 of 100 had 0.87.
        top: list at most so many pairs, the most similar; by default 20 in the table, 24 in the
            sheet, and all in CSV and JSON.
        across: video: pairs of different videos; patient: and not of one known patient; fold: of
            different folds.
        every_frame: list every pair of frames, not the best of each two videos.
        out: PNG file for a sheet of the pairs.
        csv_: CSV file for the pairs.
        json_: as JSON instead of a table.
    """
    from usucl.cli.bank.pairs import compare, find_pairs
    from usucl.cli.bank.stored import StoredBank

    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold must be a cosine, -1 to 1, got {threshold:g}")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    stored = StoredBank.open(bank)
    pairs = compare(stored, find_pairs(stored, threshold, across, every_frame=every_frame))
    listed = pairs[:top]
    summary = _summary(pairs)
    if csv_ is not None:
        _write_csv(stored, listed, csv_)
    if json_:
        found = [_described(stored, pair) for pair in listed]
        answer = {"threshold": threshold, "across": across, "summary": summary, "pairs": found}
        print(json.dumps(answer, indent=2))
    else:
        _show(stored, listed[: top or LISTED], summary, threshold, every_frame)
    if out is not None:
        from usucl.cli.bank.sheets import pairs_sheet

        pairs_sheet(stored, listed[: top or DRAWN], len(pairs), threshold, out)
    if not json_:
        for what, path in (("Pairs", csv_), ("Sheet", out)):
            if path is not None:
                say(f"{what}: {path}")


def _summary(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many pairs there are, and how many of them are leaks; unknown ones are not counted."""
    same = [pair for pair in pairs if pair.same_picture]
    return {
        "pairs": len(pairs),
        "across_patients": sum(bool(pair.other_patient) for pair in pairs),
        "across_folds": sum(bool(pair.other_fold) for pair in pairs),
        "same_picture": len(same),
        "same_picture_across_patients": sum(bool(pair.other_patient) for pair in same),
        "same_picture_across_folds": sum(bool(pair.other_fold) for pair in same),
        "patients_unknown": sum(pair.other_patient is None for pair in pairs),
        "folds_unknown": sum(pair.other_fold is None for pair in pairs),
        "unreadable": sum(pair.same_picture is None for pair in pairs),
    }


def _described(stored: StoredBank, pair: Pair) -> dict[str, Any]:
    values = (
        round(pair.similarity, 6),
        None if pair.correlation is None else round(pair.correlation, 4),
        None if pair.difference is None else round(pair.difference, 2),
        pair.same_picture,
        pair.frames,
        pair.other_patient,
        pair.other_fold,
    )
    sides = {"a": stored.describe(pair.a), "b": stored.describe(pair.b)}
    return {**dict(zip(FIELDS, values, strict=True)), **sides}


def _write_csv(stored: StoredBank, pairs: Sequence[Pair], path: Path) -> None:
    """One row a pair; the fields of the two frames end in _a and _b."""
    from usucl.cli.bank.stored import DESCRIBED

    path.parent.mkdir(parents=True, exist_ok=True)
    sides = [f"{name}_{side}" for side in "ab" for name in DESCRIBED]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*FIELDS, *sides))
        for pair in pairs:
            row = _described(stored, pair)
            a, b = row.pop("a"), row.pop("b")
            writer.writerow((*row.values(), *a.values(), *b.values()))


def _show(
    stored: StoredBank,
    listed: Sequence[Pair],
    summary: dict[str, int],
    threshold: float,
    every_frame: bool,
) -> None:
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
        a, b = stored.name(pair.a), stored.name(pair.b)
        about = (a, b, pair.frames, _word(pair.other_patient), _word(pair.other_fold))
        rows.append((f"{pair.similarity:.4f}", picture, *figures, *about))
    columns = ["similarity", "picture", "correlation", "difference"]
    columns += ["frame", "and frame", "frames", "patient", "fold"]
    numbers = ["similarity", "correlation", "difference", "frames"]
    title = f"Most similar of {summary['pairs']} {what} at or above {threshold:g}"
    table(columns, rows, title=title, numbers=numbers)
    for key, kind in (("pairs", "alike or the same"), ("same_picture", "the same picture")):
        of = "" if key == "pairs" else f"{key}_"
        say(
            f"{summary[key]} {what} {kind}: {summary[f'{of}across_patients']} across patients, "
            f"{summary[f'{of}across_folds']} across folds"
        )
    for key, of_pairs in (
        ("patients_unknown", "have a video without a patient in labels.csv"),
        ("folds_unknown", "have a video without a fold in labels.csv"),
        ("unreadable", "cannot be compared by pixels: a video is no longer there"),
    ):
        if summary[key]:
            say(f"{summary[key]} {of_pairs}")


def _word(differs: bool | None) -> str:
    return {None: "unknown", True: "OTHER", False: "same"}[differs]
