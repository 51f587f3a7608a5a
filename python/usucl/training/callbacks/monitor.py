"""The metrics of training, and the files that are saved meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from usucl._files import DamagedFileError
from usucl._spread import effective_rank, uniformity
from usucl._tables import read_table, table_line, write_table
from usucl.data import FrameBatch
from usucl.losses import Frames, positive_similarities, share_above_margin
from usucl.training.callbacks.mining import (
    BINS,
    bank_ages,
    histogram,
    mining_figures,
    similarities_of,
)
from usucl.training.callbacks.progress import num_images
from usucl.training.loggers import log_histogram, log_options
from usucl.training.module import ContrastiveTraining, StepOutput, batches_of
from usucl.training.optimisation.accumulation import ends_step

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "positive_similarity",
    "intra_similarity",
    "cross_similarity",
    "short_of_negatives",
    "struck_by_margin",
    "effective_rank",
    "uniformity",
    "bank_recall",
    "images_per_second",
    "data_share",
    "encoder_share",
    "loss_share",
    "window_lo",
    "window_hi",
    "learning_rate",
    "intra_share",
    "above_positive",
    "near_duplicates",
    "soft_nn_weight",
    "struck_by_max_similarity",
    "bank_age",
    "bank_age_oldest",
)
HISTOGRAMS = ("step", "group", *(f"{2 * i / BINS - 1:.2f}" for i in range(BINS)))


def similarities(output: StepOutput) -> dict[str, float]:
    """Returns the similarities of positives and negatives, and the share of short anchors.

    An anchor is short if it found fewer negatives of a group than requested.
    """
    inputs, selection = output["inputs"], output["selection"]
    short = torch.cat([selection.intra_index, selection.cross_index], dim=1) < 0
    return {
        "positive_similarity": float(positive_similarities(inputs).mean()),
        "intra_similarity": _mean_of_found(selection.intra_similarity),
        "cross_similarity": _mean_of_found(selection.cross_similarity),
        "short_of_negatives": float(short.any(1).float().mean()),
    }


def _mean_of_found(similarity: Tensor) -> float:
    return float(similarity[similarity > -math.inf].mean())  # NaN if there is none


def _bank_recall(module: ContrastiveTraining, anchors: Frames) -> float:
    """Returns the share of the bank's hardest negatives that its search finds; NaN if exact."""
    if module.bank is None or module.config.key.search == "exact":
        return math.nan
    anchors = anchors._replace(embedding=anchors.embedding.detach())
    return module.bank.recall(anchors, max(module.config.loss.cross_k, 1))


