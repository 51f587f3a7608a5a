"""Builds the two native libraries of usucl_ext; everything else is in pyproject.toml.

Environment:
    USUCL_CUDA            auto (default): build the CUDA library if it can be; 1: fail if it
                          cannot; 0: do not.
    TORCH_CUDA_ARCH_LIST  CUDA architectures; by default those of the GPU here, or a portable list.
    MAX_JOBS              parallel compilers; by default as many as cores and memory allow.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import find_namespace_packages, setup

try:
    import torch
except ImportError:
    sys.exit(
        "usucl needs torch to build: leave out --no-build-isolation, or first run "
        "pip install torch 'setuptools>=77' ninja 'pybind11>=3' numpy"
    )

ROOT = Path(__file__).parent.resolve()
PORTABLE_ARCHS = ("8.0", "9.0", "12.0")
OLDEST_GCC = 11  # knows the instructions of AMX
BYTES_PER_JOB = 2 << 30


def run(*command: str) -> str:
    """Returns standard output and error of a command; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def constant(pattern: str, file: str) -> tuple[str, ...]:
    """Returns what a pattern's groups match in a file of usucl_ext, which cannot be imported."""
    found = re.search(pattern, (ROOT / "usucl_ext" / file).read_text(encoding="utf-8"))
    assert found is not None, (pattern, file)
    return found.groups()


def check_torch(oldest: tuple[int, ...]) -> None:
    release = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if release < oldest:
        wanted = ".".join(map(str, oldest))
        sys.exit(f"usucl needs torch {wanted} or newer to build, got {torch.__version__}")


