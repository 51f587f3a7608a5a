"""Numbers as tensors, made once: what is given as a float comes again step after step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Values = float | tuple[float, float]

# On a GPU tensors are kept for good, for a captured graph goes on reading them: hence so many only.
MOST_ON_CUDA = 256
_Key = tuple[Values, torch.dtype, torch.device]
_on_cuda: dict[_Key, Tensor] = {}
_being_written: dict[_Key, torch.cuda.Event] = {}  # those that another stream may have to wait for


def constant(values: Values, dtype: torch.dtype, device: torch.device, intercepted: bool) -> Tensor:
    """A number as a 0-dim tensor, or a pair of them as ``[1, 2]``; only to be read.

    Args:
        values: what it holds.
        dtype, device: of the tensor.
        intercepted: whether something beside the kernels is to see it, so that it must be made
            before its eyes and must not be left for other calls.
    """
    if not intercepted:
        if device.type == "cuda":
            kept = _kept_on_cuda(values, dtype, device)
            if kept is not None:
                return kept
        elif device.type == "cpu" and not torch.is_inference_mode_enabled():
            return _on_cpu(values, dtype)
    return _filled(values, dtype, device)


def is_kept(tensor: Tensor) -> bool:
    """Whether every later call may read this constant as well."""
    return tensor.is_cpu or any(tensor is kept for kept in _on_cuda.values())


@functools.lru_cache(maxsize=64)
def _on_cpu(values: Values, dtype: torch.dtype) -> Tensor:
    nested = [values] if isinstance(values, tuple) else values
    return torch.tensor(nested, dtype=dtype, device="cpu")


def _filled(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    """By fills rather than a copy from the host: nothing waits on a GPU."""
    if not isinstance(values, tuple):
        return torch.full((), values, dtype=dtype, device=device)
    pair = torch.empty(1, 2, dtype=dtype, device=device)
    for i, value in enumerate(values):
        pair[:, i].fill_(value)
    return pair


def _kept_on_cuda(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """The constant that all calls share, ready for the current stream; None where there is none
    and none may be made."""
    key = values, dtype, device
    tensor = _on_cuda.get(key)
    written = _being_written.get(key)
    if tensor is not None and written is None:
        return tensor
    if torch.cuda.is_current_stream_capturing() or torch.is_inference_mode_enabled():
        return None
    if tensor is not None and written is not None:
        # Once it is written, no stream need wait for that any more.
        if written.query():  # type: ignore[no-untyped-call]
            _being_written.pop(key, None)
        else:
            torch.cuda.current_stream(device).wait_event(written)
        return tensor
    if len(_on_cuda) >= MOST_ON_CUDA:
        return None
    with torch.cuda.device(device):
        tensor = _filled(values, dtype, device)
        written = torch.cuda.Event()  # type: ignore[no-untyped-call]
        written.record()
    _being_written[key] = written
    _on_cuda[key] = tensor
    return tensor
