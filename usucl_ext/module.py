"""The loss as a module, for models that hold their loss as a submodule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from ._advice import check_order
from ._types import Frames, Implementation, Selection, Window
from ._validation import check_bounds
from .ops import LossOptions, hard_negative_nce

_OPTIONS = inspect.Signature(
    [
        parameter
        for parameter in inspect.signature(hard_negative_nce).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
)
_NAMES = tuple(_OPTIONS.parameters)


class HardNegativeNCE(nn.Module):
    """:func:`usucl_ext.hard_negative_nce` with its options; see there for the equation.

    The window lives in a non-persistent buffer ``window`` ``[2]`` float32: :meth:`set_window`
    changes its values only, so a schedule over epochs never recompiles a compiled graph, and
    checkpoints do not hold it. A module made on the ``meta`` device has its window as soon as
    ``to_empty`` gives it memory. Every other option is an attribute of the same name.

    Args:
        return_selection, impl: as for the function.
        options: the other options of the function. ``window`` is a pair ``(lo, hi)`` in the unit
            of the frames' times; ``None`` is an empty window, legal with ``intra_k = 0``. A
            temperature that is an ``nn.Parameter`` becomes a parameter of the module.

    Raises:
        TypeError, ValueError: an option is unknown or missing, or ``window`` is not a pair of
            numbers, or is None with ``intra_k > 0``. All else is checked in each call.
    """

    __signature__ = _OPTIONS
    window: Tensor

    def __init__(
        self,
        *,
        return_selection: bool = False,
        impl: Implementation = "auto",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        bound = _OPTIONS.bind(**options, return_selection=return_selection, impl=impl)
        bound.apply_defaults()
        given: dict[str, Any] = bound.arguments
        window, intra_k = given.pop("window"), given["intra_k"]
        if window is None and intra_k > 0:
            raise ValueError(f"window must be given with intra_k = {intra_k}, got None")
        for name, value in given.items():
            setattr(self, name, value)
        self.register_buffer("window", torch.empty(2, dtype=torch.float32), persistent=False)
        if window is None:
            self._fill((1.0, 0.0))
        else:
            self.set_window(*check_bounds(window))

    @torch.no_grad()
    def set_window(self, lo: float, hi: float) -> None:
        """Changes the window's values in place; ``lo > hi`` is an empty window, and warned of."""
        bounds = check_bounds((lo, hi))
        check_order(*bounds, stacklevel=2)
        self._fill(bounds)

    def _fill(self, bounds: tuple[float, float]) -> None:
        self._bounds = bounds
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Writes the window of the last :meth:`set_window` into its buffer again."""
        for place, bound in zip(self.window, self._bounds, strict=True):
            place.fill_(bound)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HardNegativeNCE:
        # A model in half precision keeps its window in float32, one without values (to_empty) its
        # bounds: only the device may change.
        window = self.window
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.window is not window:
            if window.is_meta:
                self.window = torch.empty_like(self.window, dtype=torch.float32)
                self.reset_parameters()
            else:
                self.window = window.to(self.window.device)
        return self

    def forward(
        self,
        anchors: Frames,
        positives: Tensor,
        negatives: Frames | Sequence[Frames],
        positive_weights: Tensor | None = None,
        window: Window = None,
    ) -> Tensor | tuple[Tensor, Selection]:
        """Returns the loss, or ``(loss, Selection)`` with ``return_selection``.

        ``positive_weights`` ``[N, R]`` and ``window``, such as one ``[N, 2]`` per anchor (see
        :func:`usucl_ext.select_negatives`), replace the module's own in this call.
        """
        options: Any = {name: getattr(self, name) for name in _NAMES}
        if window is not None:
            options["window"] = window
        if positive_weights is not None:
            options["positive_weights"] = positive_weights
        result: Tensor | tuple[Tensor, Selection] = hard_negative_nce(
            anchors, positives, negatives, **options
        )
        return result

    def extra_repr(self) -> str:
        """Returns the options, as printed inside a model."""
        lo, hi = self._bounds if self.window.is_meta else self.window.tolist()

        def shown(value: object) -> str:
            return "learnt" if isinstance(value, Tensor) else repr(value)

        hidden = ("window", "return_selection", "impl")
        options = [f"{name}={shown(getattr(self, name))}" for name in _NAMES if name not in hidden]
        return ", ".join([f"window=({lo:g}, {hi:g})", *options])
