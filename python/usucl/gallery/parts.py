"""The work of an interrupted build: a file of embeddings for each finished video."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usucl._files import DamagedFileError, read_tensors, write_tensors
from usucl.data import VideoEntry
from usucl.data.catalog.scanning.stamp import stamp_of
from usucl.run_folder import RunFolder

FORMAT = "usucl-bank-part-1"


@dataclass(frozen=True)
class Task:
    """A video, its frames to embed, and the name of the part that they make."""

    entry: VideoEntry
    frames: tuple[int, ...]
    part: str


class Parts:
    """Embeddings of single videos in a folder, each file named by everything they depend on.

    That is the encoder, the choice of frames, and path, size and modification time of every file
    of the video. So embeddings by another encoder or of other data are not found.

    Args:
        folder: folder to make when the first part is saved.
        encoder: fingerprint of the encoder.
    """

    def __init__(self, folder: Path, encoder: str) -> None:
        self.folder = folder
        self.encoder = encoder

    def task(self, entry: VideoEntry, frames: Sequence[int]) -> Task:
        """Returns the task of embedding these frames of a video."""
        content: dict[str, Any] = {"format": FORMAT, "encoder": self.encoder}
        if entry.parts:
            content["parts"] = [_stamped(part.video) for part in entry.parts]
        else:
            content |= _stamped(entry)
        content["frames"] = list(frames)
        part = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        return Task(entry, tuple(frames), part)

    def load(self, task: Task) -> Tensor | None:
        """Reads the embeddings ``[n, D]``; None if they are missing, damaged or no embeddings."""
        try:
            embedding = read_tensors(self._file(task.part))[0].get("embedding")
        except (OSError, DamagedFileError):
            return None
        usable = embedding is not None and is_normalised(embedding, len(task.frames))
        return embedding if usable else None

    def save(self, task: Task, embedding: Tensor) -> None:
        """Writes a part atomically.

        Raises:
            ValueError: an embedding is not finite or not of length 1.
        """
        if not is_normalised(embedding, len(task.frames)):
            raise ValueError(f"the encoder's embeddings of {task.entry.id} must be of length 1")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(task.part), {"embedding": embedding})

    def others(self, tasks: Sequence[Task]) -> int:
        """Counts the stored parts that belong to none of these tasks."""
        there = {file.stem for file in self.folder.glob("[!.]*.safetensors")}
        return len(there - {task.part for task in tasks})

    def remove(self) -> None:
        """Deletes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.safetensors"


def _stamped(entry: VideoEntry) -> dict[str, Any]:
    """Returns where a video lies, and what changes with its content."""
    stamp = stamp_of(entry.path)
    return {"path": str(entry.path.resolve()), "stamp": stamp and stamp.key}


def is_normalised(embedding: Tensor, frames: int) -> bool:
    """Returns whether embeddings are float32 ``[frames, D]``, finite and of length 1."""
    if embedding.dim() != 2 or len(embedding) != frames or embedding.dtype != torch.float32:
        return False
    return bool(((torch.linalg.vector_norm(embedding, dim=1) - 1).abs() < 1e-3).all())


def encoder_fingerprint(run: Path) -> str:
    """Returns the SHA-256 of the encoder's weights and configuration, in hexadecimal."""
    digest = hashlib.sha256()
    files = RunFolder(run)
    for file in (files.encoder_config, files.encoder_weights):
        digest.update(file.read_bytes())
    return digest.hexdigest()
