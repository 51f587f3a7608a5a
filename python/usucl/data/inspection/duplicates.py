"""Videos that show the same as another: with equal frames, or frames that only look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from usucl.data.catalog.entry import VideoEntry

RADIUS = 5.0
"""Bits of 64 by which the perceptual hashes of near-duplicates differ at most, on average over the
frames. Lung videos and their copies, cut, scaled and recompressed, differed by up to 4.0; different
ones, out of 49,000 pairs from three devices, by 7.2 or more."""

_CHUNK = 1024


class Duplicate(NamedTuple):
    """A video that shows the same as an earlier one.

    Attributes:
        video, other: numbers of the two entries, ``other`` the earlier.
        bits: by which their hashes differ on average.
        equal: whether their frames are equal.
    """

    video: int
    other: int
    bits: float
    equal: bool


def find_duplicates(entries: Sequence[VideoEntry]) -> list[Duplicate]:
    """Returns for each video the most similar earlier one within ``RADIUS``.

    An earlier one of another patient, or else in another fold, comes first, since such a pair may
    be on both sides of a split. Hashes are compared frame by frame, each with that at the same
    relative time, by one matrix product: 10,000 videos take seconds.
    """
    patients = _codes([e.group if e.patient_known else None for e in entries])
    folds = _codes([e.fold for e in entries])
    found = []
    for i, others, bits in _alike(entries):
        # One of another patient comes first, then one in another fold, then the most alike.
        rank = bits - 200 * _differs(patients, i, others) - 100 * _differs(folds, i, others)
        found.append(_duplicate(entries, i, int(others[rank.argmin()]), float(bits[rank.argmin()])))
    return sorted(found)


def duplicates_across(entries: Sequence[VideoEntry], sides: Sequence[object]) -> list[Duplicate]:
    """Returns every pair of videos within ``RADIUS`` that are on different sides of a split."""
    side = _codes(sides)
    return sorted(
        _duplicate(entries, i, int(other), float(b))
        for i, others, bits in _alike(entries)
        for other, b in zip(others, bits, strict=True)
        if side[i] != side[other]
    )


def _duplicate(entries: Sequence[VideoEntry], i: int, other: int, bits: float) -> Duplicate:
    a, b = entries[i].summary, entries[other].summary
    return Duplicate(i, other, bits, a is not None and b is not None and a.digest == b.digest)


def _alike(entries: Sequence[VideoEntry]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields each video that is like earlier ones, with their numbers and the bits between them."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, entry in enumerate(entries):
        if entry.summary is not None and entry.summary.fingerprint:
            by_length[len(entry.summary.fingerprint)].append(i)
    for length, which in sorted(by_length.items()):
        numbers = torch.tensor(which)
        hashes = np.array([s.fingerprint for i in which if (s := entries[i].summary)], dtype=">u8")
        of_bytes = hashes.view(np.uint8).reshape(len(which), -1)
        signs = torch.from_numpy(np.unpackbits(of_bytes, axis=1)).float() * 2 - 1
        for start in range(0, len(which), _CHUNK):
            rows = torch.arange(start, min(start + _CHUNK, len(which)))
            earlier = int(rows[-1])
            distance = (64 * length - signs[rows] @ signs[:earlier].T) / 2 / length
            distance[torch.arange(earlier) >= rows[:, None]] = torch.inf
            near = distance <= RADIUS
            for row in torch.nonzero(near.any(1)).flatten().tolist():
                others = torch.nonzero(near[row]).flatten()
                yield which[start + row], numbers[others], distance[row, others]


def _codes(values: Sequence[object]) -> Tensor:
    """Returns a number for each value, -1 for None."""
    known = {v: i for i, v in enumerate(dict.fromkeys(v for v in values if v is not None))}
    return torch.tensor([-1 if v is None else known[v] for v in values])


def _differs(codes: Tensor, i: int, others: Tensor) -> Tensor:
    return ((codes[others] != codes[i]) & (codes[others] >= 0) & bool(codes[i] >= 0)).float()
