"""csrc/cuda/tensor_cores/mma_core.h: tiles from asynchronous copies, multiplied as in numpy."""

from __future__ import annotations

import re

import device_programs
import numpy as np
import pytest
from device_programs import Program
from elements import in_words
from emulated import SCHEDULES, Schedule

NAME = "mma_core"
WORDS = 32  # of 32 bits in a chunk of a row
KINDS = {"bfloat16": 2, "float16": 2, "tf32": 1}  # elements in a word


def tile_product(
    program: Program, kind: str, chunks: int, keys_there: int = 128, entry: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the actual and the expected result for small integers, exact in any order."""
    draw = np.random.default_rng(3).integers
    dim = chunks * WORDS * KINDS[kind]
    anchors, keys = (draw(-4, 5, (rows, dim)).astype(np.float32) for rows in (128, keys_there))
    out = np.full((128, 128), np.nan, np.float32)
    operands = (np.ascontiguousarray(in_words(m, kind)) for m in (anchors, keys))
    program.run(entry or f"product_{kind}", *operands, chunks, keys_there, out)
    expected = np.zeros((128, 128), np.float32)
    expected[:, :keys_there] = anchors @ keys.T
    return out, expected


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}{s.seed}")
@pytest.mark.parametrize(("chunks", "keys_there"), [(1, 128), (2, 1), (4, 77)])
@pytest.mark.parametrize("kind", KINDS)
def test_emulated(kind: str, chunks: int, keys_there: int, schedule: Schedule) -> None:
    program = device_programs.emulated(NAME)
    program.configure(schedule)
    np.testing.assert_array_equal(*tile_product(program, kind, chunks, keys_there))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}{s.seed}")
@pytest.mark.parametrize("bug", ["no_wait", "no_barrier", "no_barrier_before_reuse"])
def test_a_seeded_bug_is_caught(bug: str, schedule: Schedule) -> None:
    program = device_programs.emulated(NAME)
    program.configure(schedule)
    with pytest.raises(AssertionError, match=r"race|copies|copy|unordered|read of|write"):
        tile_product(program, "bfloat16", 4, entry=bug)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: str) -> None:
    np.testing.assert_array_equal(*tile_product(device_programs.on_gpu(NAME), kind, 4, 77))


def test_in_machine_code() -> None:
    kernels, instructions = device_programs.machine_code(NAME)
    assert len(kernels) == len(KINDS)
    assert all(kernel.stack == 0 for kernel in kernels)
    for found in instructions.values():
        for pattern in (r"HMMA\.16(?:816|88)\.F32", r"LDSM\.16\.M88\.4", r"LDGSTS\.E\.BYPASS\.128"):
            assert any(re.match(pattern, one) for one in found), pattern
