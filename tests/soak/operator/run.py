"""Tries the operators on hostile problems, in every instruction set of this machine."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

from usucl_ext import _C

THREADS = (1, 4)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    parser.add_argument("--batches", type=int, default=sys.maxsize, help="batches that are enough")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints a line for each capability; returns the counts, and the problems that failed."""
    tasks = list(product(_C.cpu_capabilities(), THREADS))
    seconds = 60 * options.minutes * options.jobs / len(tasks)

    def work(task: tuple[str, int]) -> dict[str, Any]:
        capability, threads = task
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.operator.worker",
             *map(str, (options.seed, threads, seconds, options.batches))],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "USUCL_CPU_CAPABILITY": capability,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONHASHSEED": "0",
            },
        )  # fmt: skip
        if done.returncode:
            return {"tried": {}, "found": [f"ended with {done.returncode}: {done.stderr[-3000:]}"]}
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    rows, found = [], []
    with ThreadPoolExecutor(options.jobs) as pool:
        for (capability, threads), result in zip(tasks, pool.map(work, tasks), strict=True):
            rows.append({"capability": capability, "threads": threads, **result["tried"]})
            found += [f"{capability}, {threads} threads: {text}" for text in result["found"]]
            print(*(f"{k}: {v}" for k, v in rows[-1].items()), sep="  ", flush=True)
    return {"problems": rows}, found
