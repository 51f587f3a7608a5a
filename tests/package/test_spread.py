"""How far apart embeddings lie, on examples done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from usucl._spread import effective_rank, uniformity


def test_effective_rank_and_uniformity() -> None:
    assert effective_rank(torch.eye(8)) == pytest.approx(8)
    assert effective_rank(torch.ones(8, 4)) == pytest.approx(1)
    assert uniformity(torch.ones(5, 3), torch.arange(5)) == pytest.approx(0, abs=1e-6)
    frames = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert uniformity(frames, torch.tensor([0, 0, 1])) == pytest.approx(-4)  # log exp(-2 * 2)
    assert math.isnan(uniformity(frames, torch.zeros(3)))
