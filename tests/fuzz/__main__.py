"""``python -m tests.fuzz``: damages files of every kind that the package reads, and counts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child of a process with more threads may hang


def main() -> int:
    """Prints a table; returns 1 if any damage was met badly."""
    from tests.fuzz.readers import READERS
    from tests.fuzz.sandbox import BAD, OUTCOMES, fuzz

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="damaged files of each kind")
    parser.add_argument("--reader", nargs="*", choices=[*READERS, []], default=[], metavar="NAME",
                        help=f"some of {', '.join(READERS)}; all by default")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where files that were met badly stay")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"{'reader':<20}", *(f"{name:>9}" for name in OUTCOMES), "   MiB     s")
    failed = False
    for name in options.reader or READERS:
        start = time.monotonic()
        result = fuzz(READERS, name, options.inputs, folder, seed=options.seed, jobs=options.jobs)
        counts = [result.counts[outcome] for outcome in OUTCOMES]
        seconds = time.monotonic() - start
        print(f"{name:<20}", *(f"{n:>9}" for n in counts), f"{result.memory >> 10:>6}",
              f"{seconds:>5.0f}", flush=True)  # fmt: skip
        for outcome, examples in sorted(result.examples.items()):
            print(*(f"  {outcome}: {example}" for example in examples[:5]), sep="\n")
        bad = sum(result.counts[outcome] for outcome in BAD)
        failed |= bool(bad or (READERS[name].sealed and result.counts["silent"]))
    print(f"files that were met badly: {folder / 'bad'}" if failed else "no damage was met badly")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
