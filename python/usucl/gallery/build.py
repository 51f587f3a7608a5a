"""The steps of a build: embedding, which may be interrupted, and filling a bank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from usucl._progress import stage, track
from usucl.bank import NegativeBank
from usucl.bank.versions import publishing, remove_unused
from usucl.data import Skipped, VideoError
from usucl.embedding import embed_videos
from usucl.gallery.events import Callback, Progress, Resumed
from usucl.gallery.parts import Parts, Task
from usucl.losses import Frames

if TYPE_CHECKING:
    from usucl.models import FrameEncoder

DType = Literal["float32", "bfloat16", "float16"]


def embed(
    tasks: Sequence[Task], encoder: FrameEncoder, parts: Parts, batch_size: int, tell: Callback
) -> list[Task]:
    """Makes the missing parts, and returns the tasks that now have one, in order."""
    finished = {task.part for task in tasks if parts.load(task) is not None}
    unused = parts.others(tasks)
    if finished or unused:
        tell(Resumed(len(finished), len(tasks), unused))
    total = sum(len(task.frames) for task in tasks)
    count = sum(len(task.frames) for task in tasks if task.part in finished)
    tell(Progress(count, total))
    missing = {task.entry.id: task for task in tasks if task.part not in finished}

    def left_out(error: VideoError) -> None:
        tell(Skipped(error.path, error.reason))

    with stage("Embedding frames", total - count, unit="frames") as bar:
        for entry, frames, encoded in embed_videos(
            ((task.entry, task.frames) for task in missing.values()),
            {"trained": encoder},
            image_size=encoder.config.image_size,
            left_out=left_out,
            batch_size=batch_size,
        ):
            parts.save(missing[entry.id], encoded["trained"].embedding)
            finished.add(missing[entry.id].part)
            count += len(frames)
            tell(Progress(count, total, entry.id))
            bar.advance(len(frames))
    return [task for task in tasks if task.part in finished]


def new_bank(
    tasks: Sequence[Task], encoder: FrameEncoder, search: str, dtype: DType
) -> NegativeBank:
    """Returns an empty bank with a slot for every frame."""
    capacity = sum(len(task.frames) for task in tasks)
    return NegativeBank(capacity, encoder.config.dim, search=search, dtype=getattr(torch, dtype))


def fill(bank: NegativeBank, tasks: Sequence[Task], parts: Parts) -> None:
    """Puts the frames of each video into consecutive slots; videos and patients are numbered."""
    known = sorted({task.entry.group for task in tasks if task.entry.patient_known})
    number = {group: i for i, group in enumerate(known)}
    for video, task in enumerate(track(tasks, "Filling the bank", unit="videos")):
        embedding = parts.load(task)
        if embedding is None:
            raise OSError(f"{parts.folder} was changed while the bank was built: start again")
        zeros = torch.zeros(len(embedding), dtype=torch.int64)
        patient = number[task.entry.group] if task.entry.patient_known else -1
        time = torch.tensor(task.frames, dtype=torch.float64) / task.entry.num_frames
        bank.enqueue(Frames(embedding, zeros + video, time.float(), zeros + patient))


def clean(out: Path, parts: Parts) -> None:
    """Removes the parts, and half-written files of a build that was killed."""
    parts.remove()
    with publishing(out):
        remove_unused(out, out.glob(".*.tmp"))
