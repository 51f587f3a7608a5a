"""Numbers as tensors, made once: what is given as a float comes again step after step."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# On a GPU tensors are kept for good, for a captured graph goes on reading them: hence so many only.
MOST_ON_CUDA = 256
_on_cuda: dict[tuple[object, ...], Tensor] = {}


def window_tensor(lo: float, hi: float, device: torch.device, intercepted: bool) -> Tensor:
    """``[1, 2]`` float32, only to be read.

    Args:
        lo, hi: its values.
        device: where it is to be.
        intercepted: whether ordinary tensors must be kept apart from what is going on.
    """
    known = _known((lo, hi), torch.float32, device, intercepted)
    if known is not None:
        return known
    # Two fills rather than a copy from the host: nothing waits on a GPU.
    pair = torch.empty(1, 2, dtype=torch.float32, device=device)
    pair[:, 0].fill_(lo)
    pair[:, 1].fill_(hi)
    return pair


def scalar_tensor(
    number: float, dtype: torch.dtype, device: torch.device, intercepted: bool
) -> Tensor:
    """A 0-dim tensor, only to be read; arguments as for :func:`window_tensor`."""
    known = _known(number, dtype, device, intercepted)
    return torch.full((), number, dtype=dtype, device=device) if known is None else known


def _known(
    values: float | tuple[float, float],
    dtype: torch.dtype,
    device: torch.device,
    intercepted: bool,
) -> Tensor | None:
    """The one tensor of these values, or None where there can be none."""
    if intercepted:
        return None
    if device.type == "cuda":
        known = _on_cuda.get((values, dtype, device))
        return _keep_on_cuda(values, dtype, device) if known is None else known
    if device.type == "cpu" and not torch.is_inference_mode_enabled():
        return _on_cpu(values, dtype)
    return None


def _tensor(values: object, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    pair = isinstance(values, tuple)
    return torch.tensor([values] if pair else values, dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def _on_cpu(values: object, dtype: torch.dtype) -> Tensor:
    return _tensor(values, dtype, "cpu")


def _keep_on_cuda(values: object, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if (
        len(_on_cuda) >= MOST_ON_CUDA
        or torch.is_inference_mode_enabled()
        or torch.cuda.is_current_stream_capturing()
    ):
        return None
    # The copy waits for its stream, one of its own: not for what the GPU has still to do, and yet
    # every other stream may read the values from now on.
    with torch.cuda.stream(torch.cuda.Stream(device)):
        tensor = _tensor(values, dtype, device)
    _on_cuda[values, dtype, device] = tensor
    return tensor
