"""Loads the native libraries, and tells what was built and why anything is absent.

``_C`` holds the operator schemas, the CPU kernels and the build's facts; ``_C_cuda`` only CUDA
kernels. They are separate so that a CPU-only PyTorch can load the first without the second.
"""

from __future__ import annotations

import platform
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import torch

_PACKAGE = Path(__file__).parent


def _built(name: str) -> Path | None:
    """Returns the file of a library for this Python, or None if it was not built."""
    files = (_PACKAGE / (name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _load_cpu() -> tuple[ModuleType | None, str | None]:
    try:
        from . import _C
    except ImportError as error:
        if _built("_C") is not None:
            return None, f"usucl_ext._C could not be loaded: {error}"
        missing = f"usucl_ext._C for Python {platform.python_version()} is not in {_PACKAGE}"
        if (_PACKAGE.parent / "setup.py").is_file():
            build = "python -m pip install --no-build-isolation -e ."
            return None, f"{missing}: build it with '{build}', or leave this folder of sources"
        return None, f"{missing}: install usucl again with the pip of this Python"
    return _C, None


def _load_cuda(built: ModuleType | None) -> tuple[ModuleType | None, str | None]:
    """Returns ``_C_cuda``, whose import registers its operators, or None and the reason why."""
    if built is None:
        return None, "usucl_ext._C is absent"
    facts = built.build_info()
    if not facts["cuda_built"]:
        return None, f"built without CUDA: {facts['cuda_absent_reason']}"
    if _built("_C_cuda") is None:
        return None, f"usucl_ext._C_cuda is not in {_PACKAGE.name}"
    if torch.version.cuda is None:
        return None, "this PyTorch is built without CUDA"
    ours, theirs = (str(cuda).split(".")[0] for cuda in (facts["cuda"], torch.version.cuda))
    if ours != theirs:
        return None, (
            f"usucl is built for CUDA {ours}, this PyTorch for CUDA {torch.version.cuda}: install "
            f"a PyTorch for CUDA {ours}, or build usucl with a toolkit of CUDA {theirs}"
        )
    try:
        from . import _C_cuda
    except ImportError as error:
        return None, f"usucl_ext._C_cuda could not be loaded: {error}"
    return _C_cuda, None


_native, _native_reason = _load_cpu()
_native_cuda, _cuda_reason = _load_cuda(_native)


def absent_reason(device: torch.device) -> str | None:
    """Returns why there is no native kernel for ``device``, or None where there is one."""
    if device.type in ("cpu", "meta"):  # on meta the operators give shapes alone
        return _native_reason
    if device.type == "cuda":
        return _cuda_reason
    return f"no native kernel for device type {device.type!r}"


def build_info() -> dict[str, object]:
    """Returns what was built, what is in use, and why anything is absent.

    Returns:
        A dict with ``native`` and ``cuda`` (bool: whether the CPU and CUDA kernels are loaded),
        ``native_reason`` and ``cuda_reason`` (str, or None where loaded), ``cuda_device`` (bool:
        whether there is a device to run on), ``cpu_capability`` (the instruction set in use),
        ``archs`` (CUDA architectures in the binary), and ``versions``.
    """
    facts = {} if _native is None else dict(_native.build_info())
    return {
        "native": _native_reason is None,
        "native_reason": _native_reason,
        "cpu_capability": facts.get("cpu_capability"),
        "cuda": _cuda_reason is None,
        "cuda_reason": _cuda_reason,
        "cuda_device": torch.cuda.is_available(),
        "archs": str(facts.get("archs", "")).split(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torch_cuda": torch.version.cuda,
            "built_with_torch": facts.get("torch"),
            "built_with_cuda": facts.get("cuda") or None,
            "compiler": facts.get("compiler"),
        },
    }
