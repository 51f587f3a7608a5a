"""What the GPU suite does, in two parts, whose stages are commands with a limit each.

Part 1 tells whether the kernels are right and how fast they are; part 2 adds mma.sync, which other
GPUs use, other programs and compute-sanitizer. In both, stages that only check results may run at
the same time; nothing else runs while times are taken. What may hang comes late.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {1: 240.0, 2: 330.0}  # for all stages of a part
CUDA_TESTS, BINARY_TESTS = "tests/ext/test_cuda.py", "tests/ext/test_cuda_binary.py"
REST = ("-k", "cuda", f"--ignore={CUDA_TESTS}", f"--ignore={BINARY_TESTS}")  # by their device
# Tests of single device instructions against the emulator of the kernels.
INSTRUCTION_TESTS = {
    name: f"tests/emulation/test_{name}.py"
    for name in ("device_instructions", "mma_core", "margin", "hopper", "wgmma_core")
}
GOALS = ((512, 65536), (4096, 65536), (4096, 1048576))  # (N, M); D = 128, intra_k = 3, cross_k = 32
IN_BATCH = (16384, 16384)  # as many pairs as the second goal
HARD_ORDERS = ("correlated", "ascending", "one video", "all equal")
# The launches of large problems for every size, then tensor cores that nominate from one pair on.
LAUNCHES = {"USUCL_CUDA_ONE_LAUNCH": "0"}
DENSE = {**LAUNCHES, "USUCL_CUDA_SMALLEST_DENSE": "0"}
MMA_SYNC = {"USUCL_CUDA_WARPGROUPS": "0"}  # where Hopper's own instructions would be taken
SANITIZERS = {
    "memcheck": "accesses out of bounds",
    "racecheck": "races in shared memory",
    "initcheck": "reads of memory that nothing wrote",
    "synccheck": "barriers that not all threads reach",
}
# A sanitizer slows tests down 100 times, so only a few of every kind are run.
SANITIZED = "crowded_keys or broken or (mixed_in_one and bfloat16) or (bounds and 129 and 130)"
BUILD = "build"
WORKERS = 3  # per test stage, of those that run at the same time


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: name of the stage, unique.
        what: what it shows.
        command: command, run in the repository's root.
        limit: seconds it may take.
        environment: variables in addition to the suite's own.
        gpu: whether it needs a GPU.
        needs: stages that must have passed, if they are part of the run.
        missing: why it cannot run here; empty if it can.
        shares: whether it may run at the same time as neighbours that may too.
        again: command to run once if it fails, to tell more; empty for none.
    """

    name: str
    what: str
    command: Sequence[str]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = True
    needs: Sequence[str] = (BUILD,)
    missing: str = ""
    shares: bool = False
    again: Sequence[str] = ()

    def after_failure(self) -> Stage:
        """Returns the failed tests alone, with each launch awaited: errors show their place."""
        waiting = {**self.environment, "CUDA_LAUNCH_BLOCKING": "1"}
        name, what = f"{self.name}, again", "what failed, each launch awaited"
        return replace(self, name=name, what=what, command=self.again, again=(), limit=40,
                       environment=waiting, needs=(), shares=False)  # fmt: skip


def stages(part: int, capability: Sequence[int] | None, rows: Path, arch: str = "") -> list[Stage]:
    """Returns the stages of a part, in order.

    Args:
        part: 1 or 2.
        capability: compute capability of the GPU, ``(9, 0)``; None if there is none.
        rows: file that the benchmarks append their rows to.
        arch: architecture to build for, as in TORCH_CUDA_ARCH_LIST; by default the GPU's own.
    """
    listed = _first(rows) if part == 1 else _second(rows, capability)
    return [_build(capability, arch), *listed, *([] if capability else _on_cpu(part, rows))]


def _first(rows: Path) -> list[Stage]:
    binary = _pytest("binary", "registers, spills, machine code", 75, (BINARY_TESTS,), "-s")
    return [
        _cuda_tests("CUDA tests", "against oracle and CPU; streams, graphs", {}),
        _cuda_tests("CUDA tests, launches", "by the launches of large problems", LAUNCHES),
        _cuda_tests("CUDA tests, dense", "tensor cores nominate, whatever the size", DENSE),
        _instructions("device_instructions", "against its emulation"),
        _instructions("mma_core", "products of tiles"),
        _instructions("margin", "what products round off, mma.sync", "mma_sync"),
        binary,
        *(_kernels(shape, rows) for shape in GOALS),
        *(_loss(shape, 25, rows, "goals", 2) for shape in GOALS),
        _benchmark("ceilings", "matmul and copy", 25, rows, 1.5, "--ceilings"),
    ]


