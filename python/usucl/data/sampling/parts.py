"""The clips of a sweep: a frame of the next clip shows another slice, so it is no positive."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from usucl.data.catalog.entry import VideoEntry
from usucl.data.sampling.samplers import Draw


class PartBounds:
    """Where the clips of each video begin and end; a video that is no sweep is one clip."""

    def __init__(self, entries: Sequence[VideoEntry]) -> None:
        lengths = [[p.video.num_frames for p in e.parts] or [e.num_frames] for e in entries]
        self._starts = [np.array([0, *itertools.accumulate(of)]) for of in lengths]
        self._any = any(len(of) > 1 for of in lengths)

    def keep_positives_within(self, draw: Draw) -> Draw:
        """Returns a draw in which every positive is of its anchor's clip.

        A positive in another clip is put at the same distance on the other side of its anchor, or
        as far as the clip goes.
        """
        if not self._any:
            return draw
        positives = draw.positive.copy()
        for row, (video, anchor) in enumerate(zip(draw.video, draw.anchor, strict=True)):
            starts = self._starts[video]
            if len(starts) == 2:
                continue
            part = np.searchsorted(starts, anchor, side="right") - 1
            first, last = starts[part], starts[part + 1] - 1
            other_side = np.clip(2 * anchor - positives[row], first, last)
            nearest = np.clip(positives[row], first, last)
            moved = np.where(other_side == anchor, nearest, other_side)
            positives[row] = np.where(nearest == positives[row], positives[row], moved)
        return draw._replace(positive=positives)
