"""Builds the emulation and provides the emulated kernels to the tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kernel_list
import pytest
from emulated import SCHEDULES, Emulator
from kernel_list import ROOT

BUILD = ROOT / "build" / "cmake"


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    tool = str(beside) if beside.is_file() else shutil.which(name)
    if tool is None:
        pytest.skip(f"no {name}: install the 'dev' extra")
    return tool


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def emulation_build() -> Path:
    """The folder of the emulation's library and programs, built from the current sources."""
    cmake, ninja = _tool("cmake"), _tool("ninja")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # several sessions may build at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(cmake, ninja)


def _build(cmake: str, ninja: str) -> Path:
    _run(cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}")
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    _run(cmake, "--build", str(BUILD), "--target", "emulation", "-j", jobs)
    return BUILD / "tests" / "emulation"


@pytest.fixture(scope="session")
def library(emulation_build: Path) -> Emulator:
    return Emulator(emulation_build / "libemulated.so")


@pytest.fixture(params=SCHEDULES, ids=lambda schedule: f"{schedule.order}{schedule.seed}")
def emulator(request: pytest.FixtureRequest, library: Emulator) -> Iterator[Emulator]:
    """The kernels under each schedule, with the race check; records which ones the test ran."""
    library.schedule = request.param
    library.configure()
    library.take_kernels()
    yield library
    kernel_list.note(library.take_kernels(), request.node.originalname)
