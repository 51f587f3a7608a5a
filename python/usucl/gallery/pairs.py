"""Near-identical frames of different videos: found by embedding, confirmed by pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from usucl._progress import stage
from usucl.bank import NegativeBank
from usucl.gallery.contents import Contents
from usucl.gallery.events import Callback, Progress
from usucl.gallery.search import subset
from usucl.losses import Frames

Across = Literal["video", "patient", "fold"]

SAME_PICTURE = 0.9
"""Least correlation of details in the same picture. In lung videos, copies that were recompressed,
scaled or changed in gain had 0.93 or more in 99 of 100 cases, frames of different videos 0.75 at
most; a copy cropped by 2 % has 0.6 and is called alike."""

SIDE = 64
BLUR = 9
CHUNK = 512
PAGE = 32


@dataclass(frozen=True)
class Pair:
    """Two stored frames of different videos.

    Attributes:
        a, b: their slots, ``a < b``.
        similarity: cosine of the embeddings.
        frames: number of pairs of frames of the two videos that reach the threshold.
        correlation: correlation of the pictures' details (see :func:`correlation`), None if one
            cannot be read.
        difference: mean absolute difference of their grey levels, 0 to 255, likewise.
        other_patient, other_fold: whether the patients or folds differ, None where not known.
    """

    a: int
    b: int
    similarity: float
    frames: int
    correlation: float | None = None
    difference: float | None = None
    other_patient: bool | None = None
    other_fold: bool | None = None

    @property
    def same_picture(self) -> bool | None:
        """Whether the two show the same picture, None if one cannot be read."""
        return None if self.correlation is None else self.correlation >= SAME_PICTURE


def find_pairs(
    bank: NegativeBank,
    contents: Contents,
    threshold: float,
    across: Across,
    *,
    every_frame: bool = False,
    tell: Callback,
) -> list[Pair]:
    """Finds all pairs of frames at or above ``threshold``, or the best one of each two videos.

    Every frame's neighbours are searched page by page until they fall below the threshold, so an
    exact search misses none, however many copies of a frame there are.

    See :meth:`usucl.Gallery.duplicates` for the arguments.

    Returns:
        The pairs, not yet compared by pixels, the most similar first; ties by slot.

    Raises:
        ValueError: ``across`` is "fold", and the videos are in fewer than two.
    """
    folds = {video.fold for video in contents.videos} - {None}
    if across == "fold" and len(folds) < 2:
        raise ValueError(f"across 'fold' must have at least two folds, got {len(folds)} folds")
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    counts: dict[tuple[int, int], int] = {}
    for a, b, similarity in _candidates(bank, contents, threshold, across, tell):
        low, high = np.minimum(a, b), np.maximum(a, b)
        order = np.lexsort((high, low, -similarity))
        low, high, similarity, first = low[order], high[order], similarity[order], (a < b)[order]
        units = (low, high) if every_frame else (contents.video[low], contents.video[high])
        keys, where, unit = np.unique(
            np.stack(units, 1), axis=0, return_index=True, return_inverse=True
        )
        once = np.bincount(unit.ravel(), first, len(keys)).astype(int)  # each pair comes twice
        for key, i, count in zip(map(tuple, keys.tolist()), where.tolist(), once, strict=True):
            found = (-float(similarity[i]), int(low[i]), int(high[i]))
            best[key] = min(found, best.get(key, found))
            counts[key] = counts.get(key, 0) + int(count)
    ordered = sorted((pair, max(counts[key], 1)) for key, pair in best.items())
    return [_related(contents, Pair(a, b, -s, count)) for (s, a, b), count in ordered]


def compare(contents: Contents, pairs: Sequence[Pair]) -> list[Pair]:
    """Returns the pairs with correlation and difference of their pictures."""
    slots = [slot for pair in pairs for slot in (pair.a, pair.b)]
    grey = {
        slot: picture.float().mean(0)
        for slot, picture in contents.pictures(slots, SIDE).items()
        if isinstance(picture, Tensor)
    }

    def compared(pair: Pair) -> Pair:
        if pair.a not in grey or pair.b not in grey:
            return pair
        a, b = grey[pair.a], grey[pair.b]
        difference = float((a - b).abs().mean())
        return replace(pair, correlation=correlation(a, b), difference=difference)

    return [compared(pair) for pair in pairs]


def summary(pairs: Sequence[Pair]) -> dict[str, int]:
    """Counts the pairs and, among those where it is known, the leaks."""
    same = [pair for pair in pairs if pair.same_picture]
    return {
        "pairs": len(pairs),
        "across_patients": sum(bool(pair.other_patient) for pair in pairs),
        "across_folds": sum(bool(pair.other_fold) for pair in pairs),
        "same_picture": len(same),
        "same_picture_across_patients": sum(bool(pair.other_patient) for pair in same),
        "same_picture_across_folds": sum(bool(pair.other_fold) for pair in same),
        "patients_unknown": sum(pair.other_patient is None for pair in pairs),
        "folds_unknown": sum(pair.other_fold is None for pair in pairs),
        "unreadable": sum(pair.same_picture is None for pair in pairs),
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Returns the normalised cross-correlation of the details of two grey pictures ``[S, S]``.

    A blurred copy is subtracted from each: the shape of the sector and the fading with depth, which
    are alike in most ultrasound pictures, would make any two of them correlate. It is blind to
    brightness and contrast, and 0 if one picture has no detail, unless both are equal.
    """
    x, y = (_details(picture) for picture in (a, b))
    norm = x.norm() * y.norm()
    if norm < 1e-3:
        return float(torch.equal(a, b))
    return float((x * y).sum() / norm)


