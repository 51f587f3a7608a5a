"""Kills a training at random moments, resumes it, and compares."""

from __future__ import annotations

import argparse
import random
from typing import Any

from runs import make_data

from tests.soak.faults.training import OPTIONS, differences, finish, kill, start


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="steps per epoch")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints a line for each kill; returns what was done, and what differs from a whole run."""
    folder = options.folder
    data = make_data(folder / "data", videos=6, frames=6)
    run = {
        **OPTIONS,
        "epochs": options.epochs,
        "steps_per_epoch": options.steps,
        "num_workers": options.workers,
    }
    finish(start(data, folder / "whole", run))
    draw, out = random.Random(options.seed), folder / "killed"
    killed = 0
    while killed < options.kills:
        moment = ("steps", "writing", "any")[killed % 3]
        when = kill(start(data, out, run), out, draw, moment)
        if not when:
            return {"kills": killed}, ["the run has ended: give it more epochs or steps"]
        killed += 1
        print(f"kill {killed} ({moment}): {when}", flush=True)
    finish(start(data, out, run))
    return {"kills": killed}, differences(out, folder / "whole")
