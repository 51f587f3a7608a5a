"""``python -m benchmarks.bank_drift``: what old centroids cost while an encoder drifts.

The bank is overwritten twice, a quarter at a time, while the embedding space turns: the printed
similarity is that of a frame with its first embedding. Prints recall@32 with the first centroids,
and with new ones each time the bank has been replaced once, the default of ``rebuild_after``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.bank import DIM, K, every, sweeps
from usucl.bank import NegativeBank
from usucl_ext import Frames

CAPACITY, CELLS, NPROBE = 65_536, 64, 8
VIEWS = 256
QUARTER_TURN = 0.15  # multiple of the generator's matrix, per quarter of the bank
NEVER = 10**9


def turned(m: int, seed: int, turn: Tensor) -> Frames:
    """Returns turned sweeps with as many frames per view as a large bank has."""
    frames = sweeps(m, seed, count=VIEWS)
    return frames._replace(embedding=frames.embedding @ turn)


def main() -> None:
    """Prints one line per quarter."""
    square = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0))
    square = (square - square.T) / DIM**0.5
    search = f"IVF{CELLS},Flat"
    banks = {
        name: NegativeBank(CAPACITY, DIM, search=search, nprobe=NPROBE, rebuild_after=NEVER)
        for name in ("first centroids", "new centroids")
    }
    for quarter in range(9):
        turn = torch.linalg.matrix_exp(square * QUARTER_TURN * quarter)
        asked = every(turned(CAPACITY, 2, turn), 256)
        stored = turned(CAPACITY // 4 if quarter else CAPACITY, 10 + quarter, turn)
        recall = {}
        for name, bank in banks.items():
            bank.enqueue(stored)
            if quarter == 0:
                bank.rebuild()
            recall[name] = bank.recall(asked, K, sample=256)
            if name == "new centroids" and quarter % 4 == 0:
                bank.rebuild()
                recall[name] = bank.recall(asked, K, sample=256)
        still = float(torch.diagonal(turn).mean())
        figures = ", ".join(f"{name}: recall {value:.3f}" for name, value in recall.items())
        print(
            f"replaced {quarter / 4:.2f} x, similarity with its first self {still:.2f}: {figures}"
        )


if __name__ == "__main__":
    main()
