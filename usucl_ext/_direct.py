"""Eager calls of the kernels past PyTorch's dispatcher.

The registered operators serve compilation, tracing and whatever intercepts operators. They take
many times the host time of the kernels themselves, so a call on plain tensors goes through one
``autograd.Function`` to the same kernels, by the addresses of its tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._derivatives import refuse_gradient
from ._library import _native, _native_cuda
from ._types import Selection
from ._validation import Problem

PLAIN = (Tensor, nn.Parameter)
# As csrc/core/dtypes.h numbers them.
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
Inputs = Sequence[Tensor | None]


class _Kernels(NamedTuple):
    """A backend's side of csrc/direct.h, for one accumulation dtype."""

    Plan: Any
    select: Any
    forward: Any
    backward: Any


def _kernels(module: ModuleType | None) -> dict[torch.dtype, _Kernels]:
    names = ("select", "forward", "backward")
    return {
        dtype: _Kernels(module.Plan, *(getattr(module, f"{name}_{suffix}") for name in names))
        for dtype, suffix in ((torch.float32, "float32"), (torch.float64, "float64"))
        if module is not None
    }


_KERNELS = {"cpu": _kernels(_native), "cuda": _kernels(_native_cuda)}


def inputs_of(
    problem: Problem,
    positives: Tensor | None = None,
    temperature: Tensor | None = None,
    soft_nn_temperature: Tensor | None = None,
) -> list[Tensor | None]:
    """What a call reads, in the order of csrc/direct.h."""
    keys = [tensor for block in problem.blocks for tensor in block]
    losses = (positives, temperature, soft_nn_temperature)
    return [*problem.anchors, *keys, problem.window, *losses]


def applies(problem: Problem, inputs: Inputs) -> bool:
    """Whether nothing but the kernels is to see this call: plain tensors, no mode, no tracing."""
    if problem.intercepted or problem.anchors.embedding.device.type not in _KERNELS:
        return False
    # Values lie at the address: no subclass, and none of PyTorch's lazy states.
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
    """A checked call without its tensors, to be run on these and on all that look the same."""

    def __init__(self, problem: Problem, inputs: Inputs, reduction: str = "none") -> None:
        embedding, positives = problem.anchors.embedding, inputs[-3]
        self.kernels = _KERNELS[embedding.device.type][problem.accumulate]
        self.dtype = problem.accumulate
        self.rows, self.dim = embedding.shape
        self.intra_k, self.cross_k = problem.intra_k, problem.cross_k
        self.divisor = 0 if reduction == "none" else max(self.rows, 1) if reduction == "mean" else 1
        several = positives is not None and positives.dim() == 3
        self.num_positives = positives.shape[1] if positives is not None and several else 1
        leaves, window, limit = _leaves(inputs), problem.window, problem.max_similarity
        self.leaves = [None if x is None else (x.shape, x.dtype) for x in leaves]
        self.requires_grad = any([x is not None and x.requires_grad for x in leaves])
        self.native = self.kernels.Plan(
            embedding.get_device(),
            self.dim,
            [(_DTYPES[x.dtype], x.shape[0]) for x in inputs[:-4:4] if x is not None],
            window is not None and window.shape == (self.rows, 2),
            problem.intra_k,
            problem.intra_skip,
            problem.cross_k,
            problem.cross_skip,
            torch.inf if limit is None else limit,
            0 if positives is None else _DTYPES[positives.dtype],
            self.num_positives,
            self.divisor,
        )
        self._contiguous = all([x is None or x.is_contiguous() for x in inputs])

    def contiguous(self, inputs: Inputs) -> Inputs:
        """The inputs, copied where their values do not lie one after the other."""
        return inputs if self._contiguous else [x if x is None else x.contiguous() for x in inputs]

    def new_selection(self, like: Tensor) -> Selection:
        """Where the selection goes, uninitialised; on the device of ``like``."""
        rows, dtype = self.rows, self.dtype
        return Selection(
            like.new_empty(rows, self.intra_k, dtype=torch.int64),
            like.new_empty(rows, self.intra_k, dtype=dtype),
            like.new_empty(rows, self.cross_k, dtype=torch.int64),
            like.new_empty(rows, self.cross_k, dtype=dtype),
        )

    def new_weights(self, like: Tensor) -> Tensor:
        """Where the weights of all pairs, and of the two temperatures, go, uninitialised."""
        pairs = self.num_positives + self.intra_k + self.cross_k
        return like.new_empty(self.rows * (pairs + 2), dtype=self.dtype)


def select_negatives(problem: Problem, inputs: Inputs) -> Selection:
    """The native selection of a checked problem of plain tensors."""
    plan = Plan(problem, inputs)
    selection, held = plan.new_selection(problem.anchors.embedding), plan.contiguous(inputs)
    plan.kernels.select(plan.native, [_address(x) for x in held], _addresses(selection))
    return selection


