"""The public operations in plain PyTorch: any device, importable without the binaries.

They are those of :mod:`usucl_ext` with ``impl="reference"``; ``_plain.py`` has the mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import Unpack

from . import ops
from ._plain import relation_masks
from ._types import Frames, Selection
from .ops import LossOptions, SelectionOptions

__all__ = ["hard_negative_nce", "relation_masks", "select_negatives", "similarities"]


def select_negatives(
    anchors: Frames, negatives: Frames | Sequence[Frames], **options: Unpack[SelectionOptions]
) -> Selection:
    """Does what :func:`usucl_ext.select_negatives` does, in plain PyTorch."""
    return ops.select_negatives(anchors, negatives, impl="reference", **options)


def similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Does what :func:`usucl_ext.similarities` does, in plain PyTorch."""
    return ops.similarities(anchors, keys, index, impl="reference")


def hard_negative_nce(
    anchors: Frames,
    positives: Tensor,
    negatives: Frames | Sequence[Frames],
    *,
    return_selection: bool = False,
    **options: Unpack[LossOptions],
) -> Tensor | tuple[Tensor, Selection]:
    """Does what :func:`usucl_ext.hard_negative_nce` does, in plain PyTorch."""
    return ops.hard_negative_nce(
        anchors,
        positives,
        negatives,
        return_selection=return_selection,
        impl="reference",
        **options,
    )
