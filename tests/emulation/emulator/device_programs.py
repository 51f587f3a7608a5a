"""Builds the test kernels (``programs/*.cu`` next to this folder) for the emulator and with nvcc.

It needs only the two compilers, as on a machine that has a GPU and little else.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
from ctypes import byref
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import Schedule, settings_of
from kernel_list import EMULATOR, ROOT

from benchmarks.cuda_binary import Kernel, find_cuobjdump, read, readable

PROGRAMS = EMULATOR.parent / "programs"
BUILD = ROOT / "build" / "device-programs"
INCLUDES = ("-I", str(ROOT / "csrc"), "-I", str(EMULATOR))
EMULATED = (
    *("-std=c++17", "-O1", "-g", "-fPIC", "-DUSUCL_EMULATION", "-ffp-contract=off"),
    "-fvisibility=hidden",
)
RACE_CHECKED = ("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0")
SOURCES = (
    *("emulator.cpp", "fibers.cpp", "mbarriers.cpp", "races.cpp", "tensor_core.cpp", "wgmma.cpp"),
)
WITHOUT_A_GPU = "sm_80"  # what is looked at then: the first with every instruction that is used


class Program:
    """A library's entry points; they take arrays and integers and return an error or null."""

    def __init__(self, library: Path) -> None:
        self.name = library.stem
        self._library = ctypes.CDLL(str(library))

    def configure(self, schedule: Schedule) -> None:
        """Sets the schedule of emulated programs."""
        self._library.configure(byref(settings_of(schedule)))

    def run(self, entry: str, *arguments: np.ndarray | int) -> None:
        function = self._library[entry]
        function.restype = ctypes.c_char_p
        error = function(*map(_passed, arguments))
        assert error is None, error.decode()

    def value(self, entry: str, *arguments: int) -> int:
        """Calls an entry point that computes on the host."""
        function = self._library[entry]
        function.restype = ctypes.c_int64
        return function(*map(_passed, arguments))


def _passed(argument: np.ndarray | int) -> ctypes.c_void_p | ctypes.c_int64:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    assert argument.flags.c_contiguous and argument.ctypes.data % 16 == 0
    return ctypes.c_void_p(argument.ctypes.data)


def log_of(built: Path) -> Path:
    """The output of the compiler that built it."""
    return built.with_name(f"{built.name}.log")


def _compile(out: Path, *command: str) -> Path:
    """Runs the command, which ends with ``-o``, unless its result is newer than every source."""
    sources = [
        *ROOT.glob("csrc/**/*.h"),
        *ROOT.glob("csrc/cuda/**/*.cu"),
        *EMULATOR.glob("*.h"),
        *EMULATOR.glob("*.cpp"),
        *PROGRAMS.glob("*.cu"),
        Path(__file__),
    ]
    if out.exists() and out.stat().st_mtime > max(one.stat().st_mtime for one in sources):
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{os.getpid()}-{out.name}")  # several sessions may build at once
    done = subprocess.run(
        [*command, "-o", str(unfinished)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log_of(out).write_text(done.stdout + done.stderr)
    return unfinished.replace(out)


@functools.cache
def emulated(name: str) -> Program:
    """Builds ``name``.cu for the emulator, with the race check."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    common = (compiler, *EMULATED, *INCLUDES)
    objects = [
        _compile(BUILD / f"{source}.o", *common, "-c", str(EMULATOR / source)) for source in SOURCES
    ]
    # A warning of a new compiler should be fixed, but it must not stop a run on a GPU.
    strict = () if torch.cuda.is_available() else ("-Wall", "-Wextra", "-Werror")
    kernels = (*RACE_CHECKED, *strict, "-Wno-unknown-pragmas", "-xc++")
    program = BUILD / f"{name}.cu.o"
    objects.append(_compile(program, *common, *kernels, "-c", str(PROGRAMS / f"{name}.cu")))
    library = BUILD / f"{name}-emulated.so"
    return Program(_compile(library, compiler, "-shared", *map(str, objects), "-ldl"))


def arch() -> str:
    """The GPU's architecture, with Hopper's own features."""
    if not torch.cuda.is_available():
        return WITHOUT_A_GPU
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")


@functools.cache
def compiled(name: str, architecture: str | None = None) -> Path:
    """Builds ``name``.cu with nvcc, by default for the GPU of this machine."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))
    if nvcc is None:
        pytest.skip("no nvcc on PATH or in CUDA_HOME")
    architecture = architecture or arch()
    flags = (
        *("-std=c++17", "-O3", f"-arch={architecture}", "-shared", "-Xcompiler", "-fPIC"),
        *("-fmad=false", "--expt-relaxed-constexpr"),
        *("-Xptxas", "-v"),
    )
    source, library = str(PROGRAMS / f"{name}.cu"), BUILD / f"{name}-{architecture}.so"
    return _compile(library, nvcc, *flags, *INCLUDES, source)


def on_gpu(name: str) -> Program:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return Program(compiled(name))


@functools.cache
def machine_code(
    name: str, architecture: str | None = None
) -> tuple[list[Kernel], dict[str, set[str]]]:
    """The instructions of ``name``.cu by kernel, with modifiers."""
    tool, library = find_cuobjdump(), compiled(name, architecture)
    if tool is None:
        pytest.skip("no cuobjdump in CUDA_HOME, on PATH or in the triton package")
    code = subprocess.run(
        [tool, "--dump-sass", library], capture_output=True, text=True, check=True
    )
    instructions: dict[str, set[str]] = {}
    found: set[str] = set()
    for line in code.stdout.splitlines():
        function = re.match(r"\s*Function : (\S+)", line)
        instruction = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", line)
        if function:
            found = instructions.setdefault(readable(function.group(1)), set())
        elif instruction:
            found.add(instruction.group(1))
    return list(read(library, tool).kernels), instructions
