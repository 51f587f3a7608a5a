"""Every search of the bank against the exact one: the same rules, or the very same bits."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from banks import assert_equal, frames
from hypothesis import given, settings
from hypothesis import strategies as st

from usucl.bank import NegativeBank
from usucl.losses import Frames, Selection, hard_negative_nce

pytest.importorskip("faiss")

# The first searches select the same as the exact search; the others promise less.
EXACT: dict[str, dict[str, Any]] = {
    "Flat": {"search": "Flat"},
    "every cell": {"search": "IVF4,Flat", "nprobe": 4},
}
OTHERS: dict[str, dict[str, Any]] = {
    "IVF": {"search": "IVF4,Flat", "nprobe": 1},
    "codes": {"search": "IVF2,SQ8"},
    "HNSW": {"search": "HNSW8"},
    "transformed": {"search": "PCA3,IVF2,Flat"},
}
EVERY = {**EXACT, **OTHERS}
few = settings(max_examples=max(settings().max_examples // 3, 10), deadline=None)


def assert_valid(bank: NegativeBank, asked: Frames, found: Selection, exact: Selection) -> None:
    """The rules hold, the order is right, and k are found where there are k."""
    keys = bank.frames()
    assert torch.equal(found.cross_index >= 0, exact.cross_index >= 0)
    for i, row in enumerate(found.cross_index.tolist()):
        taken = [slot for slot in row if slot >= 0]
        assert len(set(taken)) == len(taken)
        for slot in taken:
            assert keys.video[slot] >= 0 and keys.video[slot] != asked.video[i]
            if asked.patient is not None and keys.patient is not None and asked.patient[i] >= 0:
                assert keys.patient[slot] != asked.patient[i]
        pairs = list(zip(found.cross_similarity[i].tolist(), row, strict=True))
        pairs = pairs[: len(taken)]
        assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
        assert all(math.isfinite(similarity) for similarity, _ in pairs)
    assert bool((found.cross_similarity[found.cross_index < 0] == -math.inf).all())


def both(options: dict[str, Any], capacity: int, dim: int, **more: Any) -> list[NegativeBank]:
    return [NegativeBank(capacity, dim, **more), NegativeBank(capacity, dim, **options, **more)]


@few
@given(
    st.sampled_from(sorted(EVERY)),
    st.sampled_from(["normal", "tied", "equal"]),
    st.integers(0, 12),
    st.integers(0, 3),
    st.lists(st.integers(0, 90), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, 0.4]),
    st.integers(0, 2**20),
)
def test_every_search_obeys_the_rules(
    name: str,
    kind: str,
    k: int,
    skip: int,
    sizes: list[int],
    patient: bool,
    limit: float | None,
    seed: int,
) -> None:
    exact, bank = both(EVERY[name], 64, 6)
    for step, size in enumerate(sizes):
        for each in (exact, bank):
            each.enqueue(frames(size, seed + step, kind=kind))
        if step == 0:
            bank.rebuild()
        asked = frames(5, seed - 1, kind=kind, patient=patient)
        asked.embedding[1, 2] = math.nan
        asked.video[2] = -1
        arguments: dict[str, Any] = {"window": (0.1, 0.6), "skip": skip, "max_similarity": limit}
        ours, truth = (b.hardest(asked, k, **arguments) for b in (bank, exact))
        if name in EXACT:
            assert_equal(ours, truth)
        else:
            assert_valid(bank, asked, ours, truth)
        assert bool((ours.cross_index[1:3] == -1).all())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e15])
def test_exact_searches_are_equal_bit_for_bit(name: str, dtype: torch.dtype, scale: float) -> None:
    """Enough frames that few of them are fetched, nearly equal ones, underflow and overflow."""
    if dtype == torch.float16 and scale != 1:
        pytest.skip("out of its range")
    exact, bank = both(EXACT[name], 3000, 32, dtype=dtype)
    stored = frames(3500, 1, dim=32, videos=40)
    stored.embedding[::2] = stored.embedding[0] + 1e-7 * stored.embedding[::2]
    stored = stored._replace(embedding=stored.embedding * scale)
    for each in (exact, bank):
        each.enqueue(stored)
    bank.rebuild()
    asked = frames(40, 2, dim=32, videos=40)
    asked.embedding[::3] = stored.embedding[0] / scale
    if scale > 1:
        asked.embedding[7] *= 1e38 / scale
    assert_equal(bank.hardest(asked, 10, skip=2), exact.hardest(asked, 10, skip=2))
    assert bank.recall(asked, 10) == 1.0


@pytest.mark.parametrize("name", EVERY)
def test_hostile_layouts(name: str) -> None:
    """One video holds most of the bank, and the frames nearest to its own are all its own."""
    exact, bank = both(EVERY[name], 2000, 6)
    stored = frames(2000, 3)
    stored.video[:1950] = 0
    stored.embedding[:1950] = torch.tensor([1.0, 0, 0, 0, 0, 0])
    stored.patient[1950:1960] = 5
    stored.video[1950:] = torch.arange(1, 51)
    for each in (exact, bank):
        each.enqueue(stored)
    bank.rebuild()
    asked = frames(4, 4)
    asked.video[:2], asked.patient[:] = 0, 5
    asked.embedding[:3] = stored.embedding[0]
    for k in (5, 40, 60, 2500):  # more than is left, more than there are slots
        truth, ours = exact.hardest(asked, k), bank.hardest(asked, k)
        assert_valid(bank, asked, ours, truth)
        if name in EXACT:
            assert_equal(ours, truth)
        assert (truth.cross_index[0] >= 0).sum() == min(k, 40)


@pytest.mark.parametrize("name", EVERY)
def test_fifo_and_reembedding_reach_the_index(name: str) -> None:
    """The ring wraps around many times; what was overwritten is never found."""
    exact, bank = both(EVERY[name], 300, 6)
    for step in range(25):
        batch = frames(70, step)
        for each in (exact, bank):
            each.enqueue(batch)
        if step in (3, 11):
            bank.rebuild()
        if step % 4 == 3:
            slots = torch.randperm(len(bank), generator=torch.Generator().manual_seed(step))[:20]
            for each in (exact, bank):
                each.reembed(slots, frames(20, 100 + step).embedding)
            assert int(bank.ages()[slots].max()) == 0
        asked = frames(6, 50 + step)
        truth, ours = exact.hardest(asked, 7), bank.hardest(asked, 7)
        assert_valid(bank, asked, ours, truth)
        if name in EXACT:
            assert_equal(ours, truth)
    assert torch.equal(bank.ages(), exact.ages())


@pytest.mark.parametrize("name", ["exact", *EVERY])
def test_frames_above_the_age_are_never_found(name: str) -> None:
    options = {"search": "exact"} if name == "exact" else EVERY[name]
    bank = NegativeBank(200, 6, max_age=60, **options)
    for step in range(9):
        bank.enqueue(frames(30, step))
    bank.rebuild()
    assert bank.ages().max() == 180 and int((bank.frames().video >= 0).sum()) == 90
    found = bank.hardest(frames(8, 99), 150, window=(0.0, 1.0))
    for index in (found.intra_index, found.cross_index):
        assert int(bank.ages()[index[index >= 0]].max()) <= 60
    old = (bank.ages() > 60).nonzero().flatten()[:3]
    bank.reembed(old, frames(3, 7).embedding)
    found = bank.hardest(frames(8, 99), 150)
    assert set(old.tolist()) <= set(found.cross_index.flatten().tolist())


def test_frames_outlive_their_bank() -> None:
    """The frames of "Flat" lie in FAISS's memory, large enough here to be freed at once."""
    bank = NegativeBank(100_000, 64, search="Flat")
    bank.enqueue(Frames(torch.ones(8, 64), torch.arange(8), torch.zeros(8)))
    keys = bank.frames().embedding[:9]
    del bank
    gc.collect()
    assert keys.sum() == 8 * 64


