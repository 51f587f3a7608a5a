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
        *((name, versions[name] or "absent: not installed") for name in PACKAGES),
    ]


def _absent(reason: str) -> str:
    return f"absent: {reason}"
