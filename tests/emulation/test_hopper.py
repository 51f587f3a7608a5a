"""Every function of csrc/cuda/hopper.h: emulated against index formulas in numpy, compiled by nvcc
for sm_90a, and on a GPU bit for bit against the emulator; and bugs that the emulation must find.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import device_programs
import numpy as np
import pytest
import torch
from device_programs import Program
from elements import in_words
from emulated import SCHEDULES, Schedule
from kernel_list import ROOT

NAME, ARCHITECTURE = "hopper_instructions", "sm_90a"
PRODUCT = "warpgroup_product<0>"
# Maps a function of hopper.h to the kernel that calls it and to its machine code; "" if ptxas
# needs no instruction for it.
IN_MACHINE_CODE = {
    "mbarrier_init": ("phases", r"SYNCS\.EXCH\.64"),
    "fence_mbarrier_init": ("phases", ""),
    "mbarrier_arrive": ("phases", r"SYNCS\.ARRIVE\.TRANS64\.A1T0"),
    "mbarrier_wait": ("phases", r"SYNCS\.PHASECHK\.TRANS64\.TRYWAIT"),
    "mbarrier_arrive_expect_tx": ("tile_load", r"SYNCS\.ARRIVE\.TRANS64"),
    "prefetch_tensor_map": ("tile_load", r"UTMACCTL\.PF"),
    "tma_load": ("tile_load", r"UTMALDG\.2D"),
    "fence_proxy_async": (PRODUCT, r"FENCE\.VIEW\.ASYNC\.S"),
    "wgmma_fence": (PRODUCT, r"WARPGROUP\.ARRIVE"),
    "wgmma_commit": (PRODUCT, ""),
    "wgmma_wait": (PRODUCT, r"WARPGROUP\.DEPBAR\.LE"),
    "wgmma_bfloat16": (PRODUCT, r"HGMMA\.64x128x16\.F32\.BF16"),
    "wgmma_float16": ("warpgroup_product<1>", r"HGMMA\.64x128x16\.F32"),
    "wgmma_tf32": ("warpgroup_product<2>", r"HGMMA\.64x128x8\.F32\.TF32"),
    "decrease_registers": ("warpgroups", r"USETMAXREG\.DEALLOC\.CTAPOOL"),
    "increase_registers": ("warpgroups", r"USETMAXREG\.TRY_ALLOC\.CTAPOOL"),
    "named_barrier_sync": ("warpgroups", r"BAR\.SYNC\.DEFER_BLOCKING"),
}
ANCHORS, KEYS, ROW_BYTES = 64, 128, 128

# Each case runs on any program and returns the actual and the expected result.
Case = Callable[[Program], tuple[np.ndarray, np.ndarray]]


def phases(program: Program) -> tuple[np.ndarray, np.ndarray]:
    out = np.full((9, 127), -1, np.int32)
    program.run("run_phases", 9, 128, out)
    return out, np.repeat(np.arange(9, dtype=np.int32), 127).reshape(9, 127)


def swizzled(rows: np.ndarray) -> np.ndarray:
    """Rows of 128 bytes in the TMA's layout: piece p of 16 bytes of row r goes to p ^ (r % 8)."""
    pieces = rows.view(np.uint8).reshape(len(rows), 8, 16)
    out = np.empty_like(pieces)
    for row, of_row in enumerate(pieces):
        for piece, content in enumerate(of_row):
            out[row, piece ^ row % 8] = content
    return out.reshape(len(rows), ROW_BYTES)


