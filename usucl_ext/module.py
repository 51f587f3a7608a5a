"""The loss as a module, for models that keep their loss among their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ._types import Frames, Selection
from ._validation import check_bounds
from .ops import Implementation, Reduction, hard_negative_nce


class HardNegativeNCE(nn.Module):
    """:func:`usucl_ext.hard_negative_nce` with its options kept; see there for the equation.

    The window lives in a non-persistent buffer ``window`` ``[2]`` float32: :meth:`set_window`
    changes its values only, so a schedule over epochs never recompiles a compiled graph, and
    checkpoints do not hold it.

    Args:
        window: a pair ``(lo, hi)`` in the unit of the frames' times; ``None`` is an empty window,
            legal with ``intra_k = 0``.
        intra_k, cross_k, intra_skip, cross_skip, temperature, soft_nn_temperature,
            max_similarity, reduction, return_selection, impl: as for the function. A temperature
            that is an ``nn.Parameter`` becomes a parameter of the module.

    Raises:
        TypeError, ValueError: ``window`` is no pair of numbers, or None with ``intra_k > 0``. All
            else is checked when called.
    """

    window: Tensor

    def __init__(
        self,
        *,
        window: tuple[float, float] | None,
        intra_k: int,
        cross_k: int,
        intra_skip: int = 0,
        cross_skip: int = 0,
        temperature: float | Tensor = 0.07,
        soft_nn_temperature: float | Tensor | None = None,
        max_similarity: float | None = None,
        reduction: Reduction = "mean",
        return_selection: bool = False,
        impl: Implementation = "auto",
    ) -> None:
        super().__init__()
        if window is None and intra_k > 0:
            raise ValueError(f"window must be given with intra_k = {intra_k}, got None")
        self.intra_k = intra_k
        self.cross_k = cross_k
        self.intra_skip = intra_skip
        self.cross_skip = cross_skip
        self.temperature = temperature
        self.soft_nn_temperature = soft_nn_temperature
        self.max_similarity = max_similarity
        self.reduction: Reduction = reduction
        self.return_selection = return_selection
        self.impl: Implementation = impl
        self.register_buffer("window", torch.empty(2, dtype=torch.float32), persistent=False)
        self.set_window(*((1.0, 0.0) if window is None else check_bounds(window)))

    @torch.no_grad()
    def set_window(self, lo: float, hi: float) -> None:
        """Changes the window's values in place; ``lo > hi`` is an empty window."""
        lo, hi = check_bounds((lo, hi))
        self.window[0].fill_(lo)
        self.window[1].fill_(hi)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HardNegativeNCE:
        # A model in half precision keeps its window in float32: only the device may change.
        window = self.window
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.window.dtype != torch.float32:
            self.window = window.to(self.window.device)
        return self

    def forward(
        self, anchors: Frames, positives: Tensor, negatives: Frames | Sequence[Frames]
    ) -> Tensor | tuple[Tensor, Selection]:
        """The loss, or ``(loss, Selection)`` with ``return_selection``."""
        return hard_negative_nce(
            anchors,
            positives,
            negatives,
            window=self.window,
            intra_k=self.intra_k,
            cross_k=self.cross_k,
            intra_skip=self.intra_skip,
            cross_skip=self.cross_skip,
            temperature=self.temperature,
            soft_nn_temperature=self.soft_nn_temperature,
            max_similarity=self.max_similarity,
            reduction=self.reduction,
            return_selection=self.return_selection,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        """The options, as printed inside a model."""
        lo, hi = (torch.nan, torch.nan) if self.window.is_meta else self.window.tolist()

        def shown(temperature: float | Tensor | None) -> str:
            return "learnt" if isinstance(temperature, Tensor) else f"{temperature}"

        return (
            f"window=({lo:g}, {hi:g}), intra_k={self.intra_k}, cross_k={self.cross_k}, "
            f"intra_skip={self.intra_skip}, cross_skip={self.cross_skip}, "
            f"temperature={shown(self.temperature)}, "
            f"soft_nn_temperature={shown(self.soft_nn_temperature)}, "
            f"max_similarity={self.max_similarity}, reduction={self.reduction!r}"
        )
