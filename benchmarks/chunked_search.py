"""The simple way to search without the whole matrix, written for the comparison.

Chunks of the keys are multiplied into one buffer by the library's matrix product at its full rate,
and a kernel after each keeps what is better than the worst of the best so far. Every score is
written and read once, in the dtype of the embeddings.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from usucl_ext import Frames

FIRST, CHUNK = 8192, 65536  # keys; only the first chunk is ranked as a whole
ROOM = 512  # keys per chunk that may pass an anchor's bar; 256 random keys should at k = 32
COLUMNS = 4096  # per program of the filter


@triton.jit
def _filter(
    score, bar, query_video, key_video, count, value_out, index_out, first, keys,
    ROOM: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < keys
    s = tl.load(score + row.to(tl.int64) * keys + column, mask=there, other=0.0).to(tl.float32)
    passes = there & (s > tl.load(bar + row))
    if tl.max(passes.to(tl.int32), 0) > 0:
        own = tl.load(query_video + row)
        passes = passes & (tl.load(key_video + first + column, mask=passes, other=-1) != own)
        taken = passes.to(tl.int32)
        start = tl.atomic_add(count + row, tl.sum(taken, 0))
        place = start + tl.cumsum(taken, 0) - taken
        fits = passes & (place < ROOM)
        tl.store(value_out + row * ROOM + place, s, mask=fits)
        tl.store(index_out + row * ROOM + place, (first + column).to(tl.int32), mask=fits)


class ChunkedSearch:
    """A search whose call returns the k most similar keys of other videos, ``[N, k]``."""

    def __init__(self, anchors: Frames, keys: Frames, k: int) -> None:
        query = anchors.embedding.detach()
        self._query, self._video, self._keys, self._k = query, anchors.video, keys, k
        n, widest = len(query), min(CHUNK, len(keys.video))
        self._score = torch.empty(n * widest, dtype=query.dtype, device=query.device)
        self._passed = torch.zeros(n, dtype=torch.int32, device=query.device)
        self._value = torch.empty(n, ROOM, device=query.device)
        self._index = torch.empty(n, ROOM, dtype=torch.int32, device=query.device)
        self._most = torch.zeros((), dtype=torch.int32, device=query.device)

    def __call__(self) -> Tensor:
        n, k = len(self._query), self._k
        best, index = self._first()
        for first in range(FIRST, len(self._keys.video), CHUNK):
            score = self._product(first, CHUNK)
            width = score.shape[1]
            self._passed.zero_()
            self._value.fill_(-torch.inf)
            _filter[(n, triton.cdiv(width, COLUMNS))](
                score, best[:, k - 1].contiguous(), self._video, self._keys.video, self._passed,
                self._value, self._index, first, width, ROOM=ROOM, COLUMNS=COLUMNS,
            )  # fmt: skip
            torch.maximum(self._most, self._passed.max(), out=self._most)
            merged = torch.cat([best, self._value], 1).topk(k, dim=1)
            best = merged.values
            index = torch.cat([index, self._index], 1).gather(1, merged.indices)
        return index

    def lost(self) -> bool:
        """Returns whether more keys ever passed a bar than there was room for."""
        return int(self._most) > ROOM

    def _first(self) -> tuple[Tensor, Tensor]:
        """Returns the best of the first chunk, which has no bar yet."""
        score = self._product(0, FIRST)
        own = self._video[:, None] == self._keys.video[:FIRST]
        best = score.masked_fill_(own, -torch.inf).topk(self._k, dim=1)
        return best.values.float(), best.indices.int()

    def _product(self, first: int, count: int) -> Tensor:
        keys = self._keys.embedding[first : first + count]
        score = self._score[: len(self._query) * len(keys)].view(len(self._query), len(keys))
        return torch.mm(self._query, keys.T, out=score)
