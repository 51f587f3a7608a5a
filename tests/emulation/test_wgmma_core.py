"""csrc/cuda/tensor_cores/wgmma_core.h in a small pipelined kernel: emulated, and on a GPU."""

from __future__ import annotations

import re

import device_programs
import numpy as np
import pytest
import torch
from device_programs import Program
from elements import in_words
from emulated import SCHEDULES, Schedule

NAME, ARCHITECTURE = "wgmma_core", "sm_90a"
TILE_KEYS = 128
# Kind, anchors, keys, dim: full and partial tiles, one chunk of 128 bytes and more than stages.
CASES = (
    ("bfloat16", 64, 128, 64),
    ("bfloat16", 70, 300, 264),
    ("float16", 5, 129, 72),
    ("tf32", 65, 200, 100),
)


def scores(program: Program, kind: str, anchors: int, keys: int, dim: int) -> list[np.ndarray]:
    """Returns the actual and the expected results of the kernel in turn."""
    draw = np.random.default_rng(1).integers
    a, b = (draw(-8, 9, (rows, dim)).astype(np.float32) for rows in (anchors, keys))
    tiles = -(-keys // TILE_KEYS)
    out = np.full((anchors, keys), np.nan, np.float32)
    greatest = np.full((anchors, tiles, 4), np.nan, np.float32)
    words = [np.ascontiguousarray(in_words(rows, kind)) for rows in (a, b)]
    program.run(f"scores_{kind}", words[0], anchors, words[1], keys, dim, out, greatest)
    padded = np.zeros((anchors, tiles * TILE_KEYS), np.float32)  # the TMA fills with zeros
    padded[:, :keys] = a @ b.T
    of_threads = padded.reshape(anchors, tiles, TILE_KEYS // 8, 4, 2).max(axis=(2, 4))
    return [out, a @ b.T, greatest, of_threads]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}{s.seed}")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_emulated(case: tuple[str, int, int, int], schedule: Schedule) -> None:
    program = device_programs.emulated(NAME)
    program.configure(schedule)
    out, expected, greatest, of_threads = scores(program, *case)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(greatest, of_threads)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_on_a_gpu(case: tuple[str, int, int, int]) -> None:
    if not torch.cuda.is_available() or device_programs.arch() != ARCHITECTURE:
        pytest.skip("needs a Hopper GPU")
    out, expected, greatest, of_threads = scores(device_programs.on_gpu(NAME), *case)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(greatest, of_threads)


@pytest.mark.parametrize("name", [NAME, "nominate_hopper"])
def test_in_machine_code(name: str) -> None:
    """The code has no spills, no products that wait for each other and no copies of sums."""
    kernels, instructions = device_programs.machine_code(name, ARCHITECTURE)
    assert {kernel.stack for kernel in kernels} == {0}
    assert set(instructions) == {kernel.name for kernel in kernels}
    for wanted in ("HGMMA.64x128x", "UTMALDG.2D", "USETMAXREG", "SYNCS."):
        assert all(any(wanted in one for one in used) for used in instructions.values()), wanted
    log = device_programs.log_of(device_programs.compiled(name, ARCHITECTURE)).read_text()
    assert not re.search(r"warning|\(C\d+\)|serializ", log, re.IGNORECASE), log
