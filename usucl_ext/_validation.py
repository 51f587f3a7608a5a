"""Checks of single arguments; every message names it, what it must be and what it was."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from ._advice import check_order
from ._constants import constant
from ._types import Frames, Window

EMBEDDING_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# The least positive normal number and the greatest number.
_LIMITS = {
    dtype: (torch.finfo(dtype).tiny, torch.finfo(dtype).max)
    for dtype in (torch.float32, torch.float64)
}
_GREATEST = _LIMITS[torch.float32][1]
REDUCTIONS = ("none", "mean", "sum")
MAX_K = 2**31 - 1
# Places of a selection that no key can fill are given up to this number in all.
MAX_PADDED = 2**28
_ALWAYS_PADDED = 2**16
MAX_SKIP = 2**62  # more than there can be keys; skip + k stays within int64


def accumulation_dtype(embeddings: Sequence[object]) -> torch.dtype:
    """Returns float64 if any embedding is float64, else float32."""
    double = any([isinstance(e, Tensor) and e.dtype == torch.float64 for e in embeddings])
    return torch.float64 if double else torch.float32


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _type(value: object) -> str:
    """Returns the name of a value's type as its user writes it, such as ``numpy.ndarray``."""
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return module + kind.__qualname__


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_nested


def _check_tensor(name: str, value: object, shape: str = "") -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor{shape and ' ' + shape}, got {_type(value)}")
    if value.is_quantized:
        raise TypeError(f"{name} must not be quantised, got {value.dtype}: call .dequantize()")
    if value.is_nested:
        raise TypeError(f"{name} must not be nested: call .to_padded_tensor() or .values()")
    if not _is_dense(value):
        raise TypeError(f"{name} must be dense, got {value.layout}: call .to_dense()")
    return value


def _check_not_meta(name: str, value: Tensor, like: Tensor) -> None:
    if value.is_meta and not like.is_meta:
        raise ValueError(f"{name} must be on {like.device}, got {value.device}")


def _check_embedding(name: str, value: object, ndim: tuple[int, ...], layout: str) -> Tensor:
    embedding = _check_tensor(name, value, layout)
    if embedding.dtype not in EMBEDDING_DTYPES:
        raise TypeError(
            f"{name} must be float32, bfloat16, float16 or float64, got {embedding.dtype}"
        )
    if embedding.dim() not in ndim:
        raise ValueError(f"{name} must have shape {layout}, got {_shape(embedding)}")
    return embedding


def _check_column(name: str, value: object, like: Tensor, kind: str) -> Tensor:
    """Returns one value per frame: ids as int64, times as float32."""
    column = _check_tensor(name, value)
    integral = not (column.is_floating_point() or column.is_complex())
    if kind == "id" and (not integral or column.dtype == torch.bool):
        raise TypeError(f"{name} must be an int64 tensor, got {column.dtype}")
    if kind == "time" and (column.is_complex() or column.dtype == torch.bool):
        raise TypeError(f"{name} must be a float32 tensor, got {column.dtype}")
    rows = like.shape[0]
    if column.dim() != 1 or column.shape[0] != rows:
        raise ValueError(
            f"{name} must have one value per frame, shape [{rows}], got {_shape(column)}"
        )
    if column.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, got {column.device}")
    return column.to(torch.int64 if kind == "id" else torch.float32).detach()


def _is_valid(frames: object) -> bool:
    """Returns whether frames need neither a message nor a conversion.

    That is the usual case, and this takes a fraction of the time of the full check.
    """
    if type(frames) is not Frames:
        return False
    embedding, video, time, patient = frames
    if not (
        isinstance(embedding, Tensor)
        and isinstance(video, Tensor)
        and isinstance(time, Tensor)
        and _is_dense(embedding)
        and _is_dense(video)
        and _is_dense(time)
    ):
        return False
    shape = embedding.shape
    if len(shape) != 2 or shape[1] < 1 or embedding.dtype not in EMBEDDING_DTYPES:
        return False
    rows, device = shape[:1], embedding.device
    return (
        video.dtype == torch.int64
        and video.shape == rows
        and video.device == device
        and time.dtype == torch.float32
        and time.shape == rows
        and time.device == device
        and not time.requires_grad
        and (
            patient is None
            or (
                isinstance(patient, Tensor)
                and _is_dense(patient)
                and patient.dtype == torch.int64
                and patient.shape == rows
                and patient.device == device
            )
        )
    )


