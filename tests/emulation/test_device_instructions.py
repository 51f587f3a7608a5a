"""Every PTX instruction of csrc/cuda/device.h by itself: emulated against index formulas in numpy,
compiled by nvcc, and on a GPU bit for bit against the emulator.

The formulas map an element to its lane and register; the emulator maps in the other direction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import device_programs
import numpy as np
import pytest
from device_programs import Program
from elements import in_words
from emulated import SCHEDULES, Schedule
from kernel_list import ROOT

NAME = "instructions"
# Maps a function of device.h to the kernel that calls it and to its machine code.
IN_MACHINE_CODE = {
    "load_relaxed": ("relaxed_load", r"LDG?\.E\.64\.STRONG\.GPU"),
    "copy_async_16": ("asynchronous_copies", r"LDGSTS\.E\.BYPASS\.128(\.ZFILL)?"),
    "copy_async_commit": ("asynchronous_copies", r"LDGDEPBAR"),
    "copy_async_wait": ("asynchronous_copies", r"DEPBAR\.LE"),
    "load_matrices": ("matrix_load<false>", r"LDSM\.16\.M88\.4"),
    "load_matrices_transposed": ("matrix_load<true>", r"LDSM\.16\.MT88\.4"),
    "mma_bfloat16": ("matrix_product<0>", r"HMMA\.16816\.F32\.BF16"),
    "mma_float16": ("matrix_product<1>", r"HMMA\.16816\.F32"),
    "mma_tf32": ("matrix_product<2>", r"HMMA\.1688\.F32\.TF32"),
}

# Each case runs on any program and returns the actual and the expected result.
Case = Callable[[Program], tuple[np.ndarray, np.ndarray]]


def words(*shape: int, dtype: type = np.uint32) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def load_relaxed(program: Program) -> tuple[np.ndarray, np.ndarray]:
    values = words(32, dtype=np.uint64)
    out = np.zeros_like(values)
    program.run("load_relaxed", values, out)
    return out, values


def copies(there: int) -> Case:
    def case(program: Program) -> tuple[np.ndarray, np.ndarray]:
        values = words(32, 4)
        out = np.full((2, 32, 4), 77, np.uint32)
        program.run("copy_async", values, there, out)
        has_source = there >> np.arange(32) & 1 == 1
        expected = np.where(has_source[:, None], values, np.uint32(0))
        return out, np.stack((expected, expected[::-1]))

    return case


def matrix_loads(transposed: bool, rows: Sequence[int]) -> Case:
    def case(program: Program) -> tuple[np.ndarray, np.ndarray]:
        elements, out = words(32, 8, dtype=np.uint16), np.zeros((32, 4), np.uint32)
        name = "load_matrices_transposed" if transposed else "load_matrices"
        program.run(name, elements, np.array(rows, np.int32), out)
        expected = np.zeros((32, 4, 2), np.uint16)
        for matrix, content in enumerate(elements[np.array(rows)].reshape(4, 8, 8)):
            for (row, column), element in np.ndenumerate(content.T if transposed else content):
                expected[4 * row + column // 2, matrix, column % 2] = element
        return out, expected.view(np.uint32)[..., 0]

    return case


def fragments(matrix: np.ndarray, registers: int) -> np.ndarray:
    """Returns [32, registers] of a matrix [8 or 16, 8]: 8 x 4 words per register, by column."""
    out = np.zeros((32, registers), matrix.dtype)
    for (row, column), word in np.ndenumerate(matrix):
        register = row // 8 + len(matrix) // 8 * (column // 4)
        out[row % 8 * 4 + column % 4, register] = word
    return out


def sum_fragments(matrix: np.ndarray) -> np.ndarray:
    """Returns [32, 4] of a matrix [16, 8]: lanes hold two adjacent columns."""
    out = np.zeros((32, 4), np.float32)
    for (row, column), value in np.ndenumerate(matrix):
        out[row % 8 * 4 + column // 2, row // 8 * 2 + column % 2] = value
    return out


def products(kind: str, below_precision: bool = False) -> Case:
    """Products of small integers, for which any order of summation is exact."""

    def case(program: Program) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(2).integers
        depth = 8 if kind == "tf32" else 16
        a, b, start = (
            draw(-8, 9, shape).astype(np.float32) for shape in ((16, depth), (depth, 8), (16, 8))
        )
        a_words = fragments(in_words(a, kind), 4)
        b_words = fragments(in_words(np.ascontiguousarray(b.T), kind), 2)
        if below_precision:  # float32 has 13 bits of mantissa that TF32 has not
            a_words |= draw(0, 1 << 13, a_words.shape, np.uint32)
            b_words |= draw(0, 1 << 13, b_words.shape, np.uint32)
        out = sum_fragments(start)
        program.run(f"mma_{kind}", a_words, b_words, out)
        return out, sum_fragments(start + a @ b)

    return case


CASES: dict[str, Case] = {
    "load_relaxed": load_relaxed,
    **{f"copies-{there:08x}": copies(there) for there in (0xFFFFFFFF, 0, 0x0F35A001)},
    **{
        f"{'transposed-' if transposed else ''}loads-{name}": matrix_loads(transposed, rows)
        for transposed in (False, True)
        for name, rows in {
            "in-order": range(32),
            "any-order": np.random.default_rng(3).permutation(32).tolist(),
            "one-row": [5] * 32,
        }.items()
    },
    **{kind: products(kind) for kind in ("bfloat16", "float16", "tf32")},
    "tf32-of-float32": products("tf32", below_precision=True),
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
    gpu, program = device_programs.on_gpu(NAME), device_programs.emulated(NAME)
    program.configure(Schedule())
    assert CASES[case](gpu)[0].tobytes() == CASES[case](program)[0].tobytes()


def test_every_instruction_has_a_kernel() -> None:
    """Everything that device.h writes in assembly is listed here."""
    text = (ROOT / "csrc" / "cuda" / "device.h").read_text()
    written = set(re.findall(r"^USUCL_MMA\((\w+),", text, re.MULTILINE))
    name = ""
    for line in text.splitlines():
        function = re.match(r"__device__ inline [\w ]+? (\w+)\(", line)
        name = function.group(1) if function else name
        if re.search(r"\basm volatile\(", line) and "instruction" not in line:
            written.add(name)
    assert written == set(IN_MACHINE_CODE)


@pytest.mark.parametrize("function", IN_MACHINE_CODE)
def test_in_machine_code(function: str) -> None:
    kernel, pattern = IN_MACHINE_CODE[function]
    _, instructions = device_programs.machine_code(NAME)
    assert [one for one in instructions[kernel] if re.fullmatch(pattern, one)], instructions


def test_the_kernels_are_nothing_else() -> None:
    kernels, instructions = device_programs.machine_code(NAME)
    assert set(instructions) == {kernel for kernel, _ in IN_MACHINE_CODE.values()}
    assert all(kernel.stack == 0 for kernel in kernels)
