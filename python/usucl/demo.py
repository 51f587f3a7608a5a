"""The demo: videos, a small encoder, its evaluation and a report, all within minutes."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from usucl._progress import job, listening
from usucl._terminal import say
from usucl.data import Augmentation, VideoCatalog, write_phantom
from usucl.data.catalog.tables.columns import LABEL
from usucl.evaluation import Evaluation, evaluate
from usucl.models import EncoderConfig, FrameEncoder
from usucl.report import write_report
from usucl.training import train

ENCODER = EncoderConfig(backbone="resnet10", image_size=64, dim=128)
PHANTOM_VIDEOS, PHANTOM_FRAMES = 40, 32  # five patients held out: the fewest with intervals
VIDEOS, FRAMES = 8, 8  # per batch
EPOCHS = 20  # steps of the curriculum; their length depends on the machine
TRAINING_SHARE = 0.6  # share of the time; evaluation and report take most of the rest
OTHER_WORK = 1.15  # ratio of a whole step, with loss and optimiser, to its batch and encoder


@job("Demo", {"Pretraining": 216, "Evaluating": 60, "Writing the report": 30})
def run_demo(
    *,
    data: str | Path | None = None,
    out: str | Path = "runs/demo",
    minutes: float = 6.0,
    patient_pattern: str | None = None,
    label: str = LABEL,
    sweep: str | None = None,
    progress: bool = False,
) -> tuple[Path, Evaluation]:
    """Trains a small encoder with the ``dense`` preset, evaluates it and writes the report.

    The number of steps is as many as this machine can do in the time; its speed is measured first.

    Args:
        data: folder of videos; without one, synthetic videos are written to ``<out>-videos``.
        out: run folder; if it exists, ``<out>-2``, ``<out>-3``, ... is used instead.
        minutes: time for everything, on a machine without other load.
        patient_pattern: finds the patients in the videos' paths, see
            :meth:`usucl.data.VideoCatalog.with_patients`.
        label: column of the tables that holds the labels.
        sweep: makes one video of several clips, see :meth:`usucl.data.VideoCatalog.with_sweeps`.
        progress: show the progress on standard error.

    Returns:
        The path of the report, and the evaluation.

    Raises:
        ValueError: ``minutes`` is not positive, or ``data`` has no usable video.
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be positive, got {minutes}")
    out = _free(Path(out))
    if data is None:
        alone = {"patient_pattern": patient_pattern, "sweep": sweep}
        for name, value in (alone | {"label": None if label == LABEL else label}).items():
            if value is not None:
                raise ValueError(f"{name} must come with data, got {value!r} alone")
        data = out.with_name(out.name + "-videos")
        say(f"Making synthetic ultrasound videos in {data}")
        write_phantom(data, videos=PHANTOM_VIDEOS, frames=PHANTOM_FRAMES)
    else:
        with warnings.catch_warnings():  # training gives them
            warnings.simplefilter("ignore")
            # It raises an error if nothing is usable.
            VideoCatalog.scan(data, patient_pattern=patient_pattern, label=label, sweep=sweep)
    steps = max(1, int(60 * minutes * TRAINING_SHARE / _seconds_per_step()))
    epochs = min(EPOCHS, steps)
    say(f"Training a small encoder for {steps // epochs * epochs} steps")
    options: dict[str, Any] = {
        "epochs": epochs,
        "steps_per_epoch": steps // epochs,
        "backbone": ENCODER.backbone,
        "image_size": ENCODER.image_size,
        "dim": ENCODER.dim,
        "sampling.videos": VIDEOS,
        "sampling.frames": FRAMES,
        "patient_pattern": patient_pattern,
        "label": label,
        "sweep": sweep,
    }
    train(data=data, out=out, preset="dense", progress=listening(), **options)
    say("Evaluating it against its random initialisation and raw pixels")
    evaluation = evaluate(run=out, data=data)
    return write_report(out), evaluation


def _free(out: Path) -> Path:
    """Returns ``out``, numbered if necessary so that neither the run nor its videos exist."""
    numbered = (out.with_name(f"{out.name}-{n}") for n in itertools.count(2))
    for folder in itertools.chain([out], numbered):
        if not (folder.exists() or folder.with_name(folder.name + "-videos").exists()):
            return folder
    raise AssertionError("the numbers do not end")


def _seconds_per_step() -> float:
    """Times a training step here: makes both views of a batch, and encodes forth and back."""
    with torch.random.fork_rng(devices=[]):
        encoder = FrameEncoder(ENCODER)
    if torch.cuda.is_available():
        encoder = encoder.cuda()
    device = next(encoder.parameters()).device
    augment = Augmentation("crop-flip-jitter", ENCODER.image_size)
    frames = [torch.zeros(3, augment.short_side, augment.short_side, dtype=torch.uint8)]
    views = 2 * VIDEOS * FRAMES
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        images = augment(frames * views, list(range(views)))
        encoder(images.to(device)).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return OTHER_WORK * min(seconds)
