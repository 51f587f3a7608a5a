"""A training of a million small steps, whose memory must stay as it is."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from runs import BACKBONE, make_data

from tests.soak.scale.memory import own_memory
from usucl.run_folder import RunFolder

STEPS_PER_EPOCH = 500
EVERY = 1.0  # seconds between looks at the process
GROWTH = 32 << 20  # bytes that allocators may differ by, without end they may not grow
OPTIONS: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 8,
    "bank": 64,
    "sampling.videos": 2,
    "sampling.frames": 2,
    "steps_per_epoch": STEPS_PER_EPOCH,
    "log_every": 50,
    "progress": False,
    "key.momentum": 0.9,
}


def run(folder: Path, steps: int, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """Trains for so many steps, or seconds; returns memory and files over time, and growth."""
    data = make_data(folder / "data", videos=6, frames=8)
    out = folder / "run"
    epochs = math.ceil(steps / STEPS_PER_EPOCH)
    process = multiprocessing.get_context("spawn").Process(
        target=_train, args=(data, out, {**OPTIONS, "epochs": epochs})
    )
    process.start()
    assert process.pid is not None
    deadline, memory, told = time.monotonic() + seconds, list[int](), False
    while process.is_alive():
        time.sleep(EVERY)
        if RunFolder(out).metrics.is_file():  # it is set up
            try:
                memory.append(own_memory(process.pid))
            except (FileNotFoundError, ProcessLookupError, StopIteration):
                break
        if time.monotonic() > deadline and not told:
            os.kill(process.pid, signal.SIGTERM)  # saves its last step and ends
            told = True
    process.join()
    if not memory or not (told or process.exitcode == 0):
        return {}, [f"the training ended with {process.exitcode}"]
    done = _last_step(RunFolder(out).metrics)
    files = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    part = max(1, len(memory) // 5)
    early, late = (
        statistics.median(p) for p in (memory[part : 2 * part] or memory, memory[-part:])
    )
    facts = {
        "steps": done,
        "early MiB": int(early) >> 20,
        "late MiB": int(late) >> 20,
        "metrics bytes per step": round(RunFolder(out).metrics.stat().st_size / max(done, 1), 2),
        "run folder MiB": files >> 20,
    }
    found = []
    if late - early > GROWTH:
        found.append(f"memory grew from {int(early) >> 20} to {int(late) >> 20} MiB")
    return facts, found


def _train(data: Path, out: Path, options: dict[str, Any]) -> None:
    from usucl.training import train

    train(data=data, out=out, **options)


def _last_step(metrics: Path) -> int:
    rows = metrics.read_text().splitlines()
    return int(dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))["step"])
