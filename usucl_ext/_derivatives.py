"""The loss has a first derivative only, in every implementation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

NO_SECOND_DERIVATIVE = (
    "hard_negative_nce has no second derivative: its gradient cannot be differentiated again"
)


class _Refusal(torch.autograd.Function):
    """Passes a gradient through, but refuses to be differentiated itself."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *witnesses: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise RuntimeError(NO_SECOND_DERIVATIVE)


def refuse_gradient(gradient: Tensor, *witnesses: Tensor) -> Tensor:
    """Returns the same gradient, whose derivative by what it or a witness depends on raises."""
    return _Refusal.apply(gradient, *witnesses)  # type: ignore[no-any-return, no-untyped-call]


class _FirstDerivativeOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return refuse_gradient(gradient)


def first_derivative_only(tensor: Tensor) -> Tensor:
    """Returns the same tensor, whose gradient cannot be differentiated again."""
    return _FirstDerivativeOnly.apply(tensor)  # type: ignore[no-any-return, no-untyped-call]


def refuse_tangents(*tensors: Tensor | None) -> None:
    """Raises NotImplementedError where forward-mode derivatives would be lost silently."""
    if forward_ad._current_level < 0:
        return
    for tensor in tensors:
        if tensor is None:
            continue
        if forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
            raise NotImplementedError("hard_negative_nce has no forward-mode derivative")
