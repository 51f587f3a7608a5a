"""Damages files of every kind that the package reads, and counts what comes of it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.soak.files.readers import READERS
from tests.soak.files.sandbox import BAD, OUTCOMES, fuzz


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    parser.add_argument("--inputs", type=int, default=2000, help="damaged files of each kind")
    parser.add_argument("--reader", nargs="*", choices=[*READERS, []], default=[], metavar="NAME",
                        help=f"some of {', '.join(READERS)}; all by default")  # fmt: skip


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints a table; returns the counts of each reader, and what was met badly."""
    print(f"{'reader':<20}", *(f"{name:>9}" for name in OUTCOMES), "   MiB     s")
    counts, found = {}, []
    for name in options.reader or READERS:
        start = time.monotonic()
        result = fuzz(
            READERS, name, options.inputs, options.folder, seed=options.seed, jobs=options.jobs
        )
        counts[name] = {outcome: result.counts[outcome] for outcome in OUTCOMES}
        print(f"{name:<20}", *(f"{n:>9}" for n in counts[name].values()),
              f"{result.memory >> 10:>6}", f"{time.monotonic() - start:>5.0f}",
              flush=True)  # fmt: skip
        for outcome in OUTCOMES:
            if outcome in BAD or (outcome == "silent" and READERS[name].sealed):
                found += [f"{name}: {outcome}: {e}" for e in result.examples.get(outcome, [])]
    return {"inputs": options.inputs, "counts": counts}, found
