"""What the emulated kernels' entry points take, as ctypes lays it out.

The structures mirror csrc/core/problem.h, csrc/core/results.h and emulation.h.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_bool, c_double, c_int32, c_int64, c_uint64, c_void_p
from typing import Any

import torch

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class Matrix(Structure):
    _fields_ = (("data", c_void_p), ("dtype", c_int32), ("rows", c_int64), ("dim", c_int64))


class FramesAt(Structure):
    _fields_ = (
        ("embedding", Matrix),
        ("video", c_void_p),
        ("time", c_void_p),
        ("patient", c_void_p),
    )


class Ranks(Structure):
    _fields_ = (("k", c_int64), ("skip", c_int64))


class ProblemAt(Structure):
    _fields_ = (
        ("anchors", FramesAt),
        ("blocks", POINTER(FramesAt)),
        ("num_blocks", c_int64),
        ("windows", c_void_p),
        ("window_per_anchor", c_bool),
        ("intra", Ranks),
        ("cross", Ranks),
        ("max_similarity", c_double),
        ("limits", c_void_p),
    )


class LossArguments(Structure):
    _fields_ = (
        ("positives", Matrix),
        ("num_positives", c_int64),
        ("positive_weights", c_void_p),
        ("margin", c_void_p),
        ("margin_per_anchor", c_bool),
        ("temperature", c_void_p),
        ("soft_nn_temperature", c_void_p),
    )


def _pointers(*names: str) -> type[Structure]:
    return type("Pointers", (Structure,), {"_fields_": tuple((name, c_void_p) for name in names)})


SELECTION = ("intra_index", "intra_similarity", "cross_index", "cross_similarity")
WEIGHTS = ("positive_weight", "intra_weight", "cross_weight", "temperature_gradient")
SelectionArrays = _pointers(*SELECTION)
LossArrays = _pointers(*SELECTION, "loss", "anchor_gradient", *WEIGHTS)
BackwardArrays = _pointers("grad_anchors", "grad_positives", "grad_temperatures")


class WeightedPairs(Structure):
    _fields_ = (("index", c_void_p), ("weight", c_void_p), ("k", c_int64))


def _backward_arguments(value: Any) -> type[Structure]:
    """For the accumulation type float or double, which one member has by value."""
    upstream = type(
        "Upstream",
        (Structure,),
        {"_fields_": (("grad", c_void_p), ("step", c_int64), ("divisor", value))},
    )
    fields = (
        ("upstream", upstream),
        ("anchors", Matrix),
        ("anchor_gradient", c_void_p),
        ("positive_weight", c_void_p),
        ("num_positives", c_int64),
        ("temperature_gradient", c_void_p),
        ("intra", WeightedPairs),
        ("cross", WeightedPairs),
    )
    return type("BackwardArguments", (Structure,), {"_fields_": fields})


BACKWARD_ARGUMENTS = {
    torch.float32: _backward_arguments(ctypes.c_float),
    torch.float64: _backward_arguments(c_double),
}


class KeyGradient(Structure):
    _fields_ = (("first_key", c_int64), ("num_keys", c_int64), ("grad_keys", c_void_p))


class Statistics(Structure):
    _fields_ = tuple((name, c_uint64) for name in ("arrivals", "nominees", "unsettled", "chained"))


class ScoredPairs(Structure):
    _fields_ = (
        ("anchors", Matrix),
        ("keys", Matrix),
        ("index", c_void_p),
        ("per_anchor", c_int64),
        ("similarity", c_void_p),
    )


class SettingsAt(Structure):
    _fields_ = (
        ("schedule", c_int32),
        ("seed", c_uint64),
        ("preemption", c_int32),
        ("check_races", c_bool),
    )
