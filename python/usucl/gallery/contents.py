"""The table of which frame of which video is in which slot of a bank, and its file.

The file ``contents-<identity>.json`` is next to those of the bank. Its name identifies the bank, so
both may be replaced one after the other: at any moment the bank in the folder finds its own table.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usucl._files import DamagedFileError, read_json, write_json
from usucl._progress import track
from usucl.bank import NegativeBank
from usucl.bank.versions import publishing, remove_unused
from usucl.data import VideoEntry, VideoError, load_frames
from usucl.data.catalog.entry import Part
from usucl.data.catalog.tables.columns import LABEL

FORMAT = "usucl-bank-contents-1"
UNFINISHED = "unfinished"
"""Folder of an interrupted build, inside that of the gallery."""


@dataclass(frozen=True)
class StoredVideo:
    """A video of the gallery; its ``frames``, numbers from 0, are in consecutive slots.

    ``patient``, ``label`` and ``fold`` are those of ``labels.csv`` when the gallery was built, None
    where it gave none. ``clips`` are name, path and number of frames of each clip of a sweep, whose
    own path is none.
    """

    id: str
    path: str
    num_frames: int
    patient: str | None
    label: str | None
    fold: int | None
    frames: tuple[int, ...]
    clips: tuple[tuple[str, str, int], ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folders and files in which its frames lie."""
        return tuple(Path(path) for _, path, _ in self.clips) or (Path(self.path),)

    def entry(self) -> VideoEntry:
        """Returns the video for reading its frames."""
        clips = [
            Part(name, VideoEntry(name, Path(path), number, None))
            for name, path, number in self.clips
        ]
        return VideoEntry(self.id, Path(self.path), self.num_frames, None, parts=tuple(clips))

    def as_json(self) -> dict[str, Any]:
        """Returns the record for JSON, in which only sweeps have clips."""
        fields = asdict(self)
        return fields if self.clips else {k: v for k, v in fields.items() if k != "clips"}

    @classmethod
    def of(cls, entry: VideoEntry, frames: tuple[int, ...]) -> StoredVideo:
        """Returns the record of a catalogue's video with these stored frames."""
        return cls(
            id=entry.id,
            path=str(entry.path.absolute()),
            num_frames=entry.num_frames,
            patient=entry.group if entry.patient_known else None,
            label=entry.label,
            fold=entry.fold,
            frames=frames,
            clips=tuple(
                (part.name, str(part.video.path.absolute()), part.video.num_frames)
                for part in entry.parts
            ),
        )


@dataclass(frozen=True)
class StoredFrame:
    """Everything known about one frame.

    Attributes:
        slot: its place in the bank.
        video: id of its video.
        frame: its number in the video, from 0.
        time: ``frame`` as a fraction of the video's length.
        patient, label, fold, path: those of the video, see :class:`StoredVideo`.
    """

    slot: int
    video: str
    frame: int
    time: float
    patient: str | None
    label: str | None
    fold: int | None
    path: str

    @property
    def name(self) -> str:
        """``<video id> @<frame>``."""
        return f"{self.video} @{self.frame}"


@dataclass(frozen=True)
class Contents:
    """The videos of a bank in the order of their slots, and the source of the bank.

    ``source`` holds run, encoder (its fingerprint), data, label (the column of the labels), search,
    request (a digest of the build's arguments).
    """

    videos: tuple[StoredVideo, ...]
    source: Mapping[str, Any]

    @cached_property
    def video(self) -> NDArray[np.int64]:
        """Position in ``videos`` of each slot's video, ``[M]``."""
        return np.repeat(np.arange(len(self.videos)), [len(v.frames) for v in self.videos])

    @cached_property
    def frame(self) -> NDArray[np.int64]:
        """Frame number of each slot, ``[M]``."""
        return np.array([number for v in self.videos for number in v.frames], dtype=np.int64)

    @cached_property
    def time(self) -> NDArray[np.float64]:
        """Time of each slot as a fraction of its video's length, ``[M]``."""
        return self.frame / np.array([v.num_frames for v in self.videos])[self.video]

    def video_of(self, slot: int) -> StoredVideo:
        """Returns the video whose frame is in a slot."""
        return self.videos[int(self.video[slot])]

    def describe(self, slot: int) -> StoredFrame:
        """Returns what is known about the frame in a slot."""
        video, frame, time = self.video_of(slot), int(self.frame[slot]), float(self.time[slot])
        about = (video.patient, video.label, video.fold, video.path)
        return StoredFrame(slot, video.id, frame, time, *about)

    def pictures(self, slots: Sequence[int], size: int) -> dict[int, Tensor | VideoError]:
        """Returns uint8 ``[3, size, size]`` as an encoder sees frames, or why one is missing."""
        pictures: dict[int, Tensor | VideoError] = {}
        wanted = np.unique(np.array(slots, dtype=np.int64))
        videos = np.unique(self.video[wanted]).tolist()
        for number in track(videos, "Reading frames", unit="videos"):  # each video once
            video = self.videos[number]
            entry = video.entry()
            mine = wanted[self.video[wanted] == number]
            try:
                images = load_frames(entry, self.frame[mine], size)
                pictures |= dict(zip(mine.tolist(), images, strict=True))
            except VideoError as error:
                pictures |= dict.fromkeys(mine.tolist(), error)
            except IndexError as error:  # the video is shorter than it was
                gone = VideoError(video.path, str(error))
                pictures |= dict.fromkeys(mine.tolist(), gone)
        return pictures