def _second(rows: Path, capability: Sequence[int] | None) -> list[Stage]:
    narrow, first = ("--dtype", "bfloat16"), ("--shape", *map(str, GOALS[0]))
    hopper = capability is None or tuple(capability) == (9, 0)
    on_hopper = replace(
        _sanitizer("memcheck", "mma.sync", {**DENSE, **MMA_SYNC}),
        name="memcheck, mma.sync",
        needs=(BUILD, "CUDA tests, mma.sync"),
    )
    return [
        *(_loss(shape, 40, rows, "simple", 4, *narrow) for shape in GOALS),
        _loss((32, 96), 20, rows, "simple", 2, *narrow),
        *(_on_hopper(rows) if hopper else ()),
        _benchmark("hard orders", "of the keys", 30, rows, 2, *first, *narrow,
                   "--order", *HARD_ORDERS),
        _loss(GOALS[-1], 60, rows, "searches", 3, *narrow, "--k", "4", "16", "32"),
        _loss(IN_BATCH, 30, rows, "in batch", 2, *narrow),
        *(_sanitizer(tool, what, DENSE) for tool, what in SANITIZERS.items()),
        _pytest("all tests", "of usucl_ext", 75, ("tests/ext",), *REST, workers=WORKERS),
        _benchmark("sweep", "k, D, N, M, float16", 45, rows, 1, *first, *narrow, "--sweep"),
        *([on_hopper] if hopper else ()),
        _loss(GOALS[0], 60, rows, "compiled", 4, *narrow),
    ]  # fmt: skip


def _on_hopper(rows: Path) -> list[Stage]:
    """Returns stages of Hopper's instructions, and of the pass and its times without them."""
    alone = [
        _instructions("hopper", "against its emulation"),
        _instructions("wgmma_core", "products of tiles"),
        replace(_instructions("margin", "what products round off, wgmma", "wgmma"),
                name="margin, wgmma"),
    ]  # fmt: skip
    tests = _cuda_tests("CUDA tests, mma.sync", "mma.sync nominates", {**DENSE, **MMA_SYNC})
    kernels = _kernels(GOALS[-1], rows)
    timed = [
        *(_loss(shape, 25, rows, "mma.sync", 2) for shape in GOALS),
        replace(kernels, name=f"{kernels.name}, mma.sync", environment=MMA_SYNC),
    ]
    return [
        *alone,
        replace(tests, limit=50, shares=False),
        *(replace(one, needs=(BUILD, tests.name)) for one in timed),
    ]


def arch_of(capability: Sequence[int]) -> str:
    """Returns TORCH_CUDA_ARCH_LIST, with Hopper's own instructions and with PTX."""
    major, minor = capability
    return f"{major}.{minor}{'a' if (major, minor) == (9, 0) else ''}+PTX"


