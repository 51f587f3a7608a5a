"""The optimiser of a run."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from usucl.training.options import OptimiserConfig


def make_optimiser(encoder: nn.Module, config: OptimiserConfig) -> Optimizer:
    """Returns the optimiser of an encoder's parameters."""
    parameters = encoder.parameters()
    if config.kind == "sgd":
        return SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
