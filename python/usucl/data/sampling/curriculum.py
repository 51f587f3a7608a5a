"""The curriculum over temporal windows: from distant, easy negatives to near, hard ones.

Everything here is a pure function of the epoch and, if the windows follow from the hardness of the
negatives, of the epochs at which they have narrowed. A run keeps those in its checkpoint, so a
resumed run sees the windows of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Window = tuple[float, float]
Schedule = Literal["step", "cosine", "linear", "paper-code", "constant", "hardness"]

PAPER_EPOCHS = 60


@dataclass(frozen=True)
class Curriculum:
    """Temporal window [lo, hi] of intra-video negatives at every epoch (Basu et al. 2022, sec. 2).

    Epoch e of E is at u = e / E. Below u = ``cross_only`` only cross-video negatives count. The
    window, lo and hi alike, is::

        step        windows[i] for the largest i with u >= starts[i]
        cosine      b + (a - b) (1 + cos(pi v)) / 2,  a = windows[0], b = windows[-1], where v runs
                    from 0 at u = cross_only to 1 at the last epoch
        linear      b + (a - b) (1 - v), with the same a, b and v
        paper-code  windows[0] prod_{j=1..m} (1 + cos(pi j / 30)) / 2,  m = floor(60 u) - 30 >= 0:
                    the factor of the official code, which compounds every epoch, so that the window
                    shrinks to nothing by u = 5/6 and only the sampler's smallest gap is left
        constant    windows[0]
        hardness    windows[0] until the intra-video negatives have become easy, then windows[1] and
                    so on: after each epoch with such negatives, the least similar of those that
                    each anchor selects (the k-th) are averaged, and the next window begins if this
                    mean similarity is below ``narrow_below``

    Args:
        kind: how the windows change over the run; :class:`usucl.data.Curriculum` has the formulas.
        epochs: E, the length of the run. Later epochs keep the window of the last one.
        windows: (lo, hi) pairs, 0 <= lo <= hi, in the unit of the frames' times (in the paper, a
            fraction of the video's length). ``cosine`` and ``linear`` go from the first to the
            last, and ``constant`` and ``paper-code`` use the first alone.
        starts: where each window begins, as a share of the run, ascending from 0. Only ``step``
            uses it.
        cross_only: share of the run without intra-video negatives, in [0, 1].
        narrow_below: the similarity, in [-1, 1], below which negatives are easy, so that the next
            window begins. Only ``hardness`` uses it.

    Raises:
        ValueError: a value is outside the ranges above.
    """

    kind: Schedule = "step"
    epochs: int = PAPER_EPOCHS
    windows: tuple[Window, ...] = ((0.2, 0.4), (0.1, 0.15), (0.03, 0.07))
    starts: tuple[float, ...] = (0.0, 30 / 60, 50 / 60)
    cross_only: float = 10 / 60
    narrow_below: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(Schedule):
            raise ValueError(f"kind must be one of {get_args(Schedule)}, got {self.kind!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if not self.windows or any(not 0 <= lo <= hi for lo, hi in self.windows):
            raise ValueError(f"windows must be pairs 0 <= lo <= hi, got {self.windows}")
        if self.kind == "step" and (
            len(self.starts) != len(self.windows)
            or self.starts[0] != 0
            or list(self.starts) != sorted(self.starts)
        ):
            raise ValueError(
                f"starts must be {len(self.windows)} ascending shares from 0, one per window, "
                f"got {self.starts}"
            )
        if not 0 <= self.cross_only <= 1:
            raise ValueError(f"cross_only must be a share in [0, 1], got {self.cross_only}")
        if not -1 <= self.narrow_below <= 1:
            raise ValueError(f"narrow_below must be in [-1, 1], got {self.narrow_below}")

    def intra(self, epoch: int) -> bool:
        """Returns whether intra-video negatives count at ``epoch``."""
        return self._reached(self.cross_only, epoch)

    def window(self, epoch: int, narrowed: Sequence[int] = ()) -> Window:
        """Returns (lo, hi) at ``epoch``, in the unit of ``windows``.

        Args:
            epoch: counted from 0.
            narrowed: for ``hardness``, the epochs from which on there was a further window each.
        """
        if self.kind == "hardness":
            passed = sum(begin <= epoch for begin in narrowed)
            return self.windows[min(passed, len(self.windows) - 1)]
        schedules = {
            "step": self._step,
            "cosine": self._cosine,
            "linear": self._linear,
            "paper-code": self._compounding_cosine,
            "constant": self._constant,
        }
        return schedules[self.kind](epoch)

    def narrows(self, epoch: int, narrowed: Sequence[int], similarity: float) -> bool:
        """Returns whether the epoch after ``epoch`` has the next window.

        Args:
            epoch: the epoch that has ended.
            narrowed: see :meth:`window`.
            similarity: mean of the anchors' k-th hardest intra-video negatives in it; NaN if there
                were none, and then no window changes.
        """
        return (
            self.kind == "hardness"
            and self.intra(epoch)
            and len(narrowed) < len(self.windows) - 1
            and similarity < self.narrow_below
        )

    def _step(self, epoch: int) -> Window:
        return self.windows[sum(self._reached(start, epoch) for start in self.starts) - 1]

    def _cosine(self, epoch: int) -> Window:
        return self._between((1 + math.cos(math.pi * self._progress(epoch))) / 2)

    def _linear(self, epoch: int) -> Window:
        return self._between(1 - self._progress(epoch))

    def _between(self, keep: float) -> Window:
        first, last = self.windows[0], self.windows[-1]
        lo, hi = (b + (a - b) * keep for a, b in zip(first, last, strict=True))
        return lo, hi

    def _compounding_cosine(self, epoch: int) -> Window:
        half = PAPER_EPOCHS // 2
        steps = range(1, PAPER_EPOCHS * self._clamped(epoch) // self.epochs - half + 1)
        keep = math.prod((1 + math.cos(math.pi * j / half)) / 2 for j in steps)
        lo, hi = self.windows[0]
        return lo * keep, hi * keep

    def _constant(self, epoch: int) -> Window:
        return self.windows[0]

    def _clamped(self, epoch: int) -> int:
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        return min(epoch, self.epochs - 1)

    def _reached(self, share: float, epoch: int) -> bool:
        # Shares such as 1/6 are rounded: a boundary that falls on an epoch belongs to that epoch.
        return self._clamped(epoch) >= share * self.epochs - 1e-6

    def _progress(self, epoch: int) -> float:
        begin, end = self.cross_only * self.epochs, self.epochs - 1
        if end <= begin:
            return 0.0
        return min(1.0, max(0.0, (self._clamped(epoch) - begin) / (end - begin)))
