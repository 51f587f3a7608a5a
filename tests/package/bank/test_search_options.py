"""The allowed options of a search, and the banks that have them."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from banks import assert_equal, frames

from usucl.bank import NegativeBank

pytest.importorskip("faiss")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": "IVF64,Plat"}, 'search must be "exact" or a FAISS factory string.*IVF64,Plat'),
        ({"search": "IVF128,Flat"}, "capacity must be at least 128.*got 64"),
        ({"search": "HNSW8", "nprobe": 3}, "nprobe is for inverted-file indexes"),
        ({"search": "IVF4,Flat", "ef_search": 3}, "ef_search is for graph indexes"),
        ({"search": "Flat", "nprobe": 3}, "are for other searches"),
        ({"search": "IVF4,Flat", "nprobe": 0}, "nprobe must be >= 1, got 0"),
        ({"search": "IVF4,Flat", "rebuild_after": 2.0}, "rebuild_after must be an int or None"),
        ({"search": 5}, "search must be a string"),
        ({"max_age": -1}, "max_age must be >= 0"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        NegativeBank(64, 8, **arguments)


def test_what_cannot_be_reembedded_changes_nothing() -> None:
    bank = NegativeBank(5, 6)
    bank.enqueue(frames(3, 0))
    before = bank.frames().embedding.clone()
    good = frames(2, 1).embedding
    for slots, embedding, message in (
        ([0, 3], good, "slots must be filled"),
        ([1, 1], good, "differ"),
        ([0, 1], good[:1], "embedding must be"),
        ([0, 1], good * math.nan, "row 0 is not"),
    ):
        with pytest.raises(ValueError, match=message):
            bank.reembed(torch.tensor(slots), embedding)
    with pytest.raises(TypeError, match="int64"):
        bank.reembed(torch.tensor([0.0, 1.0]), good)
    assert torch.equal(bank.frames().embedding, before)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("IVF4,PQ2", "capacity must be at least 256"),
        ("IDMap,Flat", "leave the ids to the bank"),
        ("IVF0,Flat", "at least one cell"),
        ("flat", "FAISS factory string"),
    ],
)
def test_searches_that_cannot_be_kept_are_refused(search: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        NegativeBank(200, 6, search=search)
    assert ".cpp" not in str(refused.value)


@pytest.mark.parametrize("search", ["exact", "Flat", "IVF4,Flat"])
def test_copies_and_pickles_are_banks_of_their_own(search: str) -> None:
    bank = NegativeBank(50, 6, search=search, max_age=40)
    bank.enqueue(frames(60, 1))
    for other in (copy.deepcopy(bank), pickle.loads(pickle.dumps(bank))):
        before = bank.hardest(frames(4, 2), 3)
        assert_equal(other.hardest(frames(4, 2), 3), before)
        other.enqueue(frames(20, 3))
        assert (other.enqueued, bank.enqueued) == (80, 60)
        assert_equal(bank.hardest(frames(4, 2), 3), before)
        assert torch.equal(other.frames().embedding[10:30], frames(20, 3).embedding)


def test_a_state_that_overflows_here_is_refused() -> None:
    bank, half = NegativeBank(10, 6), NegativeBank(10, 6, dtype=torch.float16)
    large = frames(5, 1)
    bank.enqueue(large._replace(embedding=large.embedding * 1e6))
    with pytest.raises(ValueError, match="finite"):
        half.load_state_dict(bank.state_dict())
    assert len(half) == 0


@pytest.mark.parametrize("search", ["exact", "Flat"])
@pytest.mark.parametrize(
    ("k", "skip", "error"),
    [(2.5, 0, TypeError), (True, 0, TypeError), (-1, 0, ValueError), (1 << 40, 0, ValueError),
     (1, -1, ValueError), (1, "2", TypeError)],
)  # fmt: skip
def test_counts_are_named(search: str, k: Any, skip: Any, error: type[Exception]) -> None:
    bank = NegativeBank(10, 6, search=search)
    bank.enqueue(frames(10, 1))
    with pytest.raises(error, match="^k must" if skip == 0 else "^skip must"):
        bank.hardest(frames(2, 2), k, skip=skip)


def test_saved_options_come_back(tmp_path: Path) -> None:
    bank = NegativeBank(64, 6, search="IVF4,Flat", nprobe=2, max_age=30, rebuild_after=9)
    bank.enqueue(frames(80, 0))
    bank.save(tmp_path)
    opened = NegativeBank.open(tmp_path)
    assert (opened.search, opened.max_age, opened._options) == ("IVF4,Flat", 30, bank._options)
    assert torch.equal(opened.ages(), bank.ages())
