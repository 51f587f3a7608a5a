"""Embeddings of a run's encoders on a folder of videos, and their files."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from usucl.data import VideoCatalog, VideoEntry, VideoError, load_frames, normalise
from usucl.models import load_encoder

logger = logging.getLogger(__name__)

EncoderName = Literal["trained", "random", "pixels"]
ENCODERS: tuple[EncoderName, ...] = ("trained", "random", "pixels")


@dataclass(frozen=True)
class Embeddings:
    """What one encoder makes of n frames of V videos.

    Attributes:
        features: backbone output, float32 [n, F]. What the probes see.
        embedding: L2-normalised output of the head, float32 [n, D]. What the loss shaped.
        video: index into the per-video fields below, int64 [n].
        frame: frame number in its video, int64 [n].
        time: ``frame`` as a fraction of the video's length, float32 [n].
        frame_label: label of each frame, or None, length n.
        video_id, group, label, held_out: one per video. ``held_out``: neither the video nor its
            patient was seen in pretraining.
    """

    features: Tensor
    embedding: Tensor
    video: Tensor
    frame: Tensor
    time: Tensor
    frame_label: tuple[str | None, ...]
    video_id: tuple[str, ...]
    group: tuple[str, ...]
    label: tuple[str | None, ...]
    held_out: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.video)

    def select(self, frames: NDArray[np.bool_]) -> Embeddings:
        """The frames of a boolean mask [n]; the videos stay as they are."""
        mask = torch.from_numpy(frames)
        tensors = ("features", "embedding", "video", "frame", "time")
        return replace(
            self,
            frame_label=tuple(self.frame_label[i] for i in np.flatnonzero(frames)),
            **{name: getattr(self, name)[mask] for name in tensors},
        )

    @property
    def frame_held_out(self) -> NDArray[np.bool_]:
        """``held_out`` of each frame's video, [n]."""
        return np.array(self.held_out, dtype=bool)[self.video.numpy()]

    def save(self, folder: str | Path, name: str) -> Path:
        """Write ``<name>.safetensors`` (tensors) and ``<name>.csv`` (one row per frame)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = ("features", "embedding", "video", "frame", "time")
        path = folder / f"{name}.safetensors"
        save_file({key: getattr(self, key).contiguous() for key in tensors}, path)
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ("video", "video_id", "frame", "time", "group", "label", "frame_label", "part")
            )
            for v, f, t, frame_label in zip(
                self.video.tolist(),
                self.frame.tolist(),
                self.time.tolist(),
                self.frame_label,
                strict=True,
            ):
                part = "held_out" if self.held_out[v] else "train"
                row = (self.video_id[v], f, f"{t:.6g}", self.group[v], self.label[v] or "")
                writer.writerow((v, *row, frame_label or "", part))
        return path

    @classmethod
    def load(cls, folder: str | Path, name: str) -> Embeddings:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there are no embeddings of that name.
        """
        folder = Path(folder)
        tensors = load_file(folder / f"{name}.safetensors")
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        videos = {int(row["video"]): row for row in rows}
        ordered = [videos[v] for v in range(len(videos))]
        return cls(
            **tensors,
            frame_label=tuple(row["frame_label"] or None for row in rows),
            video_id=tuple(row["video_id"] for row in ordered),
            group=tuple(row["group"] for row in ordered),
            label=tuple(row["label"] or None for row in ordered),
            held_out=tuple(row["part"] == "held_out" for row in ordered),
        )


class PixelEncoder(nn.Module):
    """The frame itself as its embedding: ``size`` x ``size`` grey values with mean 0 and unit
    norm. The cosine of two frames is then their Pearson correlation, blind to brightness and
    contrast: the bar that an encoder has to clear."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.size = size
        self.head = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> standardised pixels [B, size * size]."""
        small = F.interpolate(
            images.mean(1, keepdim=True), (self.size, self.size), mode="bilinear", antialias=True
        )
        pixels = small.flatten(1)
        pixels = pixels - pixels.mean(1, keepdim=True)
        return pixels / pixels.std(1, keepdim=True).clamp_min(1e-6)


def load_encoders(run: str | Path, names: Sequence[EncoderName] = ENCODERS) -> dict[str, nn.Module]:
    """The encoders to compare: the run's trained weights, its weights before training, pixels."""
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"run must be a run folder, got {run}")
    unknown = set(names) - set(ENCODERS)
    if unknown:
        raise ValueError(f"encoder must be one of {ENCODERS}, got {sorted(unknown)}")
    folder = {"trained": run, "random": run / "initial"}
    return {
        name: (PixelEncoder() if name == "pixels" else load_encoder(folder[name])).eval()
        for name in names
    }


def held_out_videos(run: str | Path, catalog: VideoCatalog) -> tuple[bool, ...]:
    """For each video, whether pretraining saw neither it nor another video of its patient.

    Ids depend on the folder scanned and on what else it holds, so a video's part is that of the
    longest end of its path that ``split.csv`` lists. Its patient was seen if pretraining had a
    patient of that name, or if a video that today's labels give to the patient was trained on.
    """
    path = Path(run) / "split.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = {row["video_id"]: row["part"] for row in rows}
    patients = {row["group"] for row in rows if row["part"] == "train"}

    def seen(entry: VideoEntry) -> bool:
        known = next((parts[name] for name in _names(entry.path) if name in parts), None)
        return known == "train" or (entry.patient_known and entry.group in patients)

    groups = {entry.group for entry in catalog if seen(entry)}
    return tuple(entry.group not in groups for entry in catalog)


