"""``negatives/*.png``: a few anchors of a batch, their positives and their hardest negatives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from usucl import _style as style
from usucl.data import BatchPart, FrameBatch, FrameBatches, VideoError, load_frames
from usucl.data.transforms import GREY_MEAN, GREY_STD, MEAN, STD
from usucl.losses import Frames, positive_similarities
from usucl.run_folder import RunFolder
from usucl.training.loggers import log_picture
from usucl.training.module import ContrastiveTraining, StepOutput, batches_of

TILE, LINE, GAP = 1.35, 0.125, 0.14  # inches
HEAD, FOOT = 0.52, 0.2
UNITS = {"fraction": "of the video", "frames": "frames", "seconds": "s"}
POINTS = 7.0
OVERWRITTEN = 1e-3  # difference of a similarity from which a key is no longer the one it was
COLUMNS = (
    ("Anchor", style.ANCHOR),
    ("Positive", style.POSITIVE),
    ("Hardest intra-video", style.INTRA),
    ("Hardest cross-video", style.CROSS),
)


class Tile(NamedTuple):
    """A picture of a sheet and what is written below it.

    Attributes:
        image: uint8 ``[3, H, W]``; None for a frame that is not known.
        lines: the caption.
        above: whether it is a negative that is more similar to the anchor than its positive.
    """

    image: Tensor | None
    lines: tuple[str, ...]
    above: bool = False


class Key(NamedTuple):
    """What is known of a key: its picture, its video's number, and its time."""

    image: Tensor | None
    video: int
    time: float


