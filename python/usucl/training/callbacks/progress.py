"""What a run says of itself: what it is going to do, how far it is, and how long it will take."""

from __future__ import annotations

import datetime
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from usucl._progress import Stage, duration
from usucl._terminal import say
from usucl.data import BatchPart, FrameBatch, FrameBatches, VideoCatalog
from usucl.data.catalog.sweeps import SWEEPS
from usucl.data.catalog.tables.columns import LABEL
from usucl.data.phantom import is_synthetic
from usucl.losses import build_info
from usucl.training.config import TrainingConfig
from usucl.training.module import ContrastiveTraining

MEASURED = 5  # steps, of which the first two are slower than the rest
WARM_UP = 2
BETWEEN_NOTES = 1.0  # seconds: the loss has to be fetched from a GPU


def num_images(batch: FrameBatch | BatchPart) -> int:
    """Returns the number of images in a batch, of all processes."""
    if isinstance(batch, BatchPart):
        return len(batch.owner)
    views = (batch.anchor_view, batch.positive_view, batch.negative_view)
    return sum(view.shape[:-3].numel() for view in views)


class ProgressCallback(Callback):
    """Counts the steps of a run on a bar, and says once how long it will take."""

    def __init__(self, bar: Stage) -> None:
        self.bar = bar
        self._images = self._steps = 0
        self._noted = -BETWEEN_NOTES
        self._since = 0.0
        self._all = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets how many steps there are, and how many a resumed run has behind it."""
        self._all = int(trainer.estimated_stepping_batches)
        self.bar.restart(trainer.global_step, self._all)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the epoch, counted from 1."""
        self.bar.update(what=f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Counts a step."""
        self._steps += 1
        self._images += num_images(batch)
        self.bar.update(per_item=(self._images / self._steps, "images"))
        self.bar.advance()
        now = time.perf_counter()
        if now - self._noted >= BETWEEN_NOTES:
            self._noted = now
            self.bar.update(note=f"loss {float(outputs['loss']):.3f}")
        if self._steps == WARM_UP:
            self._since = now
        left = self._all - trainer.global_step
        if self._steps == MEASURED and left > 0:
            seconds = (now - self._since) / (MEASURED - WARM_UP) * left
            end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
            say(
                f"Estimated time for the {left:,} steps that are left: {duration(seconds)}, "
                f"until {end:%H:%M}" + (f" on {end:%Y-%m-%d}" if seconds > 12 * 3600 else "")
            )


def summary(
    module: ContrastiveTraining,
    batches: FrameBatches,
    held_out: VideoCatalog,
    trainer: Trainer,
    done: int,
) -> list[tuple[str, str]]:
    """Returns what a run, of which ``done`` epochs are finished, is going to do: its rows."""
    config, training = module.config, batches.catalog
    steps, epochs = len(batches), config.epochs
    weights = sum(parameter.numel() for parameter in module.encoder.parameters())
    device = trainer.strategy.root_device
    name = f"CPU ({build_info()['cpu_capability']})"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    after = f", going on after epoch {done}" if done else ""
    return [
        *data_rows(config, training, held_out),
        ("steps", f"{steps:,} per epoch, {steps * epochs:,} in {epochs} epochs{after}"),
        ("decoded frames", str(batches.store_plan())),
        ("encoder", f"{_backbone(module)}, {weights / 1e6:.1f} million parameters"),
        ("device", f"{name}, precision {config.precision}"),
    ]


def data_rows(
    config: TrainingConfig, training: VideoCatalog, held_out: VideoCatalog
) -> list[tuple[str, str]]:
    """Returns what is trained on and what is held out."""
    left_out = f"{len(training.skipped)} left out" if training.skipped else "none left out"
    frames = sum(entry.num_frames for entry in training)
    rows = [
        ("trained on", f"{_videos(training)}, {frames:,} frames; {left_out}"),
        ("held out", _held_out(held_out)),
    ]
    everything = (*training, *held_out)
    if config.label != LABEL:
        rows.append(("labels", f"column {config.label}"))
    if sweeps := [entry for entry in everything if entry.parts]:
        clips = sum(len(entry.parts) for entry in sweeps)
        by = SWEEPS if config.sweep is None else config.sweep
        rows.append(("sweeps", f"{len(sweeps):,} videos of {clips:,} clips, by {by}"))
    known = [entry.patient_known for entry in everything]
    if not all(known):
        which = "some patients unknown" if any(known) else "patients unknown"
        rows.append(("split", f"{which}: split by video; a patient may be on both sides"))
    return rows


def _backbone(module: ContrastiveTraining) -> str:
    config = module.config.encoder
    return f"{config.backbone} at {config.image_size} px"


def _held_out(held_out: VideoCatalog) -> str:
    if not len(held_out):
        return "nothing"
    folds = sorted({entry.fold for entry in held_out if entry.fold is not None})
    named = ", ".join(map(str, folds))
    which = f" (fold {named})" if len(folds) == 1 else f" (folds {named})" if folds else ""
    return f"{_videos(held_out)}{which}"


def _videos(catalog: VideoCatalog) -> str:
    patients = len({entry.group for entry in catalog if entry.patient_known})
    unknown = sum(not entry.patient_known for entry in catalog)
    made, made_up = ("synthetic ", "made-up ") if is_synthetic(catalog.root) else ("", "")
    text = f"{len(catalog):,} {made}video{'s' if len(catalog) != 1 else ''}"
    if patients:
        text += f" of {patients:,} {made_up}patient{'s' if patients != 1 else ''}"
        text += f" and {unknown:,} of unknown patients" if unknown else ""
    return text
