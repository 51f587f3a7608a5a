"""What the GPU suite does, in order of worth, each stage a command with a limit of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CUDA_TESTS, BINARY_TESTS = "tests/ext/test_cuda.py", "tests/ext/test_cuda_binary.py"
REST = ("-k", "cuda", f"--ignore={CUDA_TESTS}", f"--ignore={BINARY_TESTS}")  # by their device
# Tests of single device instructions against what the emulator of the kernels makes of them; those
# that are there are run.
INSTRUCTION_TESTS = tuple(
    f"tests/emulation/test_{name}.py"
    for name in ("device_instructions", "mma_core", "hopper", "wgmma_core")
)
# (N, M) and the seconds of its stage. D = 128, intra_k = 3, cross_k = 32.
SHAPES = (((512, 65536), 60), ((4096, 65536), 60), ((4096, 1048576), 120), ((32, 96), 40))
HARD_ORDERS = ("correlated", "ascending", "one video")
SANITIZERS = {
    "memcheck": "accesses out of bounds",
    "racecheck": "races in shared memory",
    "initcheck": "reads of memory that nothing wrote",
    "synccheck": "barriers that not all threads reach",
}
SMALL_TESTS = "mixed_in or empty or broken or (bounds and 129)"  # a sanitizer slows them 100 times
BUILD = "build"


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage, unique.
        what: it shows.
        command: run in the repository's root.
        limit: seconds it may take.
        environment: beside the suite's own.
        gpu: whether it needs one.
        needs: stages that must have passed, of those that are part of the run.
        missing: why it cannot run here; empty if it can.
    """

    name: str
    what: str
    command: Sequence[str]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = True
    needs: Sequence[str] = (BUILD,)
    missing: str = ""


def stages(capability: Sequence[int] | None, rows: Path, arch: str = "") -> list[Stage]:
    """All stages, the most useful first: correct before fast, the goals' shapes before others.

    Args:
        capability: of the GPU, ``(9, 0)``; None where there is none.
        rows: file that the benchmarks append their rows to.
        arch: to build for, as in TORCH_CUDA_ARCH_LIST; by default the GPU's own.
    """
    first, *shapes = (_loss(shape, limit, rows) for shape, limit in SHAPES)
    memcheck, *sanitizers = (_sanitizer(tool, what) for tool, what in SANITIZERS.items())
    binary = _pytest(
        "binary", "registers, spills, shared memory, machine code", 60, BINARY_TESTS, "-s"
    )
    return [
        _build(capability, arch),
        *map(_instructions, INSTRUCTION_TESTS),
        _pytest("CUDA tests", "against oracle and CPU; streams, graphs", 120, CUDA_TESTS),
        *(_on_hopper() if capability == (9, 0) else ()),
        replace(binary, gpu=False),
        first,
        memcheck,
        *shapes,
        _benchmark("ceilings", "matmul and copy", 40, rows, 3, "--ceilings"),
        *sanitizers,
        *(_hard_order(order, rows) for order in HARD_ORDERS),
        _sweep(SHAPES[0][0], 90, rows, 1.0),
        _pytest("all tests", "of usucl_ext, those on the GPU", 150, "tests/ext", *REST),
        *([] if capability else _on_cpu(rows)),
    ]


def arch_of(capability: Sequence[int]) -> str:
    """For TORCH_CUDA_ARCH_LIST; with the instructions that Hopper alone has, and with PTX."""
    major, minor = capability
    return f"{major}.{minor}{'a' if (major, minor) == (9, 0) else ''}+PTX"


def find_sanitizer() -> str | None:
    """compute-sanitizer of the toolkit, or on PATH."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / "bin") for home in homes if home]
    return shutil.which(
        "compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *folders])
    )


def _build(capability: Sequence[int] | None, arch: str) -> Stage:
    """For the GPU or not at all; where there is none, for what the machine allows."""
    portable = os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0+PTX")
    environment = {
        "TORCH_CUDA_ARCH_LIST": arch or (arch_of(capability) if capability else portable),
        "USUCL_CUDA": "1" if capability else "auto",
    }
    command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    return Stage(BUILD, "both native libraries, in place", command, 240, environment, False, ())


def _pytest(name: str, what: str, limit: float, path: str, *options: str) -> Stage:
    missing = "" if (ROOT / path).exists() else f"{path} is not there"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, *options)
    return Stage(name, what, command, limit, missing=missing)


def _instructions(path: str) -> Stage:
    return _pytest(Path(path).stem.removeprefix("test_"), "against its emulation", 60, path)


def _on_hopper() -> tuple[Stage, ...]:
    tests = _pytest("CUDA tests, warpgroups", "nominations by wgmma", 90, CUDA_TESTS)
    return (replace(tests, environment={"USUCL_CUDA_WARPGROUPS": "1"}),)


def _sanitizer(tool: str, what: str) -> Stage:
    tests = _pytest(tool, what, 90, CUDA_TESTS, "-k", SMALL_TESTS)
    found = find_sanitizer()
    sanitizer = (
        found or "compute-sanitizer", "--tool", tool, "--error-exitcode", "99",
        "--target-processes", "all", "--kernel-name", "kns=usucl", "--print-limit", "20",
    )  # fmt: skip
    return replace(
        tests,
        command=(*sanitizer, *tests.command),
        # A piece of memory for each tensor: in PyTorch's large blocks errors would go unseen.
        environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        missing="" if found else "no compute-sanitizer in CUDA_HOME or on PATH",
    )


def _benchmark(
    name: str, what: str, limit: float, rows: Path, seconds: float, *options: str
) -> Stage:
    command = (sys.executable, "-m", "benchmarks.gpu_loss", "--rows", str(rows))
    return Stage(name, what, (*command, "--seconds", f"{seconds:g}", *options), limit)


def _loss(shape: tuple[int, int], limit: float, rows: Path) -> Stage:
    n, m = shape
    name, what = f"loss {n} x {m}", "ours, its graph, torch.mm, eager, chunked eager"
    seconds = limit / 8  # for each of two dtypes; the rest for start, checks and warming up
    return _benchmark(name, what, limit, rows, seconds, "--shape", str(n), str(m))


def _hard_order(order: str, rows: Path) -> Stage:
    n, m = SHAPES[0][0]
    options = ("--shape", str(n), str(m), "--order", order, "--dtype", "bfloat16")
    return _benchmark(f"keys {order}", f"order of the keys, {n} x {m}", 30, rows, 4, *options)


def _sweep(shape: tuple[int, int], limit: float, rows: Path, seconds: float) -> Stage:
    around = ("--shape", *map(str, shape), "--sweep", "--dtype", "bfloat16")
    return _benchmark(
        "sweep", "k, D, N, M, float16; ours and torch.mm", limit, rows, seconds, *around
    )


def _on_cpu(rows: Path) -> list[Stage]:
    """The benchmarks' own code on a problem of no interest: an error in it costs no GPU then."""
    what, here = "the benchmark's own code", ("--device", "cpu")
    dry = (
        _benchmark("loss on the CPU", what, 60, rows, 0.2, "--shape", "16", "512", *here),
        _benchmark(
            "sweep on the CPU", what, 60, rows, 0.05, "--shape", "16", "512", "--sweep", *here
        ),
        _benchmark("ceilings on the CPU", what, 60, rows, 0.2, "--ceilings", *here),
    )
    return [replace(stage, gpu=False) for stage in dry]
