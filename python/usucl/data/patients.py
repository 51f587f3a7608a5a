"""Which patient a video is of, where the names of the videos tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

Patients: TypeAlias = Literal["known", "partly", "unknown"]
"""Whether the patients of videos are known; "partly" means those of some videos are."""


def knowledge(known: Sequence[bool]) -> Patients:
    """Returns whether the patients are known, from whether that of each video is."""
    return "known" if all(known) else "partly" if any(known) else "unknown"
