"""The indexes that FAISS gives a bank: its flat index, and any index that its factory makes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from usucl.bank.factory import checked_size
from usucl.bank.indexes import Index, SearchOptions
from usucl.bank.ring import Ring

_POINTS_PER_CELL = 39  # FAISS's k-means warns below this many
_FEWEST = 1024  # with fewer frames a graph is not worth building
_OPQ_ROUNDS = 10  # FAISS takes 50, for minutes; the bank decides by the similarities themselves
_EF_SEARCH = 256  # FAISS's default of 16 is meant for k = 1
_MOST_ON_GPU = 2048  # candidates per query, GPU_MAX_SELECTION_K of FAISS
_GPU_SCRATCH = 128 << 20  # bytes; FAISS would take 1.5 GiB besides PyTorch's memory


def import_faiss() -> Any:
    """Returns the module, or raises an error that says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "a bank with a search other than 'exact' needs FAISS: install faiss-cpu, or faiss-gpu, "
            "but not both"
        ) from error
    return faiss


class Flat(Index):
    """An IndexFlatIP whose vectors are the ring's own memory where possible."""

    faithful = True
    exhaustive = True

    def __init__(self, ring: Ring, options: SearchOptions) -> None:
        faiss = import_faiss()
        self._index = faiss.IndexFlatIP(ring.dim)
        self._index.add(np.zeros((ring.capacity, ring.dim), np.float32))
        self._room = torch.from_numpy(np.asarray(_Vectors(self._index)).reshape(-1, ring.dim))
        if len(ring) == 0 and ring.embedding.is_cpu and ring.embedding.dtype == torch.float32:
            ring.live_in(self._room)
        shared = ring.embedding.data_ptr() == self._room.data_ptr()
        self.bytes = 0 if shared else 4 * ring.capacity * ring.dim
        super().__init__(ring, options)

    def _update(self, changed: Tensor) -> None:
        embedding = self.ring.embedding
        if embedding.data_ptr() != self._room.data_ptr():
            self._room[changed] = embedding[changed.to(embedding.device)].to("cpu", torch.float32)
        self._index.ntotal = len(self.ring)

    @property
    def size(self) -> int:
        """Number of filled slots."""
        return len(self.ring)

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns scores and slots; see :meth:`Index.search`."""
        return proposals(self._index, queries, count)


class _Vectors:
    """The memory of an IndexFlatIP; keeps the index alive as long as a tensor shares it."""

    def __init__(self, index: Any) -> None:
        self.index = index
        vectors = import_faiss().rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self.__array_interface__ = vectors.__array_interface__


def proposals(index: Any, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Searches a FAISS index: scores and slots ``[N, count]``, on the CPU."""
    vectors = queries.detach().to("cpu", torch.float32).contiguous().numpy()
    scores, slots = index.search(vectors, count)
    return torch.from_numpy(scores), torch.from_numpy(slots)


@dataclass(frozen=True)
class Facts:
    """What a bank needs to know about a FAISS index.

    Attributes:
        cells: number of cells of an inverted file; None without one.
        code_words: number of code words of a product quantiser; 0 without one.
        has_graph: whether it has an HNSW graph, possibly behind a transform.
        has_ids: whether it maps ids of its own.
        is_trained: whether it takes vectors without training.
        removes: whether, on the CPU, vectors can be removed by id and others put in their place.
        plain: structure in which it keeps the vectors themselves, so that scores are inner
            products; None for an index that transforms, refines or quantises them.
    """

    cells: int | None
    code_words: int
    has_graph: bool
    has_ids: bool
    is_trained: bool
    removes: bool
    plain: Literal["list", "cells", "graph"] | None

    @classmethod
    def of(cls, index: Any) -> Facts:
        """Returns the facts of an empty index, as the factory made it."""
        faiss = import_faiss()
        bare, inverted = faiss.downcast_index(index), _inverted(index)
        quantiser = getattr(bare if inverted is None else inverted, "pq", None)
        # The factory's transforms and refinements change or reorder vectors: only bare ones count.
        keeps: tuple[tuple[Literal["list", "cells", "graph"], type], ...] = (
            ("cells", faiss.IndexIVFFlat),
            ("list", faiss.IndexFlat),
            ("graph", faiss.IndexHNSWFlat),
        )
        fixed = isinstance(inverted, (faiss.IndexIVFFastScan, faiss.IndexIVFFlatDedup))
        behind = inverted is not None and isinstance(bare, faiss.IndexPreTransform)
        return cls(
            cells=None if inverted is None else inverted.nlist,
            code_words=0 if quantiser is None else 1 << quantiser.nbits,
            has_graph=_graph(index) is not None,
            has_ids=isinstance(bare, (faiss.IndexIDMap, faiss.IndexIDMap2)),
            is_trained=index.is_trained,
            removes=not fixed and (behind or isinstance(bare, faiss.IndexIVF)),
            plain=next((name for name, kind in keeps if isinstance(bare, kind)), None),
        )


