"""The bank takes the arguments that the loss takes: integers of any type, and tensors only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from banks import assert_equal, frames

from usucl.bank import NegativeBank
from usucl.losses import Frames

INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def _wide() -> Frames:
    made = frames(12, 3)
    assert made.patient is not None
    return made._replace(time=torch.arange(12.0), patient=made.patient.clamp(min=0))


def _as(made: Frames, dtype: torch.dtype) -> Frames:
    assert made.patient is not None
    return Frames(made.embedding, made.video.to(dtype), made.time.to(dtype), made.patient.to(dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("search", ["exact", "Flat"])
def test_ids_and_times_of_any_integer_type(dtype: torch.dtype, search: str) -> None:
    if search != "exact":
        pytest.importorskip("faiss")
    plain, bank = NegativeBank(12, 6), NegativeBank(12, 6, search=search)
    plain.enqueue(_wide())
    bank.enqueue(_as(_wide(), dtype))
    expected = plain.hardest(_wide(), 3, window=(0.0, 4.0))
    assert_equal(bank.hardest(_as(_wide(), dtype), 3, window=(0.0, 4.0)), expected)
    unknown = _as(_wide(), dtype)._replace(patient=None)
    assert_equal(bank.hardest(unknown, 3), plain.hardest(_wide()._replace(patient=None), 3))
    for made, b in ((_wide(), plain), (_as(_wide(), dtype), bank)):
        assert len(b.candidates(made, 2).video) > 0 and b.recall(made, 2) == 1
    bank.reembed(torch.tensor([3, 1], dtype=dtype), _wide().embedding[:2])
    plain.reembed(torch.tensor([3, 1]), _wide().embedding[:2])
    for ours, theirs in zip(bank.frames(), plain.frames(), strict=True):
        assert torch.equal(ours, theirs)
    at = torch.tensor([2, 0], dtype=dtype)
    assert torch.equal(bank.gather(at).embedding, bank.frames().embedding[[2, 0]])


@pytest.mark.parametrize(
    "three",
    [np.int64(3), np.int32(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3])],
)
def test_counts_of_any_integer_type(three: Any) -> None:
    bank = NegativeBank(three, three, max_age=three)
    assert (bank.capacity, bank.dim, bank.max_age) == (3, 3, 3)
    bank = NegativeBank(12, 6)
    bank.enqueue(_wide())
    expected = bank.hardest(_wide(), 3, skip=3)
    assert_equal(bank.hardest(_wide(), three, skip=three), expected)
    assert bank.recall(_wide(), three, sample=three) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        3.0,
        np.float32(3),
        True,
        np.bool_(True),
        torch.tensor(True),
        torch.tensor(3.0),
        "3",
        None,
        [3],
    ],
)
def test_what_is_no_integer_is_no_count(wrong: Any) -> None:
    bank = NegativeBank(12, 6)
    with pytest.raises(TypeError, match=r"^k must be an int, got"):
        bank.hardest(_wide(), wrong)
    with pytest.raises(TypeError, match=r"^capacity must be an int, got"):
        NegativeBank(wrong, 6)


@pytest.mark.parametrize("name", ["embedding", "video", "time", "patient"])
def test_arrays_are_refused_by_name(name: str) -> None:
    bank = NegativeBank(12, 6)
    bank.enqueue(_wide())
    array = _wide()._replace(**{name: getattr(_wide(), name).numpy()})
    before = bank.frames().embedding.clone()
    calls = (
        bank.enqueue,
        lambda f: bank.hardest(f, 2),
        lambda f: bank.candidates(f, 2),
        lambda f: bank.recall(f, 2),
    )
    for call in calls:
        with pytest.raises(TypeError, match=rf"frames\.{name} must be a .*ndarray"):
            call(array)
        with pytest.raises(TypeError, match=rf"frames\.{name} must be a .*list"):
            call(_wide()._replace(**{name: [1, 2]}))
    for slots, embedding, message in (
        (np.array([1]), _wide().embedding[:1], "slots must be a torch.Tensor, got numpy.ndarray"),
        (torch.tensor([1]), np.ones((1, 6)), "embedding must be a torch.Tensor, got numpy.ndarray"),
    ):
        with pytest.raises(TypeError, match=message):
            bank.reembed(slots, embedding)
    assert torch.equal(bank.frames().embedding, before)


def test_a_state_that_is_kept_stays_as_it_was() -> None:
    bank, other = NegativeBank(10, 6), NegativeBank(10, 6)
    bank.enqueue(frames(14, 1))
    other.enqueue(frames(14, 1))
    state = bank.state_dict()
    bank.enqueue(frames(5, 2))
    bank.reembed(torch.tensor([4]), frames(1, 3).embedding)
    bank.load_state_dict(state)
    for ours, theirs in zip(bank.frames(), other.frames(), strict=True):
        assert torch.equal(ours, theirs)
    assert (bank.enqueued, bank.ages().tolist()) == (14, other.ages().tolist())


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("video", torch.zeros(5), ValueError),
        ("embedding", torch.zeros(5, 3, dtype=torch.int64), ValueError),
        ("patient", np.zeros(5, np.int64), TypeError),
        ("enqueued", 7, TypeError),
    ],
)
def test_a_state_of_other_types_is_refused_by_name(
    name: str, value: Any, error: type[Exception]
) -> None:
    bank = NegativeBank(5, 3)
    with pytest.raises(error, match=f"^{name} must be"):
        bank.load_state_dict({**bank.state_dict(), name: value})