def read(folder: Path) -> tuple[NegativeBank, Contents]:
    """Reads what :func:`write` wrote.

    Raises:
        FileNotFoundError: there is no bank, or only one without its table.
        ValueError: the files are damaged.
    """
    earlier = None
    while True:
        bank = open_bank(folder)
        path = _file(folder, bank)
        try:
            return bank, _checked(path, read_json(path), len(bank))
        except FileNotFoundError as error:
            if path == earlier:
                raise FileNotFoundError(
                    f"{folder} does not say which videos its frames are from ({path.name} is "
                    "missing): make the bank with 'usucl bank build'"
                ) from error
            earlier = path  # another process may have replaced and removed this version


def _checked(path: Path, table: Mapping[str, Any], frames: int) -> Contents:
    """Returns the contents that a table holds, if they are possible for so many frames."""
    try:
        if table["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT!r}, got {table['format']!r}")
        videos = [_video(fields) for fields in table["videos"]]
        for video in videos:
            _check_video(video)
        contents = Contents(tuple(videos), dict(table["source"]))
        if len(contents.frame) != frames:
            raise ValueError(f"it must list {frames} frames, got {len(contents.frame)}")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedFileError(path, reason) from error
    return contents


def _video(fields: Mapping[str, Any]) -> StoredVideo:
    clips = tuple((name, path, number) for name, path, number in fields.get("clips", ()))
    return StoredVideo(**{**fields, "frames": tuple(fields["frames"]), "clips": clips})


def _check_video(video: StoredVideo) -> None:
    of_clips = [number for *_, number in video.clips]
    numbers = (video.num_frames, *video.frames, 0 if video.fold is None else video.fold, *of_clips)
    texts: tuple[str, ...] = (video.id, video.path, video.patient or "", video.label or "")
    texts += tuple(text for name, path, _ in video.clips for text in (name, path))
    if not all(type(number) is int for number in numbers):
        raise ValueError(f"frames and fold must be integers, got {numbers} for {video.id!r}")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"id, path, patient and label must be texts, got {texts}")
    if not all(0 <= number < video.num_frames for number in video.frames):
        raise ValueError(f"{video.id!r} must have frames below {video.num_frames}, got {numbers}")
    if video.clips and sum(of_clips) != video.num_frames:
        raise ValueError(f"the clips of {video.id!r} must have {video.num_frames} frames in all")


def write(folder: Path, bank: NegativeBank, contents: Contents) -> None:
    """Writes the table, then the bank; an earlier gallery stays complete until then."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _file(folder, bank)
    table = {
        "format": FORMAT,
        "source": dict(contents.source),
        "videos": [video.as_json() for video in contents.videos],
    }
    with publishing(folder):
        write_json(path, table)
        bank.save(folder)
        remove_unused(folder, set(folder.glob("contents-*.json")) - {path})


def open_bank(folder: Path) -> NegativeBank:
    """Opens the bank alone, which need not have been saved by :func:`write`."""
    try:
        return NegativeBank.load(folder)
    except FileNotFoundError as error:
        if (folder / UNFINISHED).is_dir():
            raise FileNotFoundError(
                f"{folder} holds an unfinished bank: 'usucl bank build' with the same arguments "
                "continues it"
            ) from error
        raise


def facts(folder: Path) -> dict[str, Any]:
    """Returns what ``usucl bank info`` shows about a folder, as for JSON.

    Raises:
        FileNotFoundError: there is no bank.
        ValueError: the files are damaged.
    """
    bank = open_bank(folder)
    columns = bank.frames()
    description = read_json(folder / "bank.json")
    size = 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # of a version that is being replaced
            size += file.stat().st_size if file.is_file() else 0
    counts = columns.video[columns.video >= 0].unique(return_counts=True)[1].tolist()
    spread = {"least": min(counts), "median": median(counts), "most": max(counts)} if counts else {}
    known: dict[str, Any] = {
        "frames": len(bank),
        "capacity": bank.capacity,
        "dim": bank.dim,
        "dtype": str(columns.embedding.dtype).removeprefix("torch."),
        "search": bank.search,
        "index_bytes": bank.index_bytes,
        "format": description.get("format"),
        "bytes": size,
        "frames_per_video": spread,
        "unfinished": (folder / UNFINISHED).is_dir(),
        "described": True,
    }
    try:
        _, contents = read(folder)
    except FileNotFoundError:  # a bank that was saved from Python
        patients = columns.patient.unique() if columns.patient is not None else []
        named = sum(int(patient) >= 0 for patient in patients)
        return {**known, "described": False, "videos": len(counts), "patients": named}
    videos = contents.videos
    labels = Counter(video.label for video in videos if video.label is not None)
    folds = Counter(video.fold for video in videos if video.fold is not None)
    return {
        **known,
        "videos": len(videos),
        "patients": len({video.patient for video in videos if video.patient is not None}),
        "labels": dict(sorted(labels.items())),
        "folds": {str(fold): count for fold, count in sorted(folds.items())},
        "label": contents.source.get("label", LABEL),  # earlier versions knew no other column
        **{key: contents.source.get(key) for key in ("run", "encoder", "data")},
    }


def _file(folder: Path, bank: NegativeBank) -> Path:
    """Returns the path of this bank's table: its name is a digest of all that is stored."""
    digest = hashlib.sha256()
    for column in bank.frames():
        assert column is not None  # a bank always has patients
        digest.update(column.contiguous().cpu().view(torch.uint8).numpy().data)
    return folder / f"contents-{digest.hexdigest()[:16]}.json"
