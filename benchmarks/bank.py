"""``python -m benchmarks.bank``: build, update and search of banks, against raw FAISS and usearch.

The frames are sweeps as an encoder might leave them: 4096 views, each video a view with an offset
of its own, 32 frames per video around it, two videos per patient. An anchor's nearest frames are
those of its own video, which it may not take; then come other videos of the view.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.harness import (
    ROOT,
    OtherPrograms,
    Step,
    Times,
    available_memory,
    describe_run,
    in_words,
    time_in_turns,
)
from benchmarks.rows import Result, Row, read, write
from usucl.bank import NegativeBank
from usucl_ext import Frames

DIM, K, ANCHORS, UPDATE = 128, 32, 256, 256
VIEWS, FRAMES_PER_VIDEO = 4096, 32
VIDEO_OFFSET, FRAME_OFFSET = 0.5, 0.3  # lengths; that of a view is 1
SIZES = (10_000, 65_536, 1_000_000)
FULL_SIZE = 10_000_000
LARGEST_GRAPH = 100_000  # larger graphs take long to build

PROVIDERS = {
    "exact": "NegativeBank, the fused operator over all slots",
    "Flat": "NegativeBank over IndexFlatIP, the same selection",
    "IVF": "NegativeBank over IVF,Flat with cells for about 1000 frames, default nprobe",
    "HNSW": "NegativeBank over HNSW32",
    "raw Flat": "IndexFlatIP.search for k alone: no videos, no exclusion",
    "raw IVF": "the bank's own index, searched for k alone: no videos, no exclusion",
    "usearch": "usearch's graph, searched for k alone: no videos, no exclusion",
}


def sweeps(m: int, seed: int, dim: int = DIM, count: int = VIEWS) -> Frames:
    """Returns ``m`` frames of this seed's own videos, of ``count`` views that all seeds share."""
    generator = torch.Generator().manual_seed(seed)
    views = normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(7)))
    videos = -(-m // FRAMES_PER_VIDEO)
    view = torch.randint(0, count, (videos,), generator=generator)
    offset = normalize(torch.randn(videos, dim, generator=generator))
    embedding = (views[view] + VIDEO_OFFSET * offset).repeat_interleave(FRAMES_PER_VIDEO, 0)[:m]
    embedding += FRAME_OFFSET * normalize(torch.randn(m, dim, generator=generator))
    video = torch.arange(m) // FRAMES_PER_VIDEO + seed * 10**9
    return Frames(normalize(embedding), video, torch.rand(m, generator=generator), video // 2)


def every(frames: Frames, count: int) -> Frames:
    """Returns ``count`` of the frames, evenly spaced."""
    chosen = torch.arange(count) * len(frames.video) // count
    return frames.take(chosen)


def check() -> None:
    """Checks that exact searches agree, and that no search finds an anchor's own patient.

    Raises:
        AssertionError: one does not pass; the message names the search.
    """
    stored = sweeps(20_000, 1)
    anchors = every(stored, 64)
    truth = _bank("exact", stored).hardest(anchors, K)
    for search, nprobe in (
        ("Flat", None),
        ("IVF32,Flat", 32),
        ("IVF32,Flat", None),
        ("HNSW32", None),
    ):
        bank = _bank(search, stored, nprobe)
        found = bank.hardest(anchors, K)
        if search == "Flat" or nprobe == 32:
            for ours, theirs in zip(found, truth, strict=True):
                assert torch.equal(ours, theirs), f"{search} selects other frames than exact"
        patient = bank.gather(found.cross_index.flatten()).patient
        assert patient is not None and anchors.patient is not None
        own = patient.reshape(len(anchors.video), K) == anchors.patient[:, None]
        assert not bool(own.any()), f"{search} found a frame of the anchor's own patient"


def _bank(search: str, stored: Frames, nprobe: int | None = None) -> NegativeBank:
    bank = NegativeBank(len(stored.video), stored.embedding.shape[1], search=search, nprobe=nprobe)
    bank.enqueue(stored)
    bank.rebuild()
    return bank


class Bench:
    """The rows of banks of one size."""

    def __init__(self, m: int, seconds: float, words: dict[str, str]) -> None:
        self.m, self.seconds, self.words = m, seconds, words
        self.stored = sweeps(m, 1)
        # Half of the anchors come from videos of the bank, half from others.
        halves = every(self.stored, ANCHORS // 2), every(sweeps(10_000, 2), ANCHORS // 2)
        columns = zip(*(half[:3] for half in halves), strict=True)
        embedding, video, time_ = (torch.cat(pair) for pair in columns)
        self.anchors = Frames(embedding, video, time_, video // 2)
        self.update = sweeps(UPDATE, 3)

    def run(self) -> Iterator[Row]:
        """Builds, updates and searches the banks."""
        cells = max(16, 2 ** int(np.log2(self.m / 1000)))
        searches = {"exact": "exact", "Flat": "Flat", "IVF": f"IVF{cells},Flat"}
        if self.m <= LARGEST_GRAPH:
            searches["HNSW"] = "HNSW32"
        banks: dict[str, NegativeBank] = {}
        for name, search in searches.items():
            bank, *rows = self._built(name, partial(_bank, search, self.stored))
            banks[name] = bank
            yield from rows
        calls: dict[str, Callable[[], Any]] = {
            name: partial(bank.hardest, self.anchors, K) for name, bank in banks.items()
        }
        vectors = self.anchors.embedding.numpy()
        found: dict[str, Callable[[int], Tensor]] = {}
        for name in ("Flat", "IVF"):
            index: Any = banks[name]._index
            index.catch_up()
            raw = index._index
            calls[f"raw {name}"] = partial(raw.search, vectors, K)
            found[f"raw {name}"] = partial(_slots, raw, vectors)
        if self.m <= LARGEST_GRAPH:
            graph, *rows = self._built("usearch", self._usearch)
            yield from rows
            if graph is not None:
                calls["usearch"] = lambda: graph.search(vectors, K)
                found["usearch"] = lambda k: torch.from_numpy(
                    graph.search(vectors, k).keys.astype(np.int64)
                )
        truth = banks["exact"].hardest(self.anchors, K).cross_index
        for name, bank in banks.items():
            yield self._recall(name, bank.hardest(self.anchors, K).cross_index, truth)
        for name, ask in found.items():
            yield self._recall(name, self._masked(ask(K + 4 * FRAMES_PER_VIDEO)), truth)
        times = time_in_turns(
            {name: Step(call) for name, call in calls.items()}, seconds=self.seconds
        )
        yield from self._times("search", times)
        for ours, theirs in (
            ("Flat", "raw Flat"),
            ("IVF", "raw IVF"),
            ("exact", "Flat"),
            ("Flat", "IVF"),
        ):
            yield self._ratio(ours, theirs, times)
        # This comes last because it changes what the banks hold.
        steps = {n: Step(partial(b.enqueue, self.update)) for n, b in banks.items()}
        yield from self._times("update", time_in_turns(steps, seconds=self.seconds))

    def _built(self, name: str, build: Callable[[], Any]) -> tuple[Any, ...]:
        gc.collect()
        before, start = _resident(), time.perf_counter()
        try:
            built = build()
        except ImportError as error:
            return None, replace(self._row("build", name, "time", "ms"), note=str(error))
        seconds, grown = time.perf_counter() - start, _resident() - before
        took = self._row("build", name, "time", "ms").with_figures([1e3 * seconds])
        return built, took, self._row("build", name, "memory", "MiB").with_figures([grown])

    def _usearch(self) -> Any:
        from usearch.index import Index

        index = Index(ndim=DIM, metric="ip", dtype="f32")
        index.add(np.arange(self.m), self.stored.embedding.numpy())
        return index

    def _masked(self, slots: Tensor) -> Tensor:
        """Returns what is left if a caller asks for more and drops the anchor's own patient."""
        at = slots.clamp(min=0)
        assert self.stored.patient is not None and self.anchors.patient is not None
        keep = (slots >= 0) & (self.stored.patient[at] != self.anchors.patient[:, None])
        rows = [row[kept][:K] for row, kept in zip(slots, keep, strict=True)]
        return torch.stack([torch.nn.functional.pad(r, (0, K - len(r)), value=-1) for r in rows])

    def _recall(self, name: str, found: Tensor, truth: Tensor) -> Row:
        shares = ((truth[:, :, None] == found[:, None, :]) & (truth >= 0)[:, :, None]).any(2)
        row = self._row("search", name, "recall", "share")
        return replace(row, value=float(shares.float().mean()), repeats=len(truth))

    def _times(self, op: str, times: dict[str, Times]) -> Iterator[Row]:
        for name, one in times.items():
            yield self._row(op, name, "time", "ms").with_figures(one.forward)

    def _ratio(self, ours: str, theirs: str, times: dict[str, Times]) -> Row:
        row = replace(self._row("search", ours, "ratio", "x"), versus=theirs)
        ratios = times[ours].forward / times[theirs].forward
        return row.with_figures(ratios, absent="never in the same round")

    def _row(self, op: str, provider: str, metric: str, unit: str) -> Row:
        shape = ANCHORS, self.m, DIM
        return Row("bank", op, provider, "", shape, "float32", (0, K), "sweeps",
                   torch.get_num_threads(), metric, None, None, None, unit, 0,
                   **self.words)  # fmt: skip


def _slots(index: Any, vectors: np.ndarray, k: int) -> Tensor:
    return torch.from_numpy(index.search(vectors, k)[1])


def _resident() -> float:
    """Returns MiB; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def markdown(rows: Sequence[Row]) -> str:
    """Returns one table per size."""
    out = []
    for m in sorted({row.shape[1] for row in rows}):
        here = [row for row in rows if row.shape[1] == m]
        lines = ["| | search, ms | recall@32 | update of 256, ms | build, s | memory, MiB |"]
        lines += ["|---|--:|--:|--:|--:|--:|"]
        for name in PROVIDERS:
            cells = [
                _cell(here, name, *what)
                for what in (
                    ("search", "time", "{:.4g}"),
                    ("search", "recall", "{:.3f}"),
                    ("update", "time", "{:.3f}"),
                    ("build", "time", "{:.3g}", 1e-3),
                    ("build", "memory", "{:.0f}"),
                )
            ]
            if any(cells):
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        ratios = [
            f"{row.provider} takes {row.value:.2f} x the time of {row.versus}"
            for row in here
            if row.metric == "ratio" and row.value is not None
        ]
        out += [f"{ANCHORS} anchors, {m:,} frames of {DIM} numbers:\n", *lines, ""]
        out += ["; ".join(ratios) + ".", ""]
    return "\n".join(out)


def _cell(
    rows: Sequence[Row], name: str, op: str, metric: str, form: str, scale: float = 1.0
) -> str:
    for row in rows:
        if (row.provider, row.op, row.metric) == (name, op, metric) and row.value is not None:
            return form.format(row.value * scale)
    return ""


def _tell(result: Result, source: Path, docs: Path | None) -> None:
    row, others = result.rows[0], result.run["cores_of_others"]
    busy = "" if others is None else f"; other programs took {others:.1f} cores"
    text = (
        f"{row.machine}, {row.threads} threads; {row.versions}; commit {row.commit[:12]}; "
        f"{result.run['date'][:10]}{busy}. Medians; all figures: `{source.name}` in "
        f"`benchmarks/results/bank`.\n\n{markdown(result.rows)}"
    )
    print(text)
    if docs is not None:
        put_into(docs, "measured", text)


def put_into(document: Path, block: str, text: str) -> None:
    """Replaces the text between the two marks of a block."""
    begin, end = (f"<!-- {block}: {which} -->" for which in ("begin", "end"))
    head, rest = document.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    document.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; raises AssertionError before any measurement if a search is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 frames only")
    parser.add_argument("--full", action="store_true", help="10 million frames too, if they fit")
    parser.add_argument("--out", type=Path, help="JSON file; by default by date")
    parser.add_argument("--show", type=Path, help="only show this JSON file")
    parser.add_argument("--docs", type=Path, help="put what is shown into this document")
    options = parser.parse_args(arguments)
    if options.show is not None:
        _tell(read(options.show), options.show, options.docs)
        return 0
    start, others, run = time.perf_counter(), OtherPrograms(), describe_run()
    name = f"bank-{run['date'].replace(':', '').rstrip('Z').replace('T', '-')}.json"
    out = options.out or ROOT / "benchmarks" / "results" / "bank" / name
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    check()
    sizes = SIZES[:1] if options.quick else SIZES + ((FULL_SIZE,) if options.full else ())
    rows: list[Row] = []
    for m in sizes:
        if 5 * 4 * m * DIM / 2**30 > available_memory():  # banks, indexes, and one being built
            print(f"Without {m:,} frames: they would not fit in memory", file=sys.stderr)
            continue
        for row in Bench(m, 0.3 if options.quick else 2.0, in_words(run)).run():
            rows.append(row)
            print(m, row.op, row.provider, row.metric, row.value, row.unit, file=sys.stderr)
    run |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    run |= {"cores_of_others": others.cores()}
    providers = {n: {"what": w, "cannot": "", "skipped": ""} for n, w in PROVIDERS.items()}
    write(Result(run, providers, rows), out)
    _tell(Result(run, providers, rows), out, options.docs)
    print(f"Written: {out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