def real_frames(folder: Path) -> Frames:
    """Videos through an encoder as it begins: nearly equal embeddings, in order of time."""
    from usucl.data import VideoCatalog
    from usucl.embedding import embed_entries
    from usucl.models import EncoderConfig, FrameEncoder

    torch.manual_seed(0)
    encoder = FrameEncoder(EncoderConfig("resnet10", 32, 32, "mlp", False)).eval()
    entries = VideoCatalog.scan(folder).entries
    found = embed_entries(
        entries, {"random": encoder}, image_size=32, held_out=[False] * len(entries)
    )["random"]
    return Frames(found.embedding, found.video, found.time, found.video // 2)


@pytest.mark.filterwarnings("ignore:labels.csv")
@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_exact_searches_are_equal_on_videos(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from usucl.data.phantom import write_phantom

    folder = tmp_path / "videos"
    if kind == "synthetic":
        write_phantom(folder, videos=6, frames=24, image_size=64)
    else:
        folder.mkdir()
        source = request.getfixturevalue("data_root") / "pocus" / "frames"
        for path in sorted(source.iterdir())[:6]:
            (folder / path.name).symlink_to(path.resolve())
    stored = real_frames(folder)
    banks = [NegativeBank(len(stored.video), 32, **o) for o in ({}, *EXACT.values())]
    for bank in banks:
        bank.enqueue(stored)
        bank.rebuild()
    for skip in (0, 3):
        truth, *others = (b.hardest(stored, 20, window=(0.1, 0.4), skip=skip) for b in banks)
        assert bool((truth.cross_index >= 0).any())
        for found in others:
            assert_equal(found, truth)


def test_ages_count_frames_since() -> None:
    bank = NegativeBank(5, 6)
    bank.enqueue(frames(3, 0))
    assert bank.ages().tolist() == [0, 0, 0, -1, -1]
    bank.enqueue(frames(4, 1))
    assert bank.ages().tolist() == [0, 0, 4, 0, 0]


def test_an_index_waits_for_enough_frames_and_is_renewed() -> None:
    bank = NegativeBank(40_000, 8, search="IVF8,Flat", rebuild_after=15_000)
    bank.enqueue(frames(9_000, 0, dim=8))
    bank.rebuild()
    index: Any = bank._index
    assert (
        index.size == 0
    )  # training needs 39 frames for each of 256 cells: the search is exact until then
    assert bank.recall(frames(20, 1, dim=8), 10) == 1.0
    bank.enqueue(frames(3_000, 2, dim=8))
    bank.rebuild()
    assert index.size == 12_000
    first = index._index
    bank.enqueue(frames(16_000, 3, dim=8))
    bank.hardest(frames(1, 4, dim=8), 1)  # begins a generation
    index._next.result()
    bank.hardest(frames(1, 4, dim=8), 1)
    assert index._index is not first and index.size == 28_000
    assert bank.recall(frames(20, 5, dim=8), 10) > 0.8


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("skip", [0, 2])
def test_candidates_stand_for_the_whole_bank_in_a_loss(name: str, skip: int) -> None:
    exact, bank = both(EXACT[name], 500, 6)
    for each in (exact, bank):
        each.enqueue(frames(600, 0, kind="tied"))
    bank.rebuild()
    asked = frames(16, 1, kind="tied")
    asked.embedding.requires_grad_()
    own = frames(12, 2, kind="tied")
    window = (0.1, 0.7)

    def loss(block: Frames) -> tuple[torch.Tensor, Selection, torch.Tensor]:
        value, selection = hard_negative_nce(
            asked,
            frames(16, 3).embedding,
            (own, block),
            window=window,
            intra_k=3,
            cross_k=9,
            intra_skip=skip,
            cross_skip=skip,
            max_similarity=2.0,
            return_selection=True,
        )
        return value, selection, torch.autograd.grad(value, asked.embedding)[0]

    found = bank.candidates(asked, 9 + skip, window=window, max_similarity=2.0)
    assert len(found.video) < 500
    whole, part = loss(exact.frames()), loss(found)
    for name_, a, b in zip(Selection._fields, whole[1], part[1], strict=True):
        if name_.endswith("similarity"):
            assert torch.equal(a, b)
    assert torch.equal(whole[0], part[0]) and torch.equal(whole[2], part[2])


def test_fast_scan_codes_lose_no_frames() -> None:
    """These inverted files cannot remove vectors, so they are kept by generations."""
    bank = NegativeBank(600, 32, search="IVF4,PQ8x4fs", rebuild_after=10_000)
    exact = NegativeBank(600, 32)
    for seed in range(3):
        some = frames(400, seed, dim=32)
        bank.enqueue(some)
        exact.enqueue(some)
        if seed == 0:
            bank.rebuild()
        asked = frames(9, 9, dim=32)
        assert_valid(bank, asked, bank.hardest(asked, 4), exact.hardest(asked, 4))


def test_an_index_that_missed_frames_is_not_used() -> None:
    bank, exact = NegativeBank(300, 6, search="IVF4,Flat"), NegativeBank(300, 6)
    for one in (bank, exact):
        one.enqueue(frames(300, 1))
    bank.rebuild()
    index = bank._index
    assert index is not None

    def fails(changed: torch.Tensor) -> None:
        raise RuntimeError("no")

    index._update = fails  # type: ignore[method-assign]
    for one in (bank, exact):
        one.enqueue(frames(50, 2))
    with pytest.raises(RuntimeError, match="no"):
        bank.hardest(frames(3, 3), 4)
    del index._update
    assert_equal(bank.hardest(frames(3, 3), 4), exact.hardest(frames(3, 3), 4))
