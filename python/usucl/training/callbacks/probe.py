"""``probe.csv``: what probes of the encoder tell of the labels, every few epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from usucl._progress import stage
from usucl._terminal import say
from usucl.data import VideoCatalog, VideoEntry, VideoError, load_frames, normalise
from usucl.data.catalog.folds import assign_folds
from usucl.embedding import encode, evenly_spaced, numbered
from usucl.evaluation import probes
from usucl.training.callbacks.monitor import MetricsTable
from usucl.training.config import TrainingConfig
from usucl.training.module import ContrastiveTraining

COLUMNS = (
    "step",
    "epochs_done",
    "probe",
    "balanced_accuracy",
    "macro_auroc",
    "chance",
    "classes",
    "patients",
    "videos",
    "frames",
    "seconds",
)
FOLDS = 5
BATCH = 64  # frames encoded at once


@dataclass(frozen=True)
class LabelledFrames:
    """A labelled part of the videos that are trained on, as the encoder sees it.

    Attributes:
        images: uint8 ``[n, 1 or 3, S, S]``; one channel where all of them are grey.
        truth: index of the class of each frame, ``[n]``.
        video, group: numbers of each frame's video and patient, ``[n]``.
        classes: names of the classes.
        splits: folds in which no patient is on both sides.
        by_video: whether labels are of whole videos, whose frames are then judged together.
    """

    images: Tensor
    truth: probes.IntArray
    video: probes.IntArray
    group: probes.IntArray
    classes: tuple[str, ...]
    splits: list[probes.Split]
    by_video: bool

    def measure(self, encoder: nn.Module, names: Sequence[str]) -> Iterator[dict[str, float | str]]:
        """Yields the figures of each probe of an encoder that is in evaluation mode."""
        weight = next(encoder.parameters())
        batches = (normalise(part).to(weight.dtype) for part in self.batches())
        features = torch.cat(
            [encode(encoder, batch, BATCH, weight.device).features for batch in batches]
        ).numpy()
        for name in names:
            predicted, order = probes.predict(
                probes.PROBES[name].predictor,
                features,
                self.truth,
                self.group,
                self.splits,
                len(self.classes),
            )
            if self.by_video:
                predicted = probes.per_video(predicted, self.video[order])
            weights = np.ones((1, int(np.unique(predicted.group).size)))
            figures = probes.statistics(predicted)
            tested = len(np.unique(predicted.truth))
            yield {
                "probe": name,
                **{figure: float(found(weights)[0]) for figure, found in figures.items()},
                "chance": 1 / tested,
                "classes": tested,
                "patients": weights.shape[1],
                "videos": len(np.unique(self.video)),
                "frames": len(self.truth),
            }

    def batches(self) -> Iterator[Tensor]:
        """Yields the images in parts, as only so many are to be float at once."""
        yield from self.images.split(BATCH)


def labelled_frames(
    catalog: VideoCatalog, most: int, image_size: int, seed: int
) -> LabelledFrames | str:
    """Returns the frames to probe; or a sentence on why there are none.

    Labels of videos come before those of frames. Of ``most`` frames each label has its share of
    the videos; where there are more videos than that, evenly many of each label are left out.
    """
    whole = [entry for entry in catalog if entry.label]
    by_video = len({entry.label for entry in whole}) > 1
    by_frame = [entry for entry in catalog if any(entry.frame_labels or ())]
    entries = whole if by_video else by_frame
    names = {name for entry in entries for name in _names(entry, by_video) if name}
    if len(names) < 2:
        return (
            "the videos that are trained on have no labels of two classes, in labels.csv or "
            "frame_labels.csv"
        )
    entries = _some(entries, most)
    groups = [entry.group for entry in entries]
    if (patients := len(set(groups))) < 2:
        return f"the labelled videos that are trained on are all of one patient ({groups[0]})"
    labels = [entry.label for entry in entries]
    none: list[int | None] = [None] * len(entries)
    folds = assign_folds(groups, labels, none, n=min(FOLDS, patients), seed=seed)
    each = max(1, most // len(entries))
    rows: list[tuple[int, str, int]] = []  # number of the video, label of the frame, fold
    images = []
    for number, (entry, fold) in enumerate(zip(entries, folds, strict=True)):
        labels_of = _names(entry, by_video)
        known = [i for i, name in enumerate(labels_of) if name]
        frames = [known[i] for i in evenly_spaced(len(known), each)]
        try:
            images.append(_grey(load_frames(entry, frames, image_size)))
        except VideoError:
            continue  # training itself says so
        rows += [(number, labels_of[i] or "", fold) for i in frames]
    classes, truth = numbered(name for _, name, _ in rows)
    if len(classes) < 2:
        return "the labelled videos that can be read have one class only"
    if len({image.shape[1] for image in images}) > 1:
        images = [image.expand(-1, 3, -1, -1) for image in images]
    video = np.array([number for number, *_ in rows])
    _, group = numbered(groups)
    return LabelledFrames(
        images=torch.cat(images),
        truth=truth,
        video=video,
        group=group[video],
        classes=tuple(classes),
        splits=probes.fold_splits(np.array([fold for *_, fold in rows])),
        by_video=by_video,
    )


def _names(entry: VideoEntry, by_video: bool) -> Sequence[str | None]:
    """Returns the label of each frame of a video."""
    return [entry.label] * entry.num_frames if by_video else (entry.frame_labels or ())


def _some(entries: list[VideoEntry], most: int) -> list[VideoEntry]:
    ordered = sorted(range(len(entries)), key=lambda i: (entries[i].label or "", i))
    return [entries[i] for i in sorted(ordered[k] for k in evenly_spaced(len(entries), most))]


def _grey(images: Tensor) -> Tensor:
    """Returns one channel of three that are alike, which takes a third of the memory."""
    return images[:, :1].clone() if bool((images == images[:, :1]).all()) else images


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Leaves every part of a module, its statistics and all random states as they were."""
    before = {part: part.training for part in module.modules()}
    with isolate_rng(), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, training in before.items():
                part.training = training


