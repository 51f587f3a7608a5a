"""What nvcc made of the CUDA kernels, read from the library; needs no GPU and no PyTorch.

``python -m benchmarks.cuda_binary [LIBRARY]`` prints registers, memory, spills and the theoretical
occupancy of every kernel. ``tests/ext/test_cuda_binary.py`` says what they must be.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python -m benchmarks.cuda_binary"


@dataclass(frozen=True)
class Kernel:
    """One kernel in one architecture's machine code.

    Attributes:
        arch: ``"sm_90a"``.
        name: without namespaces and arguments, ``"select_kernel<float>"``.
        registers: per thread.
        stack: bytes of stack frame per thread: spilled registers and arrays, in slow local memory.
        shared: static bytes per thread block; what a launch asks for on top is not in the binary.
        threads: most threads in a thread block; 0 if the kernel has no launch bounds.
        instructions: opcodes, such as ``"FFMA"``, in the order of the code.
    """

    arch: str
    name: str
    registers: int
    stack: int
    shared: int
    threads: int
    instructions: Sequence[str]


@dataclass(frozen=True)
class Library:
    """A library of CUDA kernels.

    Attributes:
        path: its file.
        size: in bytes, host code included.
        kernels: of all architectures.
        ptx: kernel name to its lines of PTX; empty where the library holds none.
    """

    path: Path
    size: int
    kernels: Sequence[Kernel]
    ptx: Mapping[str, Sequence[str]]

    @property
    def archs(self) -> list[str]:
        return sorted({kernel.arch for kernel in self.kernels})


@dataclass(frozen=True)
class Multiprocessor:
    """What a multiprocessor holds at once (CUDA C++ Programming Guide, Compute Capabilities)."""

    threads: int
    blocks: int
    shared: int  # bytes
    registers: int = 65536


_MULTIPROCESSORS = {
    (8, 0): Multiprocessor(2048, 32, 164 * 1024),
    (8, 6): Multiprocessor(1536, 16, 100 * 1024),
    (8, 9): Multiprocessor(1536, 24, 100 * 1024),
    (9, 0): Multiprocessor(2048, 32, 228 * 1024),
    (10, 0): Multiprocessor(2048, 32, 228 * 1024),
    (12, 0): Multiprocessor(1536, 24, 100 * 1024),
}
_WARP, _REGISTERS_AT_ONCE, _SHARED_AT_ONCE, _SCHEDULERS = 32, 256, 128, 4
_RESERVED_SHARED = 1024  # bytes per block


def occupancy(kernel: Kernel) -> float | None:
    """Returns the share of resident warps of a multiprocessor, at the largest block allowed.

    It is None if the architecture's limits are not listed here or the kernel names no block size.
    """
    limits = _MULTIPROCESSORS.get(_capability(kernel.arch))
    if limits is None or kernel.threads == 0:
        return None
    warps = -(-kernel.threads // _WARP)
    per_warp = _up(kernel.registers * _WARP, _REGISTERS_AT_ONCE)
    by_registers = limits.registers // _SCHEDULERS // per_warp * _SCHEDULERS // warps
    by_shared = limits.shared // _up(kernel.shared + _RESERVED_SHARED, _SHARED_AT_ONCE)
    by_threads = limits.threads // (warps * _WARP)
    blocks = min(by_registers, by_shared, by_threads, limits.blocks)
    return blocks * warps * _WARP / limits.threads


def _capability(arch: str) -> tuple[int, int]:
    """Returns ``(9, 0)`` for ``"sm_90a"``."""
    digits = re.sub(r"\D", "", arch)
    return int(digits[:-1]), int(digits[-1])


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def find_cuobjdump() -> Path | None:
    """Returns the toolkit's cuobjdump, that on PATH, or the one inside the triton package."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(home) / "bin") for home in homes if home]
    found = shutil.which("cuobjdump", path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    if found:
        return Path(found)
    triton = importlib.util.find_spec("triton")
    for place in (triton and triton.submodule_search_locations) or ():
        inside = Path(place) / "backends" / "nvidia" / "bin" / "cuobjdump"
        if inside.is_file():
            return inside
    return None


def find_library() -> Path | None:
    """Returns ``USUCL_CUDA_LIBRARY``, or the library built in place for this Python."""
    named = os.environ.get("USUCL_CUDA_LIBRARY")
    if named:
        return Path(named)
    places = [ROOT / "usucl_ext" / f"_C_cuda{suffix}" for suffix in EXTENSION_SUFFIXES]
    return next((place for place in places if place.is_file()), None)


def read(library: Path, cuobjdump: Path) -> Library:
    """Returns all that cuobjdump tells of a library.

    Raises:
        FileNotFoundError: there is no such library.
        RuntimeError: cuobjdump fails, or finds no kernels; the message says which.
    """
    size = library.stat().st_size
    codes: dict[tuple[str, str], _Code] = {}
    for flag, take in (
        ("--dump-resource-usage", _take_resources),
        ("--dump-sass", _take_instructions),
        ("--dump-elf", _take_threads),
    ):
        take(dump(cuobjdump, flag, library), codes)
    if not codes:
        raise RuntimeError(f"{library} must have CUDA kernels, got none")
    kernels = [
        Kernel(arch, readable(name), c.registers, c.stack, c.shared, c.threads, c.instructions)
        for (arch, name), c in codes.items()
    ]
    ptx = _ptx(dump(cuobjdump, "--dump-ptx", library))
    return Library(library, size, sorted(kernels, key=lambda k: (k.arch, k.name)), ptx)


def dump(tool: Path, flag: str, library: Path) -> str:
    """Returns what cuobjdump prints with this flag.

    Raises:
        RuntimeError: it fails; the message is its own.
    """
    done = subprocess.run([tool, flag, library], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{tool} {flag} {library}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@dataclass
class _Code:
    registers: int = 0
    stack: int = 0
    shared: int = 0
    threads: int = 0
    instructions: list[str] = field(default_factory=list)


_Codes = dict[tuple[str, str], _Code]


def _in_arch(text: str) -> Iterator[tuple[str, str]]:
    """Yields (architecture, line) of machine code; lines of PTX are left out."""
    arch, elf = "", False
    for line in text.splitlines():
        if line.startswith("Fatbin "):
            elf = "elf" in line
        elif line.startswith("arch = "):
            arch = line.removeprefix("arch = ").strip()
        elif elf:
            yield arch, line


def _take_resources(text: str, codes: _Codes) -> None:
    name = ""
    for arch, line in _in_arch(text):
        function = re.match(r"\s*Function (\S+):$", line)
        if function:
            name = function.group(1)
        elif name and "REG:" in line:
            told = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", line))
            code = codes.setdefault((arch, name), _Code())
            code.registers, code.shared = int(told["REG"]), int(told["SHARED"])
            if code.shared and _capability(arch) >= (9, 0):
                code.shared -= _RESERVED_SHARED  # included there, unlike on earlier architectures
            code.stack = int(told["STACK"]) + int(told["LOCAL"])
            name = ""


def _take_instructions(text: str, codes: _Codes) -> None:
    code = _Code()
    for arch, line in _in_arch(text):
        function = re.match(r"\s*Function : (\S+)", line)
        instruction = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", line)
        if function:
            code = codes.setdefault((arch, function.group(1)), _Code())
        elif instruction:
            code.instructions.append(instruction.group(1))


def _take_threads(text: str, codes: _Codes) -> None:
    name, waiting = "", False
    for arch, line in _in_arch(text):
        section = re.match(r"\.nv\.info\.(\S+)$", line)
        if section:
            name, waiting = section.group(1), False
        elif "EIATTR_MAX_THREADS" in line:
            waiting = True
        elif waiting and "Value:" in line:
            x, y, z = (int(size, 16) for size in re.findall(r"0x[0-9a-f]+", line)[:3])
            codes.setdefault((arch, name), _Code()).threads = x * y * z
            waiting = False


def _ptx(text: str) -> dict[str, list[str]]:
    kernels: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        entry = re.search(r"\.entry (\w+)\(", line)
        if entry:
            lines = kernels.setdefault(readable(entry.group(1)), [])
        else:
            lines.append(line.strip())
    return kernels


def readable(mangled: str) -> str:
    """Returns ``select_kernel<float>`` for a C++ symbol, and any other symbol as it is."""
    try:
        demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle  # there wherever PyTorch is
    except (OSError, AttributeError):
        return mangled
    demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    found = demangle(mangled.encode(), None, None, ctypes.byref(status))
    if status.value != 0 or not found:
        return mangled
    name = ctypes.string_at(found).decode()  # a few bytes each, never freed
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    name = re.sub(r"\b(?:\w+::)+", "", name)
    return re.sub(r"\(\w[\w ]*\)(?=-?\d)", "", name).split("(", 1)[0]  # (int)3 as an argument


def table(library: Library) -> str:
    """Returns Markdown: one line per kernel and architecture, then the size of the file."""
    head = "kernel", "arch", "registers", "spills, B", "static shared, B", "threads", "occupancy"
    lines = [head, ("---", "---", *["--:"] * 5)]
    for kernel in library.kernels:
        share = occupancy(kernel)
        figures = kernel.registers, kernel.stack, kernel.shared, kernel.threads or "-"
        shown = "-" if share is None else f"{100 * share:.0f} %"
        lines.append((kernel.name, kernel.arch, *map(str, figures), shown))
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    ptx = f"PTX of {len(library.ptx)} kernels" if library.ptx else "no PTX"
    archs = ", ".join(library.archs)
    return f"{rows}\n\n{library.path.name}: {library.size / 2**20:.1f} MiB, {archs}, {ptx}."


def absent_reason() -> str:
    """Returns why nothing can be read here; empty where it can."""
    if find_library() is None:
        return "no CUDA library: usucl_ext._C_cuda is not built (USUCL_CUDA_LIBRARY names one)"
    if find_cuobjdump() is None:
        return "no cuobjdump in CUDA_HOME, on PATH or in the triton package"
    return ""


def command(
    prog: str,
    description: str | None,
    report: Callable[[Path, Path], str],
    arguments: Sequence[str] | None,
) -> int:
    """Prints ``report(library, cuobjdump)`` for the library named in ``arguments``.

    Returns 0; 1 with a line on standard error where nothing can be read.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("library", type=Path, nargs="?", help="by default the one built in place")
    options = parser.parse_args(arguments)
    library, tool = options.library or find_library(), find_cuobjdump()
    if library is None or tool is None:
        print(f"{prog}: {absent_reason()}", file=sys.stderr)
        return 1
    try:
        print(report(library, tool))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of all kernels."""
    return command(COMMAND, __doc__, lambda library, tool: table(read(library, tool)), arguments)


if __name__ == "__main__":
    sys.exit(main())
