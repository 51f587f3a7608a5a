"""A small data folder, and a run folder without a training."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from usucl.data import VideoCatalog
from usucl.models import EncoderConfig, FrameEncoder, save_encoder

# The smallest backbone: to step and to save a ResNet-10, which has 13 times as many weights, takes
# most of a small run's time.
BACKBONE = "timm:test_resnet" if importlib.util.find_spec("timm") else "resnet10"


def make_data(root: Path, *, videos: int = 8, frames: int = 12, labels: bool = True) -> Path:
    """Writes videos of a drifting bright bar, two per patient; the class is its direction."""
    x = np.arange(48)
    rows = []
    for v in range(videos):
        folder = root / f"video_{v}"
        folder.mkdir(parents=True)
        for f in range(frames):
            bar = 200 * np.exp(-((x - 10 - 2 * f) ** 2) / 20) + 20 + 3 * v
            image = np.broadcast_to(bar, (48, 48))
            image = (image if v % 4 < 2 else image.T).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{f}.png")
        source = "north" if v % 4 < 2 else "south"
        rows.append((f"video_{v}", "across" if v % 4 < 2 else "along", f"patient_{v // 2}", source))
    if labels:
        with (root / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("video_id", "label", "patient", "source"), *rows])
    return root


def make_run(run: Path, data: Path, held_out: int = 1) -> Path:
    """Writes a run folder as training leaves it, with two random encoders."""
    config = EncoderConfig(backbone="resnet10", image_size=32, dim=8)
    for seed, folder in ((0, run / "initial"), (1, run)):
        torch.manual_seed(seed)
        save_encoder(FrameEncoder(config), folder)
    catalog = VideoCatalog.scan(data)
    groups = sorted({entry.group for entry in catalog})[:held_out]
    rows = [
        (e.id, e.group, e.label or "", "held_out" if e.group in groups else "train")
        for e in catalog
    ]
    with (run / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "group", "label", "part"), *rows])
    return run