def _names(path: Path) -> Iterator[str]:
    """Every id a catalogue may have given the video, the most specific first."""
    paths = [path.absolute(), path.resolve()]  # what a link is called, and where it leads
    if path.is_file():
        paths += [p.with_suffix("") for p in paths]
    for length in range(max(len(p.parts) for p in paths), 0, -1):
        for p in paths:
            yield "/".join(p.parts[-length:])


def evenly_spaced(num_frames: int, count: int | None) -> list[int]:
    """At most ``count`` frame numbers over a whole video; all of them for None."""
    if count is None or count >= num_frames:
        return list(range(num_frames))
    return [int((i + 0.5) * num_frames / count) for i in range(count)]


def encode(
    encoder: nn.Module, images: Tensor, batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features [n, F] and L2-normalised embeddings [n, D] of normalised images, on the CPU.

    ``encoder`` is anything with ``features`` and ``head``; one pass of the backbone gives both.
    """
    features, embeddings = [], []
    with torch.no_grad():
        for batch in images.split(batch_size):
            feature = encoder.features(batch.to(device))  # type: ignore[operator]
            embedding = F.normalize(encoder.head(feature).float(), dim=1)  # type: ignore[operator]
            features.append(feature.float().cpu())
            embeddings.append(embedding.cpu())
    return torch.cat(features), torch.cat(embeddings)


def embed_entries(
    entries: Sequence[VideoEntry],
    encoders: Mapping[str, nn.Module],
    *,
    image_size: int,
    held_out: Sequence[bool],
    frames_per_video: int | None = None,
    batch_size: int = 64,
    device: torch.device | None = None,
) -> dict[str, Embeddings]:
    """Embed the same frames with every encoder, each video read once.

    Videos that cannot be read are named in the log and left out. ``held_out`` [V] as in
    :class:`Embeddings`.

    Raises:
        ValueError: if no video is left, or an encoder gives values that are not finite.
    """
    device = device or default_device()
    encoders = {name: encoder.to(device) for name, encoder in encoders.items()}
    kept: list[tuple[VideoEntry, bool]] = []
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in encoders}
    video, frame, time, frame_label = [], [], [], []
    for entry, is_held_out in zip(entries, held_out, strict=True):
        indices = evenly_spaced(entry.num_frames, frames_per_video)
        try:
            images = normalise(load_frames(entry, indices, image_size))
        except VideoError as error:
            logger.warning("left out: %s", error)
            continue
        for name, encoder in encoders.items():
            parts[name].append(encode(encoder, images, batch_size, device))
            if not parts[name][-1][0].isfinite().all():
                raise ValueError(f"the {name} encoder gives values that are not finite")
        video += [len(kept)] * len(indices)
        frame += indices
        time += [i / entry.num_frames for i in indices]
        labels = entry.frame_labels
        frame_label += [labels[i] if labels else None for i in indices]
        kept.append((entry, is_held_out))
    if not kept:
        raise ValueError("data must hold at least one readable video, got none")
    return {
        name: Embeddings(
            features=torch.cat([features for features, _ in pairs]),
            embedding=torch.cat([embedding for _, embedding in pairs]),
            video=torch.tensor(video),
            frame=torch.tensor(frame),
            time=torch.tensor(time, dtype=torch.float32),
            frame_label=tuple(frame_label),
            video_id=tuple(e.id for e, _ in kept),
            group=tuple(e.group for e, _ in kept),
            label=tuple(e.label for e, _ in kept),
            held_out=tuple(h for _, h in kept),
        )
        for name, pairs in parts.items()
    }


def embed(
    *,
    run: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    encoder: EncoderName = "trained",
    frames_per_video: int | None = None,
    batch_size: int = 64,
    overwrite: bool = False,
) -> Embeddings:
    """Embed the frames of a data folder with an encoder of a run.

    Args:
        run: run folder written by :func:`usucl.train`.
        data: folder of videos.
        out: folder for ``<encoder>.safetensors`` and ``<encoder>.csv``; by default
            ``<run>/embedded`` (``<run>/embeddings`` belongs to :func:`usucl.evaluate`).
        encoder: "trained", "random" (the run's weights before training) or "pixels".
        frames_per_video: at most so many frames of each video, evenly spaced; None: all.
        batch_size: frames encoded at once.
        overwrite: write into an ``out`` that is not empty; other files in it stay.

    Returns:
        The :class:`Embeddings`, also written to ``out``.

    Raises:
        FileNotFoundError: if ``run`` is not a run folder.
        FileExistsError: if ``out`` is not empty, without ``overwrite``, or is a file.
        ValueError: if ``data`` has no readable video.
    """
    encoders = load_encoders(run, [encoder])
    out = Path(run) / "embedded" if out is None else Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out must be a folder, {out} is a file")
    if out.exists() and not overwrite and any(out.iterdir()):
        raise FileExistsError(f"out is not empty: {out}; give overwrite=True to write into it")
    catalog = VideoCatalog.scan(data)
    result = embed_entries(
        catalog.entries,
        encoders,
        image_size=image_size_of(run),
        held_out=held_out_videos(run, catalog),
        frames_per_video=frames_per_video,
        batch_size=batch_size,
    )[encoder]
    result.save(out, encoder)
    return result


def image_size_of(run: str | Path) -> int:
    """Side of the square images the run's encoder was trained on, in pixels."""
    return int(load_encoder(run).config.image_size)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