def _details(picture: Tensor) -> Tensor:
    blurred = F.avg_pool2d(
        F.pad(picture[None, None], [BLUR // 2] * 4, mode="replicate"), BLUR, stride=1
    )
    details = picture - blurred[0, 0]
    return details - details.mean()


def _related(contents: Contents, pair: Pair) -> Pair:
    a, b = contents.video_of(pair.a), contents.video_of(pair.b)
    return replace(
        pair,
        other_patient=None if None in (a.patient, b.patient) else a.patient != b.patient,
        other_fold=None if None in (a.fold, b.fold) else a.fold != b.fold,
    )


def _candidates(
    bank: NegativeBank, contents: Contents, threshold: float, across: Across, tell: Callback
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yields (slots, slots of their neighbours, similarities) for one chunk of frames at a time."""
    bank, anchors, slots = _grouped(bank, contents, across)
    tell(Progress(0, len(slots)))
    with stage("Comparing frames", len(slots), unit="frames") as bar:
        for start in range(0, len(slots), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(slots)))
            end = start + len(rows)
            skip, page = 0, PAGE
            while len(rows):
                index = torch.from_numpy(rows).to(anchors.video.device)
                some = anchors.take(index)
                found = bank.hardest(some, page, skip=skip)
                similarity = found.cross_similarity.float().cpu().numpy()
                near = similarity >= threshold
                row, rank = np.nonzero(near)
                neighbour = found.cross_index.cpu().numpy()[row, rank]
                yield slots[rows[row]], slots[neighbour], similarity[row, rank]
                rows = rows[near.all(1)]  # a full page: there may be more
                skip, page = skip + page, 2 * page
            bar.advance(end - start)
            tell(Progress(end, len(slots)))


def _grouped(
    bank: NegativeBank, contents: Contents, across: Across
) -> tuple[NegativeBank, Frames, NDArray[np.int64]]:
    """Returns bank and anchors for which the bank's own rule excludes other pairs, and slots."""
    columns = bank.frames()
    if across == "fold":
        folds = np.array([-1 if v.fold is None else v.fold for v in contents.videos])
        fold = folds[contents.video]
        slots = np.flatnonzero(fold >= 0)
        bank = subset(bank, slots, fold[slots])  # folds replace videos
        return bank, bank.frames(), slots
    if across == "video":
        columns = columns._replace(patient=None)
    return bank, columns, np.arange(len(bank))
