"""``usucl data convert``: copies any folder of videos as folders of frames or stored videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from usucl._progress import job
from usucl.cli.console import hint, say
from usucl.cli.data import Damaged
from usucl.cli.errors import keeping
from usucl.cli.parameters import Count, Data, Metavar, NewFolder, Pattern, at_least

NOT_ALL = 1


def shard_of(text: str) -> None:
    """Checks which part of the videos is converted."""
    from usucl.data.conversion.layout import Shard

    Shard.parse(text)


@job("Converting", {"Reading videos": 1, "Writing frames": 2})
def convert(
    data: Data,
    *,
    out: NewFolder,
    to: Literal["frames", "store"] = "frames",
    size: Annotated[int, at_least(8, " pixels")] | None = None,
    image_format: Literal["png", "jpeg"] = "png",
    crop: Literal["none", "sector"] = "none",
    mask: bool = False,
    preview: bool = False,
    patient_pattern: Pattern | None = None,
    damaged: Damaged = "skip",
    jobs: Count | None = None,
    shard: Annotated[str, shard_of, Metavar("I/N")] | None = None,
) -> int:
    """Copy a folder of videos as folders of frames or as stored videos, with its tables.

    Copies lie in the same folders as the videos, under the same names. The command may be
    interrupted and started again: finished videos stay. Nothing is overwritten. Times of frames are
    kept, as times.csv beside images, and patients, in labels.csv. The exit code is 1 if a video
    could not be converted; the others are.

    Args:
        data: folder of videos, in any format that can be read.
        out: folder to write to, outside of data.
        to: frames writes a folder of images per video; store writes one file of plain pixels per
            video, which takes more room and is read without decoding.
        size: short side of the frames in pixels (default: unchanged).
        image_format: of frames: png, without loss, or jpeg of quality 95.
        crop: sector copies the box around the ultrasound sector, which is found from what moves in
            the video; sectors.html shows it for every video.
        mask: make everything outside the sector black, such as names that are burned in.
        preview: write only sectors.html, which shows what would be copied.
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder, for labels.csv (default: patients as in the files and
            in labels.csv).
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
        jobs: videos converted at a time (default: one per CPU).
        shard: convert only part I of N, with I from 0 to N - 1, such as one job of an array on a
            cluster; run data check before, so that the jobs need not read every video (default:
            all videos).
    """
    from usucl.data import VideoCatalog, conversion
    from usucl.data.catalog.tables.columns import any_label

    options = conversion.Conversion(to, size, image_format, crop, mask)
    part = None if shard is None else conversion.Shard.parse(shard)
    if preview and not options.needs_sector:
        raise ValueError("preview must be given with --crop sector or --mask, got neither")
    if data.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"out must be outside of DATA, got {out} in {data}")
    catalog = VideoCatalog.scan(
        data, damaged=damaged, label=any_label(data), patient_pattern=patient_pattern
    )
    kept = "finished videos are kept; to go on, give the same command again"
    make = conversion.preview if preview else conversion.convert
    with keeping(lambda: kept):
        done = make(catalog, out, options, jobs=jobs, shard=part)
    for path, reason in catalog.skipped:
        say(f"left out: {path}: {reason}", stderr=True)
    for path, reason in done.failed:
        say(f"not converted: {path}: {reason}", stderr=True)
    if done.sheet is not None:
        say(f"Sectors: {done.sheet}")
    if not preview:
        failed = f", {len(done.failed)} could not be converted" if done.failed else ""
        before = f"{done.before} were already there{failed}"
        say(f"{done.written} videos written to {out}, {before}")
        from usucl.cli.finished import command

        hint("Next:")
        hint(f"  {command('train', out, '--out', Path('runs') / out.name)}")
    return NOT_ALL if done.failed else 0
