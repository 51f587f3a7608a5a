"""The ways to compute the loss, or what comes nearest, each as its users would set it up."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softplus

from benchmarks import eager
from benchmarks.harness import Step
from benchmarks.problems import TEMPERATURE, WINDOW, Problem
from benchmarks.rows import (
    CHUNKED,
    COMPILED,
    EAGER,
    LIGHTLY,
    MATMUL,
    METRIC_LEARNING,
    OURS,
    SEARCH,
    SEARCH_LOSS,
)
from usucl_ext import hard_negative_nce


@dataclass(frozen=True)
class Provider:
    """One way to compute the loss.

    Attributes:
        what: what it computes, in a few words.
        cannot: what it cannot do that the loss asks for; empty if nothing.
        make: turns a problem into the call that is measured.
        expected: the loss it must give, computed plainly from the problem; None if it gives none.
        needs: its package, if that is not a dependency of ours.
        pair_bytes: approximate bytes per pair of anchor and key.
    """

    what: str
    cannot: str
    make: Callable[[Problem], Step]
    expected: Callable[[Problem], Tensor] | None
    needs: str = ""
    pair_bytes: int = 0

    def skipped(self) -> str:
        """Returns why the provider cannot run here; empty if it can."""
        if not self.needs:
            return ""
        try:
            importlib.import_module(self.needs)
        except ImportError as error:
            return f"{error}; the extra 'bench' has it"
        return ""


def options(problem: Problem) -> dict[str, Any]:
    """Returns the keyword arguments that all losses of this problem share."""
    intra_k, cross_k = problem.setting.k
    return {
        "window": WINDOW,
        "intra_k": intra_k,
        "cross_k": cross_k,
        "temperature": TEMPERATURE,
    }


def plain(problem: Problem) -> Tensor:
    """Returns the loss in plain PyTorch and float32, whatever the dtype of the embeddings."""
    anchors = problem.anchors._replace(embedding=problem.anchors.embedding.float())
    keys = problem.keys._replace(embedding=problem.keys.embedding.float())
    return eager.hard_negative_nce_in_chunks(
        anchors, problem.positives.float(), keys, **options(problem)
    )


def _calls(loss: Callable[..., Tensor], **more: Any) -> Callable[[Problem], Step]:
    def make(problem: Problem) -> Step:
        anchors, positives, keys = problem.anchors, problem.positives, problem.keys
        given = {**options(problem), **more}
        return Step(lambda: loss(anchors, positives, keys, **given), anchors.embedding)

    return make


def _compiled(problem: Problem) -> Step:
    torch._dynamo.reset()  # each shape is compiled separately
    return _calls(torch.compile(eager.hard_negative_nce))(problem)


def _matmul(problem: Problem) -> Step:
    query, keys = problem.anchors.embedding.detach(), problem.keys.embedding
    product = torch.empty(len(query), len(keys), dtype=query.dtype, device=query.device)
    return Step(lambda: torch.mm(query, keys.T, out=product))


def _faiss_index(problem: Problem) -> Any:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(problem.setting.d)
    index.add(problem.keys.embedding.numpy())
    return index


def _faiss_search(problem: Problem) -> Step:
    index, query = _faiss_index(problem), problem.anchors.embedding.detach().numpy()
    count = min(problem.setting.cross_k, problem.setting.m)
    return Step(lambda: index.search(query, count))


def _faiss_loss(problem: Problem) -> Step:
    """Returns the loss over FAISS's search, of as many more keys as the longest video has frames,
    without the anchor's own; intra-video keys are looked up by video, outside FAISS."""
    index, (intra_k, cross_k) = _faiss_index(problem), problem.setting.k
    anchors, positives, keys = problem.anchors, problem.positives, problem.keys
    sizes = torch.bincount(keys.video, minlength=int(anchors.video.max()) + 1)
    count = min(cross_k + int(sizes.max()), problem.setting.m)
    place = torch.arange(int(sizes.max())).expand(len(sizes), -1)
    members = torch.full(place.shape, -1)  # the keys of each video, then -1
    members[place < sizes[:, None]] = keys.video.argsort(stable=True)
    lo, hi = WINDOW

    def hardest(similarity: Tensor, taken: Tensor, index: Tensor, k: int) -> Tensor:
        """Returns the hardest k taken keys of ``index``; -1 where there are none."""
        best = similarity.masked_fill(~taken, -torch.inf).topk(min(k, index.shape[1]), dim=1)
        return index.gather(1, best.indices).masked_fill(best.values == -torch.inf, -1)

    def forward() -> Tensor:
        query = anchors.embedding.detach()
        found = tuple(map(torch.from_numpy, index.search(query.numpy(), count)))
        other_video = keys.video[found[1]] != anchors.video[:, None]
        cross = hardest(found[0], other_video, found[1], cross_k)
        own = members[anchors.video]
        distance = (anchors.time[:, None] - keys.time[own]).abs()
        inside = (own >= 0) & (distance > 0) & (distance >= lo) & (distance <= hi)
        similarity = (keys.embedding[own] @ query[:, :, None])[:, :, 0]
        chosen = torch.cat([hardest(similarity, inside, own, intra_k), cross], dim=1)

        negative = (keys.embedding[chosen] @ anchors.embedding[:, :, None])[:, :, 0]
        negative = negative.masked_fill(chosen < 0, -torch.inf)
        positive = (anchors.embedding * positives).sum(1, keepdim=True)
        logits = torch.cat([positive, negative], dim=1) / TEMPERATURE
        return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64))

    return Step(forward, anchors.embedding)


