"""A comparison that is stopped ends at once, and with it the processes that do its runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import BACKBONE, make_data

LONG = ("steps=100000", "epochs=1", "frames=4", "videos=2", "image_size=32", f"backbone={BACKBONE}")

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="there is no /proc")


def parents() -> dict[int, int]:
    """Returns the parent of every running process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def catches_sigterm(process: int) -> bool:
    """Whether a process handles SIGTERM, which Lightning does while it trains."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    caught = int(re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.at_length),
    ],
)
def test_no_process_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    command = [sys.executable, "-m", "usucl", "compare", str(data), "--out", str(tmp_path / "out")]
    command += ["--arms", "simclr", "both", "--processes", "2", "--quiet", "--set", *LONG]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as comparison:
        children: set[int] = set()
        until = time.monotonic() + 120
        trained = 0
        while trained < 2 and time.monotonic() < until and comparison.poll() is None:
            time.sleep(0.2)
            now = parents()
            children = {child for child, parent in now.items() if parent == comparison.pid}
            trained = sum(map(catches_sigterm, children))
        assert trained == 2, comparison.stderr and comparison.stderr.read()
        comparison.send_signal(number)
        try:
            comparison.wait(timeout=60)
        finally:
            comparison.kill()
    until = time.monotonic() + 60
    while children & parents().keys() and time.monotonic() < until:
        time.sleep(0.2)
    assert not children & parents().keys()
    assert comparison.returncode == (128 + number if number == signal.SIGTERM else -number)
