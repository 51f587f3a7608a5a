"""A bank of 200,000 frames: the hardest negatives of a batch, filters, FAISS, a bank on disk.

The embeddings are random, so only the mechanics are of interest.

    python examples/bank.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from usucl.bank import NegativeBank
from usucl_ext import Frames

DIM, FRAMES_PER_VIDEO = 64, 100


def made_up(count: int) -> Frames:
    """Frames of videos of 100 frames; two videos of each patient."""
    video = torch.arange(count) // FRAMES_PER_VIDEO
    time_in_video = torch.arange(count) % FRAMES_PER_VIDEO / FRAMES_PER_VIDEO
    return Frames(F.normalize(torch.randn(count, DIM), dim=1), video, time_in_video, video // 2)


def main() -> None:
    """Fills a bank and searches it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=200_000, help="frames in the bank (200000)")
    count = parser.parse_args().frames
    torch.manual_seed(0)
    frames = made_up(count)
    anchors = frames.take(torch.arange(64) * (count // 64))

    for search in ("exact", "IVF256,Flat"):
        bank = NegativeBank(count, DIM, search=search)
        bank.enqueue(frames)
        found = bank.hardest(anchors, 8, window=(0.2, 0.4))  # an index is built for the first one
        begin = time.perf_counter()
        found = bank.hardest(anchors, 8, window=(0.2, 0.4))
        seconds = time.perf_counter() - begin
        if search == "exact":
            exact = found
        same = (found.cross_index == exact.cross_index).float().mean()
        print(f"{search:12s} {1000 * seconds:6.1f} ms; {100 * same:.0f} % of the exact negatives")

    own, other = exact.intra_index, exact.cross_index
    assert bool((frames.video[own] == anchors.video[:, None]).all())
    assert bool((frames.patient[other] != anchors.patient[:, None]).all())
    print("intra-video negatives are of the own video, the others never of the own patient")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank"
        bank = NegativeBank(count, DIM, dtype=torch.bfloat16)
        bank.enqueue(frames)
        bank.save(path)
        size = sum(file.stat().st_size for file in path.iterdir()) / 2**20
        opened = NegativeBank.open(path, mmap=True)  # reads through the file, whatever its size
        found = opened.hardest(anchors, 8)
        print(
            f"on disk {size:.0f} MiB; {int((found.cross_index >= 0).sum())} negatives found in it"
        )


if __name__ == "__main__":
    main()
