"""Calls that look like an earlier one are not checked again: checks take longer than the call.

All that the checks depend on is compared. For tensors this is their type, dtype, device, shape,
strides, need of a gradient and lazy state, by the guards that PyTorch has for compiled graphs; for
all else it is type and value. Where PyTorch lacks these guards, every call is checked.
"""

from __future__ import annotations

from operator import attrgetter
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


_is_nested = attrgetter("is_nested")
_TENSOR = object()  # stands for any tensor
# Types whose equal values are interchangeable, now and later.
_SIMPLE = {bool, float, int, object, str, type(None)}


class Look(NamedTuple):
    """The arguments of a call, taken apart."""

    arguments: list[Any]  # those that become inputs, in the order of csrc/core/inputs.h
    tensors: list[Any]  # the tensors among them, each once
    others: list[object]
    types: list[type]


class _Known(NamedTuple):
    others: list[object]
    types: list[type]
    guards: Any
    constants: list[tuple[int, Tensor]]  # tensors made of floats, by place among the inputs
    plan: Plan


_known: list[_Known] = []


def look(
    anchors: object, negatives: object, values: tuple[object, ...], options: tuple[object, ...]
) -> Look | None:
    """Returns how a call looks, or None where its looks do not tell everything.

    Args:
        anchors, negatives: as given by the caller.
        values: what becomes the tensors between theirs, as given, in that order; the window first.
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
    if len(set(places)) < len(places):  # the guards take each tensor once
        others += [places.index(place) for place in places]
        tensors = [*dict(zip(places, tensors, strict=True)).values()]
    return Look(arguments, tensors, others, [*map(type, others)])


def recall(seen: Look) -> tuple[Plan, Inputs] | None:
    """Returns the plan of a call that looked the same and the inputs of this one, or None."""
    arguments, tensors, others, types = seen
    try:
        if True in map(_is_nested, tensors):
            return None  # the guards end the process where a tensor has no strides
    except AttributeError:
        return None  # not a tensor
    for known in _known:
        if known.types == types and known.others == others and known.guards.check(*tensors):
            for place, constant in known.constants:
                if not may_be_read(constant):
                    return None
                arguments[place] = constant
            return known.plan, arguments
    return None


def remember(seen: Look, plan: Plan, inputs: Inputs) -> None:
    """Keeps the plan, if the call reads its arguments as they were given."""
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
