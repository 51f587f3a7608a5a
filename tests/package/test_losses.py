"""The inputs of the loss: the released code's numbers, and which pairs each method lets through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from usucl.losses import (
    Frames,
    dense_inputs,
    hard_negative_nce,
    paper_code_inputs,
    paper_inputs,
    share_above_margin,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator), dim=-1)


@pytest.mark.parametrize("case", range(6))
def test_paper_code_matches_the_released_code(case: int, golden_root: Path) -> None:
    about = json.loads((golden_root / "official_loss.json").read_text())[case]
    with np.load(golden_root / "official_loss.npz") as arrays:
        golden = {
            name.removeprefix(f"case{case}_"): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith(f"case{case}_")
        }
    anchors = golden["q"].requires_grad_()
    negatives = golden["negs"].requires_grad_()
    # The files hold the heads' outputs; the released code normalises them first, as we do.
    unit_anchors, positives, unit_negatives = (
        normalize(x, dim=-1) for x in (anchors, golden["pos"], negatives)
    )
    inputs = paper_code_inputs(unit_anchors, positives, unit_negatives)
    loss = hard_negative_nce(
        *inputs[:3],
        window=inputs.window,
        intra_k=0 if about["mode"] == "cross_only" else about["intra_negatives"],
        cross_k=0 if about["mode"] == "intra_only" else about["cross_support"],
        temperature=about["temperature"],
        soft_nn_temperature=about["soft_nn_temperature"],
    )
    loss.backward()
    # float32 sums in another order; gradients are differences of terms scaled by 1 / temperature.
    torch.testing.assert_close(loss.detach(), golden["loss"], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(anchors.grad, golden["grad_q"], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(negatives.grad, golden["grad_negs"], rtol=2e-5, atol=2e-5)


def taken(inputs, intra_k: int, cross_k: int) -> tuple[list[set[int]], list[set[int]]]:
    """Per anchor, the keys selected in its video and across videos."""
    _, selection = hard_negative_nce(
        *inputs[:3],
        window=inputs.window,
        intra_k=intra_k,
        cross_k=cross_k,
        return_selection=True,
    )
    return tuple(
        [set(row[row >= 0].tolist()) for row in index]
        for index in (selection.intra_index, selection.cross_index)
    )


def test_dense_takes_what_the_mask_allows() -> None:
    video = torch.tensor([0, 0, 0, 1, 2])
    time = torch.tensor([0.0, 0.1, 0.5, 0.0, 0.0])
    patient = torch.tensor([7, 7, 7, 7, -1])
    bank = Frames(
        unit(3, 8, seed=2),
        torch.tensor([0, 5, -1]),
        torch.tensor([0.5, 0.5, 0.5]),
        torch.tensor([7, 8, -1]),
    )
    window = torch.tensor([0.3, 0.6]).expand(5, 2)
    frames = Frames(unit(5, 8), video, time, patient)
    inputs = dense_inputs(frames, unit(5, 8, seed=1), window, bank)
    assert inputs.anchors.embedding.shape == (10, 8)
    assert torch.equal(inputs.positives, inputs.anchors.embedding.roll(5, 0))
    intra, cross = taken(inputs, intra_k=20, cross_k=20)
    assert intra[0] == {2, 7, 10} and intra[1] == {2, 7, 10} and intra[2] == {0, 1, 5, 6}
    assert intra[5:] == intra[:5] and cross[5:] == cross[:5]
    assert cross[0] == {4, 9, 11}  # neither the same patient nor the empty slot
    assert cross[4] == {0, 1, 2, 3, 5, 6, 7, 8, 10, 11}  # an unknown patient matches no other


def test_paper_takes_all_sampled_negatives_but_the_anchor_itself() -> None:
    # 0.1 + 0.2 != 0.3 in floating point: the sampled negatives must not depend on it.
    time = torch.tensor([0.3, 0.5, 0.5])
    negative_time = torch.tensor([[0.1 + 0.2, 0.1, 0.5], [0.1, 0.9, 0.9], [torch.nan] * 3])
    frames = Frames(unit(3, 8), torch.tensor([3, 4, 5]), time, torch.full((3,), -1))
    bank = Frames(
        unit(2, 8, seed=3),
        torch.tensor([3, 9]),
        torch.full((2,), torch.nan),
        torch.tensor([-1, -1]),
    )
    inputs = paper_inputs(frames, unit(3, 8, seed=1), unit(3, 3, 8, seed=2), negative_time, bank)
    intra, cross = taken(inputs, intra_k=3, cross_k=20)
    assert intra == [{1, 2}, {3, 4, 5}, set()]  # the last video was too short for any
    assert cross == [{3, 4, 5, 10}, {0, 1, 2, 9, 10}, {0, 1, 2, 3, 4, 5, 9, 10}]


def test_paper_without_sampled_negatives_is_cross_video_only() -> None:
    frames = Frames(unit(4, 8), torch.arange(4), torch.zeros(4), torch.full((4,), -1))
    bank = frames._replace(embedding=unit(4, 8, seed=3), time=torch.full((4,), torch.nan))
    empty = torch.empty(4, 0, 8), torch.empty(4, 0)
    intra, cross = taken(paper_inputs(frames, unit(4, 8, seed=1), *empty, bank), 3, 8)
    assert intra == [set()] * 4
    assert cross == [set(range(4)) - {i} for i in range(4)]


def test_share_above_margin_counts_what_the_loss_leaves_out() -> None:
    """Against a loss that may select every key: what it finds with and without the margin."""
    rows = torch.arange(12)
    first = Frames(unit(12, 8), rows % 3, (rows // 3).float(), rows % 3 // 2)
    inputs = dense_inputs(first, unit(12, 8, seed=1), torch.tensor([[1.0, 2.0]]).repeat(12, 1))
    options = {"window": inputs.window, "intra_k": 24, "cross_k": 24, "return_selection": True}
    _, everything = hard_negative_nce(*inputs[:3], **options)
    _, kept = hard_negative_nce(*inputs[:3], **options, margin=-0.1)
    counts = [
        sum(int((index >= 0).sum()) for index in (s.intra_index, s.cross_index))
        for s in (everything, kept)
    ]
    assert 0 < counts[1] < counts[0]
    assert share_above_margin(inputs, -0.1) == pytest.approx(1 - counts[1] / counts[0])
    assert np.isnan(share_above_margin(inputs, None))
