"""The pixel guard: frames that look like the anchor are no intra-video negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from usucl.data import Curriculum, DenseSampler, FrameBatches, FrameSampler, VideoCatalog
from usucl.data.sampling.guard import PixelGuard, thumbnails, without_conflict
from usucl.losses import Frames, hard_negative_nce

PERIOD, LENGTH = 10, 60
MOVING, PERIODIC, FROZEN = range(3)  # numbers of the videos


def pattern(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4), dtype=np.uint8))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> VideoCatalog:
    """Frames of another pattern each; of one that comes back after 10 frames; and all the same."""
    root = tmp_path_factory.mktemp("videos")
    for video, seed in (("a", lambda i: i), ("b", lambda i: i % PERIOD), ("c", lambda i: 0)):
        (root / video).mkdir()
        for i in range(LENGTH):
            Image.fromarray(pattern(seed(i))).save(root / video / f"{i}.png")
    return VideoCatalog.scan(root)


def batches(catalog: VideoCatalog, sampler: object, guard: float | None = 0.95) -> FrameBatches:
    curriculum = Curriculum("constant", windows=((0.1, 0.6),), cross_only=0)
    return FrameBatches(catalog, sampler, image_size=16, curriculum=curriculum, guard=guard, seed=1)  # type: ignore[arg-type]


def alike(video: int, a: int, b: int) -> bool:
    return video == FROZEN or (video == PERIODIC and (a - b) % PERIOD == 0) or a == b


def test_thumbnails_and_what_is_alike() -> None:
    noise = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    small = thumbnails(noise)
    assert small.shape == (2, 256) and small.dtype == torch.uint8
    brighter = (small[:1].float() * 0.5 + 20).to(torch.uint8)  # the same picture, dimmer
    flat = torch.full((2, 256), 7, dtype=torch.uint8)
    guard = PixelGuard(0.9, [small, torch.cat([small[:1], brighter, flat])])
    assert guard.alike(0, np.array([0, 1]), np.array([0, 1])).tolist() == np.eye(2).tolist()
    found = guard.alike(1, np.arange(4), np.arange(4))
    assert found.tolist() == np.kron(np.eye(2), np.ones((2, 2))).tolist()


def test_sampled_negatives_do_not_look_like_the_anchor(catalog: VideoCatalog) -> None:
    sampler = FrameSampler(negatives=24)
    draw, free = (batches(catalog, sampler, guard) for guard in (0.95, None))
    (guarded,), (every,) = ([b[epoch, 0] for epoch in (0,)] for b in (draw, free))
    frames, unguarded = draw.draw(0, 0), free.draw(0, 0)
    for video, anchor, _, negatives in zip(*frames, strict=True):
        if video == FROZEN:
            assert (negatives == -1).all()
        else:
            assert (negatives >= 0).all()
            assert not any(alike(video, int(anchor), int(other)) for other in negatives)
    of = unguarded.video.tolist()
    assert any(alike(PERIODIC, int(unguarded.anchor[of.index(PERIODIC)]), int(other))
               for other in unguarded.negatives[of.index(PERIODIC)])  # fmt: skip
    row = guarded.video.tolist().index(FROZEN)
    assert guarded.negative_time[row].isnan().all() and not guarded.time[row].isnan()
    assert every.negative_time.isfinite().all()


def pairs_of_the_loss(data: FrameBatches, epoch: int, step: int) -> list[tuple[int, int, int]]:
    """(video, anchor, negative) of every intra-video pair that the loss of a step could select."""
    batch = data[epoch, step]
    n = len(batch.video)
    frames = Frames(torch.eye(n), batch.video, batch.time, batch.patient)
    _, found = hard_negative_nce(
        frames,
        torch.eye(n),
        (frames,),
        window=data.windows(batch.video, epoch, batch.frame),
        intra_k=n,
        cross_k=1,
        return_selection=True,
    )
    return [
        (int(batch.video[i]), int(batch.frame[i]), int(batch.frame[j]))
        for i, j in zip(*np.nonzero(found.intra_index.numpy() >= 0), strict=True)
        for j in [int(found.intra_index[i, j])]
    ]


@pytest.mark.parametrize("positives", [1, 2])
def test_the_loss_finds_no_negative_that_looks_like_its_anchor(
    catalog: VideoCatalog, positives: int
) -> None:
    sampler = DenseSampler(3, 10, 0, positives=positives)
    guarded, free = batches(catalog, sampler), batches(catalog, sampler, None)
    pairs = [pair for step in range(2) for pair in pairs_of_the_loss(guarded, 0, step)]
    assert pairs and not any(alike(*pair) for pair in pairs)
    unguarded = [pair for step in range(2) for pair in pairs_of_the_loss(free, 0, step)]
    assert any(alike(*pair) for pair in unguarded)
    # What moves keeps all of its pairs; anchors of the periodic video are drawn again, few lost.
    count = {video: sum(pair[0] == video for pair in pairs) for video in range(3)}
    before = {video: sum(pair[0] == video for pair in unguarded) for video in range(3)}
    assert count[MOVING] == before[MOVING] and count[FROZEN] == 0
    assert count[PERIODIC] > 0.8 * before[PERIODIC]


def test_a_positive_that_looks_like_another_anchor_counts(catalog: VideoCatalog) -> None:
    data = batches(catalog, DenseSampler(3, 6, 2))
    for step in range(2):
        draw, batch = data.draw(0, step), data[0, step]
        shown = np.column_stack([draw.anchor, draw.positive])
        kept = batch.time.isfinite().numpy()
        assert kept[draw.video == MOVING].all() and not kept[draw.video == FROZEN].all()
        windows = (data.windows(batch.video, 0, batch.frame) * LENGTH).numpy()
        distance = np.abs(draw.anchor[:, None] - draw.anchor)
        inside = (distance >= windows[:, :1]) & (distance <= windows[:, 1:])
        inside &= (draw.video[:, None] == draw.video) & kept[:, None] & kept
        for i, j in zip(*np.nonzero(inside), strict=True):
            video = int(draw.video[i])
            assert not any(alike(video, a, b) for a in shown[i] for b in shown[j])


def test_a_guard_that_refuses_nothing_changes_nothing(catalog: VideoCatalog) -> None:
    some = VideoCatalog(catalog.root, catalog.entries[:1])
    for sampler in (FrameSampler(), DenseSampler(1, 6)):
        first, second = (batches(some, sampler, guard)[2, 0] for guard in (0.95, None))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_refused_pairs_are_counted_per_video(catalog: VideoCatalog) -> None:
    data = batches(catalog, FrameSampler())
    counts = data.refused(0)
    distance = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))
    inside = (distance >= 6) & (distance <= 36)
    assert counts[:, 0].tolist() == [inside.sum()] * 3
    assert counts[MOVING, 1] == 0 and counts[FROZEN, 1] == inside.sum()
    assert counts[PERIODIC, 1] == (inside & (distance % PERIOD == 0)).sum()
    assert batches(catalog, FrameSampler(), None).refused(0).tolist() == [[0, 0]] * 3


def test_rows_give_way_to_earlier_ones_that_stay() -> None:
    conflict = np.zeros((4, 4), dtype=bool)
    conflict[[0, 1, 1, 2], [1, 0, 2, 1]] = True  # 0 - 1 - 2, and 3 alone
    assert without_conflict(conflict).tolist() == [True, False, True, True]


def test_limits_are_correlations(catalog: VideoCatalog) -> None:
    for guard in (1.5, float("nan")):
        with pytest.raises(ValueError, match=r"guard must be a correlation in \[-1, 1\], got"):
            FrameBatches(catalog, guard=guard)
