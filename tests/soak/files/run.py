"""Damages files of every kind that the package reads, and counts what comes of it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from tests.soak.files.fuzzing import BAD, OUTCOMES, fuzz
from tests.soak.files.readers import READERS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this part."""
    parser.add_argument("--inputs", type=int, help="files of each kind that are enough")
    parser.add_argument("--reader", nargs="*", choices=[*READERS, []], default=[], metavar="NAME",
                        help=f"some of {', '.join(READERS)}; all by default")  # fmt: skip


def run(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Prints a table; returns the counts of each reader, and what was met badly."""
    print(f"{'reader':<20}", *(f"{name:>9}" for name in (*OUTCOMES, "parents", "MiB", "s")))
    names = options.reader or list(READERS)
    rows, found = {}, []
    for name in names:
        start = time.monotonic()
        result = fuzz(
            READERS,
            name,
            options.folder,
            seconds=60 * options.minutes / len(names),
            inputs=options.inputs,
            seed=options.seed,
            jobs=options.jobs,
        )
        rows[name] = {outcome: result.counts[outcome] for outcome in OUTCOMES} | {
            "parents": result.parents,
            "mebibytes": result.memory >> 10,
            "seconds": round(time.monotonic() - start),
        }
        print(f"{name:<20}", *(f"{n:>9}" for n in rows[name].values()), flush=True)
        for outcome in OUTCOMES:
            if outcome in BAD or (outcome == "silent" and READERS[name].sealed):
                found += [f"{name}: {outcome}: {e}" for e in result.examples.get(outcome, [])]
    inputs = sum(row[outcome] for row in rows.values() for outcome in OUTCOMES)
    return {"inputs": inputs, "readers": rows}, found
