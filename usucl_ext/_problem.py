"""A call as one checked record, and the tensors it reads, in the order of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ._interception import is_intercepted, refuse_transforms
from ._types import Frames, Window
from ._validation import (
    REDUCTIONS,
    accumulation_dtype,
    check_choice,
    check_frames,
    check_k,
    check_key_blocks,
    check_limit,
    check_margin,
    check_positive_weights,
    check_positives,
    check_skip,
    check_temperature,
    check_window,
)

# The tensors of a call besides those of the key blocks, as csrc/core/inputs.h reads them: the
# anchors' four, then these.
TENSORS = (
    "window",
    "positives",
    "positive_weights",
    "margin",
    "temperature",
    "soft_nn_temperature",
)
POSITIVES, TEMPERATURE, SOFT_NN_TEMPERATURE = (
    len(Frames._fields) + TENSORS.index(name)
    for name in ("positives", "temperature", "soft_nn_temperature")
)
BLOCKS = len(Frames._fields) + len(TENSORS)
Inputs = Sequence[Tensor | None]
Item = TypeVar("Item")


class Problem(NamedTuple):
    """A checked call: N anchors against the M keys of all blocks, and the options.

    ``accumulate`` is the dtype of similarities and of the loss: float64 if any embedding is
    float64, else float32. ``intercepted`` tells whether something besides the kernels sees this
    call. Where only a selection is wanted, the fields of the loss keep their defaults.
    """

    anchors: Frames
    blocks: tuple[Frames, ...]
    window: Tensor | None  # [2], [1, 2] or [N, 2] float32
    intra_k: int
    intra_skip: int
    cross_k: int
    cross_skip: int
    max_similarity: float  # infinite: no limit
    accumulate: torch.dtype
    intercepted: bool
    positives: Tensor | None = None  # [N, D] or [N, R, D]
    positive_weights: Tensor | None = None  # [N, R]
    margin: Tensor | None = None  # [] or [N]
    temperature: Tensor | None = None  # []
    soft_nn_temperature: Tensor | None = None  # []
    reduction: str = "none"

    @property
    def ranks(self) -> list[int]:
        """``intra_k``, ``intra_skip``, ``cross_k`` and ``cross_skip``."""
        return [self.intra_k, self.intra_skip, self.cross_k, self.cross_skip]

    @property
    def num_positives(self) -> int:
        """R, the number of positives per anchor."""
        given = self.positives
        return given.shape[1] if given is not None and given.dim() == 3 else 1

    def inputs(self) -> list[Tensor | None]:
        """Returns the tensors of the call, in the order in which the kernels read them."""
        blocks = [column for block in self.blocks for column in block]
        return [*self.anchors, *[getattr(self, name) for name in TENSORS], *blocks]


def leaves(inputs: Sequence[Item]) -> list[Item]:
    """Picks, from one item per input, those of the inputs that gradients can flow to.

    These are the anchors, the positives, both temperatures, and the keys of every block.
    """
    return [
        inputs[0],
        inputs[POSITIVES],
        inputs[TEMPERATURE],
        inputs[SOFT_NN_TEMPERATURE],
        *inputs[BLOCKS::4],
    ]


def spread_leaves(items: Sequence[Tensor | None], num_inputs: int) -> list[Tensor | None]:
    """Reverses :func:`leaves`: one item per input, None where that is not a leaf."""
    spread: list[Tensor | None] = [None] * num_inputs
    for place, item in zip(leaves(range(num_inputs)), items, strict=True):
        spread[place] = item
    return spread


def check_problem(
    anchors: object,
    negatives: object,
    *,
    window: Window,
    intra_k: object,
    cross_k: object,
    intra_skip: object,
    cross_skip: object,
    max_similarity: object,
    positives: object = None,
) -> Problem:
    """Returns the checked selection; ``positives`` only take part in choosing ``accumulate``."""
    intercepted = is_intercepted()
    if intercepted:
        refuse_transforms()
    checked = check_frames("anchors", anchors)
    blocks = check_key_blocks(negatives, checked)
    accumulate = accumulation_dtype(
        [checked.embedding, *(block.embedding for block in blocks), positives]
    )
    rows = checked.embedding.shape[0]
    k = check_k("intra_k", intra_k, rows, blocks)
    return Problem(
        anchors=checked,
        blocks=blocks,
        window=check_window(window, k, checked.embedding, intercepted),
        intra_k=k,
        intra_skip=check_skip("intra_skip", intra_skip),
        cross_k=check_k("cross_k", cross_k, rows, blocks),
        cross_skip=check_skip("cross_skip", cross_skip),
        max_similarity=check_limit("max_similarity", max_similarity, accumulate),
        accumulate=accumulate,
        intercepted=intercepted,
    )


def with_loss(
    problem: Problem,
    positives: object,
    *,
    positive_weights: object,
    margin: object,
    temperature: object,
    soft_nn_temperature: object,
    reduction: object,
) -> Problem:
    """Returns the checked call of the loss: its checked selection with the other arguments."""
    like, dtype, intercepted = problem.anchors.embedding, problem.accumulate, problem.intercepted
    checked = check_positives(positives, like)
    return problem._replace(
        positives=checked,
        positive_weights=None
        if positive_weights is None
        else check_positive_weights(positive_weights, checked, dtype, intercepted),
        margin=None if margin is None else check_margin(margin, like, dtype, intercepted),
        temperature=check_temperature("temperature", temperature, like, dtype, intercepted),
        soft_nn_temperature=None
        if soft_nn_temperature is None
        else check_temperature(
            "soft_nn_temperature", soft_nn_temperature, like, dtype, intercepted
        ),
        reduction=check_choice("reduction", reduction, REDUCTIONS),
    )
