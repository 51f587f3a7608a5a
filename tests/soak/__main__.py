"""``python -m tests.soak PART``: the long tests, each for as long as it is given.

Each part writes what it tried and found as JSON, with a description of the machine. It ends with 1
if it found a fault.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child of a process with more threads may hang
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

PARTS = {
    "files": "damaged files of every kind that the package reads",
    "faults": "commands that are killed, or whose disks and files fail, and that go on",
    "operator": "hostile problems, compared with a float64 oracle",
    "scale": "a bank, a catalogue and a training of the greatest sizes that are promised",
}
"""Each is a module tests.soak.PART.run: add_options(parser), and run(options) -> (facts, found)."""


def main() -> int:
    """Runs one part; returns 1 if it found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    for name, what in PARTS.items():
        part = parts.add_parser(name, help=what, description=f"Tries {what}.")
        part.add_argument("--minutes", type=float, default=60.0, help="for how long it tries")
        part.add_argument("--seed", type=int, default=0)
        part.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
        part.add_argument("--folder", type=Path, help="where it works, and leaves bad cases")
        part.add_argument("--out", type=Path, help="the JSON file to write")
        if name in sys.argv[1:2]:  # of the others, no import
            importlib.import_module(f"tests.soak.{name}.run").add_options(part)
    options = parser.parse_args()
    options.folder = options.folder or Path(tempfile.mkdtemp(prefix=f"soak-{options.part}-"))
    os.environ["USUCL_CACHE"] = str(options.folder / "cache")  # nothing of the user's own
    start = time.monotonic()
    facts, found = importlib.import_module(f"tests.soak.{options.part}.run").run(options)
    if options.out:
        from benchmarks.harness import describe_run

        result = {
            **describe_run(),
            "part": options.part,
            "command": " ".join(["python -m tests.soak", *sys.argv[1:]]),
            "seconds": round(time.monotonic() - start, 1),
            "found": found,
            **facts,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(*(found or [f"{options.part}: no fault was found"]), sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
