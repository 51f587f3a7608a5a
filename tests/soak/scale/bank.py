"""A bank of ten million frames: filled, saved, opened in memory and mapped from its file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from tests.soak.scale.memory import own_memory
from usucl.bank import NegativeBank
from usucl.losses import Frames

DIM, BLOCK = 128, 100_000
ANCHORS, HARDEST = 64, 16
PER_VIDEO = 100
MAPPED_SHARE = 0.1  # of the embeddings: as much memory as a mapped search may take for itself


def run(folder: Path, frames: int) -> tuple[dict[str, Any], list[str]]:
    """Returns seconds and memory, and in what the searches differ."""
    facts: dict[str, Any] = {"frames": frames, "dim": DIM}
    facts["filled"], expected = _alone(_fill, folder, frames)
    for name in ("mapped", "loaded"):
        facts[name], results = _alone(_open, folder, name == "mapped")
        facts[name]["equal"] = results == expected
    shutil.rmtree(folder / "bank")
    found = [
        f"the {name} bank finds other frames than the one that was saved"
        for name in ("mapped", "loaded")
        if not facts[name]["equal"]
    ]
    limit = MAPPED_SHARE * frames * DIM * 4 / 2**20 + 64
    if facts["mapped"]["search MiB"] > limit:
        found.append(f"a mapped search takes {facts['mapped']['search MiB']} MiB, not {limit:.0f}")
    return facts, found


Answer = tuple[dict[str, Any], list[list[list[float]]]]


def _alone(work: Callable[..., Answer], *arguments: Any) -> Answer:
    """Returns what a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _frames(count: int, first: int) -> Frames:
    generator = torch.Generator().manual_seed(first)
    embedding = torch.nn.functional.normalize(torch.randn(count, DIM, generator=generator))
    number = torch.arange(first, first + count)
    return Frames(embedding, number // PER_VIDEO, (number % PER_VIDEO).float())


@contextmanager
def _measured(facts: dict[str, Any], name: str) -> Iterator[None]:
    before, start = own_memory(), time.monotonic()
    yield
    facts[f"{name} s"] = round(time.monotonic() - start, 2)
    facts[f"{name} MiB"] = (own_memory() - before) >> 20


def _search(bank: NegativeBank, facts: dict[str, Any]) -> list[list[list[float]]]:
    with _measured(facts, "search"):
        found = bank.hardest(_frames(ANCHORS, 0), HARDEST, window=(10.0, 90.0))
    return [tensor.tolist() for tensor in found]


def _fill(folder: Path, frames: int) -> Answer:
    facts: dict[str, Any] = {}
    with _measured(facts, "fill"):
        bank = NegativeBank(frames, DIM)
        for first in range(0, frames, BLOCK):
            bank.enqueue(_frames(min(BLOCK, frames - first), first))
    results = _search(bank, facts)
    with _measured(facts, "save"):
        bank.save(folder / "bank")
    return facts, results


def _open(folder: Path, mapped: bool) -> Answer:
    facts: dict[str, Any] = {}
    with _measured(facts, "open"):
        bank = NegativeBank.open(folder / "bank", mmap=mapped)
    return facts, _search(bank, facts)
