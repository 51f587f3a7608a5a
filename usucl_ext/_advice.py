"""Warnings, each once per process, of arguments that are lawful but hardly meant.

They look at values, so only on the CPU, where that waits for nothing, and in eager calls.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

TOLERANCE = 0.1  # of a length; the rounding of bfloat16 changes it by less
EVERY = 64  # calls, after as many that are all looked at: a look takes a tenth of a small call
_PLAIN = (Tensor, nn.Parameter)
_told: set[str] = set()


class Turns:
    """Counts calls, and tells which of them are looked at."""

    def __init__(self) -> None:
        self.calls = 0

    def is_due(self) -> bool:
        """Counts a call; returns whether it is looked at."""
        self.calls += 1
        return self.calls <= EVERY or self.calls % EVERY == 0


def check_lengths(embeddings: Iterable[tuple[str, Tensor | None]]) -> None:
    """Warns if a few rows of an embedding, ``[N, D]`` or ``[N, R, D]``, have no length near 1.

    Rows of zeros, such as empty slots, and those that are not finite are not looked at.
    """
    if "lengths" in _told:
        return
    for name, embedding in embeddings:
        if embedding is None or type(embedding) not in _PLAIN or not embedding.is_cpu:
            continue
        rows = embedding.detach()
        if rows.dim() > 2:
            rows = rows[:, 0]
        if len(rows) > 3:
            rows = rows[:: (len(rows) + 1) // 3]
        lengths = [x for x in torch.linalg.vector_norm(rows, dim=1).tolist() if x > 0]
        advise_of_length(name, min(lengths, key=lambda length: abs(length - 1), default=1.0))


def advise_of_length(name: str, length: float) -> None:
    """Warns if a length of embeddings is neither 0 nor near 1; NaN and infinity pass."""
    if abs(length - 1) > TOLERANCE and 0 < length < math.inf:
        tell(
            "lengths",
            f"{name} should hold L2-normalised embeddings (torch.nn.functional.normalize), got "
            f"rows of length {length:.3g}: with such similarities the loss is often 0 or huge, and "
            "its gradient useless",
            stacklevel=5,
        )


def check_order(lo: float, hi: float, stacklevel: int) -> None:
    """Warns if the bounds of a window are in the wrong order, which makes it empty."""
    if lo > hi:
        tell(
            "window",
            f"window should be (lo, hi) with lo <= hi, got ({lo:g}, {hi:g}): it is empty, so "
            "there are no intra-video negatives",
            stacklevel=stacklevel + 1,
        )


def tell(kind: str, message: str, stacklevel: int) -> None:
    """Warns, unless this kind of warning was given before."""
    if kind not in _told:
        _told.add(kind)
        warnings.warn(message, stacklevel=stacklevel + 1)
