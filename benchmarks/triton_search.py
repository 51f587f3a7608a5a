"""A fused search as one would write it in Triton: similarities by ``tl.dot``, never in memory.

Each program keeps the k most similar keys of another video for a tile of anchors, and takes from
every tile of keys what is better than the worst it has, one key per row at a time. It was written
for the comparison, with nothing but the language.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ANCHORS, KEYS = 64, 128  # per tile


@triton.jit
def _search(
    query, keys, query_video, key_video, value_out, index_out, n, m, splits,
    SHARE: tl.constexpr, DIM: tl.constexpr, K: tl.constexpr,
    ANCHORS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ANCHORS + tl.arange(0, ANCHORS)
    split = tl.program_id(1)
    column, dim, rank = tl.arange(0, KEYS), tl.arange(0, DIM), tl.arange(0, K)
    q = tl.load(query + row[:, None] * DIM + dim[None, :], mask=row[:, None] < n, other=0.0)
    own = tl.load(query_video + row, mask=row < n, other=-1)
    best = tl.full((ANCHORS, K), float("-inf"), tl.float32)
    index = tl.full((ANCHORS, K), -1, tl.int32)
    for step in range(0, SHARE, KEYS):
        first = split * SHARE + step
        key = first + column
        k = tl.load(keys + key[:, None] * DIM + dim[None, :], mask=key[:, None] < m, other=0.0)
        video = tl.load(key_video + key, mask=key < m, other=-1)
        score = tl.dot(q, tl.trans(k), input_precision="ieee")
        other = (video[None, :] != own[:, None]) & (key[None, :] < m)
        score = tl.where(other, score, float("-inf"))
        greatest, worst = tl.max(score, 1), tl.min(best, 1)
        while tl.max((greatest > worst).to(tl.int32), 0) > 0:
            at, place = tl.argmax(score, 1), tl.argmin(best, 1)
            taken = (greatest > worst)[:, None] & (rank[None, :] == place[:, None])
            best = tl.where(taken, greatest[:, None], best)
            index = tl.where(taken, first + at[:, None], index)
            score = tl.where(column[None, :] == at[:, None], float("-inf"), score)
            greatest, worst = tl.max(score, 1), tl.min(best, 1)
    out = (row[:, None] * splits + split) * K + rank[None, :]
    tl.store(value_out + out, best, mask=row[:, None] < n)
    tl.store(index_out + out, index, mask=row[:, None] < n)


def hardest(
    query: Tensor, keys: Tensor, query_video: Tensor, key_video: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Returns similarities and indices of the k most similar keys of other videos, descending.

    Args:
        query, keys: ``[N, D]`` and ``[M, D]`` of one dtype; D and k are powers of two >= 16.
        query_video, key_video: ids ``[N]`` and ``[M]``.
    """
    (n, dim), m = query.shape, len(keys)
    tiles = triton.cdiv(n, ANCHORS)
    splits = max(1, min(256 // tiles, triton.cdiv(m, 8 * KEYS)))
    value = torch.empty(n, splits, k, dtype=torch.float32, device=query.device)
    index = torch.empty(n, splits, k, dtype=torch.int32, device=query.device)
    _search[(tiles, splits)](
        query, keys, query_video, key_video, value, index, n, m, splits,
        SHARE=triton.cdiv(triton.cdiv(m, splits), KEYS) * KEYS, DIM=dim, K=k,
        ANCHORS=ANCHORS, KEYS=KEYS,
    )  # fmt: skip
    best = value.flatten(1).topk(k, dim=1)
    return best.values, index.flatten(1).gather(1, best.indices)
