"""The sections of a run's configuration that are training's own, one file each."""

from usucl.training.options.loss import LossConfig
from usucl.training.options.optimiser import OptimiserConfig
from usucl.training.options.saving import SavingConfig

__all__ = ["LossConfig", "OptimiserConfig", "SavingConfig"]
