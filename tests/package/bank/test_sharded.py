"""The parts of several processes against one big bank; slow and lost ranks; changed rank counts."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forks import run_ranks

from usucl.bank import NegativeBank, ShardedBank
from usucl.bank.round_robin import RoundRobinBank
from usucl.bank.sharded import redistributed
from usucl.losses import Frames

CAPACITY = (40, 55, 23)


def frames(m: int, seed: int, dim: int = 5) -> Frames:
    """Small integers, so that many similarities are equal, also between parts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(lo: int, hi: int, *shape: int) -> torch.Tensor:
        return torch.randint(lo, hi, shape, generator=generator)

    time_ = torch.rand(m, generator=generator)
    return Frames(draw(-1, 2, m, dim).float(), draw(0, 6, m), time_, draw(-1, 3, m))


def one_big(parts: list[NegativeBank]) -> NegativeBank:
    """The parts' slots one part after the other; empty ones by a state of empty slots."""
    columns = [torch.cat(c) for c in zip(*(p.frames() for p in parts), strict=True)]
    bank = NegativeBank(len(columns[1]), columns[0].shape[1])
    for own, whole in zip(bank.frames(), columns, strict=True):
        assert own is not None
        own.copy_(whole)
    return bank


def fill(bank: Any, rank: int, steps: int) -> None:
    for step in range(steps):
        bank.enqueue(frames(17 + rank, 100 * rank + step))


def part(rank: int, steps: int, **options: Any) -> NegativeBank:
    bank = NegativeBank(CAPACITY[rank], 5, **options)
    fill(bank, rank, steps)
    return bank


def start(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store{ranks}", rank=rank, world_size=ranks
    )


def together(rank: int, ranks: int, folder: Path) -> None:
    start(rank, ranks, folder)
    for search in ("exact", "Flat"):
        bank = ShardedBank(NegativeBank(CAPACITY[rank], 5, search=search), timeout=60)
        for steps in (1, 3):
            fill(bank, rank, steps)
        whole = [NegativeBank(CAPACITY[r], 5) for r in range(ranks)]
        for r, each in enumerate(whole):
            for steps in (1, 3):
                fill(each, r, steps)
        truth = one_big(whole)
        assert bank.capacity == truth.capacity
        for k, skip, window, limit in (
            (4, 0, None, None),
            (7, 2, (0.1, 0.5), 2.0),
            (90, 1, None, 1.0),
        ):
            asked = frames((3, 0, 6)[rank], 900 + rank)  # not as many on each rank, and none
            if rank == ranks - 1:
                time.sleep(0.3)  # slow, not lost
                if window is not None:
                    window = torch.tensor(window).expand(len(asked.video), 2)
            options: dict[str, Any] = {"window": window, "max_similarity": limit}
            ours = bank.hardest(asked, k, skip=skip, **options)
            for a, b in zip(ours, truth.hardest(asked, k, skip=skip, **options), strict=True):
                assert a.dtype == b.dtype and torch.equal(a, b)
            block, other = (b.candidates(asked, k, **options) for b in (bank, truth))
            for a, b in zip(block, other, strict=True):
                assert torch.equal(a, b)
    bank.save(folder / "saved")
    bank.save(folder / "saved")  # over the earlier one
    again = ShardedBank(NegativeBank(CAPACITY[rank], 5)).load(folder / "saved")
    for name, column in bank.local.state_dict().items():
        assert torch.equal(column.nan_to_num(), again.local.state_dict()[name].nan_to_num())
    state = bank.state_dict()
    assert len(state) == (ranks if rank == 0 else 0)
    if rank == 0:
        for name, column in state[ranks - 1].items():
            wanted = whole[ranks - 1].state_dict()[name]
            assert torch.equal(column.nan_to_num(), wanted.nan_to_num())
    try:
        ShardedBank(NegativeBank(4, 5 + rank), timeout=60)
    except ValueError as error:
        assert "one dim" in str(error)
    else:
        raise AssertionError("parts of different dim were taken")
    # The last of three ranks is stuck, or the last of two is lost: the others raise in time.
    if rank == ranks - 1:
        time.sleep(4 if ranks == 3 else 0)
        os._exit(0)
    bank._exchange.timeout = timedelta(seconds=1.5)
    kinds = (TimeoutError, ConnectionError) if ranks == 2 else TimeoutError
    begin = time.monotonic()
    with pytest.raises(kinds, match=f"rank {rank} of {ranks} waited .* for the number of anchors"):
        bank.hardest(frames(2, 5), 3)
    assert time.monotonic() - begin < 30
    os._exit(0)  # the group cannot even be destroyed any more


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_select_what_one_bank_selects(tmp_path: Path, ranks: int) -> None:
    run_ranks(together, (ranks, tmp_path), ranks)
    lengths = [min(CAPACITY[r], 4 * (17 + r)) for r in range(ranks)]
    if ranks == 3:
        reload(tmp_path / "saved", lengths)


