"""The optimiser of a run."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from usucl.training.optimisation.lars import LARS
from usucl.training.options import OptimiserConfig


def make_optimiser(encoder: nn.Module, config: OptimiserConfig) -> Optimizer:
    """Returns the optimiser of an encoder's parameters."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.kind == "lars":
        weights, others = _weights_and_others(encoder)
        decay = config.weight_decay if config.decay_norms else 0.0
        groups = [weights, {**others, "weight_decay": decay, "adapt": False}]
        return LARS(groups, momentum=config.momentum, trust=config.trust, **options)
    parameters: Any = encoder.parameters()
    if config.decay_norms is False:
        weights, others = _weights_and_others(encoder)
        parameters = [weights, {**others, "weight_decay": 0.0}]
    if config.kind == "sgd":
        return SGD(parameters, momentum=config.momentum, **options)
    return AdamW(parameters, **options)


def _weights_and_others(encoder: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns two groups: weights, and biases with the parameters of normalisation."""
    parameters = list(encoder.parameters())
    return (
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1]},
    )
