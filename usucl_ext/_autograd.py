"""What the loss keeps for its backward pass, and the gradients computed from it.

There are two ways to the kernels, PyTorch's dispatcher and plain addresses, each with an
``autograd`` mechanism of its own. Both save and differentiate by this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LossGradients = tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor]]


class Saved(NamedTuple):
    """The tensors of a forward pass that a backward pass reads; None where it does not.

    The keys are not among them: a bank may be overwritten before the backward pass.
    """

    anchors: Tensor | None  # [N, D]
    anchor_gradient: Tensor | None  # [N, D], d loss_i / d q_i
    weights: Tensor | None  # [N (R + intra_k + cross_k + 2)], as Weights of csrc/core/inputs.h
    intra_index: Tensor | None  # [N, intra_k]
    cross_index: Tensor | None  # [N, cross_k]


class Leaf(NamedTuple):
    """Shape and dtype of a tensor that gradients can flow to."""

    shape: torch.Size
    dtype: torch.dtype


class Wanted(NamedTuple):
    """Which gradients a backward pass computes."""

    anchors: bool
    positives: bool
    temperatures: bool
    keys: list[tuple[int, int]]  # first index and number of keys


def look_of(leaves: Sequence[Tensor | None]) -> list[Leaf | None]:
    """Returns shape and dtype of each leaf."""
    return [None if leaf is None else Leaf(leaf.shape, leaf.dtype) for leaf in leaves]


def gradients(
    leaves: Sequence[Leaf | None],
    needed: Sequence[bool],
    run: Callable[[Wanted], LossGradients],
) -> list[Tensor | None]:
    """Returns the gradient of each leaf, in its shape and dtype; None where none is needed.

    Args:
        leaves: anchors, positives, both temperatures and the keys of every block.
        needed: which of them need a gradient.
        run: computes the wanted gradients: of the anchors ``[N, D]``, of the positives
            ``[N, R, D]``, of both temperatures ``[2]``, and of each range of keys.
    """
    keys, first = [], 0
    some_keys = True in needed[4:]
    if some_keys:
        for leaf, need in zip(leaves[4:], needed[4:], strict=True):
            count = leaf.shape[0] if leaf is not None else 0
            if need:
                keys.append((first, count))
            first += count
    temperatures = needed[2] or needed[3]
    by_anchors, by_positives, by_temperatures, by_keys = run(
        Wanted(needed[0], needed[1], temperatures, keys)
    )
    found = [by_anchors, by_positives, None, None, *[None] * len(leaves[4:])]
    if by_temperatures is not None:
        found[2:4] = by_temperatures.unbind()
    if some_keys:
        of_wanted_keys = iter(by_keys)
        found[4:] = [next(of_wanted_keys) if need else None for need in needed[4:]]
    return [
        _like(leaf, gradient) if need and leaf is not None and gradient is not None else None
        for leaf, gradient, need in zip(leaves, found, needed, strict=True)
    ]


def _like(leaf: Leaf, gradient: Tensor) -> Tensor:
    if gradient.dtype is not leaf.dtype:
        gradient = gradient.to(leaf.dtype)
    return gradient if gradient.shape == leaf.shape else gradient.view(leaf.shape)
