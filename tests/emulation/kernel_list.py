"""Which kernels there are, and which emulated tests of this session ran each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "build" / "emulated-kernels.md"
RUN: dict[str, set[str]] = {}  # names with template arguments, and the tests


def kernels_in_source() -> set[str]:
    bounds = r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)"
    pattern = re.compile(rf"__global__\s+void\s+(?:{bounds}\s*)?(\w+)\s*\(")
    sources = [*ROOT.glob("csrc/cuda/**/*.cu"), *ROOT.glob("csrc/cuda/**/*.h")]
    return {name for source in sources for name in pattern.findall(source.read_text())}


def plain_name(kernel: str) -> str:
    return kernel.split("<")[0].split("::")[-1]


def whole_folder(config: pytest.Config) -> bool:
    """Whether all tests of this folder are in the session."""
    partly = any("::" in argument or argument.endswith(".py") for argument in config.args)
    return not (partly or config.option.keyword or config.option.maxfail)


def write() -> None:
    lines = ["| kernel | emulated tests |", "|---|---|"]
    for kernel, tests in sorted(RUN.items()):
        lines.append(f"| `{kernel.replace('{anonymous}::', '')}` | {', '.join(sorted(tests))} |")
    LIST.parent.mkdir(exist_ok=True)
    LIST.write_text("\n".join(lines) + "\n")
