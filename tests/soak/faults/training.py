"""A small training that is killed again and again, and what its files are compared by."""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from usucl._files import read_tensors
from usucl.training import train

OPTIONS: dict[str, Any] = {
    "backbone": "resnet10",
    "image_size": 32,
    "dim": 8,
    "bank": 32,
    "sampling.videos": 2,
    "sampling.frames": 3,
    "log_every": 1,
    "cross_only": 0.0,
    "checkpoint_every": 2,
}
UNTIMED = ("images_per_second", "data_share", "encoder_share", "loss_share")
PATIENCE = 600.0  # seconds


def start(data: Path, out: Path, options: dict[str, Any]) -> BaseProcess:
    """Starts a training in a process of its own, or goes on with it: the call is the same."""
    process = multiprocessing.get_context("fork").Process(target=_train, args=(data, out, options))
    process.start()
    return process


def _train(data: Path, out: Path, options: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    with (out.parent / "said.txt").open("a") as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
        train(data=data, out=out, resume=True, progress=False, **options)


def kill(process: BaseProcess, out: Path, draw: random.Random, moment: str) -> str:
    """Kills a training by SIGKILL; returns when that was, "" if it has ended before.

    Args:
        process: the training.
        out: its run folder.
        draw: the source of the moment.
        moment: after a few ``steps``, at ``any`` time from the start on, or in the middle of
            ``writing`` a checkpoint.
    """
    checkpoints, end = out / "checkpoints", time.monotonic() + PATIENCE
    target = len(_rows(out / "metrics.csv")) + (1 if moment == "writing" else draw.randint(1, 4))

    def goes_on() -> bool:
        return process.is_alive() and time.monotonic() < end

    if moment == "any":
        time.sleep(draw.uniform(0, 8))
    else:
        while goes_on() and len(_rows(out / "metrics.csv")) < target:
            time.sleep(0.005)
        if moment == "steps":
            time.sleep(draw.uniform(0, 0.3))
    before = {*checkpoints.glob(".*.tmp")}
    while moment == "writing" and goes_on() and not {*checkpoints.glob(".*.tmp")} - before:
        pass
    time.sleep(draw.uniform(0, 0.05) if moment == "writing" else 0)
    if not process.is_alive():
        return ""
    process.kill()
    process.join(PATIENCE)
    half = [*checkpoints.glob(".*.tmp")]
    done = len(_rows(out / "metrics.csv"))
    return f"after {done} rows of metrics" + (", half a checkpoint written" if half else "")


def finish(process: BaseProcess) -> None:
    """Waits for a training; raises RuntimeError if it fails."""
    process.join(PATIENCE)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"the training failed with {process.exitcode}: see said.txt")


def differences(run: Path, other: Path) -> list[str]:
    """Returns in what two runs differ, down to the bit, but for times and identities."""
    found = []
    paths = {p.relative_to(f) for f in (run, other) for p in f.rglob("*") if p.is_file()}
    for path in sorted(paths):
        a, b = run / path, other / path
        if path.parts[0] == "tensorboard" or path.name in ("run.json", "config.yaml"):
            continue
        if not (a.is_file() and b.is_file()):
            found.append(f"{path} is in one only")
        elif path.suffix == ".ckpt":
            found += [f"{path}: {name}" for name in _unequal(_load(a), _load(b), "")]
        elif path.suffix == ".safetensors":  # whose metadata are in any order
            found += [f"{path}: {n}" for n in _unequal(read_tensors(a), read_tensors(b), "")]
        elif path.name == "metrics.csv":
            found += [str(path)] if _rows(a) != _rows(b) else []
        elif a.read_bytes() != b.read_bytes():
            found.append(str(path))
    return found


def _load(path: Path) -> Any:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["run"]
    return checkpoint


def _unequal(a: Any, b: Any, name: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from _unequal(a[key], b[key], f"{name}/{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _unequal(x, y, f"{name}/{index}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
        yield from [] if same else [name]
    elif a != b:
        yield name


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in UNTIMED} for row in rows]
