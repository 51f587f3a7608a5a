"""The contact sheet: held-out frames next to those that the trained encoder finds most similar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usucl.bank import NegativeBank
from usucl.data import VideoCatalog, VideoEntry, load_frames, normalise
from usucl.data.sampling.candidates import SLACK, clamp_window, gap_in_frames
from usucl.data.sampling.clock import Clock
from usucl.embedding import (
    Embeddings,
    default_device,
    embed_entries,
    encode,
    evenly_spaced,
    numbered,
)
from usucl.losses import Frames
from usucl.models import load_encoder
from usucl.report.record import RunRecord

ROWS = 6
NEGATIVES = 3
VIDEOS = 30
FRAMES_PER_VIDEO = 60
TILE = 160


@dataclass(frozen=True)
class Tile:
    """A frame of the sheet; ``similarity`` is that to the anchor, None for the anchor itself."""

    entry: VideoEntry
    frame: int
    similarity: float | None

    @property
    def label(self) -> str | None:
        """The label of the video or, of a sweep, that of the clip."""
        labels = self.entry.frame_labels
        return labels[self.frame] if self.entry.parts and labels else self.entry.label

    @property
    def place(self) -> str:
        """The number of the frame and, in a sweep, the clip that it is counted in."""
        if (found := self.entry.part_of(self.frame)) is None:
            return f"frame {self.frame}"
        part, number = found
        return f"{part.name}, frame {number}"

    def picture(self) -> Tensor:
        """Returns the frame as the encoder sees it, uint8 ``[3, TILE, TILE]``."""
        return load_frames(self.entry, [self.frame], TILE)[0]


@dataclass(frozen=True)
class ContactRow:
    """An anchor with its positive and its hardest negatives, the most similar first."""

    anchor: Tile
    positive: Tile
    intra: list[Tile]
    cross: list[Tile]

    def is_above(self, tile: Tile) -> bool:
        """Whether a negative is more similar to the anchor than the positive is."""
        if tile.similarity is None or self.positive.similarity is None or tile is self.positive:
            return False
        return tile.similarity > self.positive.similarity


@dataclass(frozen=True)
class ContactSheet:
    """The rows of a contact sheet; ``with_intra`` is false for a run without such negatives."""

    rows: list[ContactRow]
    with_intra: bool

    def above(self, kind: str) -> tuple[int, int]:
        """Returns how many negatives, ``"intra"`` or ``"cross"``, are above their positive."""
        tiles = [(row, tile) for row in self.rows for tile in getattr(row, kind)]
        return sum(row.is_above(tile) for row, tile in tiles), len(tiles)


def contact_sheet(record: RunRecord, data: str | Path) -> ContactSheet | None:
    """Finds a positive and the hardest negatives of each anchor, one row per anchor.

    Keys are up to 60 frames of each held-out video (of all videos if none is held out). The
    temporal window is the last one of the run's curriculum, kept beyond the positives as in
    training. The nearest videos show one cross-video negative each, the hardest: the next hardest
    are most often its neighbours in time and look the same.

    Returns:
        The sheet, or None if there is no other video to compare with.
    """
    given: dict[str, Any] = {}
    if (of := record.evaluation) is not None:
        given = {
            "patient_pattern": of.patient_pattern,
            "label": of.label,
            "sweep": of.sweep,
            "min_frames": of.protocol.min_frames,
        }
    catalog = record.folder.scan(data, **given)
    held_out = record.folder.held_out_videos(catalog)
    entries = [e for e, kept in zip(catalog, held_out, strict=True) if kept] or list(catalog)
    if len({e.group for e in entries}) < 2:
        return None
    some = replace(
        catalog, entries=tuple(entries[i] for i in evenly_spaced(len(entries), VIDEOS, ends=True))
    )
    return ContactSheet(list(_rows(record, some)), record.window is not None)


def _rows(record: RunRecord, catalog: VideoCatalog) -> Iterator[ContactRow]:
    encoder = load_encoder(record.folder.path)
    size, radius = encoder.config.image_size, record.config.sampling.positive_radius
    embeddings = embed_entries(
        catalog.entries,
        {"trained": encoder},
        image_size=size,
        held_out=[True] * len(catalog),
        frames_per_video=FRAMES_PER_VIDEO,
    )["trained"]
    number = {entry.id: i for i, entry in enumerate(catalog)}
    video = np.array([number[i] for i in embeddings.video_id])[embeddings.video.numpy()]
    clock = Clock(catalog, record.config.sampling.time_unit)
    keys = _keys(embeddings, clock.times(video, embeddings.frame.numpy()))
    bank = NegativeBank(len(embeddings), keys.embedding.shape[1])
    bank.enqueue(keys)

    chosen = _anchors(embeddings)
    anchors = keys.take(chosen)
    intra = bank.hardest(
        anchors, NEGATIVES, window=_windows(record, clock.frames_per_unit[video[chosen]])
    )
    # This many reach the third video even if two others fill the first ranks.
    cross = bank.hardest(anchors, NEGATIVES * FRAMES_PER_VIDEO)

    def tile(index: int, similarity: float | None) -> Tile:
        return Tile(catalog.entries[video[index]], int(embeddings.frame[index]), similarity)

    def tiles(index: Tensor, similarity: Tensor) -> list[Tile]:
        pairs = zip(index.tolist(), similarity.tolist(), strict=True)
        return [tile(i, s) for i, s in pairs if i >= 0]

    for n, i in enumerate(chosen.tolist()):
        anchor = tile(i, None)
        near = anchor.frame + radius
        part = anchor.entry.part_numbers([anchor.frame, min(near, anchor.entry.num_frames - 1)])
        is_within = near < anchor.entry.num_frames and part[0] == part[1]
        near = near if is_within else max(0, anchor.frame - radius)
        image = normalise(load_frames(anchor.entry, [near], size))
        positive = encode(encoder, image, 1, default_device()).embedding[0]
        hardest: dict[str, Tile] = {}
        for other in tiles(cross.cross_index[n], cross.cross_similarity[n]):
            hardest.setdefault(other.entry.id, other)
        yield ContactRow(
            anchor,
            Tile(anchor.entry, near, float(positive @ anchors.embedding[n])),
            tiles(intra.intra_index[n], intra.intra_similarity[n]),
            list(hardest.values())[:NEGATIVES],
        )


def _keys(embeddings: Embeddings, times: NDArray[np.float64]) -> Frames:
    _, patient = numbered(embeddings.group)
    return Frames(
        embeddings.embedding,
        embeddings.video,
        torch.from_numpy(times).float(),
        torch.from_numpy(patient)[embeddings.video],
    )


def _windows(record: RunRecord, frames_per_unit: NDArray[np.float64]) -> Tensor | None:
    """Returns the run's last window for every anchor, beyond its positives: ``[N, 2]``."""
    if record.window is None:
        return None
    lo, hi = record.window
    sampling = record.config.sampling
    bounds = [
        clamp_window(
            (lo * rate, hi * rate),
            sampling.positive_radius,
            gap_in_frames(sampling.min_gap, rate),
        )
        for rate in frames_per_unit
    ]
    slack = np.array([-SLACK, SLACK])
    return torch.from_numpy((np.array(bounds) + slack) / frames_per_unit[:, None]).float()


def _anchors(embeddings: Embeddings) -> Tensor:
    """Returns the middle frame of one video per patient, for at most ``ROWS`` patients."""
    first_of_patient = {group: v for v, group in reversed(list(enumerate(embeddings.group)))}
    videos = sorted(first_of_patient.values())
    middle = [
        torch.nonzero(embeddings.video == videos[i]).flatten()
        for i in evenly_spaced(len(videos), ROWS, ends=True)
    ]
    return torch.stack([frames[len(frames) // 2] for frames in middle])
