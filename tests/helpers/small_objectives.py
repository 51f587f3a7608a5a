"""Objectives of the comparison on a network of one layer, and batches of noise for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from usucl.comparison.objectives import OBJECTIVES
from usucl.data import FrameBatch

SIZE, WIDTH, STEPS = 8, 12, 10
SMALL: dict[str, dict[str, Any]] = {
    "simclr": {"dim": 6},
    "simsiam": {"dim": 8, "bottleneck": 4},
    "byol": {"dim": 6, "hidden": 16},
    "moco": {"dim": 6, "queue": 8, "momentum": 0.9},
    "video-moco": {"dim": 6, "queue": 8, "momentum": 0.9},
    "lejepa": {"dim": 6, "hidden": 16, "slices": 32, "views": 3},
    "cycle-contrast": {"dim": 6, "queue": 8, "momentum": 0.9},
    "uscl": {"dim": 6},
    "ivpp": {"dim": 6, "radius": 4},
}
UNIFORM = ("simclr", "simsiam", "byol", "moco", "lejepa")
QUEUED = ("moco", "video-moco", "cycle-contrast")


def made(name: str, features: nn.Module | None = None, width: int = WIDTH, **more: Any) -> Any:
    objective = OBJECTIVES[name]
    features = features or nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, width), nn.ReLU())
    return objective(features, width, STEPS, objective.options_from({**SMALL[name], **more}))


def batch_of(
    n: int = 5, positives: int = 1, video: Sequence[int] = (), offset: Sequence[float] = ()
) -> FrameBatch:
    """A batch of noise; the videos of the rows are different unless they are given."""
    shape = (n,) if positives == 1 else (n, positives)
    return FrameBatch(
        anchor_view=torch.randn(n, 3, SIZE, SIZE),
        positive_view=torch.randn(*shape, 3, SIZE, SIZE),
        negative_view=torch.empty(n, 0, 3, SIZE, SIZE),
        video=torch.tensor(video) if video else torch.arange(n),
        time=torch.zeros(n),
        patient=torch.full((n,), -1),
        frame=torch.zeros(n, dtype=torch.int64),
        negative_time=torch.empty(n, 0),
        positive_offset=torch.tensor(offset) if offset else torch.ones(shape),
    )


def positives_of(name: str) -> int:
    return {"lejepa": 2, "uscl": 2}.get(name, 1)