@dataclass(frozen=True)
class Step:
    """A step whose negatives are shown.

    Attributes:
        batch: its frames.
        output: its results.
        batches: all batches.
        unit: unit of the times, in words.
        has_bank: whether the last block of keys is a bank.
    """

    batch: FrameBatch
    output: StepOutput
    batches: FrameBatches
    unit: str
    has_bank: bool

    def rows(self, most: int) -> Iterator[list[Tile | None]]:
        """Yields anchor, positive, hardest intra-video and cross-video negative of some anchors."""
        similarity = positive_similarities(self.output["inputs"])
        radius = self.batches.sampler.positive_radius
        near = f"within {radius} frames" if radius else "another view of it"
        for anchor in self._anchors(most):
            best = int(similarity[anchor].argmax())
            limit = float(similarity[anchor, best])
            view = self.batch.positive_view[anchor]
            positive = _picture(view if view.dim() == 3 else view[best])
            entry = self.batches.catalog.entries[int(self.batch.video[anchor])]
            frame = f"frame {int(self.batch.frame[anchor])}"
            about = tuple(filter(None, (entry.id, frame, entry.label)))
            yield [
                Tile(_picture(self.batch.anchor_view[anchor]), about),
                Tile(positive, (f"{limit:.3f}", near)),
                self._hardest(anchor, "intra", limit),
                self._hardest(anchor, "cross", limit),
            ]

    def _anchors(self, most: int) -> list[int]:
        """Returns rows of the batch that have negatives, of as many videos as there are."""
        selection = self.output["selection"]
        found = torch.cat([selection.intra_index, selection.cross_index], dim=1) >= 0
        ranks: dict[int, int] = {}
        order: list[tuple[int, int, int]] = []
        for row in torch.nonzero(found[: len(self.batch.video)].any(1)).flatten().tolist():
            video = int(self.batch.video[row])
            ranks[video] = ranks.get(video, -1) + 1
            order.append((ranks[video], len(order), row))
        return [row for *_, row in sorted(order)[:most]]

    def _hardest(self, anchor: int, group: str, limit: float) -> Tile | None:
        """Returns the hardest negative that can be shown, or else the hardest; None for none."""
        selection = self.output["selection"]
        index = getattr(selection, f"{group}_index")[anchor].tolist()
        similarity = getattr(selection, f"{group}_similarity")[anchor].tolist()
        tiles = []
        for rank, (i, s) in enumerate(zip(index, similarity, strict=True), 1):
            if i < 0:
                continue
            tile = self._tile(anchor, self._key(anchor, i, s), rank, s, s > limit)
            if tile.image is not None:
                return tile
            tiles.append(tile)
        return tiles[0] if tiles else None

    def _tile(self, anchor: int, key: Key, rank: int, similarity: float, above: bool) -> Tile:
        lines = [f"{similarity:.3f}" + (f" (rank {rank})" if rank > 1 else "")]
        own = key.video == int(self.batch.video[anchor])
        if key.video >= 0 and not own:
            entry = self.batches.catalog.entries[key.video]
            lines += filter(None, [entry.id, entry.label])
        distance = key.time - float(self.batch.time[anchor])
        if own and math.isfinite(distance):
            lines.append(f"{distance:+.3g} {self.unit}")
        return Tile(key.image, tuple(lines), above)

    def _key(self, anchor: int, index: int, similarity: float) -> Key:
        inputs = self.output["inputs"]
        blocks = inputs.negatives
        for number, block in enumerate(blocks):
            if index < len(block.video):
                if self.has_bank and number == len(blocks) - 1:
                    return self._of_bank(anchor, block, index, similarity)
                return self._of_batch(block, index)
            index -= len(block.video)
        raise AssertionError("an index counts through the blocks")

    def _of_batch(self, block: Frames, index: int) -> Key:
        """Returns a key that is a sampled negative or a view of the batch."""
        batch = self.batch
        n, k = batch.negative_time.shape
        views = 1 if batch.positive_view.dim() == 4 else batch.positive_view.shape[1]
        if k and len(block.video) == n * k:
            row, column = divmod(index, k)
            video, time = int(batch.video[row]), float(batch.negative_time[row, column])
            return Key(_picture(batch.negative_view[row, column]), video, time)
        if len(block.video) == n * (1 + views):  # all views, the first of all frames first
            view, row = divmod(index, n)
        elif torch.equal(block.embedding, self.output["inputs"].anchors.embedding):
            view, row = 0, index
        elif len(block.video) == n * views:  # those of a momentum encoder, frame by frame
            row, view = divmod(index, views)
            view += 1
        else:
            return Key(None, int(block.video[index]), float(block.time[index]))
        image = batch.anchor_view[row]
        if view:
            image = batch.positive_view[row]
            image = image if image.dim() == 3 else image[view - 1]
        return Key(_picture(image), int(batch.video[row]), float(batch.time[row]))

    def _of_bank(self, anchor: int, block: Frames, index: int, similarity: float) -> Key:
        """Returns a key of the bank, which the videos show if its time is known."""
        own = self.output["inputs"].anchors.embedding[anchor].float()
        if abs(float(own @ block.embedding[index].float()) - similarity) > OVERWRITTEN:
            return Key(None, -1, math.nan)  # the step itself has put another frame there
        video, time = int(block.video[index]), float(block.time[index])
        return Key(self._stored(video, time), video, time)

    def _stored(self, video: int, time: float) -> Tensor | None:
        """Returns the frame of a video at a time, without augmentation; None if it is unknown."""
        if video < 0 or not math.isfinite(time):
            return None
        entry = self.batches.catalog.entries[video]
        numbers = np.arange(entry.num_frames)
        times = self.batches.clock.times(np.full(len(numbers), video), numbers)
        frame = int(np.abs(times - time).argmin())
        try:
            return load_frames(entry, [frame], self.batches.augmentation.image_size)[0]
        except VideoError:
            return None


def _picture(view: Tensor) -> Tensor:
    """Returns a normalised view as uint8 ``[3, H, W]``."""
    view = view.detach().float().cpu()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    if view.shape[0] == 1:
        mean, std = torch.tensor(GREY_MEAN), torch.tensor(GREY_STD)
    return ((view * std + mean) * 255).round().clamp(0, 255).byte().expand(3, -1, -1)


