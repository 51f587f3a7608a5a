"""``python -m benchmarks``: checks that all providers agree, measures them, writes and shows it."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report, suite
from benchmarks.harness import ROOT, OtherPrograms, describe_run, in_words
from benchmarks.providers import PROVIDERS
from benchmarks.rows import COMPILED, MATMUL, SEARCH, Result, Row, write
from usucl._environment import check_writable
from usucl._progress import listen, stage, track
from usucl._terminal import say, table

SECONDS, QUICK_SECONDS = 4.0, 0.4  # for each provider on each problem


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; raises AssertionError before any measurement if providers disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small problems, under a minute")
    parser.add_argument("--out", type=Path, help="JSON file; by default by machine and date")
    parser.add_argument("--quiet", action="store_true", help="only the results")
    options = parser.parse_args(arguments)

    start, others = time.perf_counter(), OtherPrograms()
    run = describe_run()  # the load of the machine is not yet ours
    out = options.out or ROOT / "benchmarks" / "results" / _name(run["machine"]["cpu"], run["date"])
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    try:
        check_writable(out.parent)
    except OSError as error:
        sys.exit(f"{out} cannot be written: {error.strerror}")

    def tell(line: str) -> None:
        if line and not options.quiet:
            print(line, file=sys.stderr, flush=True)

    skipped = suite.skipped()
    for name, reason in skipped.items():
        tell(f"Without {name}: {reason}")
    measured = suite.Suite(
        QUICK_SECONDS if options.quick else SECONDS, words=in_words(run), skipped=skipped
    )
    rows: list[Row] = []
    cases = suite.quick() if options.quick else suite.full()
    parts = {"Checking": 5, "Measuring": 20 if options.quick else 600}
    # Nothing is drawn while something is measured.
    with listen(not options.quiet, ticks=False) as listener, stage("Benchmarks", parts=parts):
        with stage("Checking"):
            # --quick has no time to compile; the compiled loss is checked later all the same.
            suite.check([name for name in PROVIDERS if not (options.quick and name == COMPILED)])
        for case in track(cases, "Measuring", unit="problems"):
            for row in measured.run(case):
                rows.append(row)
                tell(_progress(row))
                if listener is not None:
                    listener.tick()
        rows += measured.machine()
    run |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    run |= {"cores_of_others": others.cores()}
    providers = {
        name: {"what": one.what, "cannot": one.cannot, "skipped": skipped.get(name, "")}
        for name, one in PROVIDERS.items()
    }
    result = Result(run, providers, rows)
    write(result, out)
    _show_all(result)
    print(f"Results: {out}")
    tell(f"All tables and pictures: {report.REPORT_COMMAND} {out} --out FOLDER")
    return 0


def _show_all(result: Result) -> None:
    """Prints the figures of the main shapes, without the marks of Markdown."""
    head, lines = report.figures(result)
    plain = [[cell.replace("**", "") for cell in line] for line in lines]
    table(head, plain, title="Loss and gradient", numbers=head[1:])
    for text in (report.explanation(result), report.warning(result), report.machine(result)):
        if text:
            say(text.replace("; **bold** where they are faster", "").replace("**", ""))


def _progress(row: Row) -> str:
    """Returns a line for each time of a whole call."""
    whole = "forward" if row.provider in (MATMUL, SEARCH) else "both"
    if row.metric != "time" or row.mode != whole:
        return ""
    n, m, d = row.shape
    size = f"{n} x {m} x {d}"
    figure = row.note if row.value is None else f"{row.value:10.3f} ms"
    what = f"k {row.k[1]}, {row.dtype}, {row.order}, {row.threads} threads"
    return f"{size:>19}  {row.provider:<24} {figure}  ({what})"


def _name(cpu: str, date: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return f"{words}-{date.replace(':', '').rstrip('Z').replace('T', '-')}.json"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
