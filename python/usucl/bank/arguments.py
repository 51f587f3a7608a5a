"""Checks of single arguments; every message names it, what it must be and what it was."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

GREATEST = 2**31 - 1


def check_int(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """Returns an integer of any integer type, such as NumPy's or a tensor of one, as an int.

    Raises:
        TypeError: it is no integer.
        ValueError: it is not in ``least .. most``.
    """
    boolean = isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool)
    try:
        number = operator.index(value if not boolean else "")  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name} must be >= {least}, got {number}")
    if number > most:
        raise ValueError(f"{name} must be <= {most}, got {number}")
    return number


def check_tensor(name: str, value: Any) -> Tensor:
    """Returns a tensor; NumPy's arrays and lists are refused, as by the loss.

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(value, Tensor):
        kind = type(value)
        library = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        raise TypeError(f"{name} must be a torch.Tensor, got {library}{kind.__qualname__}")
    return value


def check_ids(name: str, value: Any) -> Tensor:
    """Returns ids or slots, a tensor of any integer dtype, as int64.

    Raises:
        TypeError: it is no tensor of integers.
    """
    ids = check_tensor(name, value)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must be an int64 tensor, got {ids.dtype}")
    return ids.to(torch.int64)
