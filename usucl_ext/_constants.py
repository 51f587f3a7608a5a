"""Numbers as tensors, made once: what is given as a float comes again step after step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

Values = float | tuple[float, float]

# On a GPU tensors are kept for good, for a captured graph goes on reading them: hence so many only.
MOST_ON_CUDA = 256
_on_cuda: dict[tuple[Values, torch.dtype, torch.device], Tensor] = {}


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
            known = _on_cuda.get((values, dtype, device))
            if known is not None:
                return known
            if _may_keep_on_cuda():
                return _keep_on_cuda(values, dtype, device)
        elif device.type == "cpu" and not torch.is_inference_mode_enabled():
            return _on_cpu(values, dtype)
    # Fills rather than a copy from the host: nothing waits on a GPU.
    if not isinstance(values, tuple):
        return torch.full((), values, dtype=dtype, device=device)
    pair = torch.empty(1, 2, dtype=dtype, device=device)
    for i, value in enumerate(values):
        pair[:, i].fill_(value)
    return pair


def is_kept(tensor: Tensor) -> bool:
    """Whether every later call may read this constant as well."""
    return tensor.is_cpu or any(tensor is kept for kept in _on_cuda.values())


def _tensor(values: Values, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    nested = [values] if isinstance(values, tuple) else values
    return torch.tensor(nested, dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def _on_cpu(values: Values, dtype: torch.dtype) -> Tensor:
    return _tensor(values, dtype, "cpu")


def _may_keep_on_cuda() -> bool:
    return (
        len(_on_cuda) < MOST_ON_CUDA
        and not torch.is_inference_mode_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def _keep_on_cuda(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    # The copy waits for its stream, one of its own: not for what the GPU has still to do, and yet
    # every other stream may read the values from now on.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        tensor = _on_cuda[values, dtype, device] = _tensor(values, dtype, device)
    return tensor
