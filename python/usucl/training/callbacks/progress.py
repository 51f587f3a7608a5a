"""What a run says of itself: what it is going to do, how far it is, and how long it will take."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from usucl._progress import Stage, duration
from usucl._terminal import say
from usucl.data import BatchPart, FrameBatch, FrameBatches, VideoCatalog
from usucl.data.catalog.sweeps import SWEEPS
from usucl.data.catalog.tables.columns import LABEL
from usucl.data.phantom import is_synthetic
from usucl.losses import build_info
from usucl.training.config import TrainingConfig
from usucl.training.module import ContrastiveTraining
from usucl.training.optimisation.accumulation import ends_step

if TYPE_CHECKING:
    from usucl.training.callbacks.contraction import Contraction
    from usucl.training.callbacks.probe import ProbeCallback

RECENT = 100  # steps
MEASURED = 5  # steps, of which the first two are slower than the rest
WARM_UP = 2
BETWEEN_NOTES = 1.0  # seconds: the loss has to be fetched from a GPU


def num_images(batch: FrameBatch | BatchPart) -> int:
    """Returns the number of images in a batch, of all processes."""
    if isinstance(batch, BatchPart):
        return len(batch.owner)
    views = (batch.anchor_view, batch.positive_view, batch.negative_view)
    return sum(view.shape[:-3].numel() for view in views)


class Pace:
    """How long a run still takes: steps at their recent pace, and the pauses between epochs.

    Saving, probing and the first batch of an epoch are pauses; as they come once per epoch, or
    every few epochs, a rate over the last minute would make the remaining time jump.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._pauses: list[float] = []
        self._seen = 0
        self._last: float | None = None
        self._new_epoch = True

    def epoch(self) -> None:
        """Begins an epoch: the time up to the end of its first step holds a pause."""
        self._new_epoch = True

    def step(self) -> None:
        """Counts a step that has just ended."""
        now = self._clock()
        self._seen += 1
        if self._last is not None and self._seen > WARM_UP:
            took = now - self._last
            if not self._new_epoch:
                self._steps.append(took)
            elif self._steps:
                self._pauses.append(max(took - self.per_step, 0.0))
        self._last, self._new_epoch = now, False

    @property
    def per_step(self) -> float:
        """Mean seconds per recent step; 0 before any was measured."""
        return sum(self._steps) / len(self._steps) if self._steps else 0.0

    @property
    def per_pause(self) -> float:
        """Mean seconds between two epochs, beyond those of a step; 0 before the first."""
        return sum(self._pauses) / len(self._pauses) if self._pauses else 0.0

    def remaining(self, steps: int, epochs: int) -> float | None:
        """Returns the seconds for so many steps and pauses; None before a step was measured."""
        if not self._steps:
            return None
        return steps * self.per_step + epochs * self.per_pause


class ProgressCallback(Callback):
    """Counts the steps of a run on a bar, and says once how long it will take.

    Args:
        bar: the bar.
        probe: the probes, whose last figure is shown beside the loss.
        contraction: the alarms that are on are shown there, too.
    """

    def __init__(
        self,
        bar: Stage,
        probe: ProbeCallback | None = None,
        contraction: Contraction | None = None,
    ) -> None:
        self.bar, self.probe, self.contraction = bar, probe, contraction
        self.pace = Pace()
        self._images = self._steps = 0
        self._noted = -BETWEEN_NOTES
        self._since = 0.0
        self._all = 0
        self._loss: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets how many steps there are, and how many a resumed run has behind it."""
        self._all = int(trainer.estimated_stepping_batches)
        self.bar.restart(trainer.global_step, self._all)
        self._name_epoch(trainer)  # one that goes on has no start

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins an epoch."""
        self.pace.epoch()
        self._name_epoch(trainer)

    def _name_epoch(self, trainer: Trainer) -> None:
        self.bar.update(what=f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Counts a step; of the batches whose gradients are added up, the last one makes it."""
        self._images += num_images(batch)
        if not ends_step(trainer, batch_idx):
            return
        self._steps += 1
        self.bar.update(per_item=(self._images / self._steps, "images"))
        self.bar.advance()
        self._loss = outputs["loss"].detach()
        now = time.perf_counter()
        if now - self._noted >= BETWEEN_NOTES:
            self._noted = now
            self._note(self._loss)
        if self._steps == WARM_UP:
            self._since = now
        self.pace.step()
        left = self._all - trainer.global_step
        pauses = (trainer.max_epochs or 0) - trainer.current_epoch  # the last epoch has one, too
        remaining = self.pace.remaining(left, pauses)
        if remaining is not None and left > 0:
            pause = self.pace.per_pause if trainer.is_last_batch else 0.0
            self.bar.expect(remaining, self.pace.per_step + pause)
        if self._steps == MEASURED and left > 0:
            seconds = (now - self._since) / (MEASURED - WARM_UP) * left
            end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
            say(
                f"Estimated time for the {left:,} steps that are left: {duration(seconds)}, "
                f"until {end:%H:%M}" + (f" on {end:%Y-%m-%d}" if seconds > 12 * 3600 else "")
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows what the last step and the last probe have come to."""
        if self._loss is not None:
            self._note(self._loss)

    def _note(self, loss: Tensor) -> None:
        probe = f", {self.probe.note}" if self.probe is not None and self.probe.note else ""
        alarm = self.contraction.note if self.contraction is not None else ""
        self.bar.update(note=f"loss {float(loss):.3f}{probe}", alarm=alarm)


def run_rows(
    module: ContrastiveTraining,
    batches: FrameBatches,
    held_out: VideoCatalog,
    trainer: Trainer,
    done: int,
) -> list[tuple[str, str]]:
    """Returns what a run, of which ``done`` epochs are finished, is going to do: its rows."""
    config, training = module.config, batches.catalog
    steps, epochs = config.optimiser.steps(len(batches)), config.epochs
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
