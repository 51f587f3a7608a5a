"""csrc/cuda/tensor_cores/rounding.h against real products: the scores of tensor cores are within
the margin of the canonical similarity, and their rounding errors are within the assumed bounds.
"""

from __future__ import annotations

import device_programs
import numpy as np
import pytest
import torch
from device_programs import Program
from elements import as_read, in_words, worst_case
from emulated import Schedule
from structures import DTYPES
from torch import Tensor
from torch.nn.functional import normalize

from usucl_ext import similarities

ROWS = 128  # anchors, and keys, of a tile
DIMS = (64, 128, 1024)
KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "tf32": torch.float32}


def random(dim: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(ROWS, dim, generator=generator), dim=1)


def uneven(dim: int, generator: torch.Generator) -> Tensor:
    """Terms of all magnitudes: small ones lose what lies below the last bit of the greatest."""
    exponent = torch.rand(ROWS, dim, generator=generator) * -12
    return random(dim, generator).sign() * exponent.exp2()


def cancelling(dim: int, generator: torch.Generator) -> Tensor:
    """A large first term, its opposite at the end, and small terms of one sign in between."""
    rows = random(dim, generator).abs() * 2**-6
    rows[:, 0], rows[:, -1] = 1, -1
    return rows


def growing(dim: int, generator: torch.Generator) -> Tensor:
    """Terms of one sign: every sum exceeds the terms added to it and is truncated each time."""
    return 1 + torch.rand(ROWS, dim, generator=generator) / 8


DRAWN = {one.__name__: one for one in (random, uneven, cancelling, growing)}


def operands(case: str, elements: torch.dtype, dim: int) -> tuple[Tensor, Tensor]:
    """Anchors in float32, and keys that are exact in the element type."""
    generator = torch.Generator().manual_seed(dim)
    if case == "worst":
        scale = torch.linspace(0.5, 3, ROWS)[:, None]
        anchors = worst_case(elements, dim, key=False) * scale
        key = worst_case(elements, dim, key=True) if elements == torch.float32 else torch.ones(dim)
        keys = key * scale.flip(0)
    else:
        anchors = DRAWN[case](dim, generator)
        keys = DRAWN["uneven" if case == "uneven" else "random"](dim, generator)
        keys = keys.abs() if case in ("growing", "cancelling") else keys
    return anchors, keys.to(elements).float()


def check(program: Program, margins: Program, case: str, kind: str, dim: int) -> None:
    """Checks every score of a tile; prints which share of the allowed error was used."""
    elements = KINDS[kind]
    anchors, keys = operands(case, elements, dim)
    # As in the dense pass: anchors rounded to the elements, float32 keys unchanged.
    read = as_read(anchors, elements, key=False), as_read(keys, elements, key=True)
    words = [np.ascontiguousarray(in_words(one.numpy(), kind)) for one in (read[0].float(), keys)]
    out = np.full((ROWS, ROWS), np.nan, np.float32)
    if "wgmma" in program.name:
        greatest = np.zeros((ROWS, 1, 4), np.float32)
        program.run(f"scores_{kind}", words[0], ROWS, words[1], ROWS, dim, out, greatest)
    else:
        chunks = words[0].shape[1] // 32
        program.run(f"product_{kind}", words[0], words[1], chunks, ROWS, out)
    score = torch.from_numpy(out).double()

    exact, norms = read[0] @ read[1].T, read[0].norm(dim=1)[:, None] * read[1].norm(dim=1)
    assumed = (1.25 * dim * 2.0**-23) * norms
    parts = np.zeros(2, np.float32)
    margins.run("margin", DTYPES[torch.float32], DTYPES[elements], dim, parts)
    of_anchor, of_key = anchors.double().norm(dim=1)[:, None], keys.double().norm(dim=1)
    allowed = float(parts[0]) * of_anchor * of_key + float(parts[1]) * (of_anchor + of_key + 1)
    index = torch.arange(ROWS).expand(ROWS, -1).contiguous()
    chain = similarities(anchors, keys.to(elements), index).double()

    sums, all_of_it = (score - exact).abs() / assumed, (score - chain).abs() / allowed
    print(f"{program.name} {kind} {case} {dim}: sums off by {sums.max():.3f} of what is assumed, "
          f"scores by {all_of_it.max():.3f} of the margin")  # fmt: skip
    assert sums.max() <= 1
    assert all_of_it.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*DRAWN, "worst"])
def test_emulated(case: str, kind: str) -> None:
    program = device_programs.emulated("margin")
    program.configure(Schedule())
    check(program, program, case, kind, 128)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*DRAWN, "worst"])
def test_on_a_gpu_by_mma_sync(case: str, kind: str, dim: int) -> None:
    program = device_programs.on_gpu("margin")
    check(program, program, case, kind, dim)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*DRAWN, "worst"])
def test_on_a_gpu_by_wgmma(case: str, kind: str, dim: int) -> None:
    if not torch.cuda.is_available() or device_programs.arch() != "sm_90a":
        pytest.skip("needs a Hopper GPU")
    margins = device_programs.on_gpu("margin")
    check(device_programs.on_gpu("wgmma_core"), margins, case, kind, dim)
