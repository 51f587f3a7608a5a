"""``usucl bank build``: every frame of a folder of videos, embedded and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from usucl.cli.console import console, progress, say

if TYPE_CHECKING:
    from usucl.bank import NegativeBank
    from usucl.cli.bank.parts import Parts, Task
    from usucl.models import FrameEncoder

DType = Literal["float32", "bfloat16", "float16"]


def build(
    run: Path,
    data: Path,
    *,
    out: Path,
    frames_per_video: int | None = None,
    search: str = "exact",
    dtype: DType = "float32",
    batch_size: int = 64,
    overwrite: bool = False,
) -> None:
    """Embed every frame of a folder with a run's encoder, and keep them in a bank.

    May be interrupted and started again with the same arguments: it goes on after the last finished
    video. An earlier bank stays whole until the new one is complete.

    Args:
        run: run folder, of which only the encoder is used.
        data: folder of videos.
        out: folder of the bank.
        frames_per_video: at most so many frames of each video, evenly spaced; all by default.
        search: how the bank is searched: exact, or a FAISS index by the name its factory knows.
        dtype: of the stored embeddings.
        batch_size: frames encoded at once.
        overwrite: replace an earlier bank in this folder.
    """
    from usucl.cli.bank.parts import Parts
    from usucl.cli.bank.stored import UNFINISHED, StoredBank, StoredVideo, encoder_fingerprint
    from usucl.data import VideoCatalog
    from usucl.evaluation.embed import evenly_spaced
    from usucl.models import load_encoder

    for option, value in (("frames-per-video", frames_per_video), ("batch-size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    refused = FileExistsError(f"{out} holds a bank: give --overwrite to replace it")
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
        if StoredBank.open(out).source.get("request") != request:
            raise refused
        _clean(out, parts)  # killed when this alone was left to do
        say(f"Bank: {out} (complete already)")
        return
    _new_bank(tasks, encoder, search, dtype)  # refused now rather than after the work
    for path, reason in catalog.skipped:
        _left_out(path, reason)
    done = _embed(tasks, encoder, parts, batch_size)
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
    videos = tuple(StoredVideo.of(task.entry, task.frames) for task in done)
    StoredBank(out, bank, videos, source).save()
    _clean(out, parts)
    say(f"{len(bank)} frames of {len(done)} videos, {bank.dim} numbers each")
    say(f"Bank: {out}")
    say("Next:")
    say(f"  usucl bank search {out} IMAGE --out neighbours.png")
    say(f"  usucl bank duplicates {out} --out duplicates.png")


def _embed(
    tasks: Sequence[Task], encoder: FrameEncoder, parts: Parts, batch_size: int
) -> list[Task]:
    """Makes the parts that are missing, and gives the tasks that have theirs now, in order."""
    from usucl.data import VideoError, load_frames, normalise
    from usucl.evaluation.embed import default_device, encode

    device = default_device()
    encoder.to(device)
    finished = {task.part for task in tasks if parts.load(task) is not None}
    if finished:
        say(f"Going on: {len(finished)} of {len(tasks)} videos were finished before")
    if others := parts.others(tasks):
        say(f"Not used: {others} videos embedded by another encoder or from other files")
    done = []
    with progress("frames") as bar:
        shown = bar.add_task("", total=sum(len(task.frames) for task in tasks))
        for task in tasks:
            bar.update(shown, description=task.entry.id)
            if task.part not in finished:
                try:
                    images = load_frames(task.entry, task.frames, encoder.config.image_size)
                except VideoError as error:
                    _left_out(error.path, error.reason)
                    continue
                embedding = encode(encoder, normalise(images), batch_size, device)[1]
                if not embedding.isfinite().all():
                    raise ValueError(f"the encoder's values for {task.entry.id} are not finite")
                parts.save(task, embedding)
            done.append(task)
            bar.advance(shown, len(task.frames))
    return done


def _new_bank(
    tasks: Sequence[Task], encoder: FrameEncoder, search: str, dtype: DType
) -> NegativeBank:
    import torch

    from usucl.bank import NegativeBank

    capacity = sum(len(task.frames) for task in tasks)
    return NegativeBank(capacity, encoder.config.dim, search=search, dtype=getattr(torch, dtype))


def _fill(bank: NegativeBank, tasks: Sequence[Task], parts: Parts) -> None:
    """The frames of each video into consecutive slots; videos and patients are numbered."""
    import torch

    from usucl.losses import Frames

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


def _left_out(path: Path, reason: str) -> None:
    console(stderr=True).print(f"left out: {path}: {reason}", markup=False)
