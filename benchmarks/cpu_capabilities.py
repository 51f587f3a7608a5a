"""``python -m benchmarks.cpu_capabilities --out FILE``: the loss under each CPU instruction set.

Runs all sets that the machine has, the best first, each in a process of its own. Tells whether they
give the same bits, and their times next to the float32 FMA peak and ``torch.mm``, on two threads
and on all. It takes less than a minute and names what it had no time for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import (
    ROOT,
    Step,
    describe_run,
    fma_peak,
    in_words,
    time_in_turns,
    torch_threads,
)
from benchmarks.problems import Problem, Setting
from benchmarks.providers import PROVIDERS
from benchmarks.rows import MATMUL, OURS, Result, Row, write
from usucl_ext import _C

SHAPES = ((512, 65536), (1024, 65536), (256, 262144))
QUICK_SHAPES = ((32, 4096),)
DTYPES = ("float32", "bfloat16", "float16")
SWEEP: tuple[dict[str, Any], ...] = (
    *({"cross_k": k} for k in (4, 256)),
    *({"order": order} for order in ("ascending", "all equal", "correlated")),
)
ROUNDS = 5
FAST = ("amx", "avx512_bf16")  # these nominate, so dtype, k and order of the keys matter


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if two instruction sets gave different bits."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_capabilities", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="a new JSON file")
    parser.add_argument("--seconds", type=float, default=40.0, help="start nothing after these")
    parser.add_argument("--quick", action="store_true", help="one small shape")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        for line in _measure(QUICK_SHAPES if options.quick else SHAPES):
            print(json.dumps(line), flush=True)
        return 0
    if options.out is not None and options.out.exists():
        parser.error(f"{options.out} exists: results are never overwritten")

    start, run, rows, digests = time.perf_counter(), describe_run(), [], {}
    print("; ".join(in_words(run).values()), flush=True)
    for capability in _C.cpu_capabilities():
        left = options.seconds - (time.perf_counter() - start)
        if capability == "portable" or left < 0:
            print(f"{capability}: not measured")
            continue
        for line in _run(capability, options.quick, left):
            if "digests" in line:
                digests[capability] = line["digests"]
                continue
            row = Row(**{**line, **in_words(run)})
            rows.append(row)
            _show(row, rows)
    same = all(found == next(iter(digests.values())) for found in digests.values())
    print(f"{'The same' if same else 'DIFFERENT'} bits: {', '.join(digests)}")
    if options.out is not None:
        run |= {"same_bits": {"capabilities": list(digests), "same": same}}
        run |= {"seconds": round(time.perf_counter() - start)}
        write(Result(run, {}, rows), options.out)
    return 0 if same else 1


def _run(capability: str, quick: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields what a process under a capability finds, line by line."""
    command = [sys.executable, "-m", "benchmarks.cpu_capabilities", "--one"]
    environment = {**os.environ, "USUCL_CPU_CAPABILITY": capability}
    child = subprocess.Popen(
        command + ["--quick"] * quick, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    end = time.perf_counter() + seconds
    with child:
        for line in child.stdout:
            yield json.loads(line)
            if time.perf_counter() > end:
                print(f"{capability}: the rest is not measured")
                child.kill()
                return
    if child.returncode != 0:
        raise RuntimeError(f"{capability}: exit status {child.returncode}")


def _measure(shapes: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("ext", "helpers")]
    from test_capabilities import digests

    capability = str(_C.build_info()["cpu_capability"])
    yield {"digests": digests()}
    most = torch.get_num_threads()
    dtypes = DTYPES if capability in FAST else DTYPES[:1]
    few = min(2, most)
    for n, m in shapes:
        problems = [Problem.make(Setting(n, m, dtype=dtype)) for dtype in dtypes]
        for threads in sorted({few, most}):
            yield from _times(capability, problems, threads)
    changes = SWEEP if capability in FAST else SWEEP[:2]
    settings = [replace(Setting(*shapes[0]), **change) for change in changes]
    yield from _times(capability, [Problem.make(setting) for setting in settings], few)


def _times(capability: str, problems: Sequence[Problem], threads: int) -> Iterator[dict[str, Any]]:
    """Yields rows of the loss on all problems, and of ``torch.mm`` on those without a change."""
    entries: dict[str, tuple[str, Setting, Step]] = {}
    for problem in problems:
        setting = problem.setting
        beside = setting.dtype != "float16" and setting == Setting(
            *setting.shape[:2], dtype=setting.dtype
        )
        for provider in (OURS, MATMUL) if beside else (OURS,):
            name = f"{provider}, {capability}" if provider == OURS else provider
            entries[f"{name}, {setting}"] = name, setting, PROVIDERS[provider].make(problem)
    with torch_threads(threads):
        rate = Row("capabilities", "fma_peak", f"machine, {capability}", "", (0, 0, 0), "float32",
                   (0, 0), "", threads, "rate", None, None, None, "GFLOP/s", 0)  # fmt: skip
        yield asdict(rate.with_figures([fma_peak(threads)]))
        steps = {label: step for label, (_, _, step) in entries.items()}
        for label, times in time_in_turns(steps, seconds=0.3, rounds=ROUNDS).items():
            name, one, step = entries[label]
            mode = "both" if step.leaf is not None else "forward"
            row = Row("capabilities", "hard_negative_nce", name, mode, one.shape, one.dtype,
                      one.k, one.order, threads, "time", None, None, None, "ms", 0)  # fmt: skip
            yield asdict(row.with_figures(times.mode(mode)))


def _show(row: Row, rows: Sequence[Row]) -> None:
    """Prints a time with its share of the last FMA peak."""
    if row.metric == "rate":
        print(f"{row.provider}: {row.value:.0f} GFLOP/s on {row.threads} threads", flush=True)
        return
    peak = next(r.value for r in reversed(rows) if r.metric == "rate")
    (n, m, d), value = row.shape, row.value
    if value is None or peak is None:
        return
    share = 100 * 2 * n * m * d / (1e6 * value) / peak
    print(
        f"{n:>5} x {m:<6} {row.dtype:<8} k {row.k[1]:<3} {row.order:<10} {row.threads:>2} threads  "
        f"{row.provider:<20} {value:9.3f} ms ({row.low:.3f} - {row.high:.3f}), {share:4.0f} %",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
