"""``python -m tests.kills``: kills a training at random moments, resumes it, and compares."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child of a process with more threads may hang


def main() -> int:
    """Prints a line for each kill; returns 1 if the resumed run differs from the whole one."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
    from runs import make_data

    from tests.kills.training import OPTIONS, differences, finish, kill, start

    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="steps per epoch")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs stay")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    data = make_data(folder / "data", videos=6, frames=6)
    run = {
        **OPTIONS,
        "epochs": options.epochs,
        "steps_per_epoch": options.steps,
        "num_workers": options.workers,
    }
    finish(start(data, folder / "whole", run))
    draw, out, begun = random.Random(options.seed), folder / "killed", time.monotonic()
    killed = 0
    while killed < options.kills:
        moment = ("steps", "writing", "any")[killed % 3]
        when = kill(start(data, out, run), out, draw, moment)
        if not when:
            print("the run has ended: give it more epochs or steps", flush=True)
            break
        killed += 1
        print(f"kill {killed} ({moment}): {when}", flush=True)
    finish(start(data, out, run))
    found = differences(out, folder / "whole")
    print(f"{killed} kills in {time.monotonic() - begun:.0f} s; runs in {folder}")
    print(*(found or ["the runs are equal to the bit"]), sep="\n")
    return int(bool(found) or killed < options.kills)


if __name__ == "__main__":
    sys.exit(main())