class ProbeCallback(Callback):
    """Probes the encoder before the first epoch, every few epochs and after the last.

    The figures are also among ``trainer.callback_metrics``, as ``probe_knn_balanced_accuracy`` and
    so on, at the end of each epoch that is probed. One process probes, and tells the others.

    Args:
        table: path of ``probe.csv``.
        catalog: the videos that are trained on.
        config: the options.

    Attributes:
        found: the figures of the last probe by such a name; empty before the first.
        note: the last figure in words, for the progress line.
    """

    def __init__(self, table: Path, catalog: VideoCatalog, config: TrainingConfig) -> None:
        self.table = MetricsTable(table, COLUMNS)
        self.catalog, self.config = catalog, config
        self.found: dict[str, float] = {}
        self.note = ""
        self._frames: LabelledFrames | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the frames; says why there are none, or probes the encoder of a new run."""
        if trainer.is_global_zero:
            # The end of an epoch that goes on is done again, and its probe with it.
            self.table.rewind(trainer.global_step - trainer.fit_loop.restarted_mid_epoch)
            options, encoder = self.config.watching, self.config.encoder
            with stage("Reading frames to probe"):
                frames = labelled_frames(
                    self.catalog, options.probe_frames, encoder.image_size, self.config.seed
                )
            if isinstance(frames, str):
                say(f"No probes (watching.probe_every): {frames}", stderr=True)
            else:
                self._frames = frames
        if trainer.global_step == 0:
            self._probe(trainer, pl_module, done=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probes the encoder, before it is saved."""
        done = trainer.current_epoch + 1
        if done % self.config.watching.probe_every == 0 or done == trainer.max_epochs:
            self._probe(trainer, pl_module, done)
            for name, value in self.found.items():
                pl_module.log(name, value, logger=False, sync_dist=trainer.world_size > 1)

    def _probe(self, trainer: Trainer, module: LightningModule, done: int) -> None:
        assert isinstance(module, ContrastiveTraining)
        self.found = {}
        if self._frames is not None:
            with stage("Probing the encoder"), evaluation_mode(module.encoder):
                self._measure(trainer, module, done)
        self.found = trainer.strategy.broadcast(self.found)

    def _measure(self, trainer: Trainer, module: ContrastiveTraining, done: int) -> None:
        assert self._frames is not None
        begun = time.perf_counter()
        for row in self._frames.measure(module.encoder, self.config.watching.probes):
            now = time.perf_counter()
            about = {"step": trainer.global_step, "epochs_done": done, "seconds": now - begun}
            self.table.append({**row, **about})
            begun = now
            for figure in probes.FIGURES:
                value = row[figure]
                if isinstance(value, float) and not math.isnan(value):
                    self.found[f"probe_{row['probe']}_{figure}"] = value
        for logger in trainer.loggers:
            logger.log_metrics(self.found, trainer.global_step)
        if self.found:
            self.note = f"probe {next(iter(self.found.values())):.2f}"
