"""Calls that look like one before are not checked again, for that takes longer than calling.

What checking depends on is compared: of tensors type, dtype, device, shape, strides, whether they
require a gradient and PyTorch's lazy states, by the guards that it has for compiled graphs; of all
else type and value. Where PyTorch does not have these guards, every call is checked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._constants import is_kept, may_be_read
from ._direct import PLAIN, Plan
from ._interception import is_intercepted
from ._problem import Inputs
from ._types import Frames

MOST = 16  # plans, the latest first
_Guards: Any = getattr(getattr(torch._C._dynamo, "guards", None), "TensorGuards", None)


_TENSOR = object()  # in the place of one
# Of which one that equals another is as good, now and later.
_SIMPLE = {bool, float, int, object, str, type(None)}


class Look(NamedTuple):
    """The arguments of a call, taken apart."""

    arguments: list[Any]  # those that become inputs, in the order of csrc/core/inputs.h
    tensors: list[Any]  # of them and of none else, each once
    others: list[object]
    types: list[type]


class _Known(NamedTuple):
    others: list[object]
    types: list[type]
    guards: Any
    constants: list[tuple[int, Tensor]]  # what floats became, and where in the inputs
    plan: Plan


_known: list[_Known] = []


def look(
    anchors: object, negatives: object, values: tuple[object, ...], options: tuple[object, ...]
) -> Look | None:
    """How a call looks, or None where that is not all that there is to it.

    Args:
        anchors, negatives: as given.
        values: what becomes the tensors between theirs, in that order, as given; the window first.
        options: everything else.
    """
    if type(anchors) is not Frames or is_intercepted() or forward_ad._current_level >= 0:
        return None
    if type(negatives) is Frames:
        negatives = (negatives,)
    elif type(negatives) is not list and type(negatives) is not tuple:
        return None
    window = values[0]
    if type(window) is tuple:
        options += window
        values = (None, *values[1:])
    arguments: list[Any] = [*anchors, *values]
    tensors: list[Any] = [*anchors] if anchors[3] is not None else [*anchors[:3]]
    others: list[object] = [anchors[3] is None]
    for block in negatives:
        if type(block) is not Frames:
            return None
        arguments += block
        tensors += block if block[3] is not None else block[:3]
        others.append(block[3] is None)
    for value in values:
        if type(value) in PLAIN:
            tensors.append(value)
            value = _TENSOR
        others.append(value)
    others += options
    places = [*map(id, tensors)]
    if len(set(places)) < len(places):  # the guards take each once
        others += [places.index(place) for place in places]
        tensors = [*dict(zip(places, tensors, strict=True)).values()]
    return Look(arguments, tensors, others, [*map(type, others)])


def recall(seen: Look) -> tuple[Plan, Inputs] | None:
    """The plan of a call that looked the same, and what this one reads; or None."""
    arguments, tensors, others, types = seen
    for known in _known:
        if known.types == types and known.others == others and known.guards.check(*tensors):
            for place, constant in known.constants:
                if not may_be_read(constant):
                    return None
                arguments[place] = constant
            return known.plan, arguments
    return None


def remember(seen: Look, plan: Plan, inputs: Inputs) -> None:
    """Keeps the plan, if the call reads what it was given as it is."""
    if _Guards is None or not _SIMPLE.issuperset(seen.types) or torch.is_inference_mode_enabled():
        return
    constants = []
    for place, (given, read) in enumerate(zip(seen.arguments, inputs, strict=True)):
        if given is not read:
            if read is None or type(given) in PLAIN or not is_kept(read):
                return
            constants.append((place, read))
    guards = _Guards(*seen.tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    _known.insert(0, _Known(seen.others, seen.types, guards, constants, plan))
    del _known[MOST:]
