"""The bank against a list, hostile patients and videos, and damaged or interrupted files."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from usucl.bank import NegativeBank
from usucl.losses import Frames


def frames(m: int, *, dim: int = 3, first: int = 0, patient: bool = True) -> Frames:
    """Rows first .. first + m - 1 of an endless list of different frames."""
    row = torch.arange(first, first + m)
    embedding = row[:, None] * 10.0 + torch.arange(dim)
    return Frames(embedding, row % 5, row / 8, row % 3 - 1 if patient else None)


def contents(bank: NegativeBank) -> list[tuple[float, ...]]:
    embedding, video, time, patient = bank.frames()
    columns = zip(embedding, video.tolist(), time.tolist(), patient.tolist(), strict=True)
    return [(*row.tolist(), *rest) for row, *rest in columns if rest[0] >= 0]


def snapshot(bank: NegativeBank) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in bank.state_dict().items()}


def assert_same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=0, equal_nan=True)


@given(st.integers(1, 9), st.lists(st.integers(0, 25), max_size=8))
def test_the_bank_is_a_list_that_forgets_its_oldest(capacity: int, sizes: list[int]) -> None:
    bank, model, first = NegativeBank(capacity, 3), [], 0
    for size in sizes:
        batch = frames(size, first=first)
        bank.enqueue(batch)
        rows = zip(batch.embedding, batch.video, batch.time, batch.patient, strict=True)
        model += [(*map(float, e), int(v), float(t), int(p)) for e, v, t, p in rows]
        model, first = model[-capacity:], first + size
        assert len(bank) == len(model)
        assert sorted(contents(bank)) == sorted(model)
        slots = [e % capacity for e in range(first - len(model), first)]
        assert torch.equal(
            bank.frames().embedding[slots][:, 0], torch.tensor([r[0] for r in model])
        )
    assert int((bank.frames().video == -1).sum()) == capacity - len(bank)


def test_frames_are_the_slots_themselves() -> None:
    bank = NegativeBank(4, 3)
    view = bank.frames()
    bank.enqueue(frames(6, patient=False))
    assert view.embedding.data_ptr() == bank.frames().embedding.data_ptr()
    assert view.video.tolist() == [4, 0, 2, 3]
    assert view.patient is not None and view.patient.tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": torch.tensor([[1.0, 2, 3], [1, torch.inf, 3]])}, "row 1"),
        ({"embedding": torch.tensor([[1.0, torch.nan, 3], [1, 2, 3]])}, "row 0"),
        ({"embedding": torch.tensor([[1e39] * 3, [0.0] * 3], dtype=torch.float64)}, "row 0"),
        ({"embedding": torch.ones(2, 4)}, r"\[M, 3\], got \[2, 4\]"),
        ({"embedding": torch.ones(3)}, r"got \[3\]"),
        ({"embedding": torch.ones(2, 3, dtype=torch.int64)}, "floating point, got torch.int64"),
        ({"video": torch.tensor([0, -2])}, "row 1 is -2"),
        ({"video": torch.tensor([0])}, r"frames.video must have shape \[2\]"),
        ({"video": torch.tensor([0.0, 1.0])}, "frames.video must be an int64 tensor"),
        ({"time": torch.tensor([True, False])}, "frames.time must be floating"),
        ({"time": torch.zeros(2, 1)}, "frames.time"),
        ({"patient": torch.tensor([True, False])}, "frames.patient must be an int64"),
    ],
)
def test_bad_frames_are_refused_and_change_nothing(change: dict, message: str) -> None:
    bank = NegativeBank(5, 3)
    bank.enqueue(frames(7))
    before = snapshot(bank)
    with pytest.raises((TypeError, ValueError), match=message):
        bank.enqueue(frames(2)._replace(**change))
    assert_same(before, bank.state_dict())


def test_a_sum_that_overflows_is_no_broken_row() -> None:
    bank = NegativeBank(2, 3)
    bank.enqueue(frames(2)._replace(embedding=torch.full((2, 3), 2e38)))
    assert len(bank) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "capacity must be >= 1, got 0"),
        ({"dim": 2.5}, "dim must be an int, got float"),
        ({"search": "IVF64,Flat"}, "capacity must be at least 64"),
        ({"dtype": torch.int8}, "dtype must be one of float32"),
    ],
)
def test_arguments_of_a_bank(arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        NegativeBank(**{"capacity": 4, "dim": 3, **arguments})


layout = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 2), st.sampled_from([0.0, 0.25, 0.5, torch.nan])),
    max_size=12,
)


@given(layout, layout, st.integers(0, 4), st.integers(0, 2), st.booleans())
def test_hardest_leaves_out_own_video_and_known_patient(
    stored: list, asked: list, k: int, skip: int, with_patients: bool
) -> None:
    # Patients contradict videos on purpose; embeddings are small integers, so ties are exact.
    generator = torch.Generator().manual_seed(len(stored) * 13 + len(asked))

    def build(rows: list, patient: bool) -> Frames:
        embedding = torch.randint(-2, 3, (len(rows), 4), generator=generator).float()
        video, known, time = (
            [list(column) for column in zip(*rows, strict=True)] if rows else ([], [], [])
        )
        ids = torch.tensor(known, dtype=torch.int64) if patient else None
        return Frames(embedding, torch.tensor(video, dtype=torch.int64), torch.tensor(time), ids)

    bank = NegativeBank(8, 4)
    bank.enqueue(build(stored, True))
    anchors = build(asked, with_patients)
    lo, hi = 0.2, 0.4
    found = bank.hardest(anchors, k, window=(lo, hi), skip=skip)
    keys = bank.frames()
    similarity = anchors.embedding @ keys.embedding.T
    for i in range(len(asked)):
        groups: tuple[list, list] = ([], [])
        for slot in range(bank.capacity):
            ranked = (-float(similarity[i, slot]), slot)
            if keys.video[slot] == anchors.video[i]:
                if lo <= abs(float(keys.time[slot] - anchors.time[i])) <= hi:
                    groups[0].append(ranked)
            elif keys.video[slot] >= 0:
                known = with_patients and asked[i][1] >= 0
                if not (known and int(keys.patient[slot]) == asked[i][1]):
                    groups[1].append(ranked)
        for group, index in zip(groups, (found.intra_index[i], found.cross_index[i]), strict=True):
            expected = [slot for _, slot in sorted(group)[skip : skip + k]]
            assert index.tolist() == expected + [-1] * (k - len(expected))


def test_without_a_window_only_cross_video_negatives_are_taken() -> None:
    bank = NegativeBank(8, 3)
    bank.enqueue(frames(8))
    found = bank.hardest(frames(2), 3)
    assert found.intra_index.shape == (2, 0) and found.cross_index.shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_save_and_load(tmp_path: Path, dtype: torch.dtype) -> None:
    bank = NegativeBank(5, 3, dtype=dtype)
    bank.enqueue(frames(7))
    bank.save(tmp_path)
    opened = NegativeBank.load(tmp_path)
    assert (opened.capacity, opened.dim, opened.dtype, len(opened)) == (5, 3, dtype, 5)
    assert_same(bank.state_dict(), opened.state_dict())
    for both in (bank, opened):  # the cursor was saved too: both overwrite the same slots
        both.enqueue(frames(2, first=7))
    assert_same(bank.state_dict(), opened.state_dict())

    other = NegativeBank(5, 3, dtype=dtype)
    view = other.frames()
    assert other.load(tmp_path) is other
    assert view.embedding.data_ptr() == other.frames().embedding.data_ptr()
    assert len(other) == 5 and contents(other) != contents(bank)


def test_state_dict_round_trip_and_refusals() -> None:
    bank, other = NegativeBank(5, 3), NegativeBank(5, 3)
    bank.enqueue(frames(7))
    other.load_state_dict(bank.state_dict())
    assert_same(bank.state_dict(), other.state_dict())
    before = snapshot(other)
    state = snapshot(bank)
    bad = {
        "must have": {name: state[name] for name in ("embedding", "video")},
        "must have shape": {**state, "time": torch.zeros(4)},
        "video for each": {**state, "enqueued": torch.tensor(3)},
        "finite": {**state, "embedding": torch.full((5, 3), torch.nan)},
    }
    for message, wrong in bad.items():
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(wrong)
        assert_same(before, other.state_dict())


def test_damaged_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    bank = NegativeBank(5, 3)
    bank.enqueue(frames(7))
    bank.save(tmp_path)
    description = tmp_path / "bank.json"
    (tensors,) = tmp_path.glob("*.safetensors")
    whole = {path: path.read_bytes() for path in (description, tensors)}
    flipped = bytearray(whole[tensors])
    flipped[-5] ^= 1
    about = json.loads(whole[description])
    damage = [
        (tensors, bytes(flipped)),
        (tensors, whole[tensors][:-7]),
        (tensors, b""),
        (description, whole[description][:-9]),
        (description, b"[]"),
        (description, json.dumps({**about, "format": "other"}).encode()),
        (description, json.dumps({**about, "sha256": "../../etc"}).encode()),
    ]
    other = NegativeBank(5, 3)
    other.enqueue(frames(2))
    before = snapshot(other)
    for path, content in damage:
        path.write_bytes(content)
        for load in (other.load, NegativeBank.load):
            with pytest.raises(ValueError, match="damaged"):
                load(tmp_path)
        assert_same(before, other.state_dict())
        path.write_bytes(whole[path])
    with pytest.raises(ValueError, match=r"must have shape \[6, 3\], got \[5, 3\]"):
        NegativeBank(6, 3).load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no bank"):
        NegativeBank.load(tmp_path / "nowhere")


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_save_leaves_the_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    bank = NegativeBank(5, 3)
    bank.enqueue(frames(3))
    bank.save(tmp_path)
    before = snapshot(bank)
    calls, replace = [], os.replace

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        replace(source, target)

    bank.enqueue(frames(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bank.save(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert_same(before, NegativeBank.load(tmp_path).state_dict())
    bank.save(tmp_path)
    assert_same(bank.state_dict(), NegativeBank.load(tmp_path).state_dict())
    assert len(list(tmp_path.iterdir())) == 2


def test_banks_of_the_first_format_are_read(tmp_path: Path) -> None:
    """They had no column of ages, which follows from a ring without re-embedded frames."""
    bank = NegativeBank(5, 3)
    for first in range(7):
        bank.enqueue(frames(1, first=first))
    state = {name: column for name, column in bank.state_dict().items() if name != "written"}
    content = safetensors.torch.save(state)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / f"bank-{digest[:16]}.safetensors").write_bytes(content)
    about = {"format": "usucl-bank-1", "capacity": 5, "dim": 3, "dtype": "float32"}
    (tmp_path / "bank.json").write_text(json.dumps({**about, "search": "exact", "sha256": digest}))
    for mmap in (False, True):
        opened = NegativeBank.open(tmp_path, mmap=mmap)
        assert_same(bank.state_dict(), opened.state_dict())
        assert opened.ages().tolist() == [1, 0, 4, 3, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_mapped_bank_leaves_its_file_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    bank = NegativeBank(50, 3, dtype=dtype)
    bank.enqueue(frames(60))
    bank.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    mapped = NegativeBank.open(tmp_path, mmap=True)
    for step in range(3):
        asked = frames(4, first=step)
        for ours, theirs in zip(mapped.hardest(asked, 5), bank.hardest(asked, 5), strict=True):
            assert torch.equal(ours, theirs)
        for both in (bank, mapped):
            both.enqueue(frames(20, first=70 + step))
    assert_same(bank.state_dict(), mapped.state_dict())
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    mapped.save(tmp_path)
    assert_same(mapped.state_dict(), NegativeBank.load(tmp_path).state_dict())


def _save_forever(folder: Path, ready: Any) -> None:
    bank = NegativeBank(200, 3)
    first = 0
    while True:
        bank.enqueue(frames(7, first=first))
        first += 7
        bank.save(folder)
        ready.set()


def test_killed_while_saving(tmp_path: Path) -> None:
    """After a kill at 30 random moments, what opens is a version that was saved completely."""
    context = multiprocessing.get_context("fork")
    moments = random.Random(0)
    for attempt in range(30):
        ready = context.Event()
        process = context.Process(target=_save_forever, args=(tmp_path, ready), daemon=True)
        process.start()
        assert ready.wait(60)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        opened = NegativeBank.load(tmp_path)
        whole = NegativeBank(200, 3)
        for first in range(0, opened.enqueued, 7):
            whole.enqueue(frames(7, first=first))
        assert opened.enqueued > 0 and opened.enqueued % 7 == 0, attempt
        assert_same(whole.state_dict(), opened.state_dict())
    opened.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # the remains of killed processes are gone


def test_a_bank_moves_to_a_device_in_place(native_device: torch.device) -> None:
    bank = NegativeBank(5, 3, max_age=4)
    bank.enqueue(frames(7))
    state, found = snapshot(bank), bank.hardest(frames(4, first=7), 2, window=(0.0, 1.0))
    assert bank.to("cpu") is bank and bank.frames().embedding is bank._ring.embedding
    assert bank.to(native_device) is bank and bank.device.type == native_device.type
    there = Frames(*(column.to(native_device) for column in frames(4, first=7)))
    for ours, theirs in zip(bank.hardest(there, 2, window=(0.0, 1.0)), found, strict=True):
        assert torch.equal(ours.cpu(), theirs)
    bank.enqueue(frames(1, first=7))
    assert bank.to("cpu").enqueued == 8 and bank.max_age == 4
    assert_same({"video": state["video"][:2]}, {"video": bank.state_dict()["video"][:2]})
