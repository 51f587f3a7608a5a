"""What goes wrong in training without an error: it is told once, and kept in ``warnings.csv``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from usucl._files import DamagedFileError
from usucl._tables import read_table, table_line, write_table
from usucl.data import FrameBatch
from usucl.data.sampling.curriculum import Window
from usucl.losses import positive_similarities
from usucl.training.config import NothingLearnedError, TrainingConfig
from usucl.training.module import ContrastiveTraining, StepOutput, batches_of

COLUMNS = ("step", "warning")
NEARLY_ALL = 0.9  # of the anchors
IDENTICAL = 1 - 1e-6  # similarity; rounding changes that of a vector with itself by less
UNIT = 0.1  # greatest difference of a length from 1
CONSTANT_FOR = 4  # steps
COMPARED = 4096  # values of a batch, evenly spaced


class WarningsTable:
    """``warnings.csv``: what was told, with the step at which it was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int, most: int | None = None) -> None:
        """Drops the rows after ``step`` and those beyond ``most``; makes the table if need be."""
        rows = read_table(self.path, COLUMNS) if self.path.is_file() else []
        try:
            kept = [[row["step"], row["warning"]] for row in rows if int(row["step"]) <= step]
        except ValueError as error:
            raise DamagedFileError(self.path, f"a step is no number: {error}") from error
        write_table(self.path, COLUMNS, kept[:most])

    def append(self, step: int, warning: str) -> None:
        """Adds a row."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(table_line([step, warning]))


class EpochFindings:
    """What the steps of one epoch found, on the training device: no step waits for it."""

    def __init__(self) -> None:
        self.steps = 0
        self.gradient = False  # whether one was not 0
        self.same_batch = False
        self.moved = False  # whether the weights were, before the run went on within the epoch
        self.weights: list[Tensor] = []  # of the encoder, at the start
        self._sums: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns what a run that goes on within the epoch must know, besides the weights."""
        names = ("steps", "gradient", "same_batch", "moved", "_sums")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any], device: torch.device) -> None:
        """Restores the findings so far."""
        vars(self).update(state_dict)
        if self._sums is not None:
            self._sums = self._sums.to(device)

    def has_moved(self, parameters: Iterable[Tensor]) -> bool:
        """Returns whether the weights are other than at the start, or were when it went on."""
        pairs = zip(self.weights, parameters, strict=True)
        return self.moved or any(not torch.equal(before, now) for before, now in pairs)

    @torch.no_grad()
    def add(self, output: StepOutput) -> None:
        """Adds a step."""
        inputs, selection = output["inputs"], output["selection"]
        anchors, loss = inputs.anchors.embedding.detach(), output["loss"].detach()
        intra, cross = ((index >= 0).any(1) for index in (selection[0], selection[2]))
        squares = (anchors * anchors).sum(1)
        similarity = positive_similarities(inputs).detach()
        found = torch.stack(
            [
                number.long()
                for number in (
                    (~(intra | cross)).sum(),
                    torch.ones_like(intra).sum(),
                    intra.any(),
                    cross.any(),
                    loss == 0,
                    (similarity > IDENTICAL).all(),
                    ((squares - 1).abs() > 2 * UNIT).any(),
                )
            ]
        )
        self._sums = found if self._sums is None else self._sums + found
        self.steps += 1

    def counts(self) -> dict[str, int]:
        """Returns the sums over the steps, which waits for the device."""
        assert self._sums is not None
        names = ("short", "anchors", "intra", "cross", "zero", "identical", "length")
        return dict(zip(names, self._sums.tolist(), strict=True))


