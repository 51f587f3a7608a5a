"""What a run would do, without doing it: its options, videos, batches and temporal windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from usucl._progress import job
from usucl.data import FrameBatches, VideoCatalog
from usucl.data.sampling.candidates import SLACK, anchor_windows
from usucl.data.sampling.curriculum import Window
from usucl.run_folder import RunFolder
from usucl.training.config import TrainingConfig
from usucl.training.planning.needs import Needs
from usucl.training.resumption import continued, is_there
from usucl.training.run import configured, scanned, split, with_flags

MOST_STAGES = 12  # of a curriculum whose windows change with every epoch
BAR = 30  # characters


@dataclass(frozen=True)
class Stage:
    """Epochs with the same negatives.

    Attributes:
        epochs: which, counted from 1, in words.
        window: (lo, hi) in the unit of the run; None where only cross-video negatives count.
        frames: (lo, hi) in the video of median length, kept beyond the positives.
        reached: number of videos that are long enough for an intra-video negative.
        bar: where the window lies between distance 0 and the greatest one of the run.
    """

    epochs: str
    window: Window | None
    frames: Window | None
    reached: int
    bar: str


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
        config: all options.
        training, held_out: the videos of both parts.
        batches: the batches, of which nothing is decoded.
        needs: memory, disk and time.
        done: steps that a run to be resumed has behind it.
    """

    config: TrainingConfig
    training: VideoCatalog
    held_out: VideoCatalog
    batches: FrameBatches
    needs: Needs
    done: int = 0

    @property
    def parameters(self) -> int:
        """Number of the encoder's parameters."""
        return sum(parameter.numel() for parameter in self.needs.encoder.parameters())

    def rows(self) -> list[tuple[str, str]]:
        """Returns what is trained on and how, by name."""
        from usucl.training.callbacks.progress import data_rows

        config, steps = self.config, len(self.batches)
        encoder = config.encoder
        rows = [
            *data_rows(self.config, self.training, self.held_out),
            ("batch", self._batch(0)),
            ("steps", self._steps()),
            ("decoded frames", str(self.batches.store_plan())),
            (
                "encoder",
                f"{encoder.backbone} at {encoder.image_size} px, {self.parameters / 1e6:.1f} "
                f"million parameters, precision {config.precision}",
            ),
            ("negatives", self._negatives()),
        ]
        names = [name for name, _ in rows]
        if (last := self._batch(steps - 1)) != self._batch(0):
            rows.insert(names.index("steps"), ("last batch", last))
        return rows

    def _steps(self) -> str:
        steps, epochs = len(self.batches), self.config.epochs
        text = f"{steps:,} per epoch, {steps * epochs:,} in {epochs} epochs"
        if (every := self.config.optimiser.accumulate) > 1:
            text += f", the weights change at every {every}th"
        if self.done:
            text += f"; {self.done:,} are done, {self.needs.steps_left:,} are left"
        return text

    def intra(self, epoch: int) -> bool:
        """Returns whether intra-video negatives count at ``epoch``, counted from 0."""
        return self.config.loss.intra_k > 0 and self.config.curriculum.intra(epoch)

    @property
    def cross_only(self) -> int:
        """Number of epochs in which only cross-video negatives count."""
        return sum(not self.intra(epoch) for epoch in range(self.config.epochs))

    @property
    def median_video(self) -> int:
        """Number of the video of median length, the longer one of two."""
        lengths = self.batches.num_frames
        return sorted(range(len(lengths)), key=lambda video: (lengths[video], video))[
            len(lengths) // 2
        ]

    def stages(self) -> list[Stage]:
        """Returns the curriculum in the order of time.

        If windows change with every epoch, a dozen of them are given. Where they narrow by
        hardness, all but the first begin at epochs that nobody knows before.
        """
        if self.config.curriculum.kind == "hardness" and self.cross_only < self.config.epochs:
            return self._stages_by_hardness()
        epochs = self.config.epochs
        windows = [self.batches.window(e) if self.intra(e) else None for e in range(epochs)]
        begins = [e for e in range(epochs) if e == 0 or windows[e] != windows[e - 1]]
        if len(begins) > MOST_STAGES:
            first = [begin for begin in begins if windows[begin] is None]
            later = begins[len(first) :]
            even = np.linspace(0, len(later) - 1, MOST_STAGES - 1).round().astype(int)
            shown = [*first, *(later[i] for i in even)]
            names = {begin: f"{begin + 1}" for begin in shown}
            names |= {begin: _span(begin, later[0]) for begin in first}
        else:
            shown, ends = begins, [*begins[1:], epochs]
            names = {begin: _span(begin, end) for begin, end in zip(begins, ends, strict=True)}
        return [self._stage(names[begin], windows[begin]) for begin in shown]

    def _stages_by_hardness(self) -> list[Stage]:
        curriculum, first = self.config.curriculum, self.cross_only
        stages = [self._stage(_span(0, first), None)] if first else []
        for number, window in enumerate(curriculum.windows):
            begin = f"from {first + 1}" if number == 0 else "later"
            if number < len(curriculum.windows) - 1:
                begin += f", until similarity < {curriculum.narrow_below:g}"
            stages.append(self._stage(begin, window))
        return stages

    def _stage(self, epochs: str, window: Window | None) -> Stage:
        if window is None:
            return Stage(epochs, None, None, 0, "")
        batches = self.batches
        videos = np.arange(len(batches.num_frames))
        rates = batches.clock.frames_per_unit.tolist()
        in_frames = [(window[0] * rate, window[1] * rate) for rate in rates]
        radius = batches.sampler.positive_radius
        bounds = anchor_windows(videos, None, in_frames, radius, batches.traits)
        lo, hi = bounds[self.median_video].tolist()
        far = np.array(batches.num_frames) - 1
        reached = int(((bounds[:, 0] <= far) & (bounds[:, 0] <= bounds[:, 1])).sum())
        return Stage(epochs, window, (lo + SLACK, hi - SLACK), reached, self._bar(window))

    def _bar(self, window: Window) -> str:
        farthest = max(hi for _, hi in self.config.curriculum.windows) or 1.0
        begin, end = (round(BAR * min(bound / farthest, 1.0)) for bound in window)
        begin = min(begin, BAR - 1)
        return "·" * begin + "█" * max(end - begin, 1) + "·" * (BAR - max(end, begin + 1))

    def _batch(self, step: int) -> str:
        draw = self.batches.draw(0, step, guarded=False)
        n, k = draw.negatives.shape
        videos, positives = len(np.unique(draw.video)), draw.positive.size // n
        images, size = n * (1 + positives + k), self.config.encoder.image_size
        each = f"{positives} positive{'s' * (positives > 1)}"
        each += f" and {k} intra-video negatives" if k else ""
        return f"{n} anchors of {videos} videos, {each} each: {images} images of {size}x{size} px"

    def _negatives(self) -> str:
        loss, sampling = self.config.loss, self.config.sampling
        bank = f", {self.config.key.bank:,} frames in the bank" if self.config.key.bank else ""
        guard = f", unlike the anchor (guard {sampling.guard:g})" if sampling.guard else ""
        return f"the hardest {loss.intra_k} intra-video{guard} and {loss.cross_k} cross-video{bank}"


