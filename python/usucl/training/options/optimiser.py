"""Options of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from usucl._ranges import check_range

MOST_BATCHES = 2**16  # per step


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser, whose learning rate falls from ``lr`` to 0 along a half cosine over all steps.

    Epochs that are added to a run have a half cosine of their own, from ``lr`` again.

    Attributes:
        kind: ``"sgd"``, ``"adamw"``, or ``"lars"``, which is SGD for batches of thousands of
            frames: see :class:`usucl.training.optimisation.lars.LARS`.
        lr: learning rate at the start. After a warm-up, the greatest one.
        warmup: number of epochs, also a fraction such as 0.5, in which the learning rate first
            rises from 0 to ``lr`` in a straight line. Large learning rates, LARS and transformers
            need it: 5 to 10 epochs of 100 are usual.
        momentum: momentum of SGD and LARS.
        trust: trust coefficient of LARS: a step of learning rate 1 changes each weight tensor by
            about this share of its length.
        weight_decay: weight decay.
        decay_norms: whether ``weight_decay`` acts on biases and on the scales and shifts of
            normalisation too; null for the usual: on all with SGD and AdamW, on weights alone with
            LARS.
        clip: greatest length (L2) of the gradient of all parameters together; a longer one is
            shortened to it before each step. None for no limit. It keeps rare steep batches from
            destroying the weights: 1.0 is usual for transformers.
        accumulate: batches per step of the optimiser. The gradient is the mean of those of the
            batches; the last step of an epoch may have fewer. It replaces memory for a larger
            batch, although each batch is still compared with its own frames and the bank only.
            Steps in all files and messages are those of the optimiser, whereas
            ``sampling.steps_per_epoch`` counts batches.
    """

    kind: Literal["sgd", "adamw", "lars"] = "adamw"
    lr: float = 1e-3
    warmup: float = 0.0
    momentum: float = 0.9
    trust: float = 1e-3
    weight_decay: float = 1e-4
    decay_norms: bool | None = None
    clip: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_range("optimiser.lr", self.lr, 0)
        check_range("optimiser.warmup", self.warmup, 0)
        check_range("optimiser.momentum", self.momentum, 0, 1)
        check_range("optimiser.trust", self.trust, 0, above=True)
        check_range("optimiser.weight_decay", self.weight_decay, 0)
        check_range("optimiser.clip", self.clip, 0, above=True)
        check_range("optimiser.accumulate", self.accumulate, 1, MOST_BATCHES)

    def steps(self, batches: int) -> int:
        """Returns the number of steps in an epoch of so many batches."""
        return math.ceil(batches / self.accumulate)
