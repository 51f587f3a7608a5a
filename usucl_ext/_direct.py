"""Eager calls of the CPU kernels past PyTorch's dispatcher.

The registered operators serve compilation, tracing and whatever intercepts operators. For a plain
call on small CPU tensors they cost ten times what the kernels do, so such a call goes through one
``autograd.Function`` to the same kernels, by the addresses of its tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ._derivatives import refuse_gradient
from ._interception import is_intercepted
from ._library import _native
from ._types import Frames, Selection
from ._validation import Problem

# As csrc/core/dtypes.h numbers them.
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, nn.Parameter)


def applies(problem: Problem, others: Iterable[Tensor | None] = ()) -> bool:
    """Whether nothing but the kernels is to see this call: plain CPU tensors, no mode, no tracing.

    Args:
        problem: checked.
        others: tensors beside those of the problem.
    """
    if not problem.anchors.embedding.is_cpu or is_intercepted():
        return False
    tensors = {problem.window, *others, *problem.anchors}
    for block in problem.blocks:
        tensors.update(block)
    tensors.discard(None)
    return all([_is_plain(tensor) for tensor in tensors])  # type: ignore[arg-type]


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values lie at its address: no subclass, and none of PyTorch's lazy states."""
    return (
        type(tensor) in _PLAIN
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
    )


def select_negatives(problem: Problem) -> Selection:
    """The native selection of a checked problem of plain CPU tensors."""
    call = _Call(problem)
    selection = call.new_selection()
    _kernel("select", problem)(call.problem_at, _addresses(selection))
    return selection


def hard_negative_nce(
    problem: Problem,
    positives: Tensor,
    temperature: Tensor,
    soft_nn_temperature: Tensor | None,
    reduction: str,
    return_selection: bool,
) -> tuple[Tensor, Selection | None]:
    """The native loss of a checked problem of plain CPU tensors, and the selection if wanted."""
    call = _Call(problem, reduction)
    if return_selection:
        call.selection = call.new_selection()
    inputs = (
        problem.anchors.embedding,
        positives,
        temperature,
        soft_nn_temperature,
        *(block.embedding for block in problem.blocks),
    )
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        loss = _HardNegativeNCE.apply(call, *inputs)  # type: ignore[no-untyped-call]
    else:
        loss = call.forward(positives, temperature, soft_nn_temperature, None, None)
    return loss, call.selection