class NegativesSheet(Callback):
    """Draws the negatives that the last batch of every few epochs has mined.

    Args:
        run: the run folder.
        every: number of epochs.
        anchors: number of rows.
    """

    def __init__(self, run: RunFolder, every: int, anchors: int) -> None:
        self.run, self.every, self.anchors = run, every, anchors

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch | BatchPart,
        batch_idx: int,
    ) -> None:
        """Draws a sheet after the last batch of an epoch that gets one."""
        assert isinstance(pl_module, ContrastiveTraining)
        epoch = trainer.current_epoch + 1
        if not (trainer.is_last_batch and epoch % self.every == 0 and trainer.is_global_zero):
            return
        batches, has_bank = batches_of(trainer), pl_module.bank is not None
        if isinstance(batch, BatchPart):
            batch = batches[trainer.current_epoch, batch_idx]  # with the images of all processes
        unit = UNITS[pl_module.config.sampling.time_unit]
        rows = list(Step(batch, outputs, batches, unit, has_bank).rows(self.anchors))
        path = self.run.negatives_sheet(epoch)
        draw(rows, f"Negatives mined in epoch {epoch}, step {trainer.global_step}", path)
        log_picture(trainer.loggers, "negatives", path, trainer.global_step)


def draw(rows: list[list[Tile | None]], title: str, path: Path) -> Path:
    """Draws a sheet; frames that cannot be shown are said so."""
    cell = TILE + GAP
    captions = [[_wrapped(tile) for tile in row] for row in rows]
    heights = [TILE + 0.08 + LINE * max(1, *map(len, lines)) + GAP for lines in captions]
    width, height = GAP + cell * len(COLUMNS), HEAD + max(sum(heights), 0.4) + FOOT
    with style.styled():
        figure = Figure(figsize=(width, height))
        bold: dict[str, Any] = {"weight": "bold", "va": "top"}
        figure.text(GAP / width, 1 - 0.08 / height, title, fontsize=POINTS + 2, **bold)
        for column, (name, colour) in enumerate(COLUMNS):
            x = (GAP + column * cell) / width
            y = 1 - 0.3 / height
            figure.text(x, y, name, fontsize=POINTS + 1, color=colour, **bold)
        note = "▲ more similar to the anchor than its positive. Views are as augmented."
        figure.text(GAP / width, 0.06 / height, note, fontsize=POINTS, color=style.MUTED)
        top = HEAD
        for row, texts, below in zip(rows, captions, heights, strict=True):
            for column, (tile, lines) in enumerate(zip(row, texts, strict=True)):
                _draw_tile(figure, GAP + column * cell, top, tile, lines)
            top += below
        if not rows:
            figure.text(0.5, 0.3, "no anchor of this batch has a negative", ha="center")
        return style.save(figure, path)


def _wrapped(tile: Tile | None) -> list[str]:
    lines = () if tile is None else tile.lines
    return [part for line in lines for part in style.wrapped(line, POINTS, TILE)]


def _draw_tile(
    figure: Figure, left: float, top: float, tile: Tile | None, lines: list[str]
) -> None:
    across, down = figure.get_size_inches()
    place = (left / across, 1 - (top + TILE) / down, TILE / across, TILE / down)
    axes = figure.add_axes(place)
    style.bare(axes)
    if tile is None or tile.image is None:
        axes.set_facecolor(style.MAP)
        text = "none" if tile is None else "in the bank,\nframe not known"
        axes.text(
            0.5, 0.5, text, transform=axes.transAxes, color=style.MUTED, fontsize=POINTS,
            ha="center", va="center",
        )  # fmt: skip
    else:
        axes.imshow(tile.image.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
    if tile is not None and tile.above:
        for spine in axes.spines.values():
            spine.set(visible=True, color=style.CATEGORIES[3], linewidth=2)
    for number, text in enumerate(lines):
        y = 1 - (top + TILE + 0.05 + LINE * number) / down
        colour = style.INK if number == 0 else style.MUTED
        if number == 0 and tile is not None and tile.above:
            text, colour = f"{text} ▲", style.CATEGORIES[3]
        figure.text(left / across, y, text, fontsize=POINTS, color=colour, va="top")
