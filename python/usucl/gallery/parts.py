"""The work of an interrupted build: a file of embeddings for each finished video."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from usucl._files import write_atomically
from usucl.data import VideoEntry
from usucl.data.video import frame_files
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
        path = entry.path.resolve()
        files = frame_files(path) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
        content = {
            "format": FORMAT,
            "encoder": self.encoder,
            "path": str(path),
            "files": [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
            "frames": list(frames),
        }
        part = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        return Task(entry, tuple(frames), part)

    def load(self, task: Task) -> Tensor | None:
        """Reads the embeddings ``[n, D]``; None if they are missing or damaged."""
        try:
            return safetensors.torch.load(self._file(task.part).read_bytes())["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None

    def save(self, task: Task, embedding: Tensor) -> None:
        """Writes a part atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(task.part), safetensors.torch.save({"embedding": embedding}))

    def others(self, tasks: Sequence[Task]) -> int:
        """Counts the stored parts that belong to none of these tasks."""
        there = {file.stem for file in self.folder.glob("[!.]*.safetensors")}
        return len(there - {task.part for task in tasks})

    def remove(self) -> None:
        """Deletes all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, part: str) -> Path:
        return self.folder / f"{part}.safetensors"


def encoder_fingerprint(run: Path) -> str:
    """Returns the SHA-256 of the encoder's weights and configuration, in hexadecimal."""
    digest = hashlib.sha256()
    files = RunFolder(run)
    for file in (files.encoder_config, files.encoder_weights):
        digest.update(file.read_bytes())
    return digest.hexdigest()
