"""Conversion of a folder of videos, several at a time; it may be interrupted and started again."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from usucl._environment import existing
from usucl._files import read_json, size_in_words, write_atomically, write_json
from usucl._progress import Stage, stage
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.conversion.cropping import MARK, Crop, Cut, Tile, sheet
from usucl.data.conversion.layout import Shard, names, places
from usucl.data.conversion.tables import renamed_tables
from usucl.data.conversion.writing import (
    FolderWriter,
    ImageFormat,
    StoreWriter,
    Writer,
    interruptible,
)
from usucl.data.phantom import is_synthetic, mark_synthetic
from usucl.data.store.frames import resized_size
from usucl.data.video import VideoError

T = TypeVar("T")
OPTIONS = "conversion.json"  # beside the copies: what they were made with


@dataclass(frozen=True)
class Conversion:
    """What the copies of videos are like.

    Attributes:
        to: "frames", a folder of images per video, or "store", one file of plain pixels per video,
            which is mapped into memory instead of being decoded.
        size: short side in pixels, None to leave it as it is.
        image_format: of the images, "png", without loss, or "jpeg" of quality 95.
        crop: "sector" for the box around the ultrasound sector, "none" for all of the frame.
        mask: whether everything outside the sector becomes black.
    """

    to: Literal["frames", "store"] = "frames"
    size: int | None = None
    image_format: ImageFormat = "png"
    crop: Crop = "none"
    mask: bool = False

    @property
    def needs_sector(self) -> bool:
        """Whether the sector of each video is looked for."""
        return self.mask or self.crop != "none"


@dataclass(frozen=True)
class Converted:
    """What a conversion has done.

    Attributes:
        written: number of videos that were written.
        before: number of those that were already there.
        failed: (path, reason) of those that could not be converted.
        sheet: the page that shows what was cropped, if anything was.
    """

    written: int
    before: int
    failed: tuple[tuple[Path, str], ...]
    sheet: Path | None = None


@dataclass(frozen=True)
class _Copy:
    entry: VideoEntry
    name: str
    path: Path


def convert(
    catalog: VideoCatalog,
    out: str | Path,
    options: Conversion | None = None,
    *,
    jobs: int | None = None,
    shard: Shard | None = None,
) -> Converted:
    """Copies all videos of a catalogue, with their tables, in the same folders as they are in.

    Each copy is written in one piece, so the same call goes on after an interruption. Sweeps are
    copied as the clips that they consist of.

    Args:
        catalog: the videos.
        out: folder to write to, outside of the catalogue's.
        options: what the copies are like.
        jobs: number of videos that are converted at a time (default: one per CPU).
        shard: part of the videos, for one of several processes; tables are written by each.

    Raises:
        ValueError: ``out`` is inside of the data, or ``jobs`` is below 1.
        FileExistsError: something else is in ``out``; nothing was written.
        OSError: a file cannot be written; finished videos stay.
    """
    options = options or Conversion()
    out, jobs = Path(out), _checked(catalog, Path(out), jobs)
    writer = _writer(options)
    entries, copies = _copies(catalog, out, writer, shard)
    _check_options(out, options)
    finished = {copy.name for copy in copies if writer.is_finished(copy.path, copy.entry)}
    own_names = [name for _, name in _named(catalog.root, entries)]
    tables = renamed_tables(catalog.root, entries, own_names)
    for name, content in tables.items():
        if (out / name).is_file() and (out / name).read_bytes() != content:
            raise FileExistsError(
                f"{out / name} already exists and differs from what the videos have now: remove it "
                "to have it written anew"
            )
    page = _sheet_path(out, shard)
    missing = [copy for copy in copies if copy.name not in finished]
    _check_room(out, options, missing)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / OPTIONS).exists():
        write_json(out / OPTIONS, asdict(options))
    tiles: dict[str, Tile | tuple[str, str]] = {}
    failed: list[tuple[Path, str]] = []
    frames = sum(copy.entry.num_frames for copy in missing)
    with stage("Writing frames", frames, unit="frames") as bar:
        work = partial(_convert, options, writer, finished, bar)
        for copy, done in _parallel(work, copies, jobs):
            if isinstance(done, VideoError):
                failed.append((done.path, done.reason))
                tiles[copy.name] = copy.name, done.reason
            elif done is not None:
                tiles[copy.name] = done
    for name, content in tables.items():
        write_atomically(out / name, content)
    if is_synthetic(catalog.root):
        mark_synthetic(out)
    if options.needs_sector:
        _write_sheet(page, catalog.root, copies, tiles)
    return Converted(
        len(missing) - len(failed),
        len(finished),
        tuple(failed),
        page if options.needs_sector else None,
    )


def preview(
    catalog: VideoCatalog,
    out: str | Path,
    options: Conversion,
    *,
    jobs: int | None = None,
    shard: Shard | None = None,
) -> Converted:
    """Writes only the sheet that shows, for each video, what :func:`convert` is going to copy.

    Args, Raises:
        See :func:`convert`.
    """
    out, jobs = Path(out), _checked(catalog, Path(out), jobs)
    _, copies = _copies(catalog, out, _writer(options), shard)
    page = _sheet_path(out, shard)
    out.mkdir(parents=True, exist_ok=True)
    tiles: dict[str, Tile | tuple[str, str]] = {}
    failed: list[tuple[Path, str]] = []
    with stage("Finding sectors", len(copies), unit="videos") as bar:
        for copy, done in _parallel(partial(_look, options), copies, jobs):
            bar.advance()
            if isinstance(done, VideoError):
                failed.append((done.path, done.reason))
                tiles[copy.name] = copy.name, done.reason
            else:
                tiles[copy.name] = done
    _write_sheet(page, catalog.root, copies, tiles)
    return Converted(0, 0, tuple(failed), page)


def _checked(catalog: VideoCatalog, out: Path, jobs: int | None) -> int:
    root, inside = catalog.root.resolve(), out.resolve()
    if root in (inside, *inside.parents):
        raise ValueError(f"out must be outside of {catalog.root}, got {out}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    return jobs or os.cpu_count() or 1


def _writer(options: Conversion) -> Writer:
    made = asdict(options)
    if options.to == "store":
        del made["image_format"]
        return StoreWriter(made)
    return FolderWriter(made, options.image_format)


def _named(root: Path, entries: Sequence[VideoEntry]) -> list[tuple[Path, str]]:
    where = places(root, entries)
    return [(Path(place), name) for place, name in zip(where, names(where), strict=True)]


def _copies(
    catalog: VideoCatalog, out: Path, writer: Writer, shard: Shard | None
) -> tuple[list[VideoEntry], list[_Copy]]:
    """Returns all videos, and the copies that are to be made."""
    entries = list(catalog.clips)
    copies = [
        _Copy(entry, name, writer.file(out / place))
        for entry, (place, name) in zip(entries, _named(catalog.root, entries), strict=True)
    ]
    return entries, [copy for copy in copies if shard is None or copy.name in shard]


def _check_options(out: Path, options: Conversion) -> None:
    if not (out / OPTIONS).exists():
        return
    before, now = read_json(out / OPTIONS), asdict(options)
    if changed := [name for name, value in now.items() if before.get(name) != value]:
        said = ", ".join(f"{name} {before.get(name)}, not {now[name]}" for name in changed)
        raise FileExistsError(f"{out} already exists and was made with {said}: choose another out")


def _check_room(out: Path, options: Conversion, copies: Sequence[_Copy]) -> None:
    """Raises OSError if stored videos will not fit on the disk, even if all of them are grey."""
    if options.to != "store" or options.crop != "none":
        return
    needed = 0
    for copy in copies:
        try:
            video = copy.entry.open()
        except VideoError:  # converting it tells what is wrong
            continue
        size = (video.height, video.width)
        if options.size is not None:
            size = resized_size(video, options.size)
        needed += len(video) * math.prod(size)
    if needed > (free := shutil.disk_usage(existing(out)).free):
        raise OSError(
            errno.ENOSPC,
            f"at least {size_in_words(needed)} are needed, {size_in_words(free)} are free: "
            "give a smaller size",
            str(out),
        )


def _convert(
    options: Conversion,
    writer: Writer,
    finished: set[str],
    bar: Stage,
    stop: threading.Event,
    copy: _Copy,
) -> Tile | None:
    there = copy.name in finished
    if there and not options.needs_sector:
        return None
    video = copy.entry.open()
    cut = Cut.of(video, options.crop, options.mask, options.size)
    if not there:

        def note() -> None:
            bar.advance()
            if stop.is_set():
                raise _Stopped

        writer.write(copy.path, video, lambda: interruptible(video, cut.made, note))
    return Tile.of(copy.name, video, cut) if options.needs_sector else None


def _look(options: Conversion, stop: threading.Event, copy: _Copy) -> Tile:
    if stop.is_set():
        raise _Stopped
    video = copy.entry.open()
    return Tile.of(copy.name, video, Cut.of(video, options.crop, options.mask, options.size))


class _Stopped(Exception):
    """Another thread has raised an error."""


def _parallel(
    work: Callable[[threading.Event, _Copy], T], copies: Iterable[_Copy], jobs: int
) -> Iterator[tuple[_Copy, T | VideoError]]:
    """Yields each copy with what ``work`` returned for it; the first other error ends all work."""
    stop = threading.Event()
    first: list[BaseException] = []

    def one(copy: _Copy) -> tuple[_Copy, T | VideoError]:
        try:
            return copy, work(stop, copy)
        except VideoError as error:
            return copy, error
        except _Stopped:
            raise
        except BaseException as error:
            first.append(error)
            stop.set()
            raise

    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(one, copies)
    except _Stopped:
        raise first[0] from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _sheet_path(out: Path, shard: Shard | None) -> Path:
    name = "sectors" if shard is None else f"sectors-{shard.number}-of-{shard.count}"
    page = out / f"{name}.html"
    if page.exists() and not page.read_bytes().startswith(MARK.encode()):
        raise FileExistsError(f"{page} already exists and is no sheet of sectors")
    return page


def _write_sheet(
    page: Path, root: Path, copies: Sequence[_Copy], tiles: dict[str, Tile | tuple[str, str]]
) -> None:
    shown = [tiles[copy.name] for copy in copies if copy.name in tiles]
    write_atomically(page, sheet(f"Sectors of {root}", shown))
