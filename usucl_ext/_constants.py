"""Numbers as tensors, made once: the same floats come again in every step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Values = float | tuple[float, float]

# Tensors on a GPU are kept for good, as a captured graph goes on reading them: hence a limit.
MOST_ON_CUDA = 256
_on_cuda: dict[tuple[Values, torch.dtype, torch.device], Tensor] = {}
# Events after the fills of tensors not yet known to be written, by the tensor's id.
_unwritten: dict[int, torch.cuda.Event] = {}


def constant(values: Values, dtype: torch.dtype, device: torch.device, intercepted: bool) -> Tensor:
    """Returns a number as a 0-dim tensor, or a pair of them as ``[1, 2]``, only to be read.

    Args:
        values: the number or the pair.
        dtype, device: those of the tensor.
        intercepted: whether something besides the kernels sees the call: it must then see the
            tensor made, and other calls must not use that tensor.
    """
    if not intercepted:
        if device.type == "cuda":
            known = _on_cuda.get((values, dtype, device))
            if known is not None:
                if may_be_read(known):
                    return known
            elif _may_keep_on_cuda(device):
                return _keep_on_cuda(values, dtype, device)
        elif device.type == "cpu" and not torch.is_inference_mode_enabled():
            return _on_cpu(values, dtype)
    return _filled(values, dtype, device)


def is_kept(tensor: Tensor) -> bool:
    """Returns whether every later call may read this constant as well."""
    return tensor.is_cpu or any(tensor is kept for kept in _on_cuda.values())


def may_be_read(kept: Tensor) -> bool:
    """Returns whether what is launched from now on may read this kept constant.

    Until it is known to be written, the current stream is made to wait for it. A stream that is
    being captured cannot wait for what lies outside its graph, and must not read it.
    """
    written = _unwritten.get(id(kept)) if _unwritten else None
    if written is None:
        return True
    with torch.cuda.device(kept.device):
        if torch.cuda.is_current_stream_capturing():
            return False
        if written.query():  # type: ignore[no-untyped-call]
            _unwritten.pop(id(kept), None)
        else:
            torch.cuda.current_stream().wait_event(written)
    return True


def _filled(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():
        # A number that is added stays an input of the graph; one that fills becomes part of it,
        # and every new value compiles a new graph.
        if isinstance(values, tuple):
            return torch.stack([_filled(value, dtype, device) for value in values])[None]
        return torch.zeros((), dtype=dtype, device=device) + values
    # Fills, not a copy from the host: on a GPU nothing waits.
    if not isinstance(values, tuple):
        return torch.full((), values, dtype=dtype, device=device)
    pair = torch.empty(1, 2, dtype=dtype, device=device)
    for i, value in enumerate(values):
        pair[:, i].fill_(value)
    return pair


@functools.lru_cache(maxsize=64)
def _on_cpu(values: Values, dtype: torch.dtype) -> Tensor:
    return torch.tensor([values] if isinstance(values, tuple) else values, dtype=dtype)


def _may_keep_on_cuda(device: torch.device) -> bool:
    if len(_on_cuda) >= MOST_ON_CUDA or torch.is_inference_mode_enabled():
        return False
    with torch.cuda.device(device):
        return not torch.cuda.is_current_stream_capturing()


def _keep_on_cuda(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = _filled(values, dtype, device)
    written = torch.cuda.Event()  # type: ignore[no-untyped-call]
    written.record(torch.cuda.current_stream(device))
    _unwritten[id(tensor)] = written  # before another thread can find the tensor
    if _on_cuda.setdefault((values, dtype, device), tensor) is not tensor:
        del _unwritten[id(tensor)]  # another thread was faster: this one is for its own call only
    return tensor
