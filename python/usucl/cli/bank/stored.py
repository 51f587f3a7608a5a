"""A bank on disk with the table that says which frame of which video is in which slot.

Beside the files of the bank stands ``contents-<identity>.json``. Its name tells which bank it
speaks of, so both may be replaced one after the other: at any moment the bank in the folder finds
its own table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usucl._files import write_atomically
from usucl.bank import NegativeBank
from usucl.data import VideoEntry, VideoError, load_frames
from usucl.losses import Frames

FORMAT = "usucl-bank-contents-1"
DESCRIBED = ("slot", "video", "frame", "time", "patient", "label", "fold", "path")
UNFINISHED = "unfinished"
"""Folder of an interrupted build, inside that of the bank."""


@dataclass(frozen=True)
class StoredVideo:
    """A video of the bank; its ``frames``, numbers from 0, are in consecutive slots."""

    id: str
    path: str
    num_frames: int
    patient: str | None
    label: str | None
    fold: int | None
    frames: tuple[int, ...]

    @classmethod
    def of(cls, entry: VideoEntry, frames: tuple[int, ...]) -> StoredVideo:
        """A video of a catalogue, of which these frames are stored."""
        return cls(
            id=entry.id,
            path=str(entry.path.absolute()),
            num_frames=entry.num_frames,
            patient=entry.group if entry.patient_known else None,
            label=entry.label,
            fold=entry.fold,
            frames=frames,
        )


@dataclass(frozen=True)
class StoredBank:
    """A bank, the videos in it in the order of their slots, and what it was made from.

    ``source``: run, encoder (its fingerprint), data, search, request (what the build was asked).
    """

    folder: Path
    bank: NegativeBank
    videos: tuple[StoredVideo, ...]
    source: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> StoredBank:
        """Reads what ``usucl bank build`` wrote.

        Raises:
            FileNotFoundError: there is no bank, or only one without its table.
            ValueError: the files are damaged.
        """
        bank = open_bank(folder)
        path = contents_file(folder, identity(bank))
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} does not say which videos its frames are from ({path.name} is missing): "
                "make the bank with 'usucl bank build'"
            )
        try:
            contents = json.loads(path.read_bytes())
            if contents["format"] != FORMAT:
                raise ValueError(f"format is {contents['format']!r}, expected {FORMAT!r}")
            videos = [
                StoredVideo(**{**v, "frames": tuple(v["frames"])}) for v in contents["videos"]
            ]
            stored = cls(folder, bank, tuple(videos), contents["source"])
            if len(stored.frame) != len(bank):
                raise ValueError(f"it lists {len(stored.frame)} frames, the bank has {len(bank)}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        return stored

    def save(self) -> None:
        """Writes the table, then the bank: one that was there before stays whole until then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = contents_file(self.folder, identity(self.bank))
        contents = {
            "format": FORMAT,
            "source": dict(self.source),
            "videos": [asdict(video) for video in self.videos],
        }
        write_atomically(path, json.dumps(contents, indent=1).encode())
        self.bank.save(self.folder)
        for earlier in set(self.folder.glob("contents-*.json")) - {path}:
            earlier.unlink()

    @cached_property
    def video(self) -> NDArray[np.int64]:
        """Position in ``videos`` of each slot's video."""
        return np.repeat(np.arange(len(self.videos)), [len(v.frames) for v in self.videos])

    @cached_property
    def frame(self) -> NDArray[np.int64]:
        """Frame number of each slot."""
        return np.array([number for v in self.videos for number in v.frames], dtype=np.int64)

    @cached_property
    def time(self) -> NDArray[np.float64]:
        """Time of each slot as a fraction of its video's length."""
        return self.frame / np.array([v.num_frames for v in self.videos])[self.video]

    def video_of(self, slot: int) -> StoredVideo:
        return self.videos[int(self.video[slot])]

    def name(self, slot: int) -> str:
        """``<video id> @<frame>``, as a query is written."""
        return f"{self.video_of(slot).id} @{self.frame[slot]}"

    def describe(self, slot: int) -> dict[str, Any]:
        """Everything known of a slot's frame, for JSON."""
        video, frame = self.video_of(slot), int(self.frame[slot])
        time = round(float(self.time[slot]), 6)
        values = (slot, video.id, frame, time, video.patient, video.label, video.fold, video.path)
        return dict(zip(DESCRIBED, values, strict=True))

    def part(
        self, slots: NDArray[np.int64], group: NDArray[np.int64] | None = None
    ) -> NegativeBank:
        """An exact bank of these slots alone, in this order; ``group`` in place of the video."""
        columns = self.bank.frames()
        index = torch.from_numpy(slots).to(columns.video.device)
        video = columns.video[index] if group is None else torch.from_numpy(group).to(index.device)
        part = NegativeBank(
            len(slots), self.bank.dim, device=index.device, dtype=columns.embedding.dtype
        )
        part.enqueue(Frames(columns.embedding[index], video, columns.time[index]))
        return part

    def pictures(self, slots: Sequence[int], size: int) -> dict[int, Tensor | VideoError]:
        """Square frames as the encoder sees them, uint8 [3, size, size]; each video read once."""
        pictures: dict[int, Tensor | VideoError] = {}
        wanted = np.unique(np.array(slots, dtype=np.int64))
        for number in np.unique(self.video[wanted]).tolist():
            video = self.videos[number]
            entry = VideoEntry(video.id, Path(video.path), video.num_frames, None)
            mine = wanted[self.video[wanted] == number]
            try:
                images = load_frames(entry, self.frame[mine], size)
                pictures |= dict(zip(mine.tolist(), images, strict=True))
            except VideoError as error:
                pictures |= dict.fromkeys(mine.tolist(), error)
            except IndexError as error:  # shorter than it was
                gone = VideoError(video.path, str(error))
                pictures |= dict.fromkeys(mine.tolist(), gone)
        return pictures


def open_bank(folder: Path) -> NegativeBank:
    """The bank alone, which may have been saved by other means than ``usucl bank build``."""
    try:
        return NegativeBank.load(folder)
    except FileNotFoundError as error:
        if (folder / UNFINISHED).is_dir():
            raise FileNotFoundError(
                f"{folder} holds an unfinished bank: 'usucl bank build' with the same arguments "
                "goes on with it"
            ) from error
        raise


def identity(bank: NegativeBank) -> str:
    """SHA-256 of all that is stored, in hexadecimal."""
    digest = hashlib.sha256()
    for column in bank.frames():
        assert column is not None  # a bank has the patients always
        digest.update(column.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def contents_file(folder: Path, digest: str) -> Path:
    return folder / f"contents-{digest[:16]}.json"


def encoder_fingerprint(run: Path) -> str:
    """SHA-256 of the encoder's weights and configuration, in hexadecimal."""
    digest = hashlib.sha256()
    for name in ("encoder.json", "encoder.safetensors"):
        digest.update((run / name).read_bytes())
    return digest.hexdigest()
