"""LARS, the optimiser for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with momentum in which every tensor has a learning rate in proportion to its length.

    For a weight tensor w with gradient g, learning rate lr, momentum m, weight decay d and trust
    coefficient t::

        rate = lr * t * |w| / (|g| + d |w|)
        v = m v + rate * (g + d w)
        w = w - v

    so that no tensor moves too far for its own size however large the batch, and with it the
    learning rate. The rate is ``lr`` where w or g is 0, and in groups with ``adapt=False``: biases
    and parameters of normalisation, whose length says nothing of their scale. Source: You, Gitman
    and Ginsburg, 2017 (arXiv 1708.03888), algorithm 1.

    Args:
        params: parameters, or groups of them, in which ``adapt`` and the others may be given.
        lr: learning rate.
        momentum: m, in [0, 1].
        weight_decay: d.
        trust: t.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Does one step; returns what ``closure``, which computes the gradients, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        change = gradient.add(parameter, alpha=decay)
        if group["adapt"]:
            length, slope = parameter.norm(), gradient.norm()
            share = group["trust"] * length / (slope + decay * length)
            # On the device, as a step should not wait for it.
            change *= torch.where((length > 0) & (slope > 0), share, 1.0)
        change *= group["lr"]
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(change)
        parameter.sub_(velocity)
