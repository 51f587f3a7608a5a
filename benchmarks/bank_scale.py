"""``python -m benchmarks.bank_scale``: a bank on 1 to 3 processes, and what that projects to.

Formulas count the bytes and operations of one step; their constants are measured here. docs/bank.md
holds what this prints, between two marks: ``--docs docs/bank.md``.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.bank import DIM, FRAMES_PER_VIDEO, K, every, put_into, sweeps
from benchmarks.harness import describe_run
from usucl.bank import NegativeBank, ShardedBank

N = 64  # anchors per rank as measured; the projection takes PROJECTED_N
PART = 50_000  # frames per rank
NPROBE = 16
SCALE = ((8, 10**7), (8, 10**9), (64, 10**9), (512, 10**9))
PROJECTED_N = 256
NETWORK = 25e9  # bytes/s into each rank, assumed
LATENCY = 30e-6  # least seconds per exchange, assumed
EXCHANGES = 13  # of candidates() without a window: see sharded.py


@dataclass(frozen=True)
class Bytes:
    """Bytes that a rank receives in one step, by kind."""

    anchors: int
    candidates: int
    frames: int

    @property
    def total(self) -> int:
        return self.anchors + self.candidates + self.frames


def received(ranks: int, n: int, k: int, d: int, element: int = 4) -> Bytes:
    """Returns what ``candidates(n anchors, k)`` receives: the other ranks' anchors with video, time
    and patient; similarity and index for the first k of each part; and at most n k frames."""
    others = ranks - 1
    return Bytes(
        others * n * (element * d + 8 + 4 + 8),
        others * n * k * (4 + 8),
        n * k * (8 + element * d + 8 + 4 + 8) * others // ranks,
    )


@dataclass(frozen=True)
class Measured:
    """Seconds of one step, medians.

    Attributes:
        ranks: number of processes.
        frames: number of frames in all parts.
        step: a call of ``candidates``.
        search: a search of the same anchors in one part alone.
        exchange: the smallest exchange.
    """

    ranks: int
    frames: int
    step: float
    search: float
    exchange: float


def _median(call: Any, repeats: int = 9) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _process(rank: int, ranks: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    part = NegativeBank(PART, DIM)
    part.enqueue(sweeps(PART, 10 + rank))
    bank = ShardedBank(part)
    anchors = every(sweeps(N * FRAMES_PER_VIDEO, 20 + rank), N)
    everyone = every(sweeps(ranks * N * FRAMES_PER_VIDEO, 20), ranks * N)
    step = _median(lambda: bank.candidates(anchors, K))
    search = _median(lambda: part.hardest(everyone, K))
    exchange = _median(lambda: bank._exchange.gather_numbers([0], "nothing"), 99)
    if rank == 0:
        Path(out).write_text(
            json.dumps(asdict(Measured(ranks, ranks * PART, step, search, exchange)))
        )
    dist.barrier()
    dist.destroy_process_group()


def measure(ranks: int) -> Measured:
    """Returns the times of a sharded bank on ``ranks`` processes of this machine."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        out = str(Path(folder) / "measured.json")
        mp.spawn(_process, (ranks, port, out), ranks)
        return Measured(**json.loads(Path(out).read_text()))


def inverted_file(frames: int = 1_000_000, cells: int = 1024) -> float:
    """Returns seconds per query and inspected frame of an inverted file on one thread."""
    bank = NegativeBank(frames, DIM, search=f"IVF{cells},Flat", nprobe=NPROBE)
    bank.enqueue(sweeps(frames, 1))
    bank.rebuild()
    rows = PROJECTED_N
    anchors = every(sweeps(rows * FRAMES_PER_VIDEO, 2), rows)
    return _median(lambda: bank.hardest(anchors, K)) / (rows * frames * NPROBE / cells)


def report(measured: Sequence[Measured], per_pair: float, machine: str) -> str:
    """Returns both tables, with what they rest on."""
    exact = measured[0].search / (N * PART)
    lines = [
        f"Measured on {machine}: one thread per process, gloo through the loopback, {N} "
        f"anchors per rank, {PART:,} frames per rank searched exactly, k = {K}, D = {DIM}; "
        "medians. Processes beyond the number of cores share them.",
        "",
        "| ranks | frames | step, ms | its search, ms | smallest exchange, ms | received, KiB |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for one in measured:
        kib = received(one.ranks, N, K, DIM).total / 1024
        lines.append(
            f"| {one.ranks} | {one.frames:,} | {1e3 * one.step:.1f} | {1e3 * one.search:.1f} | "
            f"{1e3 * one.exchange:.2f} | {kib:.0f} |"
        )
    lines += [
        "",
        f"**Projection, not measured.** {PROJECTED_N} anchors per rank, k = {K}, D = {DIM}, "
        f"float32. Search: {exact * 1e9:.2f} ns per pair exactly and {per_pair * 1e9:.2f} ns per "
        f"inspected frame in an inverted file, as measured here with one thread per rank; cells of "
        f"1000 frames, 1 in 64 inspected. Network: assumed, {NETWORK / 1e9:.0f} GB/s into each "
        f"rank and {LATENCY * 1e6:.0f} us for each of {EXCHANGES} exchanges. Nothing overlaps.",
        "",
        "| ranks | frames | frames per rank | bank per rank, GB | anchors, MB | candidates, MB "
        "| frames, MB | network, ms | exact search, s | inverted file, s |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for ranks, frames in SCALE:
        part = frames // ranks
        by = received(ranks, PROJECTED_N, K, DIM)
        network = by.total / NETWORK + EXCHANGES * LATENCY
        queries = ranks * PROJECTED_N
        searches = exact * queries * part, per_pair * queries * part / 64
        lines.append(
            f"| {ranks} | {frames:.0e} | {part:,} | {part * (4 * DIM + 28) / 1e9:.1f} | "
            f"{by.anchors / 1e6:.1f} | {by.candidates / 1e6:.1f} | {by.frames / 1e6:.1f} | "
            f"{1e3 * network:.2f} | {searches[0]:.2f} | {searches[1]:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the block into a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank_scale", description=__doc__)
    parser.add_argument("--docs", type=Path, help="document with the two marks")
    options = parser.parse_args(arguments)
    run = describe_run()["machine"]
    machine = f"{run['cpu']}, {run['cores']} cores, {run['cpu_capability']}"
    torch.set_num_threads(1)
    try:
        import faiss

        faiss.omp_set_num_threads(1)
    except ImportError:
        sys.exit("faiss is needed: install faiss-cpu")
    text = report([measure(ranks) for ranks in (1, 2, 3)], inverted_file(), machine)
    print(text)
    if options.docs is not None:
        put_into(options.docs, "projection", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