def hard_negative_nce(
    plan: Plan, inputs: Inputs, return_selection: bool
) -> tuple[Tensor, Selection | None]:
    """The native loss of inputs that the plan is for, and the selection if wanted."""
    call = _Call(plan, inputs)
    if return_selection:
        call.selection = plan.new_selection(call.like)
    if plan.requires_grad and torch.is_grad_enabled():
        return _apply(call, *_leaves(inputs)), call.selection
    return call.forward(None, None), call.selection


def _leaves(inputs: Inputs) -> tuple[Tensor | None, ...]:
    """What gradients can flow to: anchors, positives, both temperatures and the keys."""
    return (inputs[0], *inputs[-3:], *inputs[4:-4:4])


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(selection: Selection | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if selection is None else tuple([x.data_ptr() for x in selection])


class _Call:
    """One call: its plan, what it reads, and the selection where that is to be kept."""

    def __init__(self, plan: Plan, inputs: Inputs) -> None:
        self.plan = plan
        self.inputs = plan.contiguous(inputs)
        # The temperature: a number of the dtype and on the device of the loss.
        self.like: Tensor = inputs[-2]  # type: ignore[assignment]
        self.selection: Selection | None = None

    def forward(self, anchor_gradient: Tensor | None, weights: Tensor | None) -> Tensor:
        """The loss; fills the selection, ``[N, D]`` d loss_i / d q_i, and weights, where given."""
        plan, like = self.plan, self.like
        loss = torch.empty_like(like) if plan.divisor else like.new_empty(plan.rows)
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
            gradient,
            weights,
            anchors,
            None if indices is None else indices.intra_index,
            None if indices is None else indices.cross_index,
        )
        ctx.set_materialize_grads(False)
        # Keys are not kept: a bank may be overwritten before backward.
        ctx.plan = plan
        return call.forward(gradient, weights)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Any, ...]:
        if grad_loss is None:
            return (None,) * len(ctx.needs_input_grad)
        witness, *saved = ctx.saved_tensors
        functorch = torch._C._functorch
        if functorch.is_batchedtensor(grad_loss) or functorch.is_legacy_batchedtensor(grad_loss):
            grads = _batched_gradients(ctx, grad_loss, *saved)
        else:
            grads = _gradients(ctx, grad_loss.contiguous(), *saved)
        if torch.is_grad_enabled():  # the caller wants a graph of these gradients
            grads = [None if grad is None else refuse_gradient(grad, witness) for grad in grads]
        return None, *grads


# Function.apply first asks whether function transforms are at work: for plain calls they are not.
_apply: Any = super(torch.autograd.Function, _HardNegativeNCE).apply


def _gradients(
    ctx: Any,
    grad_loss: Tensor,
    anchor_gradient: Tensor | None,
    weights: Tensor | None,
    anchors: Tensor | None,
    intra_index: Tensor | None,
    cross_index: Tensor | None,
) -> list[Tensor | None]:
    """The gradients of the leaves, where they are needed, each in its leaf's dtype."""
    plan, needs = ctx.plan, ctx.needs_input_grad[1:]
    anchors = None if anchors is None else anchors.contiguous()
    temperatures = grad_loss.new_empty(2) if needs[2] or needs[3] else None
    grads = [
        grad_loss.new_empty(*leaf[0]) if need and i not in (2, 3) else None
        for i, (need, leaf) in enumerate(zip(needs, plan.leaves, strict=True))
    ]
    key_gradients, first = [], 0
    for grad, ((num_keys, _), _) in zip(grads[4:], plan.leaves[4:], strict=True):
        if grad is not None:
            key_gradients.append((first, num_keys, grad.data_ptr()))
        first += num_keys
    plan.kernels.backward(
        plan.native,
        grad_loss.data_ptr(),
        _address(anchors),
        _address(anchor_gradient),
        _address(weights),
        _address(intra_index),
        _address(cross_index),
        _address(grads[0]),
        _address(grads[1]),
        _address(temperatures),
        key_gradients,
    )
    if temperatures is not None:
        grads[2:4] = [temperatures[i] if needs[2 + i] else None for i in (0, 1)]
    return [
        None if grad is None else grad.to(leaf[1])
        for grad, leaf in zip(grads, plan.leaves, strict=True)
    ]


def _batched_gradients(
    ctx: Any, grad_loss: Tensor, anchor_gradient: Tensor | None, *_: Any
) -> list[Tensor | None]:
    """The anchors' gradient, which alone can be had for many upstream gradients at a time."""
    if True in ctx.needs_input_grad[2:] or anchor_gradient is None:
        raise RuntimeError(
            "hard_negative_nce takes one upstream gradient at a time, got a batch of them "
            "(is_grads_batched, or a vectorised Jacobian)"
        )
    divisor = ctx.plan.divisor
    upstream = grad_loss / divisor if divisor else grad_loss[:, None]
    grads: list[Tensor | None] = [None] * len(ctx.plan.leaves)
    grads[0] = (upstream * anchor_gradient).to(ctx.plan.leaves[0][1])
    return grads