def _metric_learning(problem: Problem) -> Step:
    """Returns a queue and a miner, as in the library's MoCo example; labels are video ids."""
    from pytorch_metric_learning import losses, miners

    anchors, positives, keys = problem.anchors, problem.positives, problem.keys
    n, m, d = problem.setting.shape
    miner = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="hard")
    memory = losses.CrossBatchMemory(losses.NTXentLoss(TEMPERATURE), d, memory_size=m, miner=miner)
    memory.add_to_memory(keys.embedding, keys.video, m)
    labels, enqueued = anchors.video.repeat(2), torch.arange(2 * n) >= n

    def forward() -> Tensor:
        memory.queue_idx = 0  # the positives replace the same keys each time
        both = torch.cat([anchors.embedding, positives])
        loss: Tensor = memory(both, labels, enqueue_mask=enqueued)
        return loss

    return Step(forward, anchors.embedding)


def _metric_learning_expected(problem: Problem) -> Tensor:
    """Returns InfoNCE of the most similar key of the own video against that of all others.

    Anchors are normalised, as in the library, so their gradient is tangent to the sphere.
    """
    n = problem.setting.n
    video = torch.cat([problem.anchors.video, problem.keys.video[n:]])
    similarity = normalize(problem.anchors.embedding, dim=1) @ _with_positives(problem).T
    same = problem.anchors.video[:, None] == video
    positive = similarity.masked_fill(~same, -torch.inf).amax(1)
    negative = similarity.masked_fill(same, -torch.inf).amax(1)
    return softplus((negative - positive) / TEMPERATURE).mean()


def _lightly(problem: Problem) -> Step:
    from lightly.loss import NTXentLoss

    anchors, positives = problem.anchors, problem.positives
    loss = NTXentLoss(TEMPERATURE, memory_bank_size=(problem.setting.m, problem.setting.d))
    loss.memory_bank.bank.copy_(_with_positives(problem))

    def forward() -> Tensor:
        loss.memory_bank.bank_ptr.zero_()  # the positives replace the same keys each time
        return loss(anchors.embedding, positives)

    return Step(forward, anchors.embedding)


def _lightly_expected(problem: Problem) -> Tensor:
    """Returns InfoNCE against all keys of the bank, of anchors normalised as above."""
    query = normalize(problem.anchors.embedding, dim=1)
    positive = (query * problem.positives).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ _with_positives(problem).T], dim=1) / TEMPERATURE
    return cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))


def _with_positives(problem: Problem) -> Tensor:
    """Returns ``[M, D]``, a queue's content once positives have replaced its oldest keys."""
    return torch.cat([problem.positives, problem.keys.embedding[problem.setting.n :]])


_WHOLE = "forms the whole anchors x keys matrix, several times"

PROVIDERS: dict[str, Provider] = {
    OURS: Provider(
        "the loss, fused", "", _calls(hard_negative_nce, impl="native"), plain, pair_bytes=0
    ),
    MATMUL: Provider(
        "the similarities alone, into memory allocated beforehand",
        "no mask, no selection, no loss, no gradient",
        _matmul,
        None,
        pair_bytes=4,
    ),
    EAGER: Provider(
        "the loss: a matmul, two masks, two topk",
        _WHOLE,
        _calls(eager.hard_negative_nce),
        plain,
        pair_bytes=24,
    ),
    CHUNKED: Provider(
        "the same, 128 anchors at a time",
        "keeps the masks of all chunks for the backward pass",
        _calls(eager.hard_negative_nce_in_chunks),
        plain,
        pair_bytes=12,
    ),
    COMPILED: Provider(
        "eager, compiled by Inductor",
        "needs a C++ compiler, and compiles each shape separately; topk is not fused, so it still "
        "forms the whole matrix",
        _compiled,
        plain,
        pair_bytes=24,
    ),
    SEARCH: Provider(
        "the cross_k most similar keys of all (IndexFlatIP)",
        "one selector for all queries of a call, so no mask that differs by anchor; no window in "
        "time, no loss, no gradient",
        _faiss_search,
        None,
        needs="faiss",
    ),
    SEARCH_LOSS: Provider(
        "the loss: IndexFlatIP for cross-video negatives, PyTorch for the rest",
        "must fetch as many more keys as the longest video has frames and drop those of the "
        "anchor's own; intra-video negatives are found outside FAISS",
        _faiss_loss,
        plain,
        needs="faiss",
    ),
    METRIC_LEARNING: Provider(
        "CrossBatchMemory with NTXentLoss and BatchEasyHardMiner: the hardest negative of "
        "another video, against the most similar key of the same video",
        "its miners take one negative, all, or those within a margin, not the k hardest; labels "
        "are all it knows of a frame, so those of the same video are positives, without a window "
        "in time; " + _WHOLE,
        _metric_learning,
        _metric_learning_expected,
        needs="pytorch_metric_learning",
        pair_bytes=40,
    ),
    LIGHTLY: Provider(
        "NTXentLoss with a memory bank: all keys are negatives",
        "takes all keys, not the hardest; knows no videos or times, so frames of the same video "
        "are negatives without a window; copies the bank in each call, and " + _WHOLE,
        _lightly,
        _lightly_expected,
        needs="lightly",
        pair_bytes=24,
    ),
}
