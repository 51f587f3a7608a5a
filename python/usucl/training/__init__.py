"""Training: one call from a folder of videos to a run folder with an encoder.

Lightning is imported when ``train`` is first used; a configuration does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usucl.training.config import NothingLearnedError, TrainingConfig
from usucl.training.presets import presets, read_config

if TYPE_CHECKING:
    from usucl.training.run import train

__all__ = ["NothingLearnedError", "TrainingConfig", "presets", "read_config", "train"]


def __getattr__(name: str) -> Any:
    """Imports the training loop, and with it Lightning, once it is asked for."""
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from usucl.training.run import train

    globals()[name] = train
    return train
