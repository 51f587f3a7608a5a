"""Eager calls of the kernels past PyTorch's dispatcher.

The registered operators serve compilation, tracing and whatever intercepts operators. They take
many times the host time of the kernels themselves, so a call on plain tensors goes through one
``autograd.Function`` to the same kernels, by the addresses of its tensors.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._derivatives import refuse_gradient
from ._library import _native, _native_cuda
from ._types import Frames, Selection
from ._validation import Problem

# As csrc/core/dtypes.h numbers them.
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, nn.Parameter)


class _Kernels(NamedTuple):
    """The functions of csrc/direct.h for one accumulation dtype."""

    select: Any
    forward: Any
    backward: Any


def _kernels(module: ModuleType | None) -> dict[torch.dtype, _Kernels]:
    if module is None:
        return {}
    return {
        dtype: _Kernels(*(getattr(module, f"{name}_{suffix}") for name in _Kernels._fields))
        for dtype, suffix in ((torch.float32, "float32"), (torch.float64, "float64"))
    }


# By device type.
_KERNELS = {"cpu": _kernels(_native), "cuda": _kernels(_native_cuda)}


def applies(problem: Problem, *others: Tensor | None) -> bool:
    """Whether nothing but the kernels is to see this call: plain tensors, no mode, no tracing.

    Args:
        problem: checked.
        others: tensors beside those of the problem.
    """
    if problem.intercepted or problem.anchors.embedding.device.type not in _KERNELS:
        return False
    tensors = [problem.window, *others, *problem.anchors]
    for block in problem.blocks:
        tensors += block
    # Values lie at the address: no subclass, and none of PyTorch's lazy states.
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in _PLAIN
            or tensor.layout is not torch.strided
            or tensor.is_neg()
            or tensor._is_zerotensor()
        ):
            return False
    return True


def select_negatives(problem: Problem) -> Selection:
    """The native selection of a checked problem of plain tensors."""
    call = _Call(problem)
    selection = call.new_selection()
    call.kernels.select(call.problem_at, _addresses(selection))
    return selection


def hard_negative_nce(
    problem: Problem,
    positives: Tensor,
    temperature: Tensor,
    soft_nn_temperature: Tensor | None,
    reduction: str,
    return_selection: bool,
) -> tuple[Tensor, Selection | None]:
    """The native loss of a checked problem of plain tensors, and the selection if wanted."""
    call = _Call(problem, reduction)
    if return_selection:
        call.selection = call.new_selection()
    anchors = problem.anchors.embedding
    keys = [block.embedding for block in problem.blocks]
    inputs = (anchors, positives, temperature, soft_nn_temperature, *keys)
    if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in inputs]):
        loss = _HardNegativeNCE.apply(call, *inputs)  # type: ignore[no-untyped-call]
    else:
        loss = call.forward(positives, temperature, soft_nn_temperature, None, None)
    return loss, call.selection


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(selection: Selection | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if selection is None else tuple([x.data_ptr() for x in selection])


class _Call:
    """One call: what it reads, kept alive and contiguous, and where that lies."""

    def __init__(self, problem: Problem, reduction: str = "none") -> None:
        self._held: list[Tensor] = []
        anchors, window = problem.anchors, problem.window
        embedding = anchors.embedding
        self.problem = problem
        self.device = embedding.device
        self.kernels = _KERNELS[self.device.type][problem.accumulate]
        self.selection: Selection | None = None
        self.rows, self.dim = embedding.shape
        # Of the sum of all rows' losses; 0 for the losses themselves.
        self.divisor = 0 if reduction == "none" else max(self.rows, 1) if reduction == "mean" else 1
        limit = problem.max_similarity
        self.problem_at = (
            embedding.get_device(),
            self._frames_at(anchors),
            self.dim,
            [self._frames_at(block) for block in problem.blocks],
            0 if window is None else self._hold(window).data_ptr(),
            window is not None and window.shape == (self.rows, 2),
            problem.intra_k,
            problem.intra_skip,
            problem.cross_k,
            problem.cross_skip,
            torch.inf if limit is None else limit,
        )

    def new(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised tensor where the call's tensors are, of the accumulation dtype."""
        return torch.empty(shape, dtype=dtype or self.problem.accumulate, device=self.device)

    def new_selection(self) -> Selection:
        """Where the selection goes, uninitialised."""
        rows, intra_k, cross_k = self.rows, self.problem.intra_k, self.problem.cross_k
        return Selection(
            self.new(rows, intra_k, dtype=torch.int64),
            self.new(rows, intra_k),
            self.new(rows, cross_k, dtype=torch.int64),
            self.new(rows, cross_k),
        )

    def new_weights(self, num_positives: int) -> Tensor:
        """Where the weights of all pairs, and of the two temperatures, go, uninitialised."""
        pairs = num_positives + self.problem.intra_k + self.problem.cross_k
        return self.new(self.rows * (pairs + 2))

    def forward(
        self,
        positives: Tensor,
        temperature: Tensor,
        soft_nn_temperature: Tensor | None,
        anchor_gradient: Tensor | None,
        weights: Tensor | None,
    ) -> Tensor:
        """The loss; fills the selection, ``[N, D]`` d loss_i / d q_i, and weights, where given."""
        loss = self.new() if self.divisor else self.new(self.rows)
        self.kernels.forward(
            self.problem_at,
            self._hold(positives).data_ptr(),
            _DTYPES[positives.dtype],
            _num_positives(positives),
            temperature.data_ptr(),
            _address(soft_nn_temperature),
            self.divisor,
            loss.data_ptr(),
            _addresses(self.selection),
            _address(anchor_gradient),
            _address(weights),
        )
        return loss

    def _hold(self, tensor: Tensor) -> Tensor:
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
            self._held.append(tensor)
        return tensor

    def _frames_at(self, frames: Frames) -> tuple[int, int, int, int, int, int]:
        embedding, video, time, patient = frames
        return (
            self._hold(embedding).data_ptr(),
            _DTYPES[embedding.dtype],
            embedding.shape[0],
            self._hold(video).data_ptr(),
            self._hold(time).data_ptr(),
            0 if patient is None else self._hold(patient).data_ptr(),
        )