def check_frames(name: str, frames: object) -> Frames:
    if _is_valid(frames):
        return frames  # type: ignore[return-value]
    if not isinstance(frames, Frames):
        raise TypeError(f"{name} must be a usucl_ext.Frames, got {_type(frames)}")
    embedding = _check_embedding(f"{name}.embedding", frames.embedding, (2,), "[M, D]")
    if embedding.shape[1] < 1:
        raise ValueError(f"{name}.embedding must have D >= 1, got shape {_shape(embedding)}")
    patient = frames.patient
    return Frames(
        embedding,
        _check_column(f"{name}.video", frames.video, embedding, "id"),
        _check_column(f"{name}.time", frames.time, embedding, "time"),
        None if patient is None else _check_column(f"{name}.patient", patient, embedding, "id"),
    )


def _check_count(name: str, value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    scalar = not isinstance(value, Tensor) or (value.dim() == 0 and value.dtype != torch.bool)
    try:
        if isinstance(value, bool) or not scalar:
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError):
        raise TypeError(f"{name} must be an int, got {_type(value)}") from None
    if count < 0:
        raise ValueError(f"{name} must be >= 0, got {count}")
    return count


def check_skip(name: str, value: object) -> int:
    """Returns the skip, at most ``MAX_SKIP``, which no number of keys reaches."""
    return min(_check_count(name, value), MAX_SKIP)


