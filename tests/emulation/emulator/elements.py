"""Numbers in the form that tensor cores store and read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def in_words(values: np.ndarray, kind: str) -> np.ndarray:
    """Packs float32 [rows, columns], exact in the kind, into 32-bit words along the columns."""
    if kind == "float16":
        return values.astype(np.float16).view(np.uint32)
    if kind == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)
    return values.view(np.uint32)


def as_read(values: Tensor, elements: torch.dtype, *, key: bool) -> Tensor:
    """What tensor cores multiply, as float64; a float32 key is truncated, an anchor rounded."""
    if elements != torch.float32:
        return values.to(elements).double()
    bits = values.float().view(torch.int32)
    if not key:
        bits = bits + 0xFFF + (bits >> 13 & 1)
    return (bits & ~0x1FFF).view(torch.float32).double()


def worst_case(elements: torch.dtype, dim: int, *, key: bool) -> Tensor:
    """A row whose elements all lose as much as possible, in the same direction."""
    bits = 8 if elements == torch.bfloat16 else 11
    lost = 2.0**-23 if elements == torch.float32 and key else 2.0**-24
    # Just above a power of two; just below the midpoint to the next number, or below that number.
    step = 2.0 ** (1 - bits) * (1 if key and elements == torch.float32 else 0.5)
    return torch.full((dim,), 1 + step - 2 * lost)
