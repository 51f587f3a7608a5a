"""``usucl bank``: the embedded frames of a data set as a searchable gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from usucl.cli.bank_views import (
    described,
    described_pair,
    fact_rows,
    show_found,
    show_pairs,
    write_pairs,
)
from usucl.cli.console import hint, say, table
from usucl.cli.errors import keeping
from usucl.cli.parameters import (
    Bank,
    Count,
    Data,
    Label,
    Metavar,
    NewFile,
    NewFolder,
    Run,
    Sweep,
    at_least,
    between,
    rules,
)

if TYPE_CHECKING:
    from usucl.data import Skipped
    from usucl.gallery import Progress, Resumed

DType = Literal["float32", "bfloat16", "float16"]
Across = Literal["video", "patient", "fold"]
Fraction = Annotated[float, between(0, 1, "a fraction"), Metavar("LO HI")]

LISTED = 20  # pairs in the table
DRAWN = 24  # pairs in the sheet


def build(
    run: Run,
    data: Data,
    *,
    out: NewFolder,
    label: Label | None = None,
    sweep: Sweep | None = None,
    frames_per_video: Count | None = None,
    search: str = "exact",
    dtype: DType = "float32",
    batch_size: Count = 64,
    overwrite: bool = False,
) -> None:
    """Embed every frame of a folder with a run's encoder, and keep them in a bank.

    May be interrupted and started again with the same arguments: it continues after the last
    finished video. An earlier bank stays until the new one is complete.

    Args:
        run: run folder, whose encoder is used.
        data: folder of videos.
        out: folder of the bank.
        label: column of labels.csv that holds the labels (default: that of the run).
        sweep: regular expression that makes one video of the clips of an examination, or none
            (default: as in the run).
        frames_per_video: greatest number of frames per video, evenly spaced (default: all).
        search: search of the bank: exact, or a string of FAISS's index factory.
        dtype: dtype of the stored embeddings.
        batch_size: frames encoded at once.
        overwrite: replace an earlier bank in this folder.
    """
    from usucl.gallery import Gallery

    events = _Events()
    kept = "finished videos are kept; to go on, give the same command again"
    with keeping(lambda: kept):
        gallery = Gallery.build(
            run=run,
            data=data,
            out=out,
            label=label,
            sweep=sweep,
            frames_per_video=frames_per_video,
            search=search,
            dtype=dtype,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=events,
        )
    if events.complete:
        say(f"Bank: {out} (already complete)")
        return
    videos, dim = len(gallery.contents.videos), gallery.bank.dim
    say(f"{len(gallery)} frames of {videos} videos, {dim} numbers each")
    say(f"Bank: {out}")
    from usucl.cli.finished import command

    hint("Next:")
    hint(f"  {command('bank search', out, 'IMAGE', '--out', 'neighbours.png')}")
    hint(f"  {command('bank duplicates', out, '--out', 'duplicates.png')}")


def info(bank: Bank, *, json_: bool = False) -> None:
    """Show what is in a bank: frames, videos, patients, labels, and what it was made from.

    Args:
        bank: folder of the bank.
        json_: print JSON instead of a table.
    """
    from usucl.gallery.contents import facts

    known = facts(bank)
    if json_:
        print(json.dumps(known, indent=2))
        return
    table(["", ""], fact_rows(known), title=str(bank))
    if known["unfinished"]:
        say("There is an unfinished build: the same 'usucl bank build' continues it.")


@rules(either=("query", "slot"))
def search(
    bank: Bank,
    query: str | None = None,
    *,
    slot: Annotated[int, at_least(0)] | None = None,
    k: Count = 8,
    video: Sequence[str] = (),
    patient: Sequence[str] = (),
    label: Sequence[str] = (),
    time: tuple[Fraction, Fraction] | None = None,
    exclude_video: Sequence[Annotated[str, Metavar("VIDEO")]] = (),
    exclude_patient: Sequence[Annotated[str, Metavar("PATIENT")]] = (),
    one_per_video: bool = False,
    run: Run | None = None,
    out: NewFile | None = None,
    json_: bool = False,
) -> None:
    """Find the frames of a bank that are most similar to a frame.

    Filters apply before the search, so no frame that passes them is missed.

    Args:
        bank: folder of the bank.
        query: an image, or a video, DICOM file or folder of frames with @ and a frame number (from
            0), such as case7.mp4@12 or loop.dcm@3; without a number, the middle frame.
        slot: a frame of the bank itself, instead of a query; it is not found again.
        k: number of frames to find.
        video: only frames of these videos (default: of all).
        patient: only frames of these patients (default: of all).
        label: only frames of videos with one of these labels (default: of all).
        time: only frames between two times, as fractions of their video's length (default: all).
        exclude_video: no frames of these videos, such as the query's own (default: none excluded).
        exclude_patient: no frames of these patients (default: none excluded).
        one_per_video: only the most similar frame of each video.
        run: run folder of the encoder (default: the one that made the bank).
        out: PNG file for a sheet of the frames found (default: no sheet).
        json_: print JSON instead of a table.
    """
    from usucl.gallery import Gallery

    asked = slot if query is None else query
    assert asked is not None
    gallery = Gallery.open(bank)
    found = gallery.search(
        asked,
        k=k,
        video=video,
        patient=patient,
        label=label,
        time=time or (),
        exclude_video=exclude_video,
        exclude_patient=exclude_patient,
        one_per_video=one_per_video,
        run=run,
    )
    if json_:
        neighbours = [
            {"rank": rank, "similarity": similarity, **described(gallery, slot)}
            for rank, (slot, similarity) in enumerate(found.matches, 1)
        ]
        answer = {"query": found.query.name, "searched": found.searched, "neighbours": neighbours}
        print(json.dumps(answer, indent=2))
    else:
        show_found(gallery, found)
    if out is not None:
        from usucl.report.sheets import search_sheet

        search_sheet(gallery, found, out)
        if not json_:
            say(f"Sheet: {out}")


def duplicates(
    bank: Bank,
    *,
    threshold: Annotated[float, between(-1, 1, "a cosine")] = 0.98,
    top: Count | None = None,
    across: Across = "video",
    every_frame: bool = False,
    out: NewFile | None = None,
    csv_: NewFile | None = None,
    json_: bool = False,
) -> None:
    """Find near-identical frames in different videos, patients and folds.

    A picture in two patients or two folds leaks from training into evaluation. Pairs are found by
    the similarity of their embeddings, and then compared by pixels: they are the same picture, or
    only alike to the encoder. For any two videos, the most similar pair of frames is listed.
    Patients and folds are those of labels.csv when the bank was built.

    Args:
        bank: folder of the bank.
        threshold: least cosine similarity of the embeddings. With a briefly trained encoder, 99 of
            100 copies of lung frames that were recompressed, scaled or cropped by 2 % had 0.98 or
            more; with a gain changed by 20 or 30 %, half had 0.98 and 99 of 100 had 0.87.
        top: greatest number of pairs to list, the most similar first (default: 20 in the table, 24
            in the sheet, and all in CSV and JSON).
        across: video compares different videos; patient, those not of one known patient; fold,
            different folds.
        every_frame: list every pair of frames, not only the best of each two videos.
        out: PNG file for a sheet of the pairs (default: no sheet).
        csv_: CSV file for the pairs (default: none).
        json_: print JSON instead of a table.
    """
    from usucl.gallery import Gallery
    from usucl.gallery.pairs import summary

    gallery = Gallery.open(bank)
    pairs = gallery.duplicates(threshold=threshold, across=across, every_frame=every_frame)
    listed = pairs[:top]
    counts = summary(pairs)
    if csv_ is not None:
        write_pairs(gallery, listed, csv_)
    if json_:
        found = [described_pair(gallery, pair) for pair in listed]
        answer = {"threshold": threshold, "across": across, "summary": counts, "pairs": found}
        print(json.dumps(answer, indent=2))
    else:
        show_pairs(gallery, listed[: top or LISTED], counts, threshold, every_frame)
    if out is not None:
        from usucl.report.sheets import pairs_sheet

        pairs_sheet(gallery, listed[: top or DRAWN], len(pairs), threshold, out)
    if not json_:
        for what, path in (("Pairs", csv_), ("Sheet", out)):
            if path is not None:
                say(f"{what}: {path}")


class _Events:
    """Prints the events of a build other than its progress, which is shown anyway."""

    def __init__(self) -> None:
        self.complete = False

    def __call__(self, event: Progress | Resumed | Skipped) -> None:
        from usucl.data import Skipped
        from usucl.gallery import Resumed

        if isinstance(event, Skipped):
            say(f"left out: {event.path}: {event.reason}", stderr=True)
        elif isinstance(event, Resumed):
            self.complete = event.complete
            if event.finished and not event.complete:
                say(f"Continuing: {event.finished} of {event.videos} videos are already finished")
            if event.unused and not event.complete:
                say(
                    f"Not used: {event.unused} videos embedded by another encoder or from other "
                    "files"
                )
