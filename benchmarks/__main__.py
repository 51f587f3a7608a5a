"""``python -m benchmarks``: checks that all providers agree, measures them, writes and shows it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bench_loss, report
from benchmarks.harness import ROOT, machine, record

SECONDS, QUICK_SECONDS = 15.0, 4.0  # for each shape and mode, all providers together


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; an AssertionError if providers disagree, before anything is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small shapes, under a minute")
    size.add_argument("--full", action="store_true", help="large shapes too")
    parser.add_argument("--out", type=Path, help="JSON file; by default by machine and date")
    options = parser.parse_args(arguments)

    shapes = bench_loss.QUICK_SHAPES if options.quick else bench_loss.SHAPES
    if options.full:
        shapes += bench_loss.LARGE_SHAPES
    before = machine()  # the load of the machine is not yet ours
    out = options.out or ROOT / "benchmarks" / "results" / _name(before["cpu"], before["date"])
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")

    bench_loss.check()
    seconds = QUICK_SECONDS if options.quick else SECONDS
    rows = []
    for row in bench_loss.measure(shapes, seconds=seconds):
        rows.append(row)
        if row.metric == "time":
            size_of = f"{row.shape['N']} x {row.shape['M']}"
            line = f"{size_of:>12}  {row.mode:<17} {row.provider:<14} {row.median:10.3f} ms"
            print(line, file=sys.stderr, flush=True)
    result = record(before, rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report.markdown(result))
    print(f"Written: {out}", file=sys.stderr)
    return 0


def _name(cpu: str, date: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return f"{words}-{date.replace(':', '').rstrip('Z').replace('T', '-')}.json"


if __name__ == "__main__":
    sys.exit(main())
