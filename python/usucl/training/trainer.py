"""Lightning's trainer of a run: its devices, callbacks and loggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from usucl._progress import Stage, listening
from usucl.data import FrameBatches
from usucl.run_folder import RunFolder
from usucl.training.callbacks.contraction import Contraction
from usucl.training.callbacks.finite import FiniteLoss
from usucl.training.callbacks.guard import GuardTable
from usucl.training.callbacks.hardness import NarrowingWindows
from usucl.training.callbacks.health import Health
from usucl.training.callbacks.monitor import Monitor
from usucl.training.callbacks.negatives import NegativesSheet
from usucl.training.callbacks.probe import ProbeCallback
from usucl.training.callbacks.progress import ProgressCallback
from usucl.training.callbacks.record import RunRecord
from usucl.training.callbacks.saving import Saving
from usucl.training.callbacks.stopping import Stopping
from usucl.training.checkpoint import Checkpoints
from usucl.training.config import TrainingConfig
from usucl.training.processes.environment import Started
from usucl.training.processes.world import World

ON_RANK_0 = (Contraction, GuardTable, Health, Monitor, NegativesSheet, RunRecord)
"""What writes files and exchanges nothing. Everything else acts in every process."""


class Callbacks:
    """What acts beside the steps of a run, in the order in which Lightning calls it.

    Args:
        run: the run folder.
        config: the options.
        batches: the batches that are trained on.
        record: keeps ``run.json``.
        world: the place of this process: what writes files acts on rank 0 alone.

    Attributes:
        stopping: listens to signals that end the run.
        health: tells what goes wrong without an error.
        monitor: writes the metrics.
        contraction: gives an alarm when the embeddings contract.
        probe: probes the encoder; None without probes.
    """

    def __init__(
        self,
        run: RunFolder,
        config: TrainingConfig,
        batches: FrameBatches,
        record: RunRecord,
        world: World,
    ) -> None:
        self.stopping = Stopping()
        self.health = Health(run.warnings)
        watching = config.watching
        histograms = run.hardness if watching.histograms else None
        self.monitor = Monitor(run.metrics, config.log_every, histograms)
        self.contraction = Contraction(self.monitor, self.health.tell)
        self.probe: ProbeCallback | None = None
        self._all: list[Callback] = [
            self.stopping,
            FiniteLoss(run),
            self.health,
            self.monitor,
            self.contraction,
        ]
        if watching.images_every:
            self._all.append(NegativesSheet(run, watching.images_every, watching.images))
        if watching.probe_every:
            self.probe = ProbeCallback(run.probe, batches.catalog, config)
            self._all.append(self.probe)
        if batches.curriculum.kind == "hardness":
            self._all.append(NarrowingWindows(batches))
        if batches.guard is not None:
            self._all.append(GuardTable(run.guard, batches))
        self._all += [record, Saving(run, config, self.stopping, record)]
        self._world = world

    def __iter__(self) -> Iterator[Callback]:
        first = self._world.is_first
        return iter([c for c in self._all if first or not isinstance(c, ON_RANK_0)])


def progress_callbacks(bar: Stage, callbacks: Callbacks) -> list[Callback]:
    """Returns what moves the bar, if anybody watches it."""
    shown = ProgressCallback(bar, callbacks.probe, callbacks.contraction)
    return [shown] if listening() else []


def make_trainer(
    run: RunFolder,
    config: TrainingConfig,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger] = (),
    world: World | None = None,
    *,
    steps: int | None = None,
) -> Trainer:
    """Returns the trainer of a run in this process; of ``steps`` alone, it saves nothing."""
    world, whole = world or World(), steps is None
    together: dict[str, Any] = {"devices": 1, "plugins": [Checkpoints()]}
    accelerator: str = config.running.accelerator
    if world.size > 1:
        accelerator = config.running.chosen_accelerator()
        together = {
            "devices": world.local_size,
            "num_nodes": world.nodes,
            "strategy": DDPStrategy(),
            "plugins": [Checkpoints(), Started(world)],
        }
    return Trainer(
        **together,
        accelerator=accelerator,
        max_epochs=config.epochs if whole else -1,
        max_steps=-1 if steps is None else steps,
        precision=config.precision,
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip,
        callbacks=list(callbacks),
        logger=list(loggers),
        enable_checkpointing=whole,
        default_root_dir=run.path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
