"""The emulated kernels with the interface of ``strategies.Problem.run``."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from ctypes import byref, c_bool, c_double, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import torch
from strategies import Outcome, Problem
from structures import (
    BACKWARD_ARGUMENTS,
    DTYPES,
    BackwardArrays,
    FramesAt,
    KeyGradient,
    LossArguments,
    LossArrays,
    Matrix,
    ProblemAt,
    Ranks,
    ScoredPairs,
    SelectionArrays,
    SettingsAt,
    Statistics,
    WeightedPairs,
)
from torch import Tensor

from usucl_ext import Frames, Selection


class Schedule(NamedTuple):
    """The order of threads and blocks; ``preemption``: a random switch every n accesses."""

    order: str = "forward"
    seed: int = 1
    preemption: int = 0
    check_races: bool = True


SCHEDULES = (
    Schedule("forward"),
    Schedule("reverse"),
    Schedule("random", seed=1),
    Schedule("random", seed=2, preemption=20),
)
_ORDERS = {"forward": 0, "reverse": 1, "random": 2}


def settings_of(schedule: Schedule) -> SettingsAt:
    return SettingsAt(
        _ORDERS[schedule.order], schedule.seed, schedule.preemption, schedule.check_races
    )


class Emulator:
    """The library, and the kernels that it has run."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.take_kernels.restype = ctypes.c_char_p
        self.schedule = Schedule()
        self.configure()

    def configure(
        self,
        multiprocessors: int = 2,
        one_launch: bool = True,
        smallest_dense: int = 1 << 20,
        warpgroups: bool = False,
        shared_bytes: int = 227 << 10,
    ) -> None:
        """Configures later calls. Without ``one_launch`` small problems take the large path;
        from ``smallest_dense`` pairs on, tensor cores nominate, with or without ``warpgroups``.
        """
        settings = settings_of(self.schedule)
        self._library.configure(
            byref(settings),
            c_int64(multiprocessors),
            c_bool(one_launch),
            c_int64(smallest_dense),
            c_bool(warpgroups),
            c_int64(shared_bytes),
        )

    def take_statistics(self) -> Statistics:
        """The counters since the last call."""
        statistics = Statistics()
        self._library.take_statistics(byref(statistics))
        return statistics

    def take_kernels(self) -> set[str]:
        """The kernels that have run since the last call, with their template arguments."""
        return set(self._library.take_kernels().decode().split("\n")) - {""}

    def _call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        function = self._library[f"{name}_{str(dtype).removeprefix('torch.')}"]
        function.restype = ctypes.c_char_p
        error = function(*arguments)
        assert error is None, error.decode()

    def select(self, problem: Problem) -> Selection:
        embeddings = [problem.anchors.embedding, *(b.embedding for b in problem.blocks)]
        double = any(e.dtype == torch.float64 for e in embeddings)
        call = _Inputs(problem)
        selection = call.new_selection(torch.float64 if double else torch.float32)
        arrays = SelectionArrays(*map(_address, selection))
        self._call("select", selection.intra_similarity.dtype, byref(call.problem), byref(arrays))
        return selection

    def similarities(self, anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
        double = torch.float64 in (anchors.dtype, keys.dtype)
        dtype = torch.float64 if double else torch.float32
        held = [x.detach().clone(memory_format=torch.contiguous_format) for x in (anchors, keys)]
        q, k = (Matrix(_address(x), DTYPES[x.dtype], *x.shape) for x in held)
        index, out = index.contiguous(), _unwritten(index.shape, dtype)
        pairs = ScoredPairs(q, k, _address(index), index.shape[1], _address(out))
        self._call("pairs", dtype, byref(pairs))
        return out

    def run(self, problem: Problem) -> Outcome:
        """Runs forward and backward with all gradients."""
        call, dtype = _Inputs(problem), problem.arithmetic
        rows, dim = problem.anchors.embedding.shape
        options = problem.options
        positives = problem.positives.reshape(rows, -1, dim) if rows else None
        num_positives = 1 if positives is None else positives.shape[1]

        def held(name: str) -> Tensor | None:
            value = options.get(name)
            if value is None:
                return None
            return call.hold(torch.as_tensor(value, dtype=dtype).contiguous())

        margin = held("margin")
        selection = call.new_selection(dtype)
        shapes: dict[str, tuple[int, ...]] = {
            "loss": (rows,),
            "anchor_gradient": (rows, dim),
            "positive_weight": (rows, num_positives),
            "intra_weight": tuple(selection.intra_index.shape),
            "cross_weight": tuple(selection.cross_index.shape),
            "temperature_gradient": (rows, 2),
        }
        out = {name: _unwritten(shape, dtype) for name, shape in shapes.items()}
        arrays = LossArrays(*map(_address, (*selection, *out.values())))
        flat = torch.empty(0, dim) if positives is None else positives.reshape(-1, dim)
        arguments = LossArguments(
            call.matrix(flat),
            num_positives,
            _address(held("positive_weights")),
            _address(margin),
            margin is not None and margin.dim() == 1,
            _address(held("temperature")),
            _address(held("soft_nn_temperature")),
        )
        self._call("forward", dtype, byref(call.problem), byref(arguments), byref(arrays))
        reduction = options["reduction"]
        loss = out["loss"]
        if reduction != "none":
            loss = _unwritten((), dtype)
            divisor = float(max(rows, 1) if reduction == "mean" else 1)
            self._call(
                "sum",
                dtype,
                c_void_p(_address(out["loss"])),
                c_int64(rows),
                c_double(divisor),
                c_void_p(_address(loss)),
            )
        grads = self._backward(problem, call, selection, out, num_positives)
        return Outcome(loss, selection, *grads)

    def _backward(
        self,
        problem: Problem,
        call: _Inputs,
        selection: Selection,
        out: dict[str, Tensor],
        num_positives: int,
    ) -> tuple[Any, ...]:
        dtype, reduction = problem.arithmetic, problem.options["reduction"]
        rows, dim = problem.anchors.embedding.shape
        grad = call.hold(torch.as_tensor(problem.grad, dtype=dtype))

        def pairs(index: Tensor, weight: Tensor) -> WeightedPairs:
            return WeightedPairs(_address(index), _address(weight), index.shape[1])

        kind = BACKWARD_ARGUMENTS[dtype]
        arguments = kind(
            kind._fields_[0][1](
                _address(grad), reduction == "none", float(rows) if reduction == "mean" else 1.0
            ),
            call.problem.anchors.embedding,
            _address(out["anchor_gradient"]),
            _address(out["positive_weight"]),
            num_positives,
            _address(out["temperature_gradient"]),
            pairs(selection.intra_index, out["intra_weight"]),
            pairs(selection.cross_index, out["cross_weight"]),
        )
        anchors = _unwritten((rows, dim), dtype)
        positives = _unwritten((rows, num_positives, dim), dtype)
        temperatures = _unwritten((2,), dtype)
        arrays = BackwardArrays(*map(_address, (anchors, positives, temperatures)))
        self._call("backward", dtype, byref(arguments), byref(arrays))
        blocks, first = [], 0
        for block in problem.blocks:
            count = len(block.embedding)
            keys = _unwritten((count, dim), dtype)
            wanted = KeyGradient(first, count, _address(keys))
            self._call("keys", dtype, byref(arguments), byref(wanted))
            blocks.append(keys.to(block.embedding.dtype))
            first += count
        options = problem.options
        wants = [isinstance(options[n], Tensor) for n in ("temperature", "soft_nn_temperature")]
        return (
            anchors.to(problem.anchors.embedding.dtype),
            positives.reshape(problem.positives.shape).to(problem.positives.dtype),
            blocks,
            temperatures[0] if wants[0] else None,
            temperatures[1] if wants[1] else None,
        )


def margin_of(
    emulator: Emulator,
    anchors: torch.dtype,
    elements: torch.dtype,
    dim: int,
    anchor_norm: float,
    key_norm: float,
) -> float:
    """The largest error of a score (csrc/core/nomination.h)."""
    function = emulator._library.margin
    function.restype = c_double
    return function(
        c_int32(DTYPES[anchors]),
        c_int32(DTYPES[elements]),
        c_int64(dim),
        c_double(anchor_norm),
        c_double(key_norm),
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _unwritten(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    return torch.full(tuple(shape), -77 if dtype == torch.int64 else math.nan, dtype=dtype)


class _Inputs:
    """A problem in the kernels' form, and the contiguous tensors that it points to."""

    def __init__(self, problem: Problem) -> None:
        self._held: list[Any] = []
        self.rows, self.dim = problem.anchors.embedding.shape
        options = problem.options
        window = options["window"]
        if window is not None:
            window = self.hold(torch.as_tensor(window, dtype=torch.float64).float().reshape(-1, 2))
        blocks = (FramesAt * len(problem.blocks))(*map(self.frames, problem.blocks))
        limit = options["max_similarity"]
        self.intra_k, self.cross_k = options["intra_k"], options["cross_k"]
        self.problem = ProblemAt(
            self.frames(problem.anchors),
            blocks,
            len(problem.blocks),
            _address(window),
            window is not None and len(window) > 1,
            Ranks(self.intra_k, options["intra_skip"]),
            Ranks(self.cross_k, options["cross_skip"]),
            math.inf if limit is None else limit,
        )

    def hold(self, tensor: Tensor) -> Tensor:
        # A separate allocation: the end of an input is the end of its memory.
        self._held.append(tensor.detach().clone(memory_format=torch.contiguous_format))
        return self._held[-1]

    def matrix(self, embedding: Tensor) -> Matrix:
        rows, dim = embedding.shape
        return Matrix(_address(self.hold(embedding)), DTYPES[embedding.dtype], rows, dim)

    def frames(self, frames: Frames) -> FramesAt:
        embedding, video, time, patient = frames
        return FramesAt(
            self.matrix(embedding),
            _address(self.hold(video)),
            _address(self.hold(time)),
            None if patient is None else _address(self.hold(patient)),
        )

    def new_selection(self, dtype: torch.dtype) -> Selection:
        def both(k: int) -> tuple[Tensor, Tensor]:
            return _unwritten((self.rows, k), torch.int64), _unwritten((self.rows, k), dtype)

        return Selection(*both(self.intra_k), *both(self.cross_k))
