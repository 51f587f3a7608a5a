"""``usucl info`` and ``usucl bench``: show what is installed here, and how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from usucl.cli.console import is_quiet, table
from usucl.cli.parameters import NewFile

PACKAGES = (
    "torchvision",
    "lightning",
    "jsonargparse",
    "torchmetrics",
    "scikit-learn",
    "av",
    "pydicom",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "timm",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
)


def info(*, json_: bool = False) -> None:
    """Show what was built, which code is in use, versions, and why anything is absent.

    Args:
        json_: print JSON, for a program or a bug report.
    """
    from usucl import __version__
    from usucl._environment import version_of
    from usucl.losses import build_info

    facts = build_info()
    versions = {**dict(facts["versions"]), **{name: version_of(name) for name in PACKAGES}}  # type: ignore[call-overload]
    facts = {"usucl": __version__, **facts, "versions": versions}
    if json_:
        print(json.dumps(facts, indent=2))
        return
    table(["", ""], _rows(facts), title=f"usucl {facts['usucl']}")


def bench(*, quick: bool = False, out: NewFile | None = None) -> int:
    """Measure the loss against its alternatives (from a checkout of the sources).

    Results are checked before they are timed. It takes about ten minutes. Other libraries are
    measured if they are installed (python -m pip install --no-build-isolation -e '.[bench]').

    Args:
        quick: measure only small problems, in less than a minute.
        out: JSON file to write (default: a new one in benchmarks/results).
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise FileNotFoundError(
            "the benchmarks are not part of the installed package: clone the sources and "
            "install them in place (python -m pip install --no-build-isolation -e .)"
        )
    if out is not None and out.exists():
        raise FileExistsError(f"out must be a new file, got {out}: results are never overwritten")
    flags = [flag for flag, given in (("--quick", quick), ("--quiet", is_quiet())) if given]
    flags += [] if out is None else ["--out", str(out)]
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "benchmarks", *flags]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    versions = facts["versions"]
    cpu = (
        f"{facts['cpu_capability']} in use" if facts["native"] else _absent(facts["native_reason"])
    )
    cuda = _absent(facts["cuda_reason"])
    if facts["cuda"]:
        device = "a GPU is here" if facts["cuda_device"] else "no GPU is here"
        cuda = f"built for {' '.join(facts['archs'])}, {device}"
    torch = f"{versions['torch']}, " + (
        f"for CUDA {versions['torch_cuda']}" if versions["torch_cuda"] else "without CUDA"
    )
    return [
        ("CPU kernels", cpu),
        ("CUDA kernels", cuda),
        ("built with", f"torch {versions['built_with_torch']}, {versions['compiler']}"),
        ("Python", versions["python"]),
        ("torch", torch),
        *((name, versions[name] or _absent("not installed")) for name in PACKAGES),
        ("FAISS", _faiss(versions["faiss-cpu"], versions["faiss-gpu"], facts["cuda_device"])),
    ]


def _faiss(cpu: str | None, gpu: str | None, has_device: bool) -> str:
    """Returns where a bank's FAISS searches run, and what would change that."""
    if cpu and gpu:
        return "unsure: faiss-cpu and faiss-gpu hold the same module, so uninstall one of them"
    if gpu:
        return "on the GPU, for a bank on it" if has_device else "on the CPU: no GPU is here"
    if has_device:
        replaced = "pip uninstall faiss-cpu, then " if cpu else ""
        where = "on the CPU" if cpu else _absent("not installed")
        return f"{where}; for searches on the GPU {replaced}pip install 'usucl[faiss-gpu]'"
    return "on the CPU" if cpu else _absent("pip install 'usucl[faiss]'")


def _absent(reason: str) -> str:
    return f"absent: {reason}"
