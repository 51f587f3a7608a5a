"""The sections of a run's configuration that are training's own, one file each."""

from usucl.training.options.computing import ComputingConfig
from usucl.training.options.loss import LossConfig
from usucl.training.options.optimiser import OptimiserConfig
from usucl.training.options.running import RunningConfig
from usucl.training.options.saving import SavingConfig
from usucl.training.options.watching import WatchingConfig

__all__ = [
    "ComputingConfig",
    "LossConfig",
    "OptimiserConfig",
    "RunningConfig",
    "SavingConfig",
    "WatchingConfig",
]
