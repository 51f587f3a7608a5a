"""similarities() gives the selection's own numbers for pairs that another search proposes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usucl_ext import Frames, reference, select_negatives, similarities

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def frames(embedding: torch.Tensor, video: int) -> Frames:
    rows = len(embedding)
    return Frames(embedding, torch.full((rows,), video), torch.zeros(rows))


@given(
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(0, 2**31),
)
def test_they_are_those_of_the_selection_bit_for_bit(
    n: int, m: int, dim: int, dtype: torch.dtype, key_dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randn(n, dim, generator=generator).to(dtype)
    keys = torch.randn(m, dim, generator=generator).to(key_dtype)
    found = select_negatives(
        frames(anchors, 0), frames(keys, 1), window=None, intra_k=0, cross_k=m + 3
    )
    ours = similarities(anchors, keys, found.cross_index)
    assert ours.dtype == found.cross_similarity.dtype
    assert torch.equal(ours, found.cross_similarity)  # -inf where the index is -1, too
    theirs = reference.similarities(anchors, keys, found.cross_index)
    tolerance = 4 * dim * torch.finfo(ours.dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * 16)


def test_no_key_and_broken_keys() -> None:
    keys = torch.tensor([[1.0, 2.0], [math.nan, 0.0], [math.inf, 1.0], [-0.0, 0.0]])
    index = torch.tensor([[0, -1, 4, 1, 2, 3, -(2**62), 2**62]])
    for impl in ("native", "reference"):
        found = similarities(torch.tensor([[3.0, -1.0]]), keys, index, impl=impl)[0].tolist()
        assert found[0] == 1.0 and found[5] == 0.0 and math.copysign(1, found[5]) == 1
        assert math.isnan(found[3]) and found[4] == math.inf
        assert [found[i] for i in (1, 2, 6, 7)] == [-math.inf] * 4


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_score(shape: tuple[int, int]) -> None:
    index = torch.zeros(shape, dtype=torch.int64)
    assert similarities(torch.ones(shape[0], 4), torch.ones(2, 4), index).shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": torch.ones(3)}, r"anchors must have shape \[N, D\], got \[3\]"),
        ({"anchors": torch.ones(2, 0)}, "anchors must have D >= 1"),
        ({"anchors": torch.ones(2, 3, dtype=torch.int32)}, "anchors must be float32"),
        ({"keys": torch.ones(5, 4)}, r"keys must have shape \[M, D\] with D = 3.*got \[5, 4\]"),
        ({"keys": [1.0]}, "keys must be a torch.Tensor"),
        ({"index": torch.zeros(2, 2)}, "index must be an int64 tensor, got torch.float32"),
        ({"index": torch.zeros(3, 2, dtype=torch.int64)}, "with N = 2, one row per anchor"),
        ({"index": None}, "index must be a torch.Tensor"),
        ({"keys": torch.ones(5, 3, device="meta")}, "keys must be on cpu, got meta"),
    ],
)
def test_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "anchors": torch.ones(2, 3),
        "keys": torch.ones(5, 3),
        "index": torch.zeros(2, 2, dtype=torch.int64),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        similarities(**{**arguments, **change})
