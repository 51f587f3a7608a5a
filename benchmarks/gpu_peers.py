"""What others offer on a GPU, prepared and checked: losses, and searches to build a loss around.

All are optional: what is not installed says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.eager import hard_negative_nce
from benchmarks.harness import Step
from benchmarks.problems import DTYPES, TEMPERATURE, Problem
from benchmarks.providers import options, plain
from benchmarks.rows import (
    CHUNKED_SEARCH,
    COMPILED_CHUNKS,
    CUVS,
    FAISS_GPU,
    FLASHLIB,
    FLASHLIB_CUTEDSL,
    MEMEFF,
    TRITON,
)
from benchmarks.suite import allowed_loss, compare
from usucl_ext import Frames, select_negatives, similarities

NO_LOSS = "no window in time, no loss, no gradient"
NO_MASK = f"no mask; {NO_LOSS}"


@dataclass(frozen=True)
class Peer:
    """Somebody else's program.

    Attributes:
        what: what it computes, in a few words.
        cannot: what the loss asks for that it cannot do.
        make: turns a problem into the call to measure, already checked. It raises RuntimeError
            with the reason if it cannot run here, AssertionError if its result is wrong.
    """

    what: str
    cannot: str
    make: Callable[[Problem], Step]


def _needs(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"not installed: {error}") from None


def _needs_gpu(problem: Problem) -> None:
    if not problem.positives.is_cuda:
        raise RuntimeError("needs a GPU")


# --- searches -------------------------------------------------------------------------------------

Search = Callable[[], Tensor]  # returns indices [N, k] of the most similar keys, in any order


def _searching(
    search: Callable[[Problem], Search], *, masked: bool, slack: Callable[[Problem], float]
) -> Callable[[Problem], Step]:
    """Returns the maker of a call whose keys are checked to be as similar as ours.

    Args:
        search: turns a problem into the call.
        masked: whether it leaves out the anchor's own video.
        slack: by how much it may misjudge a similarity.
    """

    def make(problem: Problem) -> Step:
        call = search(problem)
        anchors, keys = problem.anchors, problem.keys
        if not masked:  # no key is of such a video
            strangers = torch.full_like(anchors.video, int(keys.video.max()) + 1)
            anchors = Frames(anchors.embedding, strangers, anchors.time)
        wanted = select_negatives(anchors, keys, window=None, intra_k=0, cross_k=_k(problem))
        index = call().long()
        if (index.sort(dim=1).values.diff(dim=1) == 0).any():
            raise AssertionError(f"a key is found twice in {problem.setting}")
        found = similarities(anchors.embedding.detach(), keys.embedding, index)
        found = found.sort(dim=1, descending=True).values
        compare("the keys found", problem.setting, found, wanted.cross_similarity, slack(problem))
        return Step(call)

    return make


def _k(problem: Problem) -> int:
    return min(problem.setting.cross_k, len(problem.keys.video))


def _of_sums(problem: Problem) -> float:
    """Returns the error of comparing two sums of D float32 products of unit vectors."""
    return 4 * problem.setting.d * torch.finfo(torch.float32).eps


def _of_rounded_scores(problem: Problem) -> float:
    """Returns the error of scores, at most 1, that are kept in the embeddings' dtype."""
    return _of_sums(problem) + torch.finfo(DTYPES[problem.setting.dtype]).eps


def _of_distances(problem: Problem) -> float:
    """Returns the error of ranking by squared distances, as bfloat16 rounds the norms of 1."""
    norms = problem.keys.embedding.float().square().sum(1)
    return _of_sums(problem) * 4 + float((norms - 1).abs().max())


def _triton(problem: Problem) -> Search:
    _needs_gpu(problem)
    anchors, keys, k = problem.anchors, problem.keys, problem.setting.cross_k
    from benchmarks.triton_search import hardest

    query = anchors.embedding.detach()
    return lambda: hardest(query, keys.embedding, anchors.video, keys.video, k)[1]


def _chunked(problem: Problem) -> Search:
    _needs_gpu(problem)
    from benchmarks.chunked_search import ChunkedSearch

    search = ChunkedSearch(problem.anchors, problem.keys, _k(problem))
    search()
    if search.lost():
        raise AssertionError("more keys passed the bars than there is room for")
    return search


def _flashlib(backend: str) -> Callable[[Problem], Search]:
    def search(problem: Problem) -> Search:
        _needs_gpu(problem)
        knn = _needs("flashlib.primitives.knn").flash_knn
        if backend == "cutedsl":
            _needs("cutlass.cute")
        query, keys = problem.anchors.embedding.detach(), problem.keys.embedding
        k = _k(problem)
        return lambda: knn(query, keys, k, backend=backend, return_distances=False)

    return search


def _faiss(problem: Problem) -> Search:
    """Returns FAISS's search; on the CPU it is that of float32."""
    faiss = _needs("faiss")
    _needs("faiss.contrib.torch_utils")  # lets its functions take tensors
    query, keys, k = problem.anchors.embedding.detach(), problem.keys.embedding, _k(problem)
    inner = faiss.METRIC_INNER_PRODUCT
    if not query.is_cuda:
        query, keys = query.float(), keys.float()
        return lambda: faiss.knn(query, keys, k, metric=inner)[1]
    if not hasattr(faiss, "StandardGpuResources"):
        raise RuntimeError("FAISS is installed without GPU support")
    resources = faiss.StandardGpuResources()
    return lambda: faiss.knn_gpu(resources, query, keys, k, metric=inner)[1]


