"""The contact sheet: held-out frames next to those that the trained encoder finds most similar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from usucl import _style as style
from usucl.bank import NegativeBank
from usucl.data import VideoCatalog, VideoEntry, load_frames, normalise
from usucl.data.batches import Clock
from usucl.data.sampling import clamp_window
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
TILE = 128


@dataclass(frozen=True)
class _Tile:
    entry: VideoEntry
    frame: int
    similarity: float | None  # to the anchor; None for the anchor itself


@dataclass(frozen=True)
class _Row:
    anchor: _Tile
    positive: _Tile
    intra: list[_Tile]
    cross: list[_Tile]


def contact_sheet(record: RunRecord, data: str | Path, path: Path) -> Path | None:
    """Draws a positive and the hardest negatives of each anchor, one row per anchor.

    Keys are up to 60 frames of each held-out video (of all videos if none is held out). The
    temporal window is the last one of the run's curriculum, kept beyond the positives as in
    training. The nearest videos show one cross-video negative each, the hardest: the next hardest
    are most often its neighbours in time and look the same.

    Returns:
        ``path``, or None if there is no other video to compare with.
    """
    catalog = record.folder.scan(data)
    held_out = record.folder.held_out_videos(catalog)
    entries = [e for e, kept in zip(catalog, held_out, strict=True) if kept] or list(catalog)
    if len({e.group for e in entries}) < 2:
        return None
    some = replace(
        catalog, entries=tuple(entries[i] for i in evenly_spaced(len(entries), VIDEOS, ends=True))
    )
    rows = _rows(record, some)
    with style.styled():
        return style.save(_draw(rows, record.window is not None), path)


def _rows(record: RunRecord, catalog: VideoCatalog) -> list[_Row]:
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

    def tile(index: int, similarity: float | None) -> _Tile:
        return _Tile(catalog.entries[video[index]], int(embeddings.frame[index]), similarity)

    def tiles(index: Tensor, similarity: Tensor) -> list[_Tile]:
        pairs = zip(index.tolist(), similarity.tolist(), strict=True)
        return [tile(i, s) for i, s in pairs if i >= 0]

    rows = []
    for n, i in enumerate(chosen.tolist()):
        anchor = tile(i, None)
        near = anchor.frame + radius
        near = near if near < anchor.entry.num_frames else max(0, anchor.frame - radius)
        image = normalise(load_frames(anchor.entry, [near], size))
        positive = encode(encoder, image, 1, default_device()).embedding[0]
        hardest: dict[str, _Tile] = {}
        for other in tiles(cross.cross_index[n], cross.cross_similarity[n]):
            hardest.setdefault(other.entry.id, other)
        rows.append(
            _Row(
                anchor,
                _Tile(anchor.entry, near, float(positive @ anchors.embedding[n])),
                tiles(intra.intra_index[n], intra.intra_similarity[n]),
                list(hardest.values())[:NEGATIVES],
            )
        )
    return rows


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
    radius = record.config.sampling.positive_radius
    bounds = [clamp_window((lo * rate, hi * rate), radius) for rate in frames_per_unit]
    slack = np.array([-0.01, 0.01])  # frames; times are rounded to float32
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


def _draw(rows: Sequence[_Row], with_intra: bool) -> Figure:
    groups = [
        ("Anchor", style.ANCHOR, 1, [[row.anchor] for row in rows]),
        ("Positive", style.POSITIVE, 1, [[row.positive] for row in rows]),
    ]
    if with_intra:
        intra = [row.intra for row in rows]
        groups.append(("Hardest intra-video negatives", style.INTRA, NEGATIVES, intra))
    cross = [row.cross for row in rows]
    groups.append(("Hardest cross-video negatives", style.CROSS, NEGATIVES, cross))

    # Lengths are in inches from the top left; a cell is a picture with a white border.
    gap, head, caption = 0.22, 0.42, 0.36
    columns = sum(span for _, _, span, _ in groups)
    cell = min(1.2, (style.WIDTH - gap * (len(groups) - 1)) / columns)
    border = 0.03 * cell
    width = cell * columns + gap * (len(groups) - 1)
    height = head + len(rows) * (cell + caption)
    figure = Figure(figsize=(width, height))
    x = 0.0
    for title, colour, span, tiles in groups:
        left, right = (x + border) / width, (x + cell * span - border) / width
        figure.text(left, 1 - 0.2 / height, title, color=colour, weight="bold", fontsize=9)
        figure.add_artist(Line2D([left, right], [1 - 0.29 / height] * 2, color=colour))
        for r, row in enumerate(rows):
            bottom = height - head - r * (cell + caption) - cell
            for k in range(span):
                size = cell - 2 * border
                box = (x + k * cell + border, bottom + border, size, size)
                axes = figure.add_axes(
                    (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
                )
                style.bare(axes)
                if k < len(tiles[r]):
                    _picture(axes, tiles[r][k], colour, row.anchor)
                else:
                    axes.set_facecolor(style.MAP)
                    axes.text(
                        0.5, 0.5, "no other", transform=axes.transAxes, color=style.MUTED,
                        ha="center", va="center", fontsize=7,
                    )  # fmt: skip
        x += cell * span + gap
    return figure


def _picture(axes: Axes, tile: _Tile, colour: str, anchor: _Tile) -> None:
    image = load_frames(tile.entry, [tile.frame], TILE)[0].permute(1, 2, 0).numpy()
    axes.imshow(image, interpolation="lanczos", aspect="auto")
    where = f"{style.shortened(tile.entry.label or tile.entry.id, 13)} · f{tile.frame}"
    if tile is anchor:
        first, second, weight = style.shortened(tile.entry.id, 17), where, "normal"
    else:
        first, weight = f"{tile.similarity:.3f}", "bold"
        distance = f"{tile.frame - anchor.frame:+d} frames".replace("-", "−")  # noqa: RUF001
        second = distance if tile.entry is anchor.entry else where
    below: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
    axes.text(0, -0.05, first, fontsize=7.2, color=colour, weight=weight, **below)
    axes.text(0, -0.17, second, fontsize=6.6, color=style.MUTED, **below)
