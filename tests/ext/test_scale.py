"""Sizes past 2^31 pairs, and memory that does not grow with the pairs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from usucl_ext import Frames, select_negatives

VIDEO_LENGTH = 1000


def test_more_than_two_to_the_31_pairs(native_device: torch.device) -> None:
    """D = 1, so a similarity is +key or -key and the answer is a sort of the keys."""
    rows, count, k = 4096, 2**19 + 3, 3
    assert rows * count > 2**31
    rank = np.arange(count) * 314159 % count  # a permutation, as the two have no common factor
    value = ((rank - count // 2) * 2.0**-20).astype(np.float32)  # distinct and exact
    video = np.arange(count) // VIDEO_LENGTH
    kinds = [(sign, v) for sign in (1.0, -1.0) for v in (0, 1, 250, int(video[-1]))]
    sign, anchor_video = (np.array([kinds[i % len(kinds)][j] for i in range(rows)]) for j in (0, 1))

    def frames(embedding: np.ndarray, videos: np.ndarray, time: float) -> Frames:
        columns = (
            embedding.astype(np.float32)[:, None],
            videos.astype(np.int64),
            np.full(len(videos), time, np.float32),
        )
        return Frames(*(torch.from_numpy(x).to(native_device) for x in columns))

    selection = select_negatives(
        frames(sign, anchor_video, 0.0),
        frames(value, video, 1.0),
        window=(0.5, 1.5),
        intra_k=k,
        cross_k=k,
        impl="native",
    )
    ascending = np.argsort(value)
    for i, (direction, own) in enumerate(kinds):
        ordered = ascending[::-1] if direction > 0 else ascending
        same = video[ordered] == own
        assert selection.intra_index[i].tolist() == ordered[same][:k].tolist()
        assert selection.cross_index[i].tolist() == ordered[~same][:k].tolist()
    for index in (selection.intra_index, selection.cross_index):
        repeats = index.reshape(-1, len(kinds), k)
        assert bool((repeats == repeats[0]).all())


_PEAK = """
import torch
from usucl_ext import Frames, hard_negative_nce

torch.set_num_threads(2)

def resident(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

def frames(count, dim):
    embedding = torch.nn.functional.normalize(torch.randn(count, dim), dim=1)
    return Frames(embedding, torch.arange(count) // 16, torch.rand(count))

def run(rows, keys):
    anchors, bank = frames(rows, 4), frames(keys, 4)
    anchors.embedding.requires_grad_()
    before = resident("VmRSS")
    loss = hard_negative_nce(
        anchors, anchors.embedding.detach(), bank, window=(0.1, 0.5), intra_k=3, cross_k=8,
        impl="native",
    )
    loss.backward()
    return resident("VmHWM") - before

run(64, 64)
print(run(1024, 2**18))
"""


def test_extra_memory_does_not_grow_with_the_pairs(native_device: torch.device) -> None:
    """The anchors x keys matrix would be 1 GiB of float32 here; the goal is 64 MiB at any M."""
    if native_device.type != "cpu":
        pytest.skip("resident memory is the CPU's")
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    run = subprocess.run(
        [sys.executable, "-c", _PEAK], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 64


def test_dimension_beyond_any_tile(impl: str, device: torch.device) -> None:
    """D = 20000 of ones is exact, and no tile boundary divides it."""
    dim = 20000 + 1
    keys = torch.ones(3, dim)
    keys[0, -1] = 0
    keys[2, 0] = -1
    selection = select_negatives(
        Frames(
            torch.ones(1, dim, device=device),
            torch.tensor([0], device=device),
            torch.tensor([0.0], device=device),
        ),
        Frames(
            keys.to(device),
            torch.ones(3, dtype=torch.int64, device=device),
            torch.zeros(3, device=device),
        ),
        window=None,
        intra_k=0,
        cross_k=3,
        impl=impl,
    )
    assert selection.cross_index.tolist() == [[1, 0, 2]]
    assert selection.cross_similarity.tolist() == [[dim, dim - 1, dim - 2]]


def test_every_key_may_be_asked_for(impl: str, device: torch.device) -> None:
    """With k = M = 5000 the selection is a stable sort."""
    count = 5000
    value = (torch.arange(count) * 7919 % 97).float() / 128
    selection = select_negatives(
        Frames(
            torch.ones(2, 1, device=device),
            torch.zeros(2, dtype=torch.int64, device=device),
            torch.zeros(2, device=device),
        ),
        Frames(
            value[:, None].to(device),
            torch.ones(count, dtype=torch.int64, device=device),
            torch.zeros(count, device=device),
        ),
        window=None,
        intra_k=0,
        cross_k=count,
        impl=impl,
    )
    expected = torch.argsort(value, descending=True, stable=True)
    assert torch.equal(selection.cross_index.cpu(), expected.expand(2, -1))
