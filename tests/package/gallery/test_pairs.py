"""``Gallery.duplicates``: every pair of frames that are alike, and how pictures are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usucl.bank import NegativeBank
from usucl.gallery import StoredVideo, pairs
from usucl.gallery.contents import Contents
from usucl.losses import Frames


@settings(max_examples=25)
@given(st.data())
def test_every_pair_at_or_above_the_threshold_is_found(data: st.DataObject) -> None:
    """Against all pairs of rows, with many copies of a frame, so that pages are full."""
    videos = data.draw(st.integers(2, 4))
    counts = data.draw(st.lists(st.integers(1, 45), min_size=videos, max_size=videos))
    total = sum(counts)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    corner = rng.integers(0, data.draw(st.integers(1, 3)), total)
    embedding = torch.eye(4)[torch.from_numpy(corner)]
    patients = [data.draw(st.sampled_from([None, "p", "q"])) for _ in counts]
    folds = [data.draw(st.sampled_from([None, 0, 1])) for _ in counts]
    stored_videos = tuple(
        StoredVideo(str(i), "nowhere", n, patients[i], None, folds[i], tuple(range(n)))
        for i, n in enumerate(counts)
    )
    bank = NegativeBank(total, 4)
    contents = Contents(stored_videos, {})
    number = {None: -1, "p": 0, "q": 1}
    patient = torch.tensor([number[p] for p in patients])[torch.from_numpy(contents.video)]
    video = torch.from_numpy(contents.video)
    bank.enqueue(Frames(embedding, video, torch.zeros(total), patient))

    across = data.draw(st.sampled_from(["video", "patient", "fold"]))
    seen: list[object] = []

    def counts_as_pair(a: int, b: int) -> bool:
        x, y = contents.video_of(a), contents.video_of(b)
        if across == "fold":
            return None not in (x.fold, y.fold) and x.fold != y.fold
        same_patient = across == "patient" and x.patient is not None and x.patient == y.patient
        return x.id != y.id and not same_patient

    if across == "fold" and len({fold for fold in folds if fold is not None}) < 2:
        with pytest.raises(ValueError, match="folds"):
            pairs.find_pairs(bank, contents, 0.5, across, tell=seen.append)
        return
    wanted = {
        (a, b)
        for a in range(total)
        for b in range(a + 1, total)
        if corner[a] == corner[b] and counts_as_pair(a, b)
    }
    found = pairs.find_pairs(bank, contents, 0.5, across, tell=seen.append, every_frame=True)
    assert {(pair.a, pair.b) for pair in found} == wanted and len(found) == len(wanted)
    best = pairs.find_pairs(bank, contents, 0.5, across, tell=seen.append)
    of_videos = {(contents.video[a], contents.video[b]) for a, b in wanted}
    assert {(contents.video[p.a], contents.video[p.b]) for p in best} == of_videos
    assert sum(pair.frames for pair in best) == len(wanted)


def test_correlation_is_of_details() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 64, 64, generator=generator) * 255
    slope = torch.linspace(0, 400, 64)[:, None]
    assert pairs.correlation(a, a * 0.5 + 20) == pytest.approx(1, abs=1e-5)  # float32 sums
    assert abs(pairs.correlation(a + slope, b + slope)) < 0.1
    assert pairs.correlation(a, -a) == pytest.approx(-1, abs=1e-5)
    flat = torch.full((64, 64), 7.0)
    assert pairs.correlation(flat, flat) == 1
    assert pairs.correlation(flat, a) == 0
