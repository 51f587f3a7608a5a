"""What a run needs, in words: memory, disk and time."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from usucl._files import size_in_words
from usucl._progress import duration
from usucl.data import FrameBatches
from usucl.data.store import StorePlan
from usucl.data.store.store import THREADS
from usucl.models import FrameEncoder
from usucl.training.config import TrainingConfig
from usucl.training.planning.measurement import Measurement, Memory

WIDER = 0.1  # share by which a range reaches beyond what was measured: it was only a few steps
AHEAD = 2  # batches that each worker keeps ready
LEAST_LOGS = 100_000  # bytes
ROW = 1200  # bytes of a row of figures, in metrics.csv and for TensorBoard
BESIDE = 28  # bytes that the bank keeps of a frame beside its embedding: whose it is, and when

Range = tuple[float, float]


@dataclass(frozen=True)
class Needs:
    """What a run needs.

    Attributes:
        config: its options.
        batches: its batches, of which nothing is decoded.
        encoder: the encoder with shapes instead of numbers.
        measured: what a few steps took; None if they were not done.
        steps_left: steps that are to be done.
    """

    config: TrainingConfig
    batches: FrameBatches
    encoder: FrameEncoder
    measured: Measurement | None
    steps_left: int

    @property
    def memory(self) -> Memory:
        """Bytes by part: measured, or what follows from the options, without activations."""
        return self.measured.memory if self.measured else self._planned_memory()

    @property
    def processes(self) -> int:
        """Number of processes that share each batch."""
        return self.config.running.devices * self.config.running.nodes

    def rows(self) -> list[tuple[str, str]]:
        """Returns memory, disk and time, by name."""
        return [*self._memory_rows(), *self._disk_rows(), *self._time_rows()]

    def _planned_memory(self) -> Memory:
        config = self.config
        parameters = sum(4 * p.numel() for p in self.encoder.parameters())
        weights = parameters + sum(b.nbytes for b in self.encoder.buffers())
        images = config.make_method().images(len(self.batches.catalog))
        return Memory(
            weights=weights,
            gradients=parameters,
            optimiser=parameters * (2 if config.optimiser.kind == "adamw" else 1),
            momentum_encoder=weights if config.make_method().momentum is not None else 0,
            bank=config.key.bank * (4 * config.encoder.dim + BESIDE),
            activations=0,
            batch=images * config.encoder.channels * config.encoder.image_size**2 * 4,
            peak=0,
        )

    def _memory_rows(self) -> list[tuple[str, str]]:
        parts, workers = vars(self.memory), self.config.sampling.num_workers
        named = [
            f"{name.replace('_', ' ')} {size_in_words(size)}"
            for name, size in parts.items()
            if size and name != "peak"
        ]
        rows = [("memory, by part", ", ".join(named))]
        if self.processes > 1:
            rows[0] = (
                "memory of a process, by part",
                f"{rows[0][1]}; of activations and batch, each has its share",
            )
        if self.measured is None:
            rows[0] = (rows[0][0], f"{rows[0][1]}; activations are known once a step is measured")
        else:
            where = "the GPU" if self.measured.device.startswith("cuda") else "this process"
            whole = f"{size_in_words(self.memory.peak)}, the most that {where} took while measuring"
            rows.insert(0, ("memory", whole))
        if workers:
            each = size_in_words(AHEAD * self.memory.batch)
            rows.append(
                (
                    "memory of workers",
                    f"{workers} x {each} for the {AHEAD} batches that each keeps ready, beside the "
                    "interpreter and the packages, which processes started by fork share",
                )
            )
        return rows

    def _disk_rows(self) -> list[tuple[str, str]]:
        memory, found = self.memory, self.measured
        backbone = sum(value.nbytes for value in self.encoder.backbone.state_dict().values())
        encoder = found.encoder if found else memory.weights + backbone
        bank = found.bank if found else memory.bank
        checkpoint = (
            found.checkpoint
            if found
            else memory.weights + memory.momentum_encoder + memory.optimiser + bank
        )
        logs = max(ROW * (self.steps_left // self.config.log_every + 1), LEAST_LOGS)
        encoders = 3 if self.config.watching.probe_every else 2  # the first, the last, the best
        stays = checkpoint + encoders * encoder + bank + logs
        parts = [f"checkpoint {size_in_words(checkpoint)}"]
        parts += [f"{encoders} encoders of {size_in_words(encoder)}"]
        parts += [f"bank {size_in_words(bank)}"] if bank else []
        parts += [f"logs about {size_in_words(logs)}"]
        more = size_in_words(checkpoint)
        plan = self.batches.store_plan()
        return [
            (
                "disk, run folder",
                f"{size_in_words(stays)} ({', '.join(parts)}), and {more} more while a checkpoint "
                "is written beside the one before",
            ),
            ("disk, decoded frames", _to_decode(plan)),
        ]

    def _time_rows(self) -> list[tuple[str, str]]:
        if self.measured is None:
            return [("time", "not measured")]
        found, per_epoch = self.measured, len(self.batches)
        step, before = self.step_seconds(), self.decoding_seconds()
        epoch = _sum(_times(step, per_epoch), (found.save, found.save))
        data = sum(found.batches) / len(found.batches)
        middle = sum(found.steps) / len(found.steps)
        share = f"{1000 * middle:,.0f} ms of arithmetic and {1000 * data:,.0f} ms for a batch"
        watched = ", without probes" if self.config.watching.probe_every else ""
        shared = f", shared by {self.processes} processes" if self.processes > 1 else ""
        rows = [
            (
                "time per step",
                f"{_in_words(step)}: {share}, measured in {len(found.steps)} steps of one process "
                f"on {_device(found.device)}{shared}",
            ),
            (
                "time per epoch",
                f"{_in_words(epoch)}, of which {found.save:.2g} s to write the files after it"
                f"{watched}",
            ),
        ]
        if before[1] > 0:
            rows.append(("time before", f"{_in_words(before)} to decode frames, once"))
        left = _sum(_times(epoch, self.steps_left / per_epoch), before)
        rows.append(("time in all", _in_words(left)))
        return rows

    def step_seconds(self) -> Range:
        """Returns the time of a step: from the least to the greatest that was measured, and wider.

        With workers, their batches may be ready in time, or take cores from the arithmetic. With
        several processes, each has a share of the batch, at best with a device of its own.
        """
        assert self.measured is not None
        found, workers = self.measured, self.config.sampling.num_workers
        least, most = (
            pick(found.batches) + self._drawn_per_step() * found.drawn for pick in (min, max)
        )
        lo = max(min(found.steps), least / workers) if workers else min(found.steps) + least
        return (1 - WIDER) * lo / self.processes, (1 + WIDER) * (max(found.steps) + most)

    def decoding_seconds(self) -> Range:
        """Returns the time until all frames are stored that will be: with every core, or one."""
        assert self.measured is not None
        plan = self.batches.store_plan()
        stored = zip(plan.entries[: plan.videos], plan.ready, strict=False)
        frames = sum(entry.num_frames for entry, ready in stored if not ready)
        whole = frames * self.measured.frame
        return whole / min(THREADS, os.cpu_count() or 1), whole

    def _drawn_per_step(self) -> float:
        """Returns how many frames of a step are expected not to be stored."""
        plan, lengths = self.batches.store_plan(), self.batches.num_frames
        share = sum(lengths[plan.videos :]) / sum(lengths)
        return share * self.config.make_method().images(len(lengths))


def _to_decode(plan: StorePlan) -> str:
    if not plan.missing_bytes:
        return "nothing: every frame that is stored is there already"
    where = f" in {plan.folder}, beside the run" if plan.folder else " in memory"
    return f"up to {size_in_words(plan.missing_bytes)}{where}"


def _device(name: str) -> str:
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    threads = torch.get_num_threads()
    return f"this {name.upper()} with {threads} thread{'s' * (threads > 1)}"


def _times(span: Range, number: float) -> Range:
    return span[0] * number, span[1] * number


def _sum(first: Range, second: Range) -> Range:
    return first[0] + second[0], first[1] + second[1]


def _in_words(span: Range) -> str:
    lo, hi = span
    if hi < 100:
        return f"{lo:.2g} to {hi:.2g} s"
    return f"{duration(lo)} to {duration(hi)} (h:min:s)"