class FaissIndex(Index):
    """Any index of FAISS's factory, rebuilt in the background again and again.

    Each generation is built in a thread of its own, from the ring as it is then, and replaces the
    one in use when it is complete.

    An inverted file on the CPU takes later changes in place, by slot. Other indexes cannot remove
    vectors; their answers leave out changed slots, which the bank searches exactly.
    """

    understands = frozenset({"nprobe", "ef_search", "rebuild_after"})

    def __init__(self, ring: Ring, options: SearchOptions) -> None:
        import_faiss()
        self.bytes = checked_size(options.search, ring.dim, ring.capacity)
        try:
            facts = Facts.of(_empty(ring, options))
        except RuntimeError as error:
            raise ValueError(
                f'search must be "exact" or a FAISS factory string for dim {ring.dim}, '
                f"got {options.search!r}: {_reason(error)}"
            ) from None
        _refuse_what_cannot_be_kept(ring, options, facts)
        cells = facts.cells or 0
        self._nprobe = min(options.nprobe or max(8, cells // 64), cells)
        self._on_gpu = ring.embedding.is_cuda and import_faiss().get_num_gpus() > 0
        self._removes = facts.removes and not self._on_gpu
        self.faithful = facts.plain is not None
        every_cell = self._nprobe >= cells
        self.exhaustive = facts.plain == "list" or (facts.plain == "cells" and every_cell)
        fewest = _FEWEST if facts.is_trained else _POINTS_PER_CELL * max(cells, 256)
        self._fewest = min(fewest, ring.capacity)
        self._rebuild_after = options.rebuild_after or (
            ring.capacity if self._removes else max(ring.capacity // 8, 1)
        )
        super().__init__(ring, options)

    def reset(self) -> None:
        """Forgets the index; see :meth:`Index.reset`."""
        super().reset()
        self._index: Any = None
        self._places: Tensor | None = None  # slot at each position of the index; None if ids do it
        # Slots changed since the index in use was built, and since the next one was begun.
        self._stale = torch.zeros(self.ring.capacity, dtype=torch.bool)
        self._since = torch.zeros(self.ring.capacity, dtype=torch.bool)
        self._changes = 0  # frames changed since the last generation was begun
        self._next: Future[tuple[Any, Tensor | None]] | None = None
        self._process = os.getpid()
        self._builder = ThreadPoolExecutor(1, "usucl-bank-index")

    @property
    def size(self) -> int:
        """Number of frames in the index in use."""
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def most(self) -> int:
        """Greatest number of candidates per query."""
        return min(self.size, _MOST_ON_GPU) if self._on_gpu else self.size

    def rebuild(self) -> None:
        """Builds a generation of the ring as it is now, and returns when it is in use.

        With fewer frames than training needs, nothing is built and the search stays exact.
        """
        self.catch_up()
        if self._next is not None:
            self._swap()
        if len(self.ring) >= self._fewest:
            self._begin()
            self._swap()

    def newest(self) -> Tensor | None:
        """Returns the slots that have changed, if the index could not take the changes."""
        if self._removes:
            return None
        slots = self._stale.nonzero().flatten()
        return slots if slots.numel() > 0 else None

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns scores and slots; see :meth:`Index.search`."""
        scores, slots = proposals(self._index, queries, count)
        if self._places is not None:
            there = slots >= 0
            slots = torch.where(there, self._places[slots.clamp(min=0)], -1)
            slots = slots.masked_fill(self._stale[slots.clamp(min=0)], -1)
        return scores, slots

    def catch_up(self) -> None:
        """Brings the index up to date; in a forked child, which has no threads, from nothing."""
        if self._process != os.getpid():
            self.reset()
        super().catch_up()

    def _update(self, changed: Tensor) -> None:
        self._changes += changed.numel()
        self._since[changed] = True
        if self._index is not None and changed.numel() > 0:
            self._take(changed)
        if self._next is not None and self._next.done():
            self._swap()
        due = self._index is None or self._changes >= self._rebuild_after
        if self._next is None and due and len(self.ring) >= self._fewest:
            self._begin()

    def _take(self, changed: Tensor) -> None:
        if self._removes:
            slots = changed.numpy()
            self._index.remove_ids(slots)
            self._index.add_with_ids(self._vectors(changed), slots)
        else:
            self._stale[changed] = True

    def _begin(self) -> None:
        slots = torch.arange(len(self.ring))
        vectors = self._vectors(slots)
        self._since.zero_()
        self._changes = 0
        self._next = self._builder.submit(self._build, vectors, slots)

    def _swap(self) -> None:
        assert self._next is not None
        built, self._next = self._next, None
        try:
            self._index, self._places = built.result()
        except RuntimeError as error:
            raise RuntimeError(
                f"FAISS cannot build search {self.options.search!r}: {_reason(error)}"
            ) from error
        self._stale.zero_()
        self._take(self._since.nonzero().flatten())

    def _vectors(self, slots: Tensor) -> np.ndarray:
        """Copies the embeddings of slots as FAISS takes them: the ring may change meanwhile."""
        embedding = self.ring.embedding
        chosen = embedding[slots.to(embedding.device)].to("cpu", torch.float32)
        return chosen.contiguous().numpy()

    def _build(self, vectors: np.ndarray, slots: Tensor) -> tuple[Any, Tensor | None]:
        faiss = import_faiss()
        index = _empty(self.ring, self.options)
        inverted, graph = _inverted(index), _graph(index)
        if inverted is not None:
            inverted.cp.min_points_per_centroid = 1  # the bank decides that itself
            if hasattr(inverted, "pq"):
                inverted.pq.cp.min_points_per_centroid = 1
            inverted.nprobe = self._nprobe
        if graph is not None:  # which reserves memory for so many
            graph.efSearch = min(self.options.ef_search or _EF_SEARCH, len(vectors))
        for part in _parts(index):
            if hasattr(part, "do_polysemous_training"):
                part.do_polysemous_training = False  # takes minutes, and no search here uses it
            if isinstance(part, faiss.IndexPreTransform):
                for number in range(part.chain.size()):
                    transform = faiss.downcast_VectorTransform(part.chain.at(number))
                    if isinstance(transform, faiss.OPQMatrix):
                        transform.niter = _OPQ_ROUNDS
        if not index.is_trained:
            index.train(vectors)
        if self._removes:
            inverted.set_direct_map_type(faiss.DirectMap.Hashtable)  # finds slots without a search
            index.add_with_ids(vectors, slots.numpy())
            return index, None
        index.add(vectors)
        if self._on_gpu:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(_GPU_SCRATCH)
            index = faiss.index_cpu_to_gpu(resources, self.ring.embedding.device.index or 0, index)
        return index, slots


def _empty(ring: Ring, options: SearchOptions) -> Any:
    faiss = import_faiss()
    return faiss.index_factory(ring.dim, options.search, faiss.METRIC_INNER_PRODUCT)


def _refuse_what_cannot_be_kept(ring: Ring, options: SearchOptions, facts: Facts) -> None:
    if facts.has_ids:
        raise ValueError(f"search must leave the ids to the bank, got {options.search!r}")
    if facts.cells is not None and facts.cells < 1:
        raise ValueError(f"search must have at least one cell, got {options.search!r}")
    for count, what in ((facts.code_words, "code word"), (facts.cells or 0, "cell")):
        if count > ring.capacity:
            raise ValueError(
                f"capacity must be at least {count} for search {options.search!r}, one frame per "
                f"{what}, got {ring.capacity}"
            )
    for name, kind, there in (
        ("nprobe", "inverted-file", facts.cells is not None),
        ("ef_search", "graph", facts.has_graph),
    ):
        if getattr(options, name) is not None and not there:
            raise ValueError(f"{name} is for {kind} indexes, got search {options.search!r}")


def _parts(index: Any) -> Iterator[Any]:
    """Yields an index and the indexes in it, downcast to their types."""
    faiss = import_faiss()
    bare = faiss.downcast_index(index)
    yield bare
    for name in ("index", "base_index", "storage", "refine_index"):
        if (inner := getattr(bare, name, None)) is not None:
            yield from _parts(inner)


def _graph(index: Any) -> Any:
    """Returns the graph of an HNSW index, possibly behind a transform, or None."""
    faiss = import_faiss()
    bare = faiss.downcast_index(index)
    if isinstance(bare, faiss.IndexPreTransform):
        bare = faiss.downcast_index(bare.index)
    return getattr(bare, "hnsw", None)


def _inverted(index: Any) -> Any:
    """Returns the inverted file in an index, downcast to its type, or None."""
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    return None if inverted is None else faiss.downcast_index(inverted)


def _reason(error: Exception) -> str:
    """Returns FAISS's message without the location in its source."""
    return re.sub(r"^.*?\.(?:cpp|h):\d+: (?:Error: )?", "", str(error), flags=re.DOTALL).strip()