def tiles(dtype: type, dim: int, row: int, column: int) -> Case:
    def case(program: Program) -> tuple[np.ndarray, np.ndarray]:
        size, rows, stride = np.dtype(dtype).itemsize, 70, dim + 16
        matrix = np.random.default_rng(1).integers(1, 1 << 15, (rows, stride)).astype(dtype)
        out = np.zeros((ANCHORS, ROW_BYTES), np.uint8)
        program.run("load_tile", matrix, rows, dim, stride * size, size, row, column, out)
        wide = np.zeros((3 * rows + ANCHORS, 3 * dim + ROW_BYTES), dtype)
        wide[rows : 2 * rows, dim : 2 * dim] = matrix[:, :dim]
        tile = wide[rows + row :][:ANCHORS, dim + column :][:, : ROW_BYTES // size]
        return out, swizzled(np.ascontiguousarray(tile))

    return case


def products(kind: str, add: bool) -> Case:
    """Products of small integers, for which any order of summation is exact."""

    def case(program: Program) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(2).integers
        dim = 32 if kind == "tf32" else 64
        a, b = (draw(-8, 9, (rows, dim)).astype(np.float32) for rows in (ANCHORS, KEYS))
        start = draw(-8, 9, (ANCHORS, KEYS)).astype(np.float32)
        words = [np.ascontiguousarray(in_words(one, kind)) for one in (a, b)]
        if kind == "tf32":  # float32 has 13 bits of mantissa that TF32 has not
            words = [one | draw(0, 1 << 13, one.shape, np.uint32) for one in words]
        out = in_registers(start)
        program.run(f"product_{kind}", *words, int(add), out)
        return out, in_registers(start * add + a @ b.T)

    return case


def in_registers(matrix: np.ndarray) -> np.ndarray:
    """Returns [128 threads, 64] of a matrix [64, 128]."""
    out = np.zeros((128, 64), np.float32)
    for (row, column), value in np.ndenumerate(matrix):
        thread = row // 16 * 32 + row % 8 * 4 + column % 8 // 2
        out[thread, column // 8 * 4 + row % 16 // 8 * 2 + column % 2] = value
    return out


def turn_round(program: Program) -> tuple[np.ndarray, np.ndarray]:
    values, out = np.arange(256, dtype=np.int32), np.zeros(256, np.int32)
    program.run("turn_round", values, out)
    return out, values.reshape(2, 128)[:, ::-1].reshape(-1)


CASES: dict[str, Case] = {
    "phases": phases,
    **{
        f"tile-{np.dtype(dtype).name}-{dim}-{row}-{column}": tiles(dtype, dim, row, column)
        for dtype in (np.uint16, np.uint32)
        for dim, row, column in (
            *((128, 0, 0), (128, 6, 64), (128, 5, 3)),
            *((24, 20, 0), (128, -3, -7), (128, 69, 127), (128, 70, 0)),
        )
    },
    **{
        f"{kind}-{'added' if add else 'new'}": products(kind, add)
        for kind in ("bfloat16", "float16", "tf32")
        for add in (False, True)
    },
    "warpgroups": turn_round,
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.order}{s.seed}")
@pytest.mark.parametrize("case", CASES)
def test_emulated(case: str, schedule: Schedule) -> None:
    program = device_programs.emulated(NAME)
    program.configure(schedule)
    out, expected = CASES[case](program)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_as_emulated(case: str) -> None:
    if not torch.cuda.is_available() or device_programs.arch() != ARCHITECTURE:
        pytest.skip("needs a Hopper GPU")
    gpu, program = device_programs.on_gpu(NAME), device_programs.emulated(NAME)
    program.configure(Schedule())
    assert CASES[case](gpu)[0].tobytes() == CASES[case](program)[0].tobytes()


def test_every_function_has_a_kernel() -> None:
    text = (ROOT / "csrc" / "cuda" / "hopper.h").read_text()
    written = set(re.findall(r"^__device__ inline void (\w+)\(", text, re.MULTILINE))
    written |= set(re.findall(r"^USUCL_WGMMA\((\w+),", text, re.MULTILINE))
    assert written == set(IN_MACHINE_CODE)


@pytest.mark.parametrize("function", IN_MACHINE_CODE)
def test_in_machine_code(function: str) -> None:
    kernel, pattern = IN_MACHINE_CODE[function]
    _, instructions = device_programs.machine_code(NAME, ARCHITECTURE)
    if pattern:
        assert [one for one in instructions[kernel] if re.fullmatch(pattern, one)], instructions


def test_nothing_spills_and_no_product_is_serialised() -> None:
    kernels, _ = device_programs.machine_code(NAME, ARCHITECTURE)
    assert {kernel.stack for kernel in kernels} == {0}
    log = device_programs.log_of(device_programs.compiled(NAME, ARCHITECTURE)).read_text()
    assert "Compiling entry function" in log
    assert not re.search(r"warning|\(C\d+\)|serializ", log, re.IGNORECASE), log
    assert set(re.findall(r"(\d+) bytes spill", log)) == {"0"}


def test_compiles_for_other_architectures() -> None:
    """Other architectures get kernels that trap, because one library holds several."""
    _, instructions = device_programs.machine_code(NAME, "sm_80")
    assert not any("HGMMA" in one for found in instructions.values() for one in found)


# The report for each bug of hopper_bugs.cpp, under three schedules.
REPORTED = {
    "read-before-wait": "read before wgmma_wait of these sums",
    "sums-not-named": "read before wgmma_wait of these sums",
    "no-product-wait": "ended with products under way",
    "no-copy-wait": "read of a copy under way of shared memory",
    "no-release-wait": "write to the destination of a copy under way of shared memory",
    "released-too-early": "write after read of shared memory",
    "too-few-bytes": "more bytes copied than",
    "too-many-bytes": "phase 0 awaits 0 arrivals and 16 bytes",
    "wrong-parity": "read of a copy under way of shared memory",
    "parity-not-flipped": "read of a copy under way of shared memory",
    "wrong-stride": "groups of 8 rows are no multiple of 1024 bytes apart",
    "stride-of-two-groups": "wrong result",
    "misaligned-tile": "tile not aligned to 1024 bytes",
    "misaligned-operand": "groups of 8 rows do not begin at multiples of 1024 bytes",
    "operand-over-row": "crosses a row's end",
    "no-swizzle": "no swizzle of 128 bytes",
    "no-product-fence": "without wgmma_fence",
    "no-barrier-fence": "no fence_mbarrier_init before",
    "no-proxy-fence": "without fence_proxy_async after write of shared memory",
    "no-barrier-after-init": "write after write of shared memory",
    "not-initialised": "an mbarrier that is not initialised",
    "missing-arrival": "awaits 1 arrivals and 0 bytes",
    "sums-written": "sums of a product were written before wgmma_wait",
    "operands-differ": "differ within the warpgroup",
    "part-of-warpgroup": "divergent warpgroup",
    "no-named-barrier": "write after read of shared memory",
    "named-barrier-count": "named barrier 1 of",
}


def _run(build: Path, bug: str) -> tuple[int, str]:
    done = subprocess.run([build / "hopper_bugs", bug], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_found_without_a_bug(emulation_build: Path) -> None:
    assert _run(emulation_build, "none") == (0, "")


@pytest.mark.parametrize("bug", REPORTED)
def test_bug_is_reported(emulation_build: Path, bug: str) -> None:
    status, output = _run(emulation_build, bug)
    assert status == 1
    assert REPORTED[bug] in output
    if REPORTED[bug] not in ("wrong result", "ended with products under way"):
        assert "hopper_bugs.cpp:" in output