@job("Planning", {"Reading videos": 1, "Measuring": None})
def plan(
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    preset: str | Path = "dense",
    overwrite: bool = False,
    resume: bool = False,
    held_out: Sequence[int] | None = None,
    seed: int | None = None,
    progress: bool = True,
    measure: bool = False,
    **overrides: Any,
) -> Plan:
    """Reads the options and the videos of a run and checks them, as :func:`usucl.train` does first.

    Nothing is written to the run folder.

    Args:
        data: folder of videos.
        out: the run folder, if it is to be checked that the run may be written there.
        preset, overwrite, held_out, seed, progress: see :func:`usucl.train`.
        resume: plan what is left of the run in ``out``, with its own options, or a new one where
            there is none.
        measure: do a few steps, to know what they take of time and memory. They are thrown away;
            only their frames are decoded. Otherwise nothing is trained or decoded.
        **overrides: see :func:`usucl.train`.

    Raises:
        ValueError, TypeError: an option is wrong, or does not go with the others or the videos.
        FileExistsError: ``out`` is not free.
        FileNotFoundError: ``resume`` is given, and ``out`` holds something else than a run that can
            go on.

    Warns:
        UserWarning: see :func:`usucl.train`.
    """
    overrides, done = with_flags(overrides, held_out, seed), 0
    if resume and (out is None or overwrite):
        given = "overwrite" if overwrite else "no out"
        raise ValueError(f"resume must be given with out and without overwrite, got {given}")
    if resume and out is not None and is_there(run := RunFolder(out).recovered):
        config, done = _resumed(run, data, overrides)
        catalog = scanned(config)
        begins = run.is_unfinished
        training, rest = split(catalog, config) if begins else run.stored_split(catalog)
    else:
        config = configured(data, preset, overrides)
        if out is not None:
            RunFolder(out).check_free(overwrite=overwrite)
        training, rest = split(scanned(config), config)
    from usucl.training.fitting import make_datamodule
    from usucl.training.planning.measurement import measure as measured
    from usucl.training.rehearsal import empty_encoder, rehearse, rehearse_processes

    batches = make_datamodule(training, config).batches
    rehearse(config, batches)
    rehearse_processes(config, batches, config.running.devices * config.running.nodes)
    done = _steps_of(done, len(batches), config.optimiser.accumulate)
    left = max(len(batches) * config.epochs - done, 0)
    found = measured(config, training) if measure and left else None
    needs = Needs(config, batches, empty_encoder(config), found, left)
    return Plan(config, training, rest, batches, needs, done)


def _resumed(
    run: RunFolder, data: str | Path | None, overrides: dict[str, Any]
) -> tuple[TrainingConfig, int]:
    """Returns the options of a run that goes on, and how often its weights have changed."""
    from usucl.training.checkpoint import read_checkpoint

    config = continued(run, overrides)
    if data is not None:
        config = replace(config, data=str(Path(data).absolute()))
    return config, 0 if run.is_unfinished else int(read_checkpoint(run.checkpoint)["global_step"])


def _steps_of(changes: int, per_epoch: int, accumulate: int) -> int:
    """Returns after how many steps the weights have changed so often."""
    epochs, rest = divmod(changes, -(-per_epoch // accumulate))
    return epochs * per_epoch + rest * accumulate


def _span(begin: int, end: int) -> str:
    """Returns the epochs from ``begin`` up to before ``end``, counted from 1."""
    return f"{begin + 1}" if end == begin + 1 else f"{begin + 1}-{end}"