def find_sanitizer() -> str | None:
    """Returns compute-sanitizer of the toolkit, or on PATH."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / "bin") for home in homes if home]
    return shutil.which(
        "compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *folders])
    )


def _build(capability: Sequence[int] | None, arch: str) -> Stage:
    """Returns the build for the GPU or, if there is none, for what the machine allows."""
    portable = os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0+PTX")
    environment = {
        "TORCH_CUDA_ARCH_LIST": arch or (arch_of(capability) if capability else portable),
        "USUCL_CUDA": "1" if capability else "auto",
    }
    command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    return Stage(BUILD, "both native libraries, in place", command, 120, environment, False, ())


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _pytest(
    name: str, what: str, limit: float, paths: Sequence[str], *options: str, workers: int = 0
) -> Stage:
    """Returns a stage of tests that name themselves as they start: the last one named hung."""
    absent = [path for path in paths if not (ROOT / path).exists()]
    cache = ROOT / "build" / "pytest" / re.sub(r"\W+", "-", name)  # the tests that failed
    command = (sys.executable, "-m", "pytest", "-v", "--maxfail=2", "-o", f"cache_dir={cache}",
               *paths, *options)  # fmt: skip
    timed = ("--timeout=45", "--timeout-method=thread") if _has("pytest_timeout") else ()
    shared = ("-n", str(workers)) if workers and _has("xdist") else ()
    return Stage(name, what, (*command, *shared, *timed), limit, shares=True,
                 missing=f"{absent[0]} is not there" if absent else "",
                 again=(*command, "--last-failed"))  # fmt: skip


def _cuda_tests(name: str, what: str, environment: Mapping[str, str]) -> Stage:
    tests = _pytest(name, what, 80, (CUDA_TESTS,), workers=WORKERS)
    return replace(tests, environment=environment)


def _instructions(name: str, what: str, which: str = "") -> Stage:
    """Returns the tests of instructions on a GPU; the emulated ones run without one."""
    chosen = "on_a_gpu" + (f" and {which}" if which else "")
    return _pytest(name, what, 75, (INSTRUCTION_TESTS[name],), "-s", "-k", chosen)


def _sanitizer(tool: str, what: str, environment: Mapping[str, str]) -> Stage:
    tests = _pytest(tool, what, 75, (CUDA_TESTS,), "-k", SANITIZED)
    found = find_sanitizer()
    # initcheck must see all writes, those of PyTorch's kernels too.
    ours = () if tool == "initcheck" else ("--kernel-name", "kns=usucl")
    sanitizer = (
        found or "compute-sanitizer", "--tool", tool, "--error-exitcode", "99",
        "--target-processes", "all", *ours, "--print-limit", "20",
    )  # fmt: skip
    # Each tensor gets its own memory: in PyTorch's large blocks errors would go unseen.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = tuple(word for word in tests.command if not word.startswith("--timeout"))
    return replace(
        tests,
        command=(*sanitizer, *command),
        environment={**environment, **alone},
        missing="" if found else "no compute-sanitizer in CUDA_HOME or on PATH",
        again=(),
    )


def _kernels(shape: tuple[int, int], rows: Path) -> Stage:
    n, m = shape
    command = (sys.executable, "-m", "benchmarks.gpu_kernels", "--rows", str(rows),
               "--shape", str(n), str(m))  # fmt: skip
    return Stage(f"kernels {n} x {m}", "the time of every kernel", command, 25)


def _benchmark(
    name: str, what: str, limit: float, rows: Path, seconds: float, *options: str
) -> Stage:
    command = (sys.executable, "-m", "benchmarks.gpu_loss", "--rows", str(rows))
    return Stage(name, what, (*command, "--seconds", f"{seconds:g}", *options), limit)


def _loss(
    shape: tuple[int, int], limit: float, rows: Path, group: str, seconds: float, *options: str
) -> Stage:
    """Returns a stage of ``seconds`` per dtype and k, the rest being start, checks and warm-up."""
    n, m = shape
    options = ("--shape", str(n), str(m), "--group", group, *options)
    return _benchmark(f"{group} {n} x {m}", "times, each result checked", limit, rows, seconds,
                      *options)  # fmt: skip


def _on_cpu(part: int, rows: Path) -> list[Stage]:
    """Returns the benchmarks on a small problem, so that their own errors cost no GPU time."""
    what, here = "the benchmark's own code", ("--shape", "16", "512", "--device", "cpu")
    if part == 1:
        kernels = (sys.executable, "-m", "benchmarks.gpu_kernels", "--rows", str(rows), *here)
        dry = [
            Stage("kernels on the CPU", what, kernels, 60),
            _benchmark("goals on the CPU", what, 60, rows, 0.2, "--group", "goals", *here),
            _benchmark("ceilings on the CPU", what, 60, rows, 0.2, "--ceilings", *here),
        ]
    else:
        every = ("--group", "simple", "searches", "in batch", "compiled", "mma.sync")
        only = ("--dtype", "bfloat16")
        dry = [
            _benchmark("comparisons on the CPU", what, 60, rows, 0.2, *every, *only, *here),
            _benchmark("sweep on the CPU", what, 60, rows, 0.05, "--sweep", *only, *here),
        ]
    return [replace(stage, gpu=False, shares=True) for stage in dry]
