"""Lists all kernels, and those that the emulated tests of a session have run.

A pytest plugin: with pytest-xdist every process notes what its tests ran, and the controlling
process checks all notes together. A session with all emulated tests fails if no test has run some
kernel or an instance of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

EMULATOR = Path(__file__).resolve().parent
ROOT = EMULATOR.parents[2]
LIST = ROOT / "build" / "emulated-kernels.md"
# Kernels that only hardware can run, with the reason.
HARDWARE_ONLY: dict[str, str] = {}

_run: dict[str, set[str]] = {}  # names with template arguments, and the tests
_gaps: list[str] = []


def note(kernels: set[str], test: str) -> None:
    """Records that the test ran these kernels."""
    for kernel in kernels:
        _run.setdefault(kernel, set()).add(test)


def kernels_in_source() -> set[str]:
    bounds = r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)"
    pattern = re.compile(rf"__global__\s+void\s+(?:{bounds}\s*)?(\w+)\s*\(")
    sources = [*ROOT.glob("csrc/cuda/**/*.cu"), *ROOT.glob("csrc/cuda/**/*.h")]
    return {name for source in sources for name in pattern.findall(source.read_text())}


def gaps(run: Mapping[str, set[str]], sources: set[str]) -> list[str]:
    """The faults of a whole session: each kernel must run, for both float and double."""
    names = {kernel.split("<")[0].split("::")[-1] for kernel in run}
    other = {"float": "double", "double": "float"}
    instances = {re.sub(r"\b(float|double)\b", lambda m: other[m[0]], kernel) for kernel in run}
    idle = (sources - names - set(HARDWARE_ONLY)) | (instances - set(run))
    return [
        *(f"no emulated test runs {kernel}" for kernel in sorted(idle)),
        *(f"{name} ran, but is not found in the sources" for name in sorted(names - sources)),
    ]


def _all_are_asked_for(config: pytest.Config) -> bool:
    folders = [(config.invocation_params.dir / argument).resolve() for argument in config.args]
    options = config.option
    partly = options.keyword or options.markexpr or options.maxfail or options.deselect
    return not partly and any(EMULATOR.is_relative_to(folder) for folder in folders)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        notes = {kernel: sorted(tests) for kernel, tests in _run.items()}
        session.config.workeroutput["emulated_kernels"] = notes
    elif _run:
        if _all_are_asked_for(session.config):
            _gaps.extend(gaps(_run, kernels_in_source()))
        if _gaps and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for kernel, tests in getattr(node, "workeroutput", {}).get("emulated_kernels", {}).items():
        _run.setdefault(kernel, set()).update(tests)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _run:
        return
    lines = ["| kernel | emulated tests |", "|---|---|"]
    for kernel, tests in sorted(_run.items()):
        lines.append(f"| `{kernel.replace('{anonymous}::', '')}` | {', '.join(sorted(tests))} |")
    LIST.parent.mkdir(exist_ok=True)
    LIST.write_text("\n".join(lines) + "\n")
    where = LIST.relative_to(ROOT)
    terminalreporter.write_line(f"{len(_run)} kernels ran emulated, listed in {where}")
    for gap in _gaps:
        terminalreporter.write_line(f"emulation: {gap}", red=True)
