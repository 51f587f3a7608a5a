"""Options of the optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from usucl._ranges import check_range


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser, whose learning rate falls from ``lr`` to 0 along a half cosine over all steps.

    Epochs that are added to a run have a half cosine of their own, from ``lr`` again.

    Attributes:
        kind: ``"sgd"`` or ``"adamw"``.
        lr: learning rate at the start.
        momentum: momentum of SGD.
        weight_decay: weight decay.
    """

    kind: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        check_range("optimiser.lr", self.lr, 0)
        check_range("optimiser.momentum", self.momentum, 0, 1)
        check_range("optimiser.weight_decay", self.weight_decay, 0)
