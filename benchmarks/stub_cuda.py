"""Python processes on a CUDA runtime that does nothing (cpp/stub_cuda.cpp)."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "benchmarks" / "cpp" / "stub_cuda.cpp"
VARIABLE = "USUCL_STUB_CUDA"  # names the library in processes that run on it


class Counts(NamedTuple):
    """What the runtime was asked for; see the source."""

    launches: int
    memsets: int
    mallocs: int
    copies: int
    waits: int
    queries: int
    events: int


def absent_reason() -> str | None:
    """Returns why there can be no such process, or None if there can."""
    if _headers() is None:
        return "no CUDA headers (set CUDA_HOME)"
    if _compiler() is None:
        return "no C++ compiler (set CXX)"
    return None


def build(folder: Path) -> Path:
    """Compiles the library into the folder and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libstub_cuda.so"
    command = [str(_compiler()), "-std=c++17", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
    # PyTorch loads the driver by this name, and finds the stub already loaded.
    command += ["-isystem", str(_headers()), "-Wl,-soname,libcuda.so.1"]
    done = subprocess.run(
        [*command, str(SOURCE), "-o", str(library), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return library


def environment(library: Path) -> dict[str, str]:
    """Returns the environment of a process that runs on the library."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        VARIABLE: str(library),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


class Stub:
    """The library, inside a process that runs on it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[VARIABLE])
        self._library.stub_take_names.restype = ctypes.c_char_p

    def take(self) -> Counts:
        """Returns the counts since the last call."""
        counts = (ctypes.c_int64 * len(Counts._fields))()
        self._library.stub_take(counts)
        return Counts(*counts)

    def take_kernels(self) -> list[str]:
        """Returns the kernels launched since the last call, in order; the first call starts it."""
        mangled = self._library.stub_take_names().decode().split()
        return [_name(kernel) for kernel in mangled]

    def set_busy(self, busy: bool) -> None:
        """Makes the device look as if nothing launched were done, or ends that."""
        self._library.stub_set_busy(ctypes.c_bool(busy))

    def set_capturing(self, captures: bool) -> None:
        """Makes streams look as if a graph were being captured, or ends that."""
        self._library.stub_set_capturing(ctypes.c_bool(captures))


def _name(mangled: str) -> str:
    """Returns the innermost name: nested names are written as their lengths and letters."""
    name, at = mangled, 3  # after _ZN
    while (length := re.match(r"\d+", mangled[at:])) is not None:
        first = at + length.end()
        at = first + int(length.group())
        name = mangled[first:at]
    return name


def _headers() -> Path | None:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = (Path(home) / "include" for home in homes if home)
    return next((folder for folder in folders if (folder / "cuda_runtime_api.h").is_file()), None)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++"))
