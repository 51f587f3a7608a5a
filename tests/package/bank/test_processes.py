"""Banks that are sent to other processes."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from banks import assert_equal, frames

from usucl.bank import NegativeBank

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def filled(search: str = "exact", dtype: torch.dtype = torch.float32) -> NegativeBank:
    bank = NegativeBank(50, 6, search=search, dtype=dtype, max_age=40)
    bank.enqueue(frames(70, 1))
    return bank


def check(bank: NegativeBank, search: str = "exact") -> None:
    assert bank.search == search and bank.enqueued == 70
    asked = frames(4, 2)
    anchors = asked._replace(embedding=asked.embedding.to(bank.dtype))
    assert_equal(bank.hardest(anchors, 3), filled(dtype=bank.dtype).hardest(anchors, 3))


def child(rank: int, banks: list[NegativeBank], queue: Any) -> None:
    torch.set_num_threads(1)
    for bank in [*banks, queue.get(timeout=60)]:
        check(bank, bank.search)


def test_spawned_processes_get_banks_as_arguments_and_through_queues() -> None:
    pytest.importorskip("faiss")
    queue = multiprocessing.get_context("spawn").Queue()
    banks = [filled("Flat"), *(filled(dtype=dtype) for dtype in DTYPES)]
    queue.put(filled())  # the only reference
    mp.spawn(child, (banks, queue), 1)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_hold_the_frames(protocol: int) -> None:
    content = pickle.dumps(filled(dtype=torch.bfloat16), protocol)
    again = pickle.loads(content)
    check(again)
    again.enqueue(frames(3, 5))
    check(pickle.loads(content))


def _rebuild(bank: NegativeBank, results: Any) -> None:
    bank.enqueue(frames(10, 4))
    bank.rebuild()
    results.put(bank.enqueued)


def test_an_index_is_built_in_a_forked_child_too(one_thread: None) -> None:
    faiss = pytest.importorskip("faiss")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        bank = filled("IVF2,Flat")
        bank.rebuild()
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=_rebuild, args=(bank, results), daemon=True)
        process.start()
        assert results.get(timeout=20) == 80
        process.join()
    finally:
        faiss.omp_set_num_threads(threads)
