"""``python -m benchmarks.training``: what a training step is made of, and lightly's beside it.

Runs are those of :func:`usucl.train` on synthetic videos. Every second step has a stub instead of
the loss, so the loss's share of a step is paired; and after each step, lightly does one of its own
with the same images, on a copy of the same encoder, in a plain loop.

On a GPU, ``--gpu`` measures ResNet-50 at 224 px with bfloat16, 256 anchors and a bank of 1,048,576.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import ROOT, OtherPrograms, describe_run, in_words
from benchmarks.rows import OURS, Result, Row, publish, read
from benchmarks.training_turns import PARTS, Clock, Turns, lightly_steps
from usucl import train
from usucl.data import write_phantom

STEPS, QUICK_STEPS = 24, 4
STUB = "the loss a stub"


@dataclass(frozen=True)
class Case:
    """A run to measure.

    Attributes:
        name: in the tables.
        options: overrides of its preset, which ``preset`` names.
        anchors: per batch.
        images: per batch.
        versus: lightly's module to compare with; empty to measure the share of the loss.
    """

    name: str
    options: Mapping[str, Any]
    anchors: int
    images: int
    versus: str = ""

    @property
    def bank(self) -> int:
        return int(self.options.get("bank", 0))


def dense(
    size: int, videos: int, options: Mapping[str, Any], *, bank: int = 0, versus: str = ""
) -> Case:
    """Returns a case of the method ``dense``, with 8 anchors per video and their second views."""
    own = {"preset": "dense", "image_size": size, "videos": videos, "frames": 8, **options}
    own |= {"bank": bank} if bank else {}
    banked = f", bank {bank:,}" if bank else ""
    return Case(f"dense, {size} px{banked}", own, 8 * videos, 16 * videos, versus)


def paper(
    size: int,
    videos: int,
    bank: int,
    options: Mapping[str, Any],
    *,
    negatives: int = 3,
    versus: str = "",
) -> Case:
    """Returns a case of the method ``paper``; without sampled negatives it is as MoCo."""
    own = {"preset": "paper", "image_size": size, "videos": videos, "bank": bank, **options}
    own |= {
        "log_every": 10,
        "sampling.negatives": negatives,
        "pretrained": False,
        "curriculum.cross_only": 0,
    }
    if not negatives:
        own |= {"intra_k": 0}
    name = f"paper, {size} px, bank {bank:,}" + ("" if negatives else ", no sampled negatives")
    return Case(name, own, videos, videos * (2 + negatives), versus)


SMALL: dict[str, Any] = {"backbone": "resnet18"}
CASES = (
    dense(64, 4, SMALL),
    dense(112, 2, SMALL),
    dense(64, 4, SMALL, bank=65536),
    paper(64, 8, 1024, SMALL),
    paper(64, 8, 65536, SMALL),
    dense(64, 4, SMALL, versus="SimCLR"),
    paper(64, 16, 4096, SMALL, negatives=0, versus="MoCo"),
)
_TINY: dict[str, Any] = {"backbone": "resnet10"}
QUICK = (
    dense(32, 2, _TINY),
    paper(32, 4, 64, _TINY),
    dense(32, 2, _TINY, versus="SimCLR"),
    paper(32, 4, 64, _TINY, negatives=0, versus="MoCo"),
)
_LARGE: dict[str, Any] = {
    "backbone": "resnet50",
    "precision": "bf16-mixed",
    "num_workers": os.cpu_count() or 1,
}
GPU = (
    paper(224, 256, 1048576, _LARGE, negatives=0),
    dense(224, 32, _LARGE, bank=1048576),
    paper(224, 256, 1048576, _LARGE, negatives=0, versus="MoCo"),
    dense(224, 32, _LARGE, versus="SimCLR"),
)


def run(case: Case, data: Path, out: Path, steps: int) -> Turns:
    """Trains for some steps; returns their times."""
    temperature = 0.1
    other = lightly_steps(case.versus, case.bank, temperature) if case.versus else None
    turns = Turns(steps, stubs=not case.versus, other=other)
    with turns.attached(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a run of a few steps is told that it learns little
        train(data=data, out=out, progress=False, held_out=(), epochs=1000, **case.options)
    return turns


def rows_of(case: Case, turns: Turns, words: Mapping[str, str]) -> list[Row]:
    """Returns a case's figures: times by part, and ratios of pairs of neighbouring steps."""
    options = case.options
    k = (int(options.get("intra_k", 0)), int(options.get("cross_k", 0)))
    shape = (case.anchors, case.bank, int(options.get("dim", 128)))
    dtype = "bfloat16" if options.get("precision") == "bf16-mixed" else "float32"
    group = "training, versus lightly" if case.versus else "training"

    def row(provider: str, part: str, metric: str, unit: str, values: Any, **more: Any) -> Row:
        threads = 0 if torch.cuda.is_available() else torch.get_num_threads()
        empty = Row(group, case.name, provider, "both", shape, dtype, k, part, threads, metric,
                    None, None, None, unit, 0, **more, **words)  # fmt: skip
        return empty.with_figures(values)

    def sums(steps: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Returns the seconds of each step without its data, which lightly gets for nothing."""
        return np.array([sum(step.values()) - step.get("data", 0.0) for step in steps])

    ours = sums(turns.whole)
    rows = [row(OURS, "step without data", "time", "ms", 1e3 * ours)]
    rows.append(row(OURS, "images", "rate", "images/s", case.images / ours))
    if not case.versus:
        for part in PARTS:
            times = [1e3 * step.get(part, 0.0) for step in turns.whole]
            rows.append(row(OURS, part, "time", "ms", times))
        stubbed = sums(turns.stubbed)
        rows.append(row(STUB, "step without data", "time", "ms", 1e3 * stubbed))
        pairs = zip(ours, stubbed, strict=False)
        shares = [1 - stub / whole for whole, stub in pairs]
        rows.append(row(OURS, "share of the loss", "ratio", "share", shares, versus=STUB))
    for name, times in turns.others.items():
        theirs = np.array(times)
        rows.append(row(name, "step without data", "time", "ms", 1e3 * theirs))
        rows.append(row(name, "images", "rate", "images/s", case.images / theirs))
        rows.append(row(name, "ratio", "ratio", "x", theirs / ours, versus=OURS))
    return rows


def markdown(result: Result) -> str:
    """Returns the tables of a result."""
    profiled = list(dict.fromkeys(r.op for r in result.rows if r.group == "training"))
    lines = ["| milliseconds per step (share) | " + " | ".join(profiled) + " |"]
    lines.append("|--|" + "--:|" * len(profiled))
    for part in PARTS:
        cells = []
        for op in profiled:
            all_parts = [result.value(op=op, order=p) or 0.0 for p in PARTS]
            value = result.value(op=op, order=part) or 0.0
            cells.append(f"{value:.1f} ({value / sum(all_parts):.0%})")
        lines.append(f"| {part} | {' | '.join(cells)} |")
    for name, what, unit in (
        ("images/s, without data", {"order": "images", "provider": OURS}, ""),
        ("loss by a stub, paired", {"order": "share of the loss"}, "%"),
    ):
        found = [result.value(op=op, group="training", **what) for op in profiled]
        cells = ["" if v is None else f"{v:.1%}" if unit else f"{v:,.0f}" for v in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| images/s, without data | usucl | lightly | usucl over lightly (20th to 80th) |",
    ]
    lines.append("|--|--:|--:|--:|")
    for r in result.rows:
        if r.order == "ratio":
            ours = result.value(op=r.op, group=r.group, order="images", provider=OURS)
            theirs = result.value(op=r.op, group=r.group, order="images", provider=r.provider)
            lines.append(
                f"| {r.op}; {r.provider} | {ours or 0:,.0f} | {theirs or 0:,.0f} | "
                f"{r.value:.2f} ({r.low:.2f} to {r.high:.2f}) |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks, a few steps")
    parser.add_argument("--gpu", action="store_true", help="ResNet-50 at 224 px, on a GPU")
    parser.add_argument("--steps", type=int, help="steps with the loss, and as many with a stub")
    parser.add_argument("--threads", type=int, help="threads of PyTorch")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure the time of the processor, which other programs hardly change; one thread",
    )
    parser.add_argument("--out", type=Path, help="JSON file; by default by date")
    parser.add_argument("--show", type=Path, help="only show this JSON file")
    options = parser.parse_args(arguments)
    if options.show is not None:
        print(markdown(read(options.show)))
        return 0
    if options.gpu and not torch.cuda.is_available():
        parser.error("--gpu needs a GPU, and PyTorch finds none")
    before, clock = torch.get_num_threads(), Clock.seconds
    torch.set_num_threads(1 if options.processor_time else options.threads or before)
    if options.processor_time:
        Clock.seconds = staticmethod(time.process_time)
    start, others, about = time.perf_counter(), OtherPrograms(), describe_run()
    if torch.cuda.is_available():
        about["machine"]["gpu"] = torch.cuda.get_device_name()
    name = f"training-{about['date'].replace(':', '').rstrip('Z').replace('T', '-')}.json"
    out = options.out or ROOT / "benchmarks" / "results" / "training" / name
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    cases = QUICK if options.quick else GPU if options.gpu else CASES
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    videos = max(int(case.options["videos"]) for case in cases)
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as temporary:
            size = max(int(case.options["image_size"]) for case in cases)
            folder = Path(temporary)
            data = write_phantom(folder / "data", videos=videos, frames=12, image_size=size)
            for number, case in enumerate(cases):
                count = steps if case.versus else 2 * steps
                turns = run(case, data, folder / f"run{number}", count)
                rows += rows_of(case, turns, in_words(about))
                print(f"{case.name}: measured", file=sys.stderr)
    finally:
        torch.set_num_threads(before)
        Clock.seconds = staticmethod(clock)
    about |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    about |= {"cores_of_others": others.cores(), "steps": steps}
    about |= {"clock": "processor" if options.processor_time else "wall"}
    what = {OURS: "usucl.train, with its monitors", STUB: "the same, with a stub for the loss"}
    what |= {r.provider: "its modules in a plain loop" for r in rows if r.provider not in what}
    providers = {n: {"what": w, "cannot": "", "skipped": ""} for n, w in what.items()}
    result = Result(about, providers, rows)
    publish(result, out, markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