def reload(folder: Path, lengths: list[int]) -> None:
    """3 parts on one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        bank = ShardedBank(NegativeBank(200, 5)).load(folder)
        assert len(bank) == sum(lengths)
        with pytest.raises(FileNotFoundError, match="no sharded bank"):
            bank.load(folder / "nowhere")
        (folder / "shards.json").write_text("{")
        with pytest.raises(ValueError, match="damaged"):
            bank.load(folder)
        assert len(bank) == sum(lengths)
    finally:
        dist.destroy_process_group()


def rows(state: dict[str, torch.Tensor]) -> list[tuple[float, ...]]:
    """Frames of a state in the order in which they will be overwritten: age, and what they are."""
    enqueued, slots = int(state["enqueued"]), len(state["video"])
    order = torch.arange(max(enqueued - slots, 0), enqueued) % slots
    columns = (enqueued - state["written"], state["video"], state["time"], state["patient"])
    return list(zip(*(c[order].tolist() for c in columns), strict=True))


def test_redistribution_keeps_frames_ages_and_order() -> None:
    states = [part(r, 4).state_dict() for r in range(3)]
    for ranks in (1, 2, 4):
        lengths = [len(rows(s)) for s in states]
        shares = [
            redistributed([lambda s=s: s for s in states], lengths, r, ranks, 200)
            for r in range(ranks)
        ]
        before, after = (
            sorted(row for state in part for row in rows(state)) for part in (states, shares)
        )
        assert before == after
        assert max(len(rows(s)) for s in shares) - min(len(rows(s)) for s in shares) <= 1
        for share in shares:
            bank = NegativeBank(200, 5)
            bank.load_state_dict(share)  # it is a state of a bank
            for state in states:  # and what was overwritten sooner still is
                both = set(rows(share)) & set(rows(state))
                orders = [[row for row in rows(s) if row in both] for s in (share, state)]
                assert orders[0] == orders[1]
        states = shares
    # A small rank keeps the newest.
    (small,) = [redistributed([lambda s=s: s for s in states], lengths_of(states), 0, 1, 10)]
    assert rows(small) == rows(merged(states))[-10:]
    empty = redistributed([lambda: NegativeBank(3, 5).state_dict()], [0], 1, 2, 4)
    assert rows(empty) == []


def lengths_of(states: list[dict[str, torch.Tensor]]) -> list[int]:
    return [len(rows(state)) for state in states]


def merged(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return redistributed([lambda s=s: s for s in states], lengths_of(states), 0, 1, 200)


def test_without_processes() -> None:
    with pytest.raises(RuntimeError, match=r"initialised torch\.distributed"):
        ShardedBank(NegativeBank(4, 5))


def test_every_rank_refuses_frames_that_are_not_finite() -> None:
    bank = RoundRobinBank.__new__(RoundRobinBank)  # without the other rank
    bank._exchange = SimpleNamespace(rank=0, size=2)  # type: ignore[assignment]
    bank.capacity, bank.enqueued, bank.local = 4, 0, NegativeBank(2, 2)
    embedding = torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])  # the second frame is for rank 1
    with pytest.raises(ValueError, match="must be finite, row 1 is not"):
        bank.enqueue(Frames(embedding, torch.arange(2), torch.zeros(2)))
    assert len(bank) == 0
