"""``python -m benchmarks.data_augmentation``: views per second on one core, from stored frames.

Every augmentation gets the frames of synthetic videos at the size that its frame store holds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import (
    ROOT,
    OtherPrograms,
    describe_run,
    in_words,
    torch_threads,
)
from benchmarks.rows import Result, Row, publish, read
from usucl.data import Augmentation, FrameStore, VideoCatalog, write_phantom

BASELINE = "crop-flip-jitter"
PROVIDERS = {
    BASELINE: "torchvision's random resized crop, flip and jitter, one view after another",
    "global": "ultrasound augmentation of the whole picture, all views at once",
    "local": "ultrasound augmentation with crops, all views at once",
}
SIZES = (64, 224)
VIEWS = 64  # per call
SEEDS = list(range(VIEWS))
ROUNDS = 20
CLOCKS = {"": time.perf_counter, ", CPU time": time.process_time}
GOALS = {64: 1500, 224: 250}  # views/s


def frames(folder: Path, short_side: int) -> list[Tensor]:
    """Returns ``VIEWS`` frames of the videos in a folder, as the frame store has them."""
    entries = VideoCatalog.scan(folder).entries
    store = FrameStore(entries, short_side, 10**10)
    of_video = -(-VIEWS // len(entries))
    images = [
        image
        for index, entry in enumerate(entries)
        for image in store.frames(index, np.arange(of_video) % entry.num_frames)
    ]
    return images[:VIEWS]


def check(augment: Augmentation, images: list[Tensor], seeds: list[int]) -> None:
    """Raises AssertionError unless a view is the same alone as in the batch, and finite."""
    views = augment(images, seeds)
    size = augment.image_size
    assert views.shape == (len(images), 3, size, size) and views.isfinite().all()
    for number in (0, len(images) // 2, len(images) - 1):
        alone = augment([images[number]], [seeds[number]])
        assert torch.equal(alone[0], views[number]), f"{augment.name}: view {number} has neighbours"


def run(folder: Path, sizes: Sequence[int], rounds: int, words: Mapping[str, str]) -> list[Row]:
    """Returns the rates on one thread and their ratios to that of ``BASELINE``.

    Augmentations take turns, so that other load affects a round alike. Rates are per second by the
    clock and per second of the process's own time, which holds on a machine that others use too.
    """
    rows = []
    for size in sizes:
        calls = {}
        for name in PROVIDERS:
            augment = Augmentation(name, size)  # type: ignore[arg-type]
            images = frames(folder, augment.short_side)
            check(augment, images, SEEDS)
            calls[name] = augment, images
        took = np.full((rounds, len(calls), len(CLOCKS)), np.nan)
        for number, place in itertools.product(range(rounds), range(len(calls))):
            augment, images = calls[list(calls)[place]]
            before = [clock() for clock in CLOCKS.values()]
            augment(images, SEEDS)
            after = [clock() for clock in CLOCKS.values()]
            took[number, place] = np.subtract(after, before)
        for place, name in enumerate(calls):
            for which, clock in enumerate(CLOCKS):
                shape, seconds = (VIEWS, size, size), took[:, place, which]
                rate = Row("augmentation", f"{size} px{clock}", name, "", shape, "uint8", (0, 0),
                           "", 1, "rate", None, None, None, "views/s", 0, **words)  # fmt: skip
                rows.append(rate.with_figures(VIEWS / seconds))
                if place > 0:
                    ratio = replace(rate, metric="ratio", unit="x", versus=BASELINE)
                    rows.append(ratio.with_figures(took[:, 0, which] / seconds))
    return rows


def markdown(result: Result) -> str:
    """Returns the table of a result."""
    ops = list(dict.fromkeys(row.op for row in result.rows))
    lines = [f"| views/s on one core | {' | '.join(ops)} |", f"|--|{'--:|' * len(ops)}"]
    for name in result.providers:
        cells = []
        for op in ops:
            rate = result.value(op=op, provider=name, metric="rate") or 0
            ratio = result.value(op=op, provider=name, metric="ratio")
            cells.append(f"{rate:,.0f}" + (f" ({ratio:.1f} x)" if ratio else ""))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; raises AssertionError before any measurement if a view is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_augmentation", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="64 pixels only, shortly")
    parser.add_argument("--out", type=Path, help="JSON file; by default by date")
    parser.add_argument("--show", type=Path, help="only show this JSON file")
    options = parser.parse_args(arguments)
    if options.show is not None:
        print(markdown(read(options.show)))
        return 0
    start, others, about = time.perf_counter(), OtherPrograms(), describe_run()
    name = f"augmentation-{about['date'].replace(':', '').rstrip('Z').replace('T', '-')}.json"
    out = options.out or ROOT / "benchmarks" / "results" / "data" / name
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    sizes = SIZES[:1] if options.quick else SIZES
    with torch_threads(1), tempfile.TemporaryDirectory() as temporary:
        folder = write_phantom(Path(temporary) / "videos", videos=4, frames=16, image_size=400)
        rows = run(folder, sizes, 3 if options.quick else ROUNDS, in_words(about))
    about["machine"]["threads"] = 1
    about |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    about |= {"cores_of_others": others.cores(), "goals": {f"{s} px": GOALS[s] for s in sizes}}
    providers = {n: {"what": w, "cannot": "", "skipped": ""} for n, w in PROVIDERS.items()}
    result = Result(about, providers, rows)
    publish(result, out, markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
