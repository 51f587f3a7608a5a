"""What calls on CUDA tensors launch, set, allocate and await on the host, without a GPU.

PyTorch and the library are the real ones, on a CUDA runtime that does nothing (benchmarks/cpp/
stub_cuda.cpp). ``python -m benchmarks.host_time`` times the same calls.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import usucl_ext
from benchmarks import stub_cuda

# Counts per call, after an equal call. Fewer is better: lower them when they fall.
# Allocations are PyTorch's: one per output tensor, the others for temporary memory.
FORWARD = {"launches": 15, "memsets": 1, "allocations": 3, "queries": 2, "events": 4}
SELECTION = {**FORWARD, "launches": FORWARD["launches"] - 1, "allocations": 6}
FORWARD_BY_OPERATOR = {**FORWARD, "allocations": 10}
SMALL_FORWARD = {"launches": 2, "memsets": 0, "allocations": 2, "queries": 0, "events": 0}
# This includes a fill of the upstream gradient, and a cast of every gradient to bfloat16.
BACKWARD = {"launches": 9, "memsets": 1, "allocations": 8, "queries": 0, "events": 0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process of on_stub_cuda.py reported."""
    reason = stub_cuda.absent_reason() or usucl_ext.build_info()["cuda_reason"]
    if reason is not None or sys.platform != "linux":
        pytest.skip(str(reason or "nothing is preloaded here"))
    library = stub_cuda.build(tmp_path_factory.mktemp("stub"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "helpers" / "on_stub_cuda.py")],
        env=stub_cuda.environment(library),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("forward", FORWARD),
        ("forward of a small problem", SMALL_FORWARD),
        ("by operator", FORWARD_BY_OPERATOR),
        ("selection", SELECTION),
        ("backward", BACKWARD),
    ],
)
def test_a_call_costs_so_much(call: str, expected: dict[str, int], results: dict[str, Any]) -> None:
    found = results[call]
    assert {name: found[name] for name in expected} == expected, "\n".join(found["kernels"])


@pytest.mark.parametrize("call", ["forward", "by operator", "selection", "backward"])
def test_a_call_neither_waits_nor_copies(call: str, results: dict[str, Any]) -> None:
    found = results[call]
    assert (found["waits"], found["copies"], found["mallocs"]) == (0, 0, 0)


def test_memory_to_work_in_is_given_back(results: dict[str, Any]) -> None:
    assert results["held"] == 0


def test_gradients_are_like_their_inputs(results: dict[str, Any]) -> None:
    like = "torch.bfloat16"
    assert results["gradients"] == [[512, 128, like], [512, 128, like], [65536, 128, like]]


@pytest.mark.parametrize(
    ("call", "fills", "events"),
    [
        ("new temperature", 1, 1),  # other streams must wait for the fill
        ("not written yet", 0, 1),  # another stream waits for it
        ("captured, not written yet", 1, 0),  # a graph cannot wait for it
        ("written", 0, 0),
        ("new window", 2, 1),
    ],
)
def test_a_float_is_filled_in_once(
    call: str, fills: int, events: int, results: dict[str, Any]
) -> None:
    found = results[call]
    assert (found["waits"], found["copies"]) == (0, 0)
    assert found["launches"] == FORWARD["launches"] + fills, "\n".join(found["kernels"])
    assert found["events"] == FORWARD["events"] + events


def test_nothing_is_kept_while_a_graph_is_captured(results: dict[str, Any]) -> None:
    known, new = results["captured"], results["captured, new"]
    assert known["launches"] == FORWARD["launches"]
    assert new["launches"] == FORWARD["launches"] + 1  # a fill, which the graph repeats
    for found in (known, new):
        assert (found["waits"], found["copies"]) == (0, 0)
    assert results["kept in capture"] == 0
    assert results["after capture"]["launches"] == FORWARD["launches"] + 1


def test_no_more_constants_are_kept_than_stated(results: dict[str, Any]) -> None:
    assert results["most kept"] == 0


def test_another_device_is_current_for_the_call_only(results: dict[str, Any]) -> None:
    assert results["other device"] == ["cuda:1", 0]


@pytest.mark.parametrize("name", ["temperature", "window", "video", "keys"])
def test_operators_refuse_tensors_of_another_device(name: str, results: dict[str, Any]) -> None:
    found = "cuda:1" if name == "keys" else "cpu"
    expected = f"{name} must be on the device of the anchors, cuda:0, got {found}"
    assert results["refused"][name].endswith(expected)
