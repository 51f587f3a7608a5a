"""Files of safetensors, written piece by piece into the file that the caller has opened.

The library's own writer makes a file of a random name beside the one it is given, which nothing
removes if the process is killed, and turns every tensor into bytes first, which doubles the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""Names of the dtypes in the format."""
_ALIGNMENT = 64  # bytes of the header; what begins there can be used in the mapped file
_CHUNK = 16 << 20  # bytes written, or copied from another device, at once


def pieces(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """Yields a file piece by piece: length of the header, header, tensors in their order.

    Args:
        tensors: dense tensors of any device and strides.
        metadata: texts for the header.

    Raises:
        TypeError: a tensor has a dtype that is not in ``DTYPES``.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"{name} must have one of the dtypes {known}, got {tensor.dtype}")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        flat = tensor.detach().contiguous().reshape(-1)
        count = _CHUNK // tensor.element_size()
        for begin in range(0, flat.numel(), count):
            part = flat[begin : begin + count].cpu()
            yield part.view(torch.uint8).numpy().data
