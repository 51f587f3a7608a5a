"""Bugs seeded in the kernels themselves: each barrier removed, each atomic append made plain.

Each mutant is compiled and run on a few problems. A race, an error or a wrong result must reveal
it, so no unnecessary barrier stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import check
from device_programs import EMULATED, RACE_CHECKED
from emulated import Emulator, Schedule
from kernel_list import EMULATOR, ROOT
from strategies import Problem, plain_problem

pytestmark = pytest.mark.skipif(
    not os.environ.get("USUCL_MUTANTS"), reason="minutes of compiling: set USUCL_MUTANTS=1"
)

CUDA = ROOT / "csrc" / "cuda"
SITES = {
    "barrier": (re.compile(r"(__syncthreads|__syncwarp|Team::sync|Warpgroup::sync)\(\);"), ";"),
    "atomic": (re.compile(r"\batomicAdd\("), "plain_add("),
}
PLAIN_ADD = """
template <typename Value>
__device__ Value plain_add(Value* address, Value value) {
  const Value old = *address;
  *address = old + value;
  return old;
}
"""
FLAGS = (*EMULATED, *RACE_CHECKED, "-xc++")


def mutants() -> list[tuple[str, str, int]]:
    """Returns (kind, file in csrc/cuda, index of the site in the file)."""
    found = []
    for path in sorted([*CUDA.glob("**/*.cu"), *CUDA.glob("**/*.h")]):
        if path.name in ("device.h", "hopper.h"):
            continue
        for kind, (pattern, _) in SITES.items():
            sites = len(pattern.findall(path.read_text()))
            name = path.relative_to(CUDA).as_posix()
            found += [(kind, name, site) for site in range(sites)]
    return found


def mutated(kind: str, text: str, site: int) -> tuple[str, int]:
    pattern, replacement = SITES[kind]
    match = list(pattern.finditer(text))[site]
    line = text[: match.start()].count("\n") + 1
    changed = text[: match.start()] + replacement + text[match.end() :]
    return changed, line


def build(folder: Path, build_folder: Path, kind: str, name: str, site: int) -> tuple[Path, int]:
    """Builds a library with the mutant; returns it and the line of the mutant."""
    shutil.copytree(ROOT / "csrc" / "core", folder / "csrc" / "core")
    cuda = shutil.copytree(CUDA, folder / "csrc" / "cuda")
    source = cuda / name
    text, line = mutated(kind, source.read_text(), site)
    source.write_text(text)
    problem = cuda / "device_problem.h"
    problem.write_text(
        problem.read_text().replace(
            "namespace usucl::cuda {", "namespace usucl::cuda {" + PLAIN_ADD
        )
    )
    includes = ["-I", str(folder / "csrc"), "-I", str(EMULATOR)]
    objects = []
    for original in sorted(cuda.glob("**/*.cu")):
        unchanged = source.suffix == ".cu" and original != source
        kept = build_folder / "CMakeFiles" / "emulated_kernels.dir" / "__" / "__" / "csrc" / "cuda"
        if unchanged:
            objects.append(str(kept / f"{original.relative_to(cuda)}.o"))
            continue
        objects.append(str(original.with_suffix(".o")))
        compiler = os.environ.get("CXX", "c++")
        subprocess.run(
            [compiler, *FLAGS, *includes, "-c", str(original), "-o", objects[-1]], check=True
        )
    library = folder / "mutant.so"
    entry = build_folder / "CMakeFiles" / "emulated.dir" / "emulator" / "library.cpp.o"
    emulator = build_folder / "libemulator.a"
    subprocess.run(
        ["c++", "-shared", "-o", str(library), str(entry), *objects, str(emulator), "-ldl"],
        check=True,
    )
    return library, line


ONE_LAUNCH, BY_CHAIN = {"one_launch": True}, {"one_launch": False}
DENSE = {"one_launch": False, "smallest_dense": 0}
WARPGROUPS = {**DENSE, "warpgroups": True}


def telling_problems() -> list[tuple[dict[str, Any], Problem]]:
    """Pairs (launches, problem) that together cover every branch of the kernels."""
    long_lists = plain_problem(rows=34, dim=2, keys=(1500,), window=(0.0, 1e9), intra_k=3)
    long_lists.blocks[0].embedding[:, 0] = long_lists.blocks[0].time / 400.0
    long_lists.blocks[0].embedding[:, 1] = 0.0
    broken = plain_problem(rows=70, dim=3, keys=(1, 2), reduction="none")
    broken.anchors.embedding[::2, 0] = torch.nan
    # Ascending similarities in a bank larger than the lists: these are cut, also by their own bar.
    rising = plain_problem(dtype=torch.bfloat16, rows=150, dim=16, keys=(900,), cross_k=20)
    rising.anchors.embedding[:] = rising.anchors.embedding[0]
    bank = rising.blocks[0].embedding
    bank.copy_(bank[(bank.float() @ rising.anchors.embedding[0].float()).argsort()])
    equal = plain_problem(rows=130, dim=8, keys=(700,), cross_k=3)
    equal.blocks[0].embedding[:] = equal.blocks[0].embedding[0]
    # Anchors beyond float16, which only the chain can settle.
    beyond = plain_problem(rows=40, dim=8, keys=(150,), margin=-0.1)
    beyond.anchors.embedding[::2] *= 1e6
    beyond.blocks[0] = beyond.blocks[0]._replace(embedding=beyond.blocks[0].embedding.half())
    dense = [
        rising,
        equal,
        beyond,
        plain_problem(
            dtype=torch.bfloat16, rows=20, dim=200, keys=(300, 140), cross_k=30, cross_skip=3
        ),
        plain_problem(dtype=torch.float16, rows=5, dim=1500, keys=(260,), cross_k=7),
    ]
    return [
        (ONE_LAUNCH, plain_problem(rows=40, dim=300, keys=(140,))),
        (ONE_LAUNCH, broken),
        (BY_CHAIN, plain_problem(rows=33, dim=300, keys=(140, 9), reduction="none")),
        (BY_CHAIN, broken),
        (BY_CHAIN, long_lists),
        (BY_CHAIN, plain_problem(rows=3, dim=2, keys=(1000, 2100), cross_k=5)),
        (BY_CHAIN, plain_problem(rows=300, dim=2, keys=(40,))),
        *((launches, problem) for launches in (DENSE, WARPGROUPS) for problem in dense),
    ]


def is_told(library: Path) -> str | None:
    emulator = Emulator(library)
    for schedule in (Schedule("forward"), Schedule("random", seed=3, preemption=10)):
        emulator.schedule = schedule
        for launches, problem in telling_problems():
            # With one multiprocessor, blocks take several anchors each.
            emulator.configure(multiprocessors=1, **launches)
            try:
                check(emulator, problem, judge=False)
            except AssertionError as error:
                return str(error)
    return None


@pytest.mark.parametrize(("kind", "name", "site"), mutants())
def test_mutant_is_told(
    emulation_build: Path, tmp_path: Path, kind: str, name: str, site: int
) -> None:
    library, line = build(tmp_path, emulation_build, kind, name, site)
    told: str | None = "it crashed"
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as aside,
        contextlib.suppress(BrokenProcessPool),
    ):
        told = aside.submit(is_told, library).result()
    assert told is not None, f"nothing tells {name} without the {kind} of line {line}"


def test_the_original_is_not_told(emulation_build: Path) -> None:
    assert is_told(emulation_build / "libemulated.so") is None
