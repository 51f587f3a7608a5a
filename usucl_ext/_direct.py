"""Eager calls of the kernels that bypass PyTorch's dispatcher.

The registered operators serve compilation, tracing and whatever intercepts operators. Calling
them takes many times the host time of the kernels themselves, so a call on plain tensors goes
through one ``autograd.Function`` to the same kernels, by the addresses of its tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._advice import Turns
from ._autograd import LossGradients, Saved, Wanted, gradients, look_of
from ._derivatives import refuse_gradient
from ._library import _native, _native_cuda
from ._problem import TEMPERATURE, Inputs, Problem, leaves
from ._types import Selection
from ._validation import REDUCTIONS

PLAIN = (Tensor, nn.Parameter)
# The numbers of csrc/core/dtypes.h.
_DTYPES = {
    dtype: number
    for number, dtype in enumerate(
        (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64)
    )
}
_ABSENT = (0, 0)
# Each module binds the functions of csrc/bindings/direct.h for its backend.
_KERNELS = {
    device: module
    for device, module in (("cpu", _native), ("cuda", _native_cuda))
    if module is not None
}


def applies(problem: Problem, inputs: Inputs) -> bool:
    """Returns whether only the kernels see this call: plain tensors, no mode, no tracing."""
    if problem.intercepted or problem.anchors.embedding.device.type not in _KERNELS:
        return False
    # The values must lie at the address: no subclass, and none of PyTorch's lazy states.
    return all(
        [
            x is None
            or (
                type(x) in PLAIN
                and x.layout is torch.strided
                and not x.is_neg()
                and not x._is_zerotensor()
            )
            for x in inputs
        ]
    )


class Plan:
    """A checked call without its tensors, to be run on all tensors that look like them."""

    def __init__(self, problem: Problem, inputs: Inputs) -> None:
        embedding = problem.anchors.embedding
        self.kernels = _KERNELS[embedding.device.type]
        self.dtype = problem.accumulate
        self.rows, self.dim = embedding.shape
        self.intra_k, self.cross_k = problem.intra_k, problem.cross_k
        self.num_positives = problem.num_positives
        self.reduction = problem.reduction
        self.leaves: list[Any] = look_of(leaves(inputs))
        self.requires_grad = any([x is not None and x.requires_grad for x in leaves(inputs)])
        self.native = self.kernels.Plan(
            embedding.get_device(),
            self.dim,
            [_ABSENT if x is None else (_DTYPES[x.dtype], x.numel()) for x in inputs],
            problem.ranks,
            problem.max_similarity,
            REDUCTIONS.index(problem.reduction),
        )
        self.turns = Turns()
        self._contiguous = all([x is None or x.is_contiguous() for x in inputs])

    def contiguous(self, inputs: Inputs) -> Inputs:
        """Returns the inputs, copied where their values do not lie one after the other."""
        return inputs if self._contiguous else [x if x is None else x.contiguous() for x in inputs]

    def new_selection(self, like: Tensor) -> Selection:
        """Returns uninitialised memory for the selection, on the device of ``like``."""
        rows, dtype = self.rows, self.dtype
        return Selection(
            like.new_empty(rows, self.intra_k, dtype=torch.int64),
            like.new_empty(rows, self.intra_k, dtype=dtype),
            like.new_empty(rows, self.cross_k, dtype=torch.int64),
            like.new_empty(rows, self.cross_k, dtype=dtype),
        )

    def new_weights(self, like: Tensor) -> Tensor:
        """Returns uninitialised memory for the weights of all pairs and of the two temperatures."""
        pairs = self.num_positives + self.intra_k + self.cross_k
        return like.new_empty(self.rows * (pairs + 2), dtype=self.dtype)


def select_negatives(problem: Problem, inputs: Inputs) -> Selection:
    """Returns the native selection of a checked problem of plain tensors."""
    plan = Plan(problem, inputs)
    selection, held = plan.new_selection(problem.anchors.embedding), plan.contiguous(inputs)
    plan.kernels.select(plan.native, [_address(x) for x in held], _addresses(selection))
    return selection


def hard_negative_nce(
    plan: Plan, inputs: Inputs, return_selection: bool
) -> tuple[Tensor, Selection | None]:
    """Returns the native loss of inputs that fit the plan, and the selection if wanted."""
    call = _Call(plan, inputs)
    if return_selection:
        call.selection = plan.new_selection(call.like)
    if plan.requires_grad and torch.is_grad_enabled():
        return _apply(call, *leaves(inputs)), call.selection
    return call.forward(None, None), call.selection


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(selection: Selection | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if selection is None else tuple([x.data_ptr() for x in selection])


class _Call:
    """One call: its plan, the inputs it reads, and the selection if that is to be kept."""

    def __init__(self, plan: Plan, inputs: Inputs) -> None:
        self.plan = plan
        self.inputs = plan.contiguous(inputs)
        # The temperature has the dtype and the device of the loss.
        self.like: Tensor = inputs[TEMPERATURE]  # type: ignore[assignment]
        self.selection: Selection | None = None

    def forward(self, anchor_gradient: Tensor | None, weights: Tensor | None) -> Tensor:
        """Returns the loss; fills the selection, ``[N, D]`` d loss_i / d q_i and weights."""
        plan, like = self.plan, self.like
        loss = torch.empty_like(like) if plan.reduction != "none" else like.new_empty(plan.rows)
        plan.kernels.forward(
            plan.native,
            [0 if x is None else x.data_ptr() for x in self.inputs],
            loss.data_ptr(),
            _addresses(self.selection),
            _address(anchor_gradient),
            _address(weights),
        )
        return loss


class _HardNegativeNCE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *leaves: Tensor | None) -> Tensor:
        needs, plan, like = ctx.needs_input_grad, call.plan, call.like
        gradient = like.new_empty(plan.rows, plan.dim) if needs[1] else None
        weights = anchors = indices = None
        if True in needs[2:]:
            weights, anchors = plan.new_weights(like), leaves[0]
            if True in needs[5:]:
                call.selection = indices = call.selection or plan.new_selection(like)
        witness = leaves[needs.index(True) - 1]
        ctx.save_for_backward(
            witness,
            *Saved(
                anchors,
                gradient,
                weights,
                None if indices is None else indices.intra_index,
                None if indices is None else indices.cross_index,
            ),
        )
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        return call.forward(gradient, weights)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Any, ...]:
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        plan, needed = ctx.plan, ctx.needs_input_grad[1:]
        witness, *tensors = ctx.saved_tensors
        saved = Saved(*tensors)
        functorch = torch._C._functorch
        if functorch.is_batchedtensor(grad_loss) or functorch.is_legacy_batchedtensor(grad_loss):
            grads = _batched_gradients(plan, needed, grad_loss, saved)
        else:
            upstream = grad_loss.contiguous()
            grads = gradients(
                plan.leaves, needed, lambda wanted: _gradients(plan, wanted, upstream, saved)
            )
        if torch.is_grad_enabled():  # the caller wants a graph of these gradients
            grads = [None if grad is None else refuse_gradient(grad, witness) for grad in grads]
        return None, *grads


# Function.apply first asks whether function transforms are active, which plain calls rule out.
_apply: Any = super(torch.autograd.Function, _HardNegativeNCE).apply


def _gradients(plan: Plan, wanted: Wanted, grad_loss: Tensor, saved: Saved) -> LossGradients:
    """Returns the wanted gradients, in the dtype of the loss."""
    rows, dim = plan.rows, plan.dim
    by_anchors = grad_loss.new_empty(rows, dim) if wanted.anchors else None
    by_positives = grad_loss.new_empty(rows, plan.num_positives, dim) if wanted.positives else None
    by_temperatures = grad_loss.new_empty(2) if wanted.temperatures else None
    by_keys = [grad_loss.new_empty(count, dim) for _, count in wanted.keys]
    anchors = None if saved.anchors is None else saved.anchors.contiguous()
    plan.kernels.backward(
        plan.native,
        grad_loss.data_ptr(),
        *[_address(x) for x in saved._replace(anchors=anchors)],
        plan.num_positives,
        _address(by_anchors),
        _address(by_positives),
        _address(by_temperatures),
        [(*keys, grad.data_ptr()) for keys, grad in zip(wanted.keys, by_keys, strict=True)],
    )
    return by_anchors, by_positives, by_temperatures, by_keys


def _batched_gradients(
    plan: Plan, needed: tuple[bool, ...], grad_loss: Tensor, saved: Saved
) -> list[Tensor | None]:
    """Returns the anchors' gradient, the only one that a batch of upstream gradients can have."""
    if True in needed[1:] or saved.anchor_gradient is None:
        raise RuntimeError(
            "hard_negative_nce takes one upstream gradient at a time, got a batch of them "
            "(is_grads_batched, or a vectorised Jacobian)"
        )
    rows = max(plan.rows, 1)
    upstream = {"none": grad_loss[..., None], "mean": grad_loss / rows, "sum": grad_loss}
    grads: list[Tensor | None] = [None] * len(plan.leaves)
    grads[0] = (upstream[plan.reduction] * saved.anchor_gradient).to(plan.leaves[0].dtype)
    return grads