def check_compiler() -> None:
    """Ends with a sentence where the C++ files cannot be compiled."""
    if os.name == "nt":
        sys.exit("usucl is built on Linux, got Windows: use the Windows Subsystem for Linux")
    cxx = os.environ.get("CXX", "c++")
    if shutil.which(cxx.split()[0]) is None:
        sys.exit(f"usucl needs a C++ compiler: {cxx} not found (install g++, or set CXX)")
    macros = run(*cxx.split(), "-dM", "-E", "-x", "c++", os.devnull)
    gcc = re.search(r"__GNUC__ (\d+)", macros)
    if gcc and "__clang__" not in macros and int(gcc[1]) < OLDEST_GCC:
        sys.exit(
            f"usucl needs GCC {OLDEST_GCC} or newer, or Clang: {cxx} is GCC {gcc[1]} (set CXX)"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        sys.exit(f"usucl needs the headers of Python: {header} not found (install python3-dev)")


def find_cuda_home() -> Path | None:
    """Returns the toolkit with headers; the nvcc on PATH may be a wrapper elsewhere."""
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        with tempfile.NamedTemporaryFile(suffix=".cu") as empty:
            top = re.search(r"\bTOP=(\S+)", run(nvcc, "--dryrun", empty.name))
        candidates += [top and top.group(1), str(Path(nvcc).resolve().parents[1])]
    candidates += ["/usr/local/cuda", "/opt/cuda"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "include" / "cuda_runtime.h").is_file():
            return Path(candidate).resolve()
    return None


def cuda_absent_reason(home: Path | None) -> str:
    """Returns why the CUDA library is not built; empty if it is."""
    wish = os.environ.get("USUCL_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        sys.exit(f"USUCL_CUDA must be auto, 0 or 1, got {wish!r}")
    if wish == "0":
        return "USUCL_CUDA=0"
    reason = ""
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA"
    elif home is None:
        reason = "no CUDA toolkit found (set CUDA_HOME)"
    elif toolkit_version(home).split(".")[0] != torch.version.cuda.split(".")[0]:
        reason = (
            f"CUDA toolkit {toolkit_version(home)} and torch's CUDA {torch.version.cuda} "
            "differ in their major version"
        )
    if reason and wish == "1":
        sys.exit(f"USUCL_CUDA=1, but the CUDA library cannot be built: {reason}")
    return reason


def toolkit_version(home: Path) -> str:
    found = re.search(r"release (\d+\.\d+)", run(str(home / "bin" / "nvcc"), "--version"))
    return found.group(1) if found else "unknown"


def choose_archs(home: Path) -> str:
    """Returns TORCH_CUDA_ARCH_LIST, which torch itself cannot choose without a GPU."""
    wish = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if wish:
        return wish
    if torch.cuda.is_available():
        capabilities = {
            torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())
        }
        return ";".join(
            f"{a}.{b}{'a' if (a, b) == (9, 0) else ''}" for a, b in sorted(capabilities)
        )
    known = run(str(home / "bin" / "nvcc"), "--list-gpu-arch")
    archs = [arch for arch in PORTABLE_ARCHS if f"compute_{arch.replace('.', '')}" in known]
    return ";".join(archs) + "+PTX"


def limit_jobs() -> None:
    if "MAX_JOBS" not in os.environ and hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        os.environ["MAX_JOBS"] = str(max(1, min(os.cpu_count() or 1, memory // BYTES_PER_JOB)))


def sources(*patterns: str) -> list[str]:
    paths = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return [str(path.relative_to(ROOT)) for path in sorted(paths)]


oldest = tuple(int(n) for n in constant(r"OLDEST_TORCH = \((\d+), (\d+)\)", "_requirements.py"))
check_torch(oldest)
# The LibTorch stable ABI of the oldest torch serves that and later ones.
TORCH_TARGET = "0x{:02x}{:02x}000000000000".format(*oldest)
cuda_home = find_cuda_home()
absent = cuda_absent_reason(cuda_home)
archs = ""
if not absent:
    assert cuda_home is not None
    os.environ["CUDA_HOME"] = str(cuda_home)
    os.environ["TORCH_CUDA_ARCH_LIST"] = archs = choose_archs(cuda_home)
limit_jobs()

# Reads CUDA_HOME when imported.
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402


def text(value: str) -> str:
    """Returns a C string literal for the value of a macro."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


compiler = run(os.environ.get("CXX", "c++"), "--version").splitlines()
facts = {
    "USUCL_BUILT_WITH_TORCH": torch.__version__,
    "USUCL_BUILT_WITH_CUDA": toolkit_version(cuda_home) if archs and cuda_home else "",
    "USUCL_CUDA_ARCHS": archs.replace(";", " "),
    "USUCL_CUDA_ABSENT_REASON": absent,
    "USUCL_COMPILER": compiler[0] if compiler else "unknown",
}
target = [("TORCH_TARGET_VERSION", TORCH_TARGET)]
# Contraction is off: a similarity is a chain of explicit multiply-adds, and nothing else is fused.
# Paths of the build machine stay out of error messages, all of which come from C++ files.
cxx = [
    "-O3",
    "-g0",  # with Python's own flags most of the file would be debug information
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    f"-fmacro-prefix-map={ROOT}/=",
    f"-fmacro-prefix-map={Path(torch.__file__).parent}/=",
]
# No path here: nvcc splits such an option at commas and hands it to a shell unquoted.
# The seed names what is local to a file; nvcc would take the number of its process.
nvcc = ["-O3", "-fmad=false", "--expt-relaxed-constexpr", "-frandom-seed=usucl"]

try:
    import pybind11

    pybind11_headers = [pybind11.get_include()]
except ImportError:  # where it cannot be installed, the headers inside torch serve as well
    pybind11_headers = []

extensions = [
    CppExtension(
        "usucl_ext._C",
        sources("csrc/torch/schemas.cpp", "csrc/*/cpu.cpp", "csrc/cpu/**/*.cpp"),
        include_dirs=pybind11_headers,
        define_macros=[*target, *((name, text(value)) for name, value in facts.items())],
        extra_compile_args={"cxx": cxx},
    )
]
if not absent:
    # Hopper's own instructions are compiled only for the architecture named 9.0a.
    hopper = [("USUCL_BUILT_FOR_HOPPER", None)] if "9.0a" in archs else []
    extensions.append(
        CUDAExtension(
            "usucl_ext._C_cuda",
            sources("csrc/*/cuda.cpp", "csrc/cuda/**/*.cpp", "csrc/cuda/**/*.cu"),
            include_dirs=pybind11_headers,
            define_macros=[*target, ("USE_CUDA", None), *hopper],
            extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        )
    )

print(f"usucl: python {platform.python_version()}, torch {torch.__version__}")
print(f"usucl: CUDA library: {'not built: ' + absent if absent else f'{cuda_home}, {archs}'}")


class Build(BuildExtension):
    def run(self) -> None:
        check_compiler()
        super().run()


setup(
    version=constant(r'__version__ = "(.+)"', "__init__.py")[0],
    packages=["usucl_ext", *find_namespace_packages("python", include=["usucl*"])],
    package_dir={"usucl": "python/usucl"},
    package_data={
        "usucl_ext": ["py.typed", "*.pyi"],
        "usucl": [
            "py.typed",
            "methods/*.yaml",
            "finetuning/*.yaml",
            "comparison/design/*.yaml",
            "data/recipes/*.yaml",
        ],
    },
    ext_modules=extensions,
    cmdclass={"build_ext": Build},
)