def check_k(name: str, value: object, rows: int, blocks: Sequence[Frames]) -> int:
    k = _check_count(name, value)
    if k > MAX_K:
        raise ValueError(f"{name} must be at most {MAX_K}, got {k}")
    if k > _ALWAYS_PADDED:
        keys = sum([block.embedding.shape[0] for block in blocks])
        most = max(keys, _ALWAYS_PADDED, MAX_PADDED // max(rows, 1))
        if k > most:
            raise ValueError(
                f"{name} must be at most {most} for N = {rows} anchors and M = {keys} keys, got {k}"
            )
    return k


def check_window(
    window: Window, intra_k: int, embedding: Tensor, intercepted: bool
) -> Tensor | None:
    if window is None:
        if intra_k > 0:
            raise ValueError(f"window must be given with intra_k = {intra_k}, got None")
        return None
    if not isinstance(window, Tensor):
        bounds = check_bounds(window)
        if not intercepted:
            check_order(*bounds, stacklevel=4)
        return constant(bounds, torch.float32, embedding.device, intercepted)
    _check_tensor("window", window)
    rows = embedding.shape[0]
    if not window.is_floating_point():
        raise TypeError(f"window must be a float tensor, got {window.dtype}")
    shape = window.shape
    if shape != (2,) and shape != (1, 2) and shape != (rows, 2):
        raise ValueError(f"window must have shape [2], [1, 2] or [{rows}, 2], got {_shape(window)}")
    if window.device != embedding.device:
        raise ValueError(f"window must be on {embedding.device}, got {window.device}")
    if window.dtype == torch.float32 and not window.requires_grad:
        return window
    return window.detach().to(torch.float32)


def check_bounds(window: Sequence[object]) -> tuple[float, float]:
    """Returns the two bounds of a window, infinite where they are beyond the range of float32."""
    if type(window) is tuple and len(window) == 2:
        lo, hi = window
        least, most = -_GREATEST, _GREATEST  # NaN fails every comparison
        if type(lo) is float and type(hi) is float and least <= lo <= most and least <= hi <= most:
            return lo, hi
    if isinstance(window, str) or not isinstance(window, Sequence) or len(window) != 2:
        raise TypeError(f"window must be a pair (lo, hi), a tensor or None, got {window!r}")
    lo, hi = _check_real("window[0]", window[0]), _check_real("window[1]", window[1])
    return _rounded(lo, torch.float32), _rounded(hi, torch.float32)


def _rounded(number: float, dtype: torch.dtype) -> float:
    """Returns the number, or infinity where it is beyond the range of ``dtype``."""
    greatest = _LIMITS[dtype][1]
    return number if -greatest <= number <= greatest else math.copysign(math.inf, number)


def _check_real(name: str, value: object) -> float:
    if type(value) is float and value == value:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a float, got {_type(value)}")
    number = float(value)
    if number != number:
        raise ValueError(f"{name} must be a number, got nan")
    return number


def check_temperature(
    name: str, value: object, like: Tensor, dtype: torch.dtype, intercepted: bool
) -> Tensor:
    """Returns a 0-dim tensor of the accumulation dtype on the anchors' device, gradient kept."""
    if isinstance(value, Tensor):
        _check_tensor(name, value)
        if value.dim() != 0 or not value.is_floating_point():
            raise ValueError(
                f"{name} must be a positive float or a 0-dim float tensor, "
                f"got a {value.dtype} tensor of shape {_shape(value)}"
            )
        _check_not_meta(name, value, like)
        return value.to(device=like.device, dtype=dtype)
    number = _check_real(name, value)
    least, greatest = _LIMITS[dtype]
    if not least <= number <= greatest:
        raise ValueError(f"{name} must be positive and finite in {dtype}, got {number}")
    return constant(number, dtype, like.device, intercepted)


def check_limit(name: str, value: object, dtype: torch.dtype) -> float:
    """Returns the number; infinity for None or where it is beyond the range of ``dtype``."""
    return math.inf if value is None else _rounded(_check_real(name, value), dtype)


def check_margin(value: object, like: Tensor, dtype: torch.dtype, intercepted: bool) -> Tensor:
    """Returns a tensor ``[]`` or ``[N]`` of the accumulation dtype on the anchors' device."""
    if not isinstance(value, Tensor):
        number = _rounded(_check_real("margin", value), dtype)
        return constant(number, dtype, like.device, intercepted)
    _check_tensor("margin", value)
    rows = like.shape[0]
    if not value.is_floating_point() or (value.dim() != 0 and value.shape != (rows,)):
        raise ValueError(
            f"margin must be a float or a float tensor of shape [] or [{rows}], "
            f"got a {value.dtype} tensor of shape {_shape(value)}"
        )
    if value.dim() == 1 and value.device != like.device:
        raise ValueError(f"margin must be on {like.device}, got {value.device}")
    _check_not_meta("margin", value, like)
    return value.detach().to(device=like.device, dtype=dtype)


def check_positive_weights(
    value: object, positives: Tensor, dtype: torch.dtype, intercepted: bool
) -> Tensor:
    """Returns ``[N, R]`` of the accumulation dtype; on the CPU the values are checked too."""
    rows, count = positives.shape[0], positives.shape[1] if positives.dim() == 3 else 1
    value = _check_tensor("positive_weights", value, "[N, R]")
    if not value.is_floating_point():
        raise TypeError(f"positive_weights must be a float tensor, got {value.dtype}")
    if value.shape != (rows, count):
        raise ValueError(
            f"positive_weights must have shape [N, R] with N = {rows}, R = {count}, "
            f"got {_shape(value)}"
        )
    if value.device != positives.device:
        raise ValueError(f"positive_weights must be on {positives.device}, got {value.device}")
    weights = value.detach().to(dtype)
    if weights.device.type == "cpu" and not intercepted:
        total = weights.sum(1)
        if not bool(((weights >= 0).all(1) & (total > 0) & (total < torch.inf)).all()):
            raise ValueError(
                "positive_weights must be non-negative with a positive, finite sum per anchor, "
                f"got a least weight of {weights.min().item()} and sums from "
                f"{total.min().item()} to {total.max().item()}"
            )
    return weights


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {expected}, got {value!r}")
    return str(value)


def check_positives(positives: object, like: Tensor) -> Tensor:
    """Returns ``[N, D]`` or ``[N, R, D]``, as given."""
    layout = "[N, D] or [N, R, D]"
    positives = _check_embedding("positives", positives, (2, 3), layout)
    rows, dim = like.shape
    shape = positives.shape
    if shape[0] != rows or shape[-1] != dim or (len(shape) == 3 and shape[1] < 1):
        raise ValueError(
            f"positives must have shape [N, D] or [N, R, D] with N = {rows}, D = {dim}, R >= 1, "
            f"got {_shape(positives)}"
        )
    if positives.device != like.device:
        raise ValueError(f"positives must be on {like.device}, got {positives.device}")
    return positives


def check_pairs(anchors: object, keys: object, index: object) -> tuple[Tensor, Tensor, Tensor]:
    """Returns anchors ``[N, D]``, keys ``[M, D]``, and ``index`` ``[N, C]`` int64."""
    anchors = _check_embedding("anchors", anchors, (2,), "[N, D]")
    keys = _check_embedding("keys", keys, (2,), "[M, D]")
    rows, dim = anchors.shape
    if dim < 1:
        raise ValueError(f"anchors must have D >= 1, got shape {_shape(anchors)}")
    if keys.shape[1] != dim:
        raise ValueError(
            f"keys must have shape [M, D] with D = {dim}, the anchors' dimension, "
            f"got {_shape(keys)}"
        )
    index = _check_tensor("index", index, "[N, C]")
    if index.dtype != torch.int64:
        raise TypeError(f"index must be an int64 tensor, got {index.dtype}")
    if index.dim() != 2 or index.shape[0] != rows:
        raise ValueError(
            f"index must have shape [N, C] with N = {rows}, one row per anchor, got {_shape(index)}"
        )
    for name, tensor in (("keys", keys), ("index", index)):
        if tensor.device != anchors.device:
            raise ValueError(f"{name} must be on {anchors.device}, got {tensor.device}")
    return anchors, keys, index


def check_key_blocks(negatives: object, anchors: Frames) -> tuple[Frames, ...]:
    if isinstance(negatives, Frames):
        return (_check_block("negatives", negatives, anchors),)
    if isinstance(negatives, (str, Tensor)) or not isinstance(negatives, Sequence):
        raise TypeError(f"negatives must be a Frames or a sequence of them, got {_type(negatives)}")
    if len(negatives) == 0:
        raise ValueError("negatives must hold at least one Frames, got an empty sequence")
    return tuple(
        _check_block(f"negatives[{i}]", block, anchors) for i, block in enumerate(negatives)
    )


def _check_block(name: str, block: object, anchors: Frames) -> Frames:
    frames = check_frames(name, block)
    dim = anchors.embedding.shape[1]
    if frames.embedding.shape[1] != dim:
        raise ValueError(
            f"{name}.embedding must have shape [M, D] with D = {dim}, the anchors' dimension, "
            f"got {_shape(frames.embedding)}"
        )
    if frames.embedding.device != anchors.embedding.device:
        raise ValueError(
            f"{name}.embedding must be on {anchors.embedding.device}, got {frames.embedding.device}"
        )
    if (frames.patient is None) != (anchors.patient is None):
        have, lack = ("anchors", name) if frames.patient is None else (name, "anchors")
        raise ValueError(
            f"patient must be given in all Frames of a call or in none: "
            f"{have} has patient ids, {lack} has none"
        )
    return frames
