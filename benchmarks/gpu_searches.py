"""Searches alone, which a user would build a loss around: no window, no loss, no gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.problems import Problem
from benchmarks.rows import FAISS_GPU, TRITON
from usucl_ext import Frames, select_negatives

Search = Callable[[], tuple[Tensor, Tensor]]  # similarities, key indices; ties as they come


def triton(problem: Problem) -> Search:
    """The cross-video negatives.

    Raises:
        RuntimeError: not on a GPU.
    """
    anchors, keys, k = problem.anchors, problem.keys, problem.setting.cross_k
    query = anchors.embedding.detach()
    if not query.is_cuda:
        raise RuntimeError("Triton needs a GPU")
    from benchmarks import triton_search

    return lambda: triton_search.hardest(query, keys.embedding, anchors.video, keys.video, k)


def faiss_gpu(problem: Problem) -> Search:
    """The most similar keys of all, those of the anchor's own video among them; on the CPU its
    search there, of float32.

    Raises:
        RuntimeError: FAISS is not installed, or not with GPU support.
    """
    try:
        import faiss
        import faiss.contrib.torch_utils  # its functions take tensors then
    except ImportError as error:
        raise RuntimeError(f"FAISS is not installed: {error}") from None
    query, keys, k = problem.anchors.embedding.detach(), problem.keys.embedding, _k(problem)
    inner = faiss.METRIC_INNER_PRODUCT
    if not query.is_cuda:
        query, keys = query.float(), keys.float()
        return lambda: faiss.knn(query, keys, k, metric=inner)
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("FAISS is installed without GPU support")
    resources = faiss.StandardGpuResources()
    return lambda: faiss.knn_gpu(resources, query, keys, k, metric=inner)


def _k(problem: Problem) -> int:
    return min(problem.setting.cross_k, len(problem.keys.video))


def expected(name: str, problem: Problem) -> Tensor:
    """The similarities that a search should find, by ours: ``[N, k]``."""
    anchors = problem.anchors
    if name == FAISS_GPU:  # of nobody's video
        strangers = torch.full_like(anchors.video, int(problem.keys.video.max()) + 1)
        anchors = Frames(anchors.embedding, strangers, anchors.time)
    found = select_negatives(anchors, problem.keys, window=None, intra_k=0, cross_k=_k(problem))
    return found.cross_similarity


SEARCHES = {TRITON: triton, FAISS_GPU: faiss_gpu}
