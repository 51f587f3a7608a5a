"""Disturbs commands at random operations on files, goes on with them, and compares."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.soak.faults.commands import COMMANDS
from tests.soak.faults.shim import FAULTS, build

if TYPE_CHECKING:
    from tests.soak.faults.trial import Bench, Trial

LOST = "lost rank"
Task = tuple[str, str, int]  # command, fault, number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    faults = (*FAULTS, LOST)
    parser.add_argument("--points", type=int, default=200, help="points per command and fault")
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=[*COMMANDS],
                        metavar="NAME", help=f"some of: {', '.join(COMMANDS)}")  # fmt: skip
    parser.add_argument("--fault", nargs="+", choices=faults, default=faults, metavar="NAME",
                        help=f"some of: {', '.join(faults)}")  # fmt: skip


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints what is found; returns the counts per command and fault, and what was found."""
    seconds, began = 60 * options.minutes, time.monotonic()
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    root = options.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    for name in ("inputs", "whole"):
        shutil.rmtree(root / name, ignore_errors=True)
    library = build(root)
    os.environ["LD_PRELOAD"] = str(library)  # of the processes that are started now
    spawn = multiprocessing.get_context("spawn")
    lose = LOST in options.fault and "train" in options.command
    until = began + seconds * (1 - lose / len(options.fault))  # its share comes last
    with spawn.Pool(options.jobs, _begin, (root, library, options.seed, until)) as pool:
        del os.environ["LD_PRELOAD"]
        pool.apply(_make_inputs, (any(COMMANDS[name].reads_run for name in options.command),))
        found = [line for lines in pool.imap(_make_whole, options.command) for line in lines]
        faults = [fault for fault in FAULTS if fault in options.fault]
        pairs = [(command, fault) for command in options.command for fault in faults]
        order = Random(options.seed)
        tasks = (
            (*pair, number)
            for number in range(options.points)
            for pair in order.sample(pairs, len(pairs))
        )
        for (command, fault, _), trial in pool.imap_unordered(_disturb, tasks):
            if trial is None:  # the time is over
                continue
            counts[command][fault][trial.outcome] += 1
            if trial.faults:
                found.append(f"{command}, {fault}, {trial.moment}: {'; '.join(trial.faults)}")
                print(found[-1], flush=True)
    if lose:
        from tests.soak.faults.ranks import lose_ranks

        counts["train"][LOST], lost = lose_ranks(
            root, options.points, began + seconds, Random(options.seed)
        )
        found += lost
    for command, of in counts.items():
        points = (f"{fault} {count.total()}" for fault, count in of.items())
        print(f"{command}: {', '.join(points)}", flush=True)
    total = sum(count.total() for of in counts.values() for count in of.values())
    return {"points": total, "counts": counts}, found


_bench: Bench
_seed: int
_until: float


def _begin(root: Path, library: Path, seed: int, until: float) -> None:
    """Prepares a process that disturbs commands; its clock is that of the one that started it."""
    global _bench, _seed, _until
    from tests.soak.faults.trial import Bench

    _bench, _seed, _until = Bench(root, library), seed, until


def _make_inputs(with_run: bool) -> None:
    _bench.make_inputs(with_run=with_run)


def _make_whole(command: str) -> list[str]:
    return _bench.make_whole(command)


def _disturb(task: Task) -> tuple[Task, Trial | None]:
    if time.monotonic() > _until:
        return task, None
    command, fault, _ = task
    return task, _bench.disturb(command, fault, Random(f"{_seed} {task}"))
