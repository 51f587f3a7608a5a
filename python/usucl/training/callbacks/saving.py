"""Checkpoints: at the ends of epochs, in between, and when a signal ends the run."""

from __future__ import annotations

import math
import random
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from usucl._files import DamagedFileError, read_json, write_json
from usucl.bank.round_robin import RoundRobinBank
from usucl.models import FrameEncoder, save_encoder
from usucl.run_folder import RunFolder
from usucl.training.callbacks.record import RunRecord
from usucl.training.callbacks.stopping import Stopped, Stopping
from usucl.training.config import TrainingConfig
from usucl.training.module import ContrastiveTraining

RANDOM = "random"
"""Key in a checkpoint of the states of the random generators."""


class Saving(Checkpoint):
    """Saves the encoder and the bank after every epoch, and the checkpoint then and in between.

    Lightning calls a ``Checkpoint`` after all other callbacks, whose state it saves. A checkpoint
    within an epoch holds the number of batches that are done; one that a signal causes at the end
    of an epoch is that of its last step, and the end of the epoch is done again.

    Args:
        run: the run folder.
        config: the options of the run.
        stopping: listens to signals.
        record: is told of checkpoints.
    """

    def __init__(
        self, run: RunFolder, config: TrainingConfig, stopping: Stopping, record: RunRecord
    ) -> None:
        self.run = run
        self.record = record
        self.config = config
        self.stopping = stopping
        self.saved_step = 0
        self._saved_at = 0.0
        self._last_step = 0
        self._random: dict[str, Any] | None = None
        self._within_epoch = True
        self._callbacks: dict[str, Any] = {}  # their states before the end of the epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the random generators, of the first process if there are several."""
        self.saved_step = self._last_step = trainer.global_step
        self._saved_at = time.monotonic()
        if self._random is not None and trainer.is_global_zero:
            restore_random(self._random)
        self.stopping.settle()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps the states of the random generators until the first step."""
        self._random = checkpoint.get(RANDOM)  # checkpoints of earlier versions have none

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves a checkpoint if it is time to, and ends the run if a signal has come."""
        if trainer.global_step == self._last_step:
            return  # gradients are being accumulated
        self._last_step = trainer.global_step
        self._within_epoch = True
        if batch_idx + 1 >= trainer.num_training_batches:
            # The end of the epoch saves. What it changes is kept as it was before.
            self._callbacks = deepcopy(_states(trainer))
        elif self._is_due(trainer):
            self._save(trainer, pl_module)
        self.stopping.settle()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the encoder and the bank, then the checkpoint; a signal waits meanwhile."""
        assert isinstance(pl_module, ContrastiveTraining)
        self.stopping.between = False
        self._check_finite(trainer, pl_module)
        if trainer.is_global_zero:
            save_encoder(pl_module.encoder, self.run.path)
        bank = pl_module.bank
        if bank is not None and (trainer.is_global_zero or isinstance(bank, RoundRobinBank)):
            bank.save(self.run.bank)
        if (name := self.watched) is not None:
            # Before the checkpoint: a run that ends in between does the end of the epoch again.
            value = trainer.callback_metrics.get(name, torch.tensor(math.nan))  # of all processes
            if trainer.is_global_zero:
                position = {"epochs_done": trainer.current_epoch + 1, "step": trainer.global_step}
                save_best(self.run, pl_module.encoder, name, float(value), position)
        self._within_epoch = False
        self._save(trainer, pl_module)
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.stopping.settle()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Saves the last step of a run that a signal ends."""
        if isinstance(exception, Stopped) and trainer.global_step != self.saved_step:
            self._save(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the states of the random generators, and the position within the epoch."""
        checkpoint[RANDOM] = random_states()
        if self._within_epoch:
            loops = checkpoint["loops"]["fit_loop"]
            # Lightning counts a step or an epoch as completed after the callbacks. From these
            # numbers it goes on with the next batch or, if there is none, with the epoch's end.
            current = loops["epoch_loop.batch_progress"]["current"]
            if current["completed"] < current["processed"]:
                loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
            for part in ("total", "current"):
                step, epoch = (loops[f"{n}_progress"][part] for n in ("epoch_loop.batch", "epoch"))
                step |= dict.fromkeys(("ready", "started", "completed"), step["processed"])
                epoch["processed"] = epoch["completed"]
            if self._callbacks:
                checkpoint["callbacks"] = self._callbacks

    @property
    def watched(self) -> str | None:
        """The metric by which the best encoder is kept; None if none is measured."""
        watching = self.config.watching
        return f"probe_{watching.probes[0]}_balanced_accuracy" if watching.probe_every else None

    def _is_due(self, trainer: Trainer) -> bool:
        if (steps := self.config.saving.steps) is not None:
            return trainer.global_step % steps == 0
        if (seconds := self.config.saving.seconds) is None:
            return False
        due = time.monotonic() - self._saved_at >= seconds
        return trainer.strategy.reduce_boolean_decision(due, all=False)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_finite(trainer, pl_module)
        trainer.save_checkpoint(self.run.checkpoint)
        self.saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._callbacks = {}
        if trainer.is_global_zero:
            self.run.forget_earlier()
            self.record.saved(trainer.current_epoch + (not self._within_epoch), self.saved_step)

    def _check_finite(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not all(bool(value.isfinite().all()) for value in pl_module.state_dict().values()):
            raise ValueError(
                f"the encoder has parameters that are not finite at step {trainer.global_step}; "
                f"{kept(self.run.checkpoint, self.saved_step)}: try a lower optimiser.lr, or "
                "precision='32-true', in another run"
            )


def save_best(
    run: RunFolder, encoder: FrameEncoder, metric: str, value: float, position: dict[str, int]
) -> bool:
    """Saves the encoder in ``best/`` if it is better than what is there, which is then replaced.

    Args:
        run: the run folder.
        encoder: the encoder, of which the metric is.
        metric: name of the metric; more is better. What another metric has found is replaced.
        value: its value; NaN is never better.
        position: what else is kept in ``best.json``, such as the step.

    Returns:
        Whether it was saved.
    """
    try:
        before = read_json(run.best_facts)
    except (FileNotFoundError, DamagedFileError):
        before = {}
    least = before["value"] if before.get("metric") == metric else -math.inf
    if not value > least:
        return False
    run.best.mkdir(exist_ok=True)
    save_encoder(encoder, run.best)
    write_json(run.best_facts, {"metric": metric, "value": value, **position})
    return True


def kept(checkpoint: Path, step: int) -> str:
    """Returns what is kept of a run that ends in an error, in words."""
    if not checkpoint.is_file():
        return "there is no checkpoint before it"
    return f"the checkpoint of step {step} is kept"


def random_states() -> dict[str, Any]:
    """Returns the states of the random generators of Python, NumPy and PyTorch."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random(states: dict[str, Any]) -> None:
    """Restores the states of the random generators; those of other GPUs than then stay."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _states(trainer: Trainer) -> dict[str, Any]:
    return {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())}  # type: ignore[attr-defined]