def _num_positives(positives: Tensor) -> int:
    return positives.shape[1] if positives.dim() == 3 else 1


class _HardNegativeNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: _Call,
        anchors: Tensor,
        positives: Tensor,
        temperature: Tensor,
        soft_nn_temperature: Tensor | None,
        *keys: Tensor,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        gradient = call.new(call.rows, call.dim) if needs[1] else None
        weights = indices = None
        if True in needs[2:]:
            weights = call.new_weights(_num_positives(positives))
            if True in needs[5:]:
                call.selection = indices = call.selection or call.new_selection()
        inputs = (call, anchors, positives, temperature, soft_nn_temperature, *keys)
        witness = inputs[needs.index(True)]
        ctx.save_for_backward(
            witness,
            gradient,
            weights,
            None if weights is None else anchors,
            None if indices is None else indices.intra_index,
            None if indices is None else indices.cross_index,
        )
        ctx.set_materialize_grads(False)
        ctx.backward_kernel = call.kernels.backward
        ctx.sizes = call.rows, call.dim, call.problem.intra_k, call.problem.cross_k
        # Of the keys only the shapes are kept: a bank may be overwritten before backward.
        ctx.key_shapes = [(key.shape[0], key.dtype) for key in keys]
        ctx.positives_like = positives.shape, positives.dtype
        ctx.divisor = call.divisor
        return call.forward(positives, temperature, soft_nn_temperature, gradient, weights)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        if grad_loss is None:
            return (None,) * len(needs)
        witness, *saved = ctx.saved_tensors
        functorch = torch._C._functorch
        if functorch.is_batchedtensor(grad_loss) or functorch.is_legacy_batchedtensor(grad_loss):
            grads = _batched_gradients(ctx, grad_loss, witness, *saved)
        else:
            grads = _gradients(ctx, grad_loss.contiguous(), witness, *saved)
        if torch.is_grad_enabled():  # the caller wants a graph of these gradients
            grads = [None if grad is None else refuse_gradient(grad, witness) for grad in grads]
        return tuple(grads)


def _gradients(
    ctx: Any,
    grad_loss: Tensor,
    witness: Tensor,
    anchor_gradient: Tensor | None,
    weights: Tensor | None,
    anchors: Tensor | None,
    intra_index: Tensor | None,
    cross_index: Tensor | None,
) -> list[Tensor | None]:
    """The gradients that are needed, each in its input's dtype."""
    needs = ctx.needs_input_grad
    rows, dim, intra_k, cross_k = ctx.sizes
    positives_shape, positives_dtype = ctx.positives_like
    anchors = None if anchors is None else anchors.contiguous()

    def wanted(need: bool, *shape: int) -> Tensor | None:
        if not need:
            return None
        return torch.empty(shape, dtype=grad_loss.dtype, device=grad_loss.device)

    grad_anchors = wanted(needs[1], rows, dim)
    grad_positives = wanted(needs[2], *positives_shape)
    grad_temperatures = wanted(needs[3] or needs[4], 2)
    grad_keys, key_gradients, first = [], [], 0
    for need, (count, _) in zip(needs[5:], ctx.key_shapes, strict=True):
        grad_keys.append(wanted(need, count, dim))
        if need:
            key_gradients.append((first, count, _address(grad_keys[-1])))
        first += count
    ctx.backward_kernel(
        grad_loss.get_device(),
        grad_loss.data_ptr(),
        ctx.divisor,
        _address(anchors),
        0 if anchors is None else _DTYPES[anchors.dtype],
        rows,
        dim,
        _address(anchor_gradient),
        _address(weights),
        positives_shape[1] if len(positives_shape) == 3 else 1,
        _address(intra_index),
        intra_k,
        _address(cross_index),
        cross_k,
        _address(grad_anchors),
        _address(grad_positives),
        _address(grad_temperatures),
        key_gradients,
    )
    return [
        None,
        None if grad_anchors is None else grad_anchors.to(witness.dtype),
        None if grad_positives is None else grad_positives.to(positives_dtype),
        grad_temperatures[0] if needs[3] and grad_temperatures is not None else None,
        grad_temperatures[1] if needs[4] and grad_temperatures is not None else None,
        *[
            None if grad is None else grad.to(dtype)
            for grad, (_, dtype) in zip(grad_keys, ctx.key_shapes, strict=True)
        ],
    ]


def _batched_gradients(
    ctx: Any, grad_loss: Tensor, witness: Tensor, anchor_gradient: Tensor | None, *others: Any
) -> list[Tensor | None]:
    """The anchors' gradient, which alone can be had for many upstream gradients at a time."""
    if True in ctx.needs_input_grad[2:]:
        raise RuntimeError(
            "hard_negative_nce takes one upstream gradient at a time, got a batch of them "
            "(is_grads_batched, or a vectorised Jacobian)"
        )
    assert anchor_gradient is not None
    upstream = grad_loss / ctx.divisor if ctx.divisor else grad_loss[:, None]
    others_needed = len(ctx.needs_input_grad) - 2
    return [None, (upstream * anchor_gradient).to(witness.dtype), *[None] * others_needed]
