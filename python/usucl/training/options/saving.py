"""Options of the checkpoints."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")


@dataclass(frozen=True)
class SavingConfig:
    """When the run is saved, so that it can go on from there; the encoder is the same without it.

    Attributes:
        checkpoint_every: steps between two checkpoints within an epoch, as an integer, or the time
            between them as a text such as ``"90 s"``, ``"10 min"`` or ``"1 h"``; null for
            checkpoints at the ends of epochs alone. Worth setting where an epoch takes longer than
            you would do again, or a cluster ends jobs without a signal.
    """

    checkpoint_every: int | str | None = None

    def __post_init__(self) -> None:
        every = self.checkpoint_every
        if every is None or (self.seconds or 0) > 0:
            return
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                "saving.checkpoint_every must be a number of steps >= 1, or a time > 0 such as "
                f"'90 s', '10 min' or '1 h', got {every!r}"
            )

    @property
    def seconds(self) -> float | None:
        """The time between two checkpoints; None if it is given in steps, or not at all."""
        found = _TIME.fullmatch(str(self.checkpoint_every).strip())
        if not found:
            return None
        seconds = float(found[1]) * _SECONDS[found[2]]
        return seconds if math.isfinite(seconds) else None

    @property
    def steps(self) -> int | None:
        """The number of steps between two checkpoints; None if it is a time, or not given."""
        return self.checkpoint_every if isinstance(self.checkpoint_every, int) else None
