"""The providers of the GPU suite, on the CPU: each is checked before it is timed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from benchmarks import gpu, gpu_kernels, gpu_loss
from benchmarks.gpu_machine import COMPARED, GROUPS
from benchmarks.gpu_peers import PEERS
from benchmarks.problems import Problem, Setting
from benchmarks.rows import (
    CHUNKED,
    EAGER,
    FAISS_GPU,
    FLASHLIB,
    GRAPH,
    MATMUL,
    MMA_SYNC,
    OURS,
    TRITON,
    Row,
)

CPU = torch.device("cpu")


def test_every_provider_has_a_row() -> None:
    kept: list[Row] = []
    setting = Setting(16, 512, dtype="bfloat16")
    assert not gpu_loss.measure(setting, CPU, 0.05, kept.append, COMPARED)
    found = {(row.provider, row.mode): row for row in kept}
    assert [*dict.fromkeys(row.provider for row in kept)] == list(COMPARED)
    assert set(PEERS) <= set(COMPARED) and all(
        names[0] in (GRAPH, OURS) for names in GROUPS.values()
    )
    for provider in (OURS, EAGER):
        forward, both = found[provider, "forward"], found[provider, "both"]
        assert forward.value is not None and both.value is not None
        assert forward.value < both.value and both.low <= both.value <= both.high  # type: ignore[operator]
    assert (MATMUL, "both") not in found and "CUDA" in found[GRAPH, "both"].note
    assert found[FAISS_GPU, "forward"].value is not None and (FAISS_GPU, "both") not in found
    for provider in (TRITON, FLASHLIB, MMA_SYNC):
        assert "GPU" in found[provider, "both"].note


def test_a_sweep_varies_one_thing_at_a_time() -> None:
    base = Setting(512, 65536, dtype="bfloat16")
    varied = [asdict(one) for one in gpu_loss.sweep(base)]
    changes = [{key for key in one if one[key] != asdict(base)[key]} for one in varied]
    assert all(len(change) == 1 for change in changes)
    assert set.union(*changes) == {"n", "m", "d", "cross_k", "dtype"}


def test_what_is_wrong_is_not_timed_and_told_while_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = gpu_loss._loss_of_each

    def wrong(problem: Problem) -> object:
        loss, selection, gradient = right(problem)
        if problem.setting.n == 100:  # the device's call, of all anchors
            selection.cross_index[99, 0] += 1
        return loss, selection, gradient

    kept: list[Row] = []
    monkeypatch.setattr(gpu_loss, "_loss_of_each", wrong)
    (amiss,) = gpu_loss.measure(Setting(100, 512), CPU, 0.05, kept.append, (OURS, MATMUL))
    assert amiss.startswith(f"{OURS}: AssertionError: cross_index: 1 of")
    assert {row.provider: row.value is None for row in kept} == {OURS: True, MATMUL: False}


def test_a_search_that_misses_a_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    pytest.importorskip("faiss.contrib.torch_utils")  # later it would undo the replacement
    right = faiss.knn

    def wrong(*arguments: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        similarity, index = right(*arguments, **options)
        index[3, 5] = next(i for i in range(600) if i not in index[3])
        return similarity, index

    kept: list[Row] = []
    monkeypatch.setattr(faiss, "knn", wrong)
    (amiss,) = gpu_loss.measure(Setting(16, 600), CPU, 0.05, kept.append, (FAISS_GPU,))
    assert "the keys found is off by" in amiss and kept[0].value is None


def test_a_provider_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(problem: Problem) -> None:
        raise torch.OutOfMemoryError("too large by far")

    provider = replace(gpu_loss.PROVIDERS[EAGER], make=fails)  # type: ignore[arg-type]
    monkeypatch.setitem(gpu_loss.PROVIDERS, EAGER, provider)
    kept: list[Row] = []
    assert not gpu_loss.measure(Setting(16, 512), CPU, 0.05, kept.append, (EAGER, CHUNKED))
    (row,) = (row for row in kept if row.provider == EAGER)
    assert row.value is None and "too large" in row.note
    assert any(row.provider == CHUNKED and row.value is not None for row in kept)


def test_kernels_are_told_apart_and_added_up() -> None:
    assert gpu_kernels.short("void usucl::cuda::(anonymous namespace)::pack<float>(int)") == (
        "pack<float>"
    )
    twice = [(float(i), 1.0 + i % 2) for i in range(2 * gpu_kernels.CALLS)]
    assert gpu_kernels._of_calls(twice[::-1]).tolist() == [3.0] * gpu_kernels.CALLS
    assert gpu_kernels._of_calls(twice[:5]).tolist() == [0.7] * gpu_kernels.CALLS


TRITON_SEARCH = """
import torch
from benchmarks.triton_search import hardest

generator = torch.Generator().manual_seed(1)
query, keys = (torch.randn(rows, 16, generator=generator) for rows in (70, 3000))
video = torch.arange(70) % 7, torch.arange(3000) % 9
value, index = hardest(query, keys, *video, 16)
similarity = (query @ keys.T).masked_fill(video[0][:, None] == video[1], -torch.inf)
expected = similarity.topk(16, dim=1)
torch.testing.assert_close(value, expected.values)
torch.testing.assert_close(similarity.gather(1, index.long()), value)

from benchmarks import chunked_search
from usucl_ext import Frames

chunked_search.FIRST, chunked_search.CHUNK = 500, 1000
anchors, bank = Frames(query, video[0], None), Frames(keys, video[1], None)
search = chunked_search.ChunkedSearch(anchors, bank, 16)
found = similarity.gather(1, search().long()).sort(dim=1, descending=True)
torch.testing.assert_close(found.values, expected.values)
assert not search.lost() and int(search._most) > 16
"""


@pytest.mark.at_length
def test_the_searches_in_triton_find_the_hardest() -> None:
    """In Triton's interpreter, which needs no GPU."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", TRITON_SEARCH]
    done = subprocess.run(
        command, cwd=gpu.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