def _cuvs(problem: Problem) -> Search:
    """Returns cuVS's search, in float16 for bfloat16 embeddings, which it does not take."""
    _needs_gpu(problem)
    brute_force = _needs("cuvs.neighbors.brute_force")
    narrow = problem.setting.dtype != "float32"
    query, keys = (
        (x.half() if narrow else x)
        for x in (problem.anchors.embedding.detach(), problem.keys.embedding)
    )
    index, k = brute_force.build(keys, metric="inner_product"), _k(problem)
    similarity = torch.empty(len(query), k, device=query.device)
    found = torch.empty(len(query), k, dtype=torch.int64, device=query.device)

    def search() -> Tensor:
        brute_force.search(index, query, k, distances=similarity, neighbors=found)
        return found

    return search


# --- losses ---------------------------------------------------------------------------------------


def in_batch(anchors: Tensor, positives: Tensor) -> Tensor:
    """Returns InfoNCE of each anchor's positive against all others, plainly, in float32."""
    logits = anchors.float() @ positives.float().T / TEMPERATURE
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def _memeff(problem: Problem) -> Step:
    _needs_gpu(problem)
    if problem.setting.n != problem.setting.m:
        raise RuntimeError("a loss of a batch with itself needs as many anchors as keys")
    kind = _needs("memeff").MemoryEfficientLiTQwen3Loss
    # These options mean no mask against false negatives, and an unchanged gradient.
    loss = kind(TEMPERATURE, margin=2.0, normalized_inputs=True, stable=False)
    leaf, positives = problem.anchors.embedding, problem.positives
    found, wanted = loss(leaf, positives), in_batch(leaf, positives)
    setting = problem.setting
    compare("loss", setting, found.detach(), wanted.detach(), allowed_loss(setting))
    gradients = [torch.autograd.grad(one, leaf)[0].float() * setting.n for one in (found, wanted)]
    # Probabilities and gradients are rounded to the embeddings' dtype, over the temperature.
    bound = torch.finfo(DTYPES[setting.dtype]).eps / TEMPERATURE
    compare("gradient, times N,", setting, gradients[0], gradients[1], bound)
    return Step(lambda: loss(leaf, positives), leaf)


def _compiled_chunks(problem: Problem) -> Step:
    """Returns eager, compiled with Inductor's automatic chunking.

    Raises:
        RuntimeError: this torch has no such chunking, or it finds nothing to chunk.
    """
    _needs_gpu(problem)
    from torch._inductor import config, metrics

    if not hasattr(config, "auto_chunker"):
        raise RuntimeError(f"torch {torch.__version__} has no automatic chunking")
    torch._dynamo.reset()
    before = metrics.num_auto_chunking
    given = options(problem)
    compiled = torch.compile(hard_negative_nce)
    leaf = problem.anchors.embedding
    with config.patch({"auto_chunker.enable": True}):  # the first calls compile
        found = compiled(problem.anchors, problem.positives, problem.keys, **given)
        found.backward()
    leaf.grad = None
    if metrics.num_auto_chunking == before:
        raise RuntimeError("Inductor's automatic chunking finds nothing to chunk in the loss")
    with torch.no_grad():
        wanted = plain(problem)
    rounded = 4 * torch.finfo(DTYPES[problem.setting.dtype]).eps / TEMPERATURE
    bound = allowed_loss(problem.setting) + rounded
    compare("loss", problem.setting, found.detach(), wanted, bound)
    return Step(lambda: compiled(problem.anchors, problem.positives, problem.keys, **given), leaf)


PEERS = {
    TRITON: Peer(
        "a fused search: the cross-video negatives",
        NO_LOSS,
        _searching(_triton, masked=True, slack=_of_sums),
    ),
    CHUNKED_SEARCH: Peer(
        "torch.mm by chunks of keys, then a kernel that keeps what passes the anchor's bar",
        f"scores are rounded to the embeddings' dtype, so it selects by those; {NO_LOSS}",
        _searching(_chunked, masked=True, slack=_of_rounded_scores),
    ),
    FLASHLIB: Peer(
        "FlashLib's k nearest of all keys by squared distance, in Triton; indices only, with the "
        "keys' norms known from the call before",
        f"similarities only of unit vectors; {NO_MASK}",
        _searching(_flashlib("triton"), masked=False, slack=_of_distances),
    ),
    FLASHLIB_CUTEDSL: Peer(
        "the same by its CuteDSL kernels",
        f"similarities only of unit vectors; {NO_MASK}",
        _searching(_flashlib("cutedsl"), masked=False, slack=_of_distances),
    ),
    FAISS_GPU: Peer(
        "a brute-force search: the most similar keys of all",
        NO_MASK,
        _searching(_faiss, masked=False, slack=_of_rounded_scores),
    ),
    CUVS: Peer(
        "a brute-force search: the most similar keys of all",
        NO_MASK,
        _searching(_cuvs, masked=False, slack=_of_rounded_scores),
    ),
    MEMEFF: Peer(
        "InfoNCE of a batch with itself, without its matrix (MemoryEfficientLiTQwen3Loss)",
        "takes the whole batch, selects nothing; no bank, no videos, no window in time",
        _memeff,
    ),
    COMPILED_CHUNKS: Peer(
        "eager, compiled by Inductor with automatic chunking",
        "compiles each shape separately",
        _compiled_chunks,
    ),
}