class MetricsTable:
    """A table of figures by step, such as ``metrics.csv``, flushed row by row.

    Lightning's CSVLogger empties the file when a run is resumed; this table keeps the rows up to
    the step it resumes from, so the file is the same as that of an uninterrupted run. Columns that
    an earlier version did not have are empty in its rows.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        self.path, self.columns = path, columns

    def rewind(self, step: int) -> None:
        """Drops the rows after ``step``."""
        rows = read_table(self.path, ["step"], growing=True) if self.path.is_file() else []
        try:
            kept = [row for row in rows if int(row["step"]) <= step]
        except ValueError as error:
            raise DamagedFileError(self.path, f"a step is no number: {error}") from error
        cells = [[row.get(name, "") for name in self.columns] for row in kept]
        write_table(self.path, self.columns, cells)

    def append(self, row: Mapping[str, float | str]) -> None:
        """Adds a row; NaN becomes an empty cell."""
        cells = [_cell(row[name]) for name in self.columns]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(table_line(cells))


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.7g}"


class Monitor(Callback):
    """Writes a row of metrics at the first step and every ``log_every`` steps, of its last batch.

    Only those steps wait for the GPU and pay for the slower metrics. ``data_share`` is the share of
    time spent waiting for batches since the previous row; the rest is divided between encoder (with
    its backward pass and the optimiser) and loss (with its backward pass) as in the current step.
    The pauses between epochs, for probes and for saving, are left out.

    Args:
        table: path of ``metrics.csv``.
        log_every: number of steps.
        histograms: path of ``hardness.csv``, with the histograms of the same steps: a row per group
            that has similarities, with their number in each bin from the similarity in the head of
            its column up to the next; None for no histograms.
    """

    def __init__(self, table: Path, log_every: int, histograms: Path | None = None) -> None:
        self.table = MetricsTable(table)
        self.histograms = None if histograms is None else MetricsTable(histograms, HISTOGRAMS)
        self.log_every = log_every
        self.rate = math.nan
        self.waited = 0.0
        self.images = 0
        self.row: dict[str, float] | None = None  # the last
        self.started = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rewinds the table to the step at which the run starts or resumes."""
        self.started = True
        self.table.rewind(trainer.global_step)
        if self.histograms is not None:
            self.histograms.rewind(trainer.global_step)
        assert isinstance(pl_module, ContrastiveTraining)
        for logger in trainer.loggers:
            if trainer.global_step == 0:
                log_options(logger, asdict(pl_module.config))
        self._restart()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Keeps the learning rate of the step, which its end no longer knows."""
        self.rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: FrameBatch, batch_idx: int
    ) -> None:
        """Counts the images of a batch, and starts the stopwatch if the step gets a row."""
        assert isinstance(pl_module, ContrastiveTraining)
        self.waited += time.perf_counter() - self.idle_since
        self.images += num_images(batch)
        step = trainer.global_step + 1
        if (step == 1 or step % self.log_every == 0) and ends_step(trainer, batch_idx):
            pl_module.stopwatch.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Writes the row of the step, if it gets one."""
        assert isinstance(pl_module, ContrastiveTraining)
        stopwatch = pl_module.stopwatch
        if stopwatch.running:
            stopwatch.lap("encoder")
            stopwatch.running = False
            self._write(trainer, pl_module, outputs)
            self._restart()
        self.idle_since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a pause, in which the encoder is probed and saved."""
        self.paused = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the pause, which counts neither as training nor as waiting for batches."""
        now = time.perf_counter()
        self.since += now - self.paused
        self.idle_since = now

    @torch.no_grad()
    def _write(self, trainer: Trainer, module: ContrastiveTraining, output: StepOutput) -> None:
        loss, step = float(output["loss"]), trainer.global_step
        elapsed = time.perf_counter() - self.since
        seconds = module.stopwatch.seconds
        data_share = min(self.waited / elapsed, 1.0)
        compute = (1.0 - data_share) / sum(seconds.values())
        anchors = output["inputs"].anchors
        lo, hi = batches_of(trainer).window(trainer.current_epoch)
        intra = module.config.curriculum.intra(trainer.current_epoch)
        row = {
            "step": step,
            "epoch": trainer.current_epoch,
            "loss": loss,
            **similarities(output),
            "struck_by_margin": share_above_margin(output["inputs"], module.config.loss.margin),
            "effective_rank": effective_rank(anchors.embedding),
            "uniformity": uniformity(anchors.embedding, anchors.video),
            "bank_recall": _bank_recall(module, anchors),
            "images_per_second": self.images / elapsed,
            "data_share": data_share,
            "encoder_share": compute * seconds["encoder"],
            "loss_share": compute * seconds["loss"],
            "window_lo": lo if intra else math.nan,
            "window_hi": hi if intra else math.nan,
            "learning_rate": self.rate,
            **mining_figures(
                output["inputs"],
                output["selection"],
                soft_nn_temperature=module.config.loss.soft_nn_temperature,
                max_similarity=module.config.loss.max_similarity,
            ),
            **bank_ages(module.bank, step),
        }
        self.row = row
        self.table.append(row)
        numbers = {name: value for name, value in row.items() if not math.isnan(value)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)
        if self.histograms is not None:
            self._write_histograms(trainer, output)

    def _write_histograms(self, trainer: Trainer, output: StepOutput) -> None:
        assert self.histograms is not None
        step = trainer.global_step
        for group, values in similarities_of(output["inputs"], output["selection"]).items():
            if values.numel():
                counts = dict(zip(HISTOGRAMS[2:], histogram(values), strict=True))
                self.histograms.append({"step": step, "group": group, **counts})
                log_histogram(trainer.loggers, f"similarity/{group}", values, step)

    def _restart(self) -> None:
        self.since = self.idle_since = self.paused = time.perf_counter()
        self.waited, self.images = 0.0, 0