class Health(Callback):
    """Tells, once each, what shows that training does nothing or not what it should.

    Args:
        table: path of ``warnings.csv``.

    Attributes:
        found, learned, moved: whether, over the whole run, an anchor had a negative, a gradient was
            not 0, and the encoder's weights changed.
    """

    def __init__(self, table: Path) -> None:
        self.table = WarningsTable(table)
        self.found = self.learned = self.moved = False
        self.told: list[str] = []
        self._restored: dict[str, Any] | None = None
        self._epoch = EpochFindings()
        self._parameters: list[Tensor] = []
        self._first_views: Tensor | None = None  # some values of them, on the CPU
        self._losses: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run must know."""
        names = ("found", "learned", "moved", "told")
        self._epoch.moved = self._epoch.has_moved(self._parameters)
        return {
            **{name: getattr(self, name) for name in names},
            "epoch": self._epoch.state_dict(),
            "first_views": self._first_views,
            "losses": self._losses,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the last checkpoint."""
        self._restored = dict(state_dict)
        for name in ("found", "learned", "moved", "told"):
            setattr(self, name, state_dict[name])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rewinds the table to the step at which the run starts or resumes."""
        assert isinstance(pl_module, ContrastiveTraining)
        self._parameters = list(pl_module.encoder.parameters())
        if trainer.global_step > 0 and self._restored is None:  # of an earlier version
            self.found = self.learned = self.moved = True
        if self._restored is not None and "epoch" in self._restored:  # of this version
            self._epoch.weights = [p.detach().clone() for p in self._parameters]
            self._epoch.load_state_dict(self._restored["epoch"], pl_module.device)
            self._first_views = self._restored["first_views"]
            self._losses = [loss.to(pl_module.device) for loss in self._restored["losses"]]
        self.table.rewind(trainer.global_step, len(self.told))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights."""
        self._epoch = EpochFindings()
        self._epoch.weights = [p.detach().clone() for p in self._parameters]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: FrameBatch, batch_idx: int
    ) -> None:
        """Compares the first batch with that of the epoch before."""
        if batch_idx == 0:
            values = batch.anchor_view.flatten()
            values = values[:: max(1, len(values) // COMPARED)].cpu()
            before, self._first_views = self._first_views, values
            self._epoch.same_batch = before is not None and torch.equal(before, values)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Looks for a gradient that is not 0, until there is one."""
        if not self._epoch.gradient:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            grads = (p.grad for p in parameters if p.grad is not None)
            self._epoch.gradient = any(bool((grad != 0).any()) for grad in grads)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Adds the step to the findings of the epoch."""
        self._epoch.add(outputs)
        self._losses.append(outputs["loss"].detach().clone())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells what the epoch was like."""
        assert isinstance(pl_module, ContrastiveTraining)
        findings, config = self._epoch, pl_module.config
        if findings.steps == 0:
            return
        moved = findings.has_moved(self._parameters)
        counts = findings.counts()
        self.found |= counts["short"] < counts["anchors"]
        self.learned |= findings.gradient
        self.moved |= moved
        epoch, step = trainer.current_epoch, trainer.global_step
        window = batches_of(trainer).window(epoch)
        for kind, text in judge(config, epoch, findings, counts, moved, window).items():
            self.tell(kind, step, text)
        self._tell_constant(step, counts["zero"] == findings.steps)

    def check(self, config: TrainingConfig) -> None:
        """Raises NothingLearnedError if no step of the run could change the encoder."""
        if not self.found:
            reason = "no anchor ever had a negative, so the loss was always 0"
            advice = _for_negatives(config, config.epochs - 1)
        elif not self.learned:
            reason, advice = "every gradient was 0", _FOR_GRADIENTS
        elif not self.moved:
            reason, advice = "the weights are those of the start", _FOR_WEIGHTS
        else:
            return
        raise NothingLearnedError(f"nothing was learned: {reason}; {advice}")

    def _tell_constant(self, step: int, zero: bool) -> None:
        if len(self._losses) >= CONSTANT_FOR:
            losses, self._losses = torch.stack(self._losses), []
            if not zero and bool((losses == losses[0]).all()):
                text = (
                    f"the loss was exactly {float(losses[0]):.6g} in each of {len(losses)} steps: "
                    "the encoder may have collapsed to one point, or all frames be alike; look at "
                    "effective_rank among the metrics, and try a lower optimiser.lr or another seed"
                )
                self.tell("constant", step, text)

    def tell(self, kind: str, step: int, text: str) -> None:
        """Tells a warning, the first of its kind, and keeps it with its step."""
        if kind not in self.told:
            self.told.append(kind)
            self.table.append(step, text)
            warnings.warn(text, stacklevel=2)


_MORE_VIDEOS = (
    "train on more videos or patients (--held-out without a number, or held_out=() in Python, "
    "holds none out)"
)
_FOR_GRADIENTS = (
    "try another loss.temperature, a lower optimiser.lr (a layer may have died), or precision "
    "'32-true'"
)
_FOR_WEIGHTS = "give a greater optimiser.lr, or more steps (epochs, sampling.steps_per_epoch)"


def judge(
    config: TrainingConfig,
    epoch: int,
    findings: EpochFindings,
    counts: dict[str, int],
    moved: bool,
    window: Window | None = None,
) -> dict[str, str]:
    """Returns what there is to tell of an epoch, by kind; nothing twice that has one cause.

    ``window`` is by default what the curriculum has planned.
    """
    steps, when = findings.steps, f"in epoch {epoch + 1}"
    intra = config.curriculum.intra(epoch) and config.loss.intra_k > 0
    told: dict[str, str] = {}
    if counts["short"] == counts["anchors"]:
        told["no negatives"] = (
            f"no anchor had a negative {when}, so its loss and gradients were 0 and nothing was "
            f"learned: {_for_negatives(config, epoch)}"
        )
    elif counts["short"] >= NEARLY_ALL * counts["anchors"]:
        told["few negatives"] = (
            f"{counts['short'] / counts['anchors']:.0%} of the anchors had no negative {when} and "
            f"taught nothing: {_for_negatives(config, epoch)}"
        )
    elif counts["zero"] == steps:
        told["zero loss"] = (
            f"the loss was exactly 0 in every step {when}, although the anchors had negatives, so "
            "nothing was learned: loss.temperature "
            f"{config.loss.temperature} may be too low, or the negatives too easy"
        )
    elif not findings.gradient:
        told["no gradient"] = f"every gradient was 0 {when}, nothing was learned: {_FOR_GRADIENTS}"
    elif not moved:
        told["no movement"] = f"the weights did not change {when}: {_FOR_WEIGHTS}"
    if "no negatives" not in told:
        if config.loss.cross_k > 0 and not counts["cross"]:
            told["no cross-video negatives"] = (
                f"no anchor had a cross-video negative {when}: {_MORE_VIDEOS}, or set "
                "loss.cross_k=0 if this is meant"
            )
        if intra and not counts["intra"]:
            told["no intra-video negatives"] = (
                f"no anchor had an intra-video negative {when}: no frame of a batch is inside the "
                f"window {window or config.curriculum.window(epoch)} of its video"
                f"{_and_unlike(config)}; widen curriculum.windows, or set loss.intra_k=0 if this "
                "is meant"
            )
    if counts["identical"] == steps:
        told["identical positives"] = (
            f"all positives were identical to their anchors {when}: the frames of each video are "
            "alike, or the encoder has collapsed to one point; look at the videos, and at "
            "effective_rank among the metrics"
        )
    if counts["length"]:
        told["not normalised"] = (
            f"embeddings were not L2-normalised in {counts['length']} of {steps} steps {when}, "
            "which the loss takes for granted: the head's output may be 0"
        )
    if findings.same_batch:
        told["same batches"] = (
            f"the batches {when} were those of the epoch before: more epochs teach nothing new"
        )
    return told


def _and_unlike(config: TrainingConfig) -> str:
    guard = config.sampling.guard
    return "" if guard is None else f" and unlike the anchor (sampling.guard {guard})"


def _for_negatives(config: TrainingConfig, epoch: int) -> str:
    """Returns what to change where anchors have no negatives."""
    advice = _MORE_VIDEOS
    if config.loss.intra_k == 0:
        return f"{advice}, or set loss.intra_k to 1 or more"
    if not config.curriculum.intra(epoch):
        return (
            f"{advice}, or set curriculum.cross_only=0, for intra-video negatives do not count yet "
            f"in epoch {epoch + 1} of {config.epochs}"
        )
    return f"{advice}, or widen curriculum.windows"
