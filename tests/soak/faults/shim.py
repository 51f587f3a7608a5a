"""``shim.c`` from Python: it is compiled, preloaded into processes, and told what to do there."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

COUNT, END, FAIL_FROM, FAIL_ONCE, SLOW, VANISH = range(6)  # as in shim.c

FAULTS: dict[str, tuple[int, int]] = {
    "SIGKILL": (END, signal.SIGKILL),
    "SIGTERM": (END, signal.SIGTERM),
    "Ctrl-C": (END, signal.SIGINT),
    "full disk": (FAIL_FROM, errno.ENOSPC),
    "read-only": (FAIL_FROM, errno.EROFS),
    "failed write": (FAIL_ONCE, errno.EIO),
    "vanished file": (VANISH, 0),
    "slow disk": (SLOW, 0),
}
"""What happens at a random operation on a file; on a slow disk a signal comes at a random time."""


@dataclass(frozen=True)
class Plan:
    """What is to happen, see ``shim.c``.

    Attributes:
        changed: folder whose changes are counted.
        read: folder whose files that are opened for reading are counted.
        kind: what happens.
        at: when, counted from 1.
        value: number of a signal or an error, or microseconds that each operation takes.
        victim: the file that vanishes.
        hidden: where it is meanwhile.
        log: descriptor of a file to which each operation is written, or -1.
    """

    changed: Path
    read: Path
    kind: int = COUNT
    at: int = 0
    value: int = 0
    victim: Path = Path("/dev/null")
    hidden: Path = Path("/dev/null")
    log: int = -1


def build(folder: Path) -> Path:
    """Compiles the library; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def arm(library: Path, plan: Plan) -> None:
    """Lets the plan begin in this process, into which the library has been preloaded."""
    ctypes.CDLL(str(library)).faults_arm(
        os.fsencode(plan.changed),
        os.fsencode(plan.read),
        plan.kind,
        ctypes.c_long(plan.at),
        plan.value,
        os.fsencode(plan.victim),
        os.fsencode(plan.hidden),
        plan.log,
    )
