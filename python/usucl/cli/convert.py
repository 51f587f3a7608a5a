"""``usucl data convert``: converts any folder of videos to folders of frames."""

from __future__ import annotations

import csv
import io
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from usucl._progress import Stage, job, stage
from usucl.cli.console import hint, say
from usucl.cli.data import Damaged
from usucl.cli.errors import keeping
from usucl.cli.parameters import Data, NewFolder, at_least

if TYPE_CHECKING:
    from PIL.Image import Image

    from usucl.data import VideoCatalog, VideoEntry

ImageFormat = Literal["png", "jpeg"]


@job("Converting", {"Reading videos": 1, "Writing frames": 2})
def convert(
    data: Data,
    *,
    out: NewFolder,
    size: Annotated[int, at_least(8, " pixels")] | None = None,
    image_format: ImageFormat = "png",
    damaged: Damaged = "skip",
) -> None:
    """Write every video as a folder of frames, with the tables of labels.

    May be interrupted and started again: finished videos stay. Nothing is overwritten. Frame rates
    are lost: a folder of frames has none.

    Args:
        data: folder of videos, in any format that can be read.
        out: folder to write to, outside of data.
        size: short side of the frames in pixels (default: unchanged).
        image_format: png, without loss, or jpeg of quality 95.
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
    """
    from usucl._files import write_atomically
    from usucl.data import VideoCatalog
    from usucl.data.phantom import is_synthetic, mark_synthetic

    if data.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"out must be outside of DATA, got {out} in {data}")
    catalog = VideoCatalog.scan(data, damaged=damaged)
    finished = [entry for entry in catalog if _is_finished(entry, out, size, image_format)]
    tables = {name: _renamed(catalog, name) for name in ("labels.csv", "frame_labels.csv")}
    for name, content in tables.items():
        if (out / name).is_file() and (out / name).read_bytes() != content:
            raise FileExistsError(f"{out / name} already exists and differs")
    out.mkdir(parents=True, exist_ok=True)
    missing = [entry for entry in catalog if entry not in finished]
    frames = sum(entry.num_frames for entry in missing)
    kept = "finished videos are kept; to go on, give the same command again"
    with keeping(lambda: kept), stage("Writing frames", frames, unit="frames") as bar:
        for entry in missing:
            _write(entry, out, size, image_format, bar)
    for name, content in tables.items():
        if content:
            write_atomically(out / name, content)
    if is_synthetic(data):
        mark_synthetic(out)
    for path, reason in catalog.skipped:
        say(f"left out: {path}: {reason}", stderr=True)
    written = len(catalog) - len(finished)
    say(f"{written} videos written to {out}, {len(finished)} were already there")
    from usucl.cli.finished import command

    hint("Next:")
    hint(f"  {command('train', out, '--out', Path('runs') / out.name)}")


def _is_finished(entry: VideoEntry, out: Path, size: int | None, image_format: ImageFormat) -> bool:
    """Returns whether this video's folder exists; raises an error if it has other contents."""
    folder = out / entry.id
    files = sorted(folder.glob(f"*.{image_format}"))
    others = folder.exists() and any(p.is_file() and p not in files for p in folder.iterdir())
    if not files and not others:
        return False
    if len(files) != entry.num_frames or others:
        raise FileExistsError(f"{folder} already exists and holds other frames: choose another out")
    from PIL import Image

    first = next(_images(entry, size, only_first=True))
    with Image.open(files[0]) as image:
        if image.size != first.size:
            raise FileExistsError(f"{folder} already exists with frames of another size")
    return True


def _write(
    entry: VideoEntry, out: Path, size: int | None, image_format: ImageFormat, bar: Stage
) -> None:
    folder = out / entry.id
    unfinished = folder.with_name(
        f".{folder.name}.unfinished"
    )  # hidden, so never taken for a video
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    options: dict[str, Any] = {"quality": 95} if image_format == "jpeg" else {"compress_level": 4}
    for number, image in enumerate(_images(entry, size)):
        image.save(unfinished / f"{number:05d}.{image_format}", **options)
        bar.advance()
    unfinished.rename(folder)


def _images(entry: VideoEntry, size: int | None, *, only_first: bool = False) -> Iterator[Image]:
    from PIL import Image

    from usucl.data.transforms import resize_short_side

    for frame in entry.open().iter_frames([0] if only_first else range(entry.num_frames)):
        small = frame if size is None else resize_short_side(frame, size)
        grey = bool((small[0] == small[1]).all() and (small[0] == small[2]).all())
        yield Image.fromarray(small[0].numpy() if grey else small.permute(1, 2, 0).numpy())


def _renamed(catalog: VideoCatalog, table: str) -> bytes:
    """Returns a table with the names of the converted videos; other columns stay unchanged."""
    from usucl.data.catalog.labels import Names
    from usucl.data.catalog.spreadsheet import read_sheet, tidy

    path = catalog.root / table
    if not path.is_file():
        return b""
    videos = [(entry.id, (entry.path, *entry.links)) for entry in catalog]
    known = Names(catalog.root, videos, [])
    text = io.StringIO()
    with warnings.catch_warnings():  # the scan has said what there is to say
        warnings.simplefilter("ignore")
        sheet = read_sheet(path, ("video_id",))
        rows = list(sheet.rows)
    column = sheet.columns.index("video_id")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.header)
    for line, row in rows:
        index = known.index(tidy(row[column]), path, line)
        row[column] = row[column] if index is None else videos[index][0]
        writer.writerow(row)
    return text.getvalue().encode()
