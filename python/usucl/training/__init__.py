"""Training: one call from a folder of videos to a run folder with an encoder."""

from usucl.training.config import NothingLearnedError, TrainingConfig
from usucl.training.planning import Plan, plan
from usucl.training.presets import presets, read_config
from usucl.training.run import train

__all__ = [
    "NothingLearnedError",
    "Plan",
    "TrainingConfig",
    "plan",
    "presets",
    "read_config",
    "train",
]
