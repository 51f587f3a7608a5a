"""Two processes that train together, of which one is killed at a random moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.soak.faults.commands import Folders, train
from tests.soak.faults.differences import damaged, differences

_PATIENCE = 300.0  # seconds


def lose_ranks(
    root: Path, points: int, until: float, draw: Random
) -> tuple[Counter[str], list[str]]:
    """Kills a rank again and again; returns the outcomes, and what was not as it should be.

    Args:
        root: folder with the inputs.
        points: how often.
        until: no more after that time, by the monotonic clock.
        draw: the source of the rank and of the moment.
    """
    place = root / "ranks"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    whole = _folders(root, place / "whole")
    start = time.monotonic()
    code, said = _wait(_start(whole, place), place)
    if code:
        return Counter(), [f"two processes ended with {code}: {said}"]
    seconds, counts, found = time.monotonic() - start, Counter[str](), []
    for _ in range(points):
        if time.monotonic() > until:
            break
        out = _folders(root, place / "out")
        shutil.rmtree(out.out, ignore_errors=True)
        rank, moment = draw.randrange(2), draw.uniform(0, seconds)
        process = _start(out, place)
        time.sleep(moment)
        members = _members(process.pid)
        victim = members.get(rank)
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        code, said = _wait(process, place)
        faults = [
            f"rank {r} goes on" for r, pid in members.items() if Path(f"/proc/{pid}").exists()
        ]
        outcome = "done" if code == 0 else "told"
        if victim is not None and code not in (0, 2):
            faults.append(f"it ended with {code}")
        if code == 2 and not (f"rank {rank} of 2 was lost" in said and "usucl: error: " in said):
            faults.append("the message does not name the rank")
        if code == 2 and not ("resume" in said or "start again" in said):
            faults.append("the message tells no way to go on")
        faults += [f"damaged: {file}" for file in damaged(out.out)]
        code, again = _wait(_start(out, place, "--resume"), place)
        if code:
            faults.append(f"going on ended with {code}: {again}")
        else:
            faults += [f"after going on, {line}" for line in differences(out.out, whole.out)[:5]]
        counts[outcome] += 1
        if faults:
            found.append(
                f"train, lost rank, rank {rank} after {moment:.2f} of {seconds:.2f} s: "
                f"{'; '.join(faults)}; it said: {said}"
            )
            print(found[-1], flush=True)
    return counts, found


def _folders(root: Path, out: Path) -> Folders:
    return Folders(root / "inputs" / "videos", root / "inputs" / "run", out)


def _start(folders: Folders, place: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [*train(folders), "devices=2", *more, "--quiet"]
    environment = {**os.environ, "USUCL_CACHE": str(place / "cache")}
    with (place / "stderr.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "usucl", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def _wait(process: subprocess.Popen[bytes], place: Path) -> tuple[int, str]:
    """Returns the exit code and the last line on standard error."""
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    lines = (place / "stderr.txt").read_text("utf-8", "replace").splitlines()
    return process.returncode, lines[-1] if lines else ""


def _members(parent: int) -> dict[int, int]:
    """Returns the processes of the ranks that a process has started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            started_by = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        ranks = [int(text[5:]) for text in environment if text.startswith(b"RANK=")]
        if started_by == parent and ranks:
            found[ranks[0]] = int(folder.name)
    return found