def _kernel(name: str, problem: Problem) -> Any:
    precision = "float64" if problem.accumulate == torch.float64 else "float32"
    return getattr(_native, f"{name}_{precision}")


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(selection: Selection | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if selection is None else tuple([x.data_ptr() for x in selection])


class _Call:
    """One call: what it reads, kept alive and contiguous, and where that lies."""

    def __init__(self, problem: Problem, reduction: str = "none") -> None:
        self._held: list[Tensor] = []
        anchors, window = problem.anchors, problem.window
        self.problem = problem
        self.selection: Selection | None = None
        self.rows, self.dim = anchors.embedding.shape
        # Of the sum of all rows' losses; 0 for the losses themselves.
        self.divisor = 0 if reduction == "none" else max(self.rows, 1) if reduction == "mean" else 1
        limit = problem.max_similarity
        self.problem_at = (
            self._frames_at(anchors),
            self.dim,
            [self._frames_at(block) for block in problem.blocks],
            0 if window is None else self._hold(window).data_ptr(),
            window is not None and window.shape[0] == self.rows,
            problem.intra_k,
            problem.intra_skip,
            problem.cross_k,
            problem.cross_skip,
            torch.inf if limit is None else limit,
        )

    def new_selection(self) -> Selection:
        """Where the selection goes, uninitialised."""
        problem, rows = self.problem, self.rows
        return Selection(
            torch.empty(rows, problem.intra_k, dtype=torch.int64, device="cpu"),
            torch.empty(rows, problem.intra_k, dtype=problem.accumulate, device="cpu"),
            torch.empty(rows, problem.cross_k, dtype=torch.int64, device="cpu"),
            torch.empty(rows, problem.cross_k, dtype=problem.accumulate, device="cpu"),
        )

    def new_weights(self, num_positives: int) -> Tensor:
        """Where the weights of all pairs, and of the two temperatures, go, uninitialised."""
        pairs = num_positives + self.problem.intra_k + self.problem.cross_k
        return torch.empty(self.rows * (pairs + 2), dtype=self.problem.accumulate, device="cpu")

    def forward(
        self,
        positives: Tensor,
        temperature: Tensor,
        soft_nn_temperature: Tensor | None,
        anchor_gradient: Tensor | None,
        weights: Tensor | None,
    ) -> Tensor:
        """The loss; fills the selection, ``[N, D]`` d loss_i / d q_i, and weights, where given."""
        problem = self.problem
        loss = torch.empty(
            () if self.divisor else (self.rows,), dtype=problem.accumulate, device="cpu"
        )
        _kernel("forward", problem)(
            self.problem_at,
            self._hold(positives).data_ptr(),
            _DTYPES[positives.dtype],
            positives.shape[1],
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
        dtype = call.problem.accumulate
        gradient = torch.empty(call.rows, call.dim, dtype=dtype, device="cpu") if needs[1] else None
        weights = indices = None
        if any(needs[2:]):
            weights = call.new_weights(positives.shape[1])
            if any(needs[5:]):
                call.selection = indices = call.selection or call.new_selection()
            # Of the keys only the shapes are kept: a bank may be overwritten before backward.
            ctx.key_shapes = [(key.shape[0], key.dtype) for key in keys]
            ctx.sizes = call.rows, call.dim, positives.shape[1]
            ctx.k = call.problem.intra_k, call.problem.cross_k
            ctx.backward_kernel = _kernel("backward", call.problem)
            ctx.positives_dtype = positives.dtype
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
        ctx.divisor = call.divisor
        return call.forward(positives, temperature, soft_nn_temperature, gradient, weights)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        if grad_loss is None:
            return (None,) * len(needs)
        witness, anchor_gradient, weights, anchors, *indices = ctx.saved_tensors
        grads: list[Tensor | None] = [None] * len(needs)
        if anchor_gradient is not None:
            upstream = grad_loss / ctx.divisor if ctx.divisor else grad_loss[:, None]
            grads[1] = (upstream * anchor_gradient).to(witness.dtype)
        if weights is not None:
            grads[2:] = _other_gradients(
                ctx, grad_loss.contiguous(), anchors.contiguous(), weights, *indices
            )
        if torch.is_grad_enabled():  # the caller wants a graph of these gradients
            grads = [None if grad is None else refuse_gradient(grad, witness) for grad in grads]
        return tuple(grads)


def _other_gradients(
    ctx: Any,
    grad_loss: Tensor,
    anchors: Tensor,
    weights: Tensor,
    intra_index: Tensor | None,
    cross_index: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of positives, both temperatures and the key blocks, where they are needed."""
    functorch = torch._C._functorch
    if functorch.is_batchedtensor(grad_loss) or functorch.is_legacy_batchedtensor(grad_loss):
        raise RuntimeError(
            "hard_negative_nce takes one upstream gradient at a time, got a batch of them "
            "(is_grads_batched, or a vectorised Jacobian)"
        )
    needs = ctx.needs_input_grad
    intra_k, cross_k = ctx.k
    rows, dim, num_positives = ctx.sizes

    def wanted(need: bool, *shape: int) -> Tensor | None:
        return torch.empty(shape, dtype=weights.dtype, device="cpu") if need else None

    positives = wanted(needs[2], rows, num_positives, dim)
    temperatures = wanted(needs[3] or needs[4], 2)
    keys, key_ranges, first = [], [], 0
    for need, (count, _) in zip(needs[5:], ctx.key_shapes, strict=True):
        keys.append(wanted(need, count, dim))
        if need:
            key_ranges.append((first, count, _address(keys[-1])))
        first += count
    ctx.backward_kernel(
        grad_loss.data_ptr(),
        ctx.divisor,
        anchors.data_ptr(),
        _DTYPES[anchors.dtype],
        rows,
        dim,
        num_positives,
        weights.data_ptr(),
        _address(intra_index),
        intra_k,
        _address(cross_index),
        cross_k,
        _address(positives),
        _address(temperatures),
        key_ranges,
    )
    return [
        None if positives is None else positives.to(ctx.positives_dtype),
        temperatures[0] if needs[3] and temperatures is not None else None,
        temperatures[1] if needs[4] and temperatures is not None else None,
        *(
            None if grad is None else grad.to(dtype)
            for grad, (_, dtype) in zip(keys, ctx.key_shapes, strict=True)
        ),
    ]
