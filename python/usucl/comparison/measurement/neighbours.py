"""The frames that an encoder finds most like a few tested frames, to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from usucl.data import VideoCatalog
from usucl.embedding import evenly_spaced

QUERIES = 3
NEAREST = 5


class Neighbour(NamedTuple):
    """A frame, and its cosine similarity to a query; 1 for the query itself."""

    video_id: str
    frame: int
    similarity: float


class Neighbours(NamedTuple):
    """A query, and the most similar frames of other patients, at most one of each video."""

    query: Neighbour
    nearest: tuple[Neighbour, ...]


def neighbours(
    catalog: VideoCatalog,
    tested: NDArray[np.bool_],
    video: NDArray[np.int64],
    frame: NDArray[np.int64],
    features: Tensor,
) -> tuple[Neighbours, ...]:
    """Returns the neighbours of queries that do not depend on the features.

    A query is the middle frame of the first video of one of at most ``QUERIES`` tested patients.

    Args:
        catalog: the videos.
        tested: which of them are of tested patients ``[V]``.
        video, frame: number of the video of n frames and of each in its video ``[n]``.
        features: of the frames ``[n, F]``.
    """
    unit = F.normalize(features, dim=1)
    first: dict[str, int] = {}
    for number in np.flatnonzero(tested).tolist():
        first.setdefault(catalog.entries[number].group, number)
    queried = [first[group] for group in sorted(first)]
    group = np.array([entry.group for entry in catalog])[video]

    def named(i: int, similarity: float) -> Neighbour:
        return Neighbour(catalog.entries[video[i]].id, int(frame[i]), similarity)

    found = []
    for i in evenly_spaced(len(queried), QUERIES, ends=True):
        frames = np.flatnonzero(video == queried[i])
        query = int(frames[len(frames) // 2])
        similarity = (unit @ unit[query]).numpy()
        best: dict[int, int] = {}
        for other in np.argsort(-similarity, kind="stable").tolist():
            if group[other] != group[query]:
                best.setdefault(int(video[other]), other)
            if len(best) == NEAREST:
                break
        nearest = (named(other, round(float(similarity[other]), 4)) for other in best.values())
        found.append(Neighbours(named(query, 1.0), tuple(nearest)))
    return tuple(found)
