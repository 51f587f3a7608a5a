"""From an index's candidates to the hardest valid negatives: nominate, exclude, decide.

An index is asked for more candidates than wanted. Frames of the anchor's video and known patient
are removed from its answer, and not by a selector of the index: some accept one and ignore it. The
rest is scored by the canonical rule and put in the order of the selection. Anchors with too few
left are searched again with many more candidates, and finally by the exact operator: so k
negatives are found, or all that exist.
"""

from __future__ import annotations

import torch
from torch import Tensor

from usucl.bank.indexes import Index, score_error
from usucl_ext import Frames, select_negatives, similarities
from usucl_ext._validation import check_frames
from usucl_ext.reference import relation_masks

_SPARE = 16  # candidates fetched beyond those wanted, for similarities that are nearly equal
_EXCLUDED = 512  # greatest number fetched beyond those for frames that an anchor may not take
_MORE = 8  # factor of the candidates fetched in the second round


def with_patients(frames: Frames) -> Frames:
    """Checks frames as the loss does, and fills in unknown patients where none are given."""
    frames = check_frames("frames", frames)
    if frames.patient is None:
        return frames._replace(patient=torch.full_like(frames.video, -1))
    return frames


def hardest_cross(
    index: Index,
    keys: Frames,
    anchors: Frames,
    k: int,
    skip: int = 0,
    max_similarity: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Finds the cross-video negatives ``skip .. skip + k - 1`` of each anchor, the hardest first.

    Args:
        index: index that is up to date with the bank.
        keys: the bank's slots, with video -1 for frames that must not be found.
        anchors: N frames, with patients.
        k: negatives per anchor, >= 1.
        skip: hardest negatives left out, >= 0.
        max_similarity: greatest similarity of a valid key.

    Returns:
        Slots and similarities ``[N, k]``; -1 and -infinity where there are no more.
    """
    depth = min(skip + k, len(keys.video))
    search = _Search(index, keys, anchors, depth, max_similarity)
    rows = (anchors.video >= 0).nonzero().flatten()
    answerable = search.error[rows].isfinite()
    left = [rows[~answerable]]
    rows = rows[answerable]
    assert anchors.patient is not None
    own = index.excluded(anchors.video[rows], anchors.patient[rows])
    count = depth + _SPARE + min(int(own.max()) if own.numel() else 0, _EXCLUDED)
    for fetched in (count, _MORE * count):
        if rows.numel() == 0 or index.most < depth:
            break
        rows = rows[~search.round(rows, min(fetched, index.most))]
        if fetched >= index.most:
            break
    search.exactly(torch.cat([*left, rows]))
    return _padded(search.slots[:, skip:], search.similarity[:, skip:], k)


class _Search:
    """The negatives that one call has found so far."""

    def __init__(
        self,
        index: Index,
        keys: Frames,
        anchors: Frames,
        depth: int,
        max_similarity: float | None,
    ) -> None:
        self.index, self.keys, self.anchors, self.depth = index, keys, anchors, depth
        self.max_similarity = max_similarity
        queries, device = anchors.embedding, anchors.embedding.device
        double = torch.float64 in (queries.dtype, keys.embedding.dtype)
        dtype = torch.float64 if double else torch.float32
        shape = (len(queries), depth)
        self.slots = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.similarity = torch.full(shape, -torch.inf, dtype=dtype, device=device)
        # The operator too compares it in the type of the similarities.
        self.limit = torch.tensor(
            torch.inf if max_similarity is None else max_similarity, dtype=dtype, device=device
        )
        self.error = score_error(queries, queries.shape[1], index.largest_norm)

    def round(self, rows: Tensor, count: int) -> Tensor:
        """Searches ``count`` candidates; returns which anchors are decided, and stores those."""
        anchors = self.anchors.take(rows)
        score, slots = (
            answer.to(rows.device) for answer in self.index.search(anchors.embedding, count)
        )
        valid = self._valid(anchors, slots) & score.isfinite()
        if self.index.faithful:
            kept, complete = self._within_reach(valid, score.double(), self.error[rows])
        else:
            kept, complete = valid, torch.zeros_like(rows, dtype=torch.bool)
        if count >= self.index.size:
            complete = torch.ones_like(complete)
        candidates = _gather_left(slots, kept)
        newest = self.index.newest()
        if newest is not None:
            candidates = torch.cat([candidates, self._newest(anchors, newest)], dim=1)
        slots, similarity = self._decide(anchors, candidates)
        settled = complete if self.index.exhaustive else slots[:, -1] >= 0
        self.slots[rows[settled]] = slots[settled]
        self.similarity[rows[settled]] = similarity[settled]
        return settled

    def exactly(self, rows: Tensor) -> None:
        """Searches these rows with the exact operator."""
        if rows.numel() == 0:
            return
        anchors = self.anchors.take(rows)
        found = self._select(anchors, self.keys)
        self.slots[rows], self.similarity[rows] = found

    def _select(self, anchors: Frames, keys: Frames) -> tuple[Tensor, Tensor]:
        found = select_negatives(
            anchors,
            keys,
            window=None,
            intra_k=0,
            cross_k=self.depth,
            max_similarity=self.max_similarity,
        )
        return found.cross_index, found.cross_similarity

    def _valid(self, anchors: Frames, slots: Tensor) -> Tensor:
        """Returns which candidates are cross-video negatives by their ids."""
        at, patient = slots.clamp(min=0), self.keys.patient
        candidates = Frames(
            self.keys.embedding,
            self.keys.video[at],
            self.keys.time[at],
            None if patient is None else patient[at],
        )
        _, cross = relation_masks(anchors, candidates, None)
        return cross & (slots >= 0)

    def _within_reach(self, valid: Tensor, score: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Returns valid candidates that can rank within ``depth``, and which rows have all of them.

        ``depth`` candidates score t or more, so their similarities are at least t - error. Any
        that scores less than t - 2 error has a similarity below that, fetched or not. So a row has
        all that count if its last candidate, which scores lowest, scores less than that.
        """
        sure = valid & (score <= self.limit - error[:, None])  # surely not above max_similarity
        rank = sure.cumsum(1)
        place = (rank < self.depth).sum(1, keepdim=True).clamp(max=score.shape[1] - 1)
        reach = score.gather(1, place) - 2 * error[:, None]
        reach = reach.masked_fill(rank[:, -1:] < self.depth, -torch.inf)
        return valid & (score >= reach), (score[:, -1:] < reach).flatten()

    def _newest(self, anchors: Frames, slots: Tensor) -> Tensor:
        """Returns the best of the slots that the index lacks, which ascend, so ties keep order."""
        slots = slots.to(anchors.video.device)
        found, _ = self._select(anchors, self.keys.take(slots))
        return torch.where(found >= 0, slots[found.clamp(min=0)], -1)

    def _decide(self, anchors: Frames, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the first ``depth`` candidates by (similarity descending, slot ascending)."""
        candidates, _ = candidates.sort(dim=1)
        score = similarities(anchors.embedding, self.keys.embedding, candidates)
        score = score.masked_fill(~score.isfinite() | (score > self.limit), -torch.inf)
        score, order = score.sort(dim=1, descending=True, stable=True)
        slots = candidates.gather(1, order).masked_fill(score == -torch.inf, -1)
        return _padded(slots[:, : self.depth], score[:, : self.depth], self.depth)


def _gather_left(slots: Tensor, kept: Tensor) -> Tensor:
    """Moves the kept slots of each row to its front, as wide as the fullest row; -1 behind."""
    place = kept.cumsum(1) - 1
    width = int(place[:, -1].max()) + 1
    row, column = kept.nonzero(as_tuple=True)
    front = slots.new_full((slots.shape[0], width), -1)
    front[row, place[row, column]] = slots[row, column]
    return front


def _padded(slots: Tensor, similarity: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Pads both to ``width`` with places that hold no negative."""
    missing = (0, width - slots.shape[1])
    pad = torch.nn.functional.pad
    return pad(slots, missing, value=-1), pad(similarity, missing, value=-torch.inf)


def spread(frames: Frames, count: int) -> Frames:
    """Returns at most ``count`` of the frames, evenly spaced."""
    rows, device = frames.video.shape[0], frames.video.device
    return (
        frames if rows <= count else frames.take(torch.arange(count, device=device) * rows // count)
    )


def share_found(found: Tensor, truth: Tensor) -> float:
    """Returns the share of the slots in ``truth`` ``[N, k]`` that are in the same row of ``found``.

    Empty places, -1, do not count; NaN if all of ``truth`` is empty.
    """
    wanted = truth >= 0
    hits = (truth[:, :, None] == found[:, None, :]) & wanted[:, :, None]
    return float(hits.sum() / wanted.sum())
