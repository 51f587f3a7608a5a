"""Every frame of a folder of videos, embedded and stored, whatever interrupts it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from usucl.bank import NegativeBank
from usucl.data import Skipped, VideoCatalog, VideoError
from usucl.embedding import embed_videos, evenly_spaced
from usucl.gallery import contents
from usucl.gallery.contents import UNFINISHED, Contents, StoredVideo
from usucl.gallery.events import Callback, Progress, Resumed
from usucl.gallery.parts import Parts, Task, encoder_fingerprint
from usucl.losses import Frames
from usucl.models import FrameEncoder, load_encoder

DType = Literal["float32", "bfloat16", "float16"]


def embed_folder(
    run: Path,
    data: Path,
    out: Path,
    *,
    frames_per_video: int | None,
    search: str,
    dtype: DType,
    batch_size: int,
    overwrite: bool,
    tell: Callback,
) -> tuple[NegativeBank, Contents]:
    """See :meth:`usucl.Gallery.build`."""
    for option, value in (("frames_per_video", frames_per_video), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    refused = FileExistsError(f"{out} holds a bank: give overwrite=True to replace it")
    keep = (out / "bank.json").exists() and not overwrite
    if keep and not (out / UNFINISHED).exists():
        raise refused
    encoder = load_encoder(run)
    parts = Parts(out / UNFINISHED, encoder_fingerprint(run))
    catalog = VideoCatalog.scan(data)
    tasks = [parts.task(e, evenly_spaced(e.num_frames, frames_per_video)) for e in catalog]
    asked = json.dumps([[task.part for task in tasks], search, dtype])
    request = hashlib.sha256(asked.encode()).hexdigest()
    if keep:
        bank, known = contents.read(out)
        if known.source.get("request") != request:
            raise refused
        _clean(out, parts)  # killed when this alone was left to do
        tell(Resumed(len(known.videos), len(tasks), complete=True))
        return bank, known
    _new_bank(tasks, encoder, search, dtype)  # refused now rather than after the work
    for skipped in catalog.skipped:
        tell(skipped)
    done = _embed(tasks, encoder, parts, batch_size, tell)
    if not done:
        raise ValueError(f"data must hold at least one readable video, {data} has none")
    bank = _new_bank(done, encoder, search, dtype)
    _fill(bank, done, parts)
    source = {
        "run": str(run.absolute()),
        "encoder": parts.encoder,
        "data": str(data.absolute()),
        "search": search,
        "request": request,
    }
    made = Contents(tuple(StoredVideo.of(task.entry, task.frames) for task in done), source)
    contents.write(out, bank, made)
    _clean(out, parts)
    return bank, made


def _embed(
    tasks: Sequence[Task], encoder: FrameEncoder, parts: Parts, batch_size: int, tell: Callback
) -> list[Task]:
    """Makes the parts that are missing, and returns the tasks that have theirs now, in order."""
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
    return [task for task in tasks if task.part in finished]


def _new_bank(
    tasks: Sequence[Task], encoder: FrameEncoder, search: str, dtype: DType
) -> NegativeBank:
    capacity = sum(len(task.frames) for task in tasks)
    return NegativeBank(capacity, encoder.config.dim, search=search, dtype=getattr(torch, dtype))


def _fill(bank: NegativeBank, tasks: Sequence[Task], parts: Parts) -> None:
    """Puts the frames of each video into consecutive slots; videos and patients are numbered."""
    known = sorted({task.entry.group for task in tasks if task.entry.patient_known})
    number = {group: i for i, group in enumerate(known)}
    for video, task in enumerate(tasks):
        embedding = parts.load(task)
        if embedding is None:
            raise OSError(f"{parts.folder} was changed while the bank was built: start again")
        zeros = torch.zeros(len(embedding), dtype=torch.int64)
        patient = number[task.entry.group] if task.entry.patient_known else -1
        time = torch.tensor(task.frames, dtype=torch.float64) / task.entry.num_frames
        bank.enqueue(Frames(embedding, zeros + video, time.float(), zeros + patient))


def _clean(out: Path, parts: Parts) -> None:
    """Removes the parts, and half-written files of a build that was killed."""
    parts.remove()
    for leftover in out.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
