"""Any index of FAISS behind a bank: built whole, in the background, again and again.

What a generation cannot take in after it was begun, the newest frames, is searched exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl.bank.indexes import Index, import_faiss, proposals
from usucl.bank.ring import Ring

_POINTS_PER_CELL = 39  # k-means of fewer points than that FAISS calls too few
_FEWEST = 1024  # frames below which a graph is not worth building
_EF_SEARCH = 256  # FAISS's own 16 is for k = 1
_MOST_ON_GPU = 2048  # candidates a query, GPU_MAX_SELECTION_K of FAISS
_GPU_SCRATCH = 128 << 20  # bytes; FAISS would take 1.5 GiB beside PyTorch


@dataclass(frozen=True)
class SearchOptions:
    """Which search, and what its index may be told; None is the default of each.

    Attributes:
        search: ``"exact"``, ``"Flat"`` or a string of FAISS's index factory.
        nprobe: cells of an inverted file looked through by each query.
        ef_search: candidates that a graph search keeps.
        rebuild_after: frames that change until the index is built anew, centroids and all.
    """

    search: str
    nprobe: int | None = None
    ef_search: int | None = None
    rebuild_after: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.search, str):
            raise TypeError(f"search must be a string, got {type(self.search).__name__}")
        told = {name: value for name, value in vars(self).items() if name != "search"}
        for name, value in told.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an int or None, got {type(value).__name__}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if self.search in ("exact", "Flat") and any(value is not None for value in told.values()):
            raise ValueError(
                "nprobe, ef_search and rebuild_after are for other searches than 'exact' and "
                f"'Flat', got search {self.search!r}"
            )

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> SearchOptions:
        """Those that are among other values; a bank saved in earlier times lacks some."""
        own: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**own)


class Generations(Index):
    """Any index of FAISS's factory. Each generation is built beside the one in use, in a thread of
    its own, from the ring as it is then, and takes its place when it is whole.

    What changed since: an inverted file on the CPU takes it in place, by slot. Other indexes cannot
    remove; in those, changed slots no longer count, and the bank searches them exactly.
    """

    def __init__(self, ring: Ring, options: SearchOptions) -> None:
        faiss = import_faiss()
        factory = options.search
        self._factory, self._options = factory, options
        try:
            index = self._empty(ring)
        except RuntimeError as error:
            reason = _reason(error)
            raise ValueError(
                f'search must be "exact" or a FAISS factory string for dim {ring.dim}, '
                f"got {factory!r}: {reason}"
            ) from None
        inverted = _inverted(index)
        graph = _graph(index)
        cells = 0 if inverted is None else inverted.nlist
        self._refuse_what_cannot_be_kept(ring, index, inverted)
        if cells > ring.capacity:
            raise ValueError(
                f"search {factory!r} needs a capacity of at least {cells}, one frame a cell, "
                f"got {ring.capacity}"
            )
        for name, kind, there in (
            ("nprobe", "inverted-file", inverted),
            ("ef_search", "graph", graph),
        ):
            if getattr(options, name) is not None and there is None:
                raise ValueError(f"{name} is for {kind} indexes, got search {factory!r}")
        self._on_gpu = ring.embedding.is_cuda and faiss.get_num_gpus() > 0
        # The factory's transforms and refinements change or reorder vectors: only bare ones count.
        bare = faiss.downcast_index(index)
        fixed = isinstance(inverted, (faiss.IndexIVFFastScan, faiss.IndexIVFFlatDedup))
        self._removes = bare is not None and not self._on_gpu and not fixed
        self._removes &= isinstance(bare, faiss.IndexIVF) or (
            isinstance(bare, faiss.IndexPreTransform) and inverted is not None
        )
        self.faithful = isinstance(bare, (faiss.IndexIVFFlat, faiss.IndexFlat, faiss.IndexHNSWFlat))
        every_cell = inverted is not None and self._nprobe(inverted) >= cells
        self.exhaustive = isinstance(bare, faiss.IndexFlat) or (
            isinstance(bare, faiss.IndexIVFFlat) and every_cell
        )
        fewest = _FEWEST if index.is_trained else _POINTS_PER_CELL * max(cells, 256)
        self._fewest = min(fewest, ring.capacity)
        self._rebuild_after = options.rebuild_after or (
            ring.capacity if self._removes else max(ring.capacity // 8, 1)
        )
        self._builder = ThreadPoolExecutor(1, "usucl-bank-index")
        super().__init__(ring)

    def _refuse_what_cannot_be_kept(self, ring: Ring, index: Any, inverted: Any) -> None:
        faiss = import_faiss()
        if isinstance(faiss.downcast_index(index), (faiss.IndexIDMap, faiss.IndexIDMap2)):
            raise ValueError(f"search must leave the ids to the bank, got {self._factory!r}")
        if inverted is not None and inverted.nlist < 1:
            raise ValueError(f"search must have at least one cell, got {self._factory!r}")
        quantiser = getattr(
            faiss.downcast_index(index) if inverted is None else inverted, "pq", None
        )
        words = 0 if quantiser is None else 1 << quantiser.nbits
        if words > ring.capacity:
            raise ValueError(
                f"search {self._factory!r} needs a capacity of at least {words}, one frame a code "
                f"word, got {ring.capacity}"
            )

    def reset(self) -> None:
        super().reset()
        self._index: Any = None
        self._places: Tensor | None = None  # the slot at each position of the index; None: ids
        # Not in the index as they are now, and in the one being built.
        self._stale = torch.zeros(self.ring.capacity, dtype=torch.bool)
        self._since = torch.zeros(self.ring.capacity, dtype=torch.bool)
        self._changes = 0  # frames changed since the last generation was begun
        self._next: Future[tuple[Any, Tensor | None]] | None = None

    @property
    def size(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def most(self) -> int:
        return min(self.size, _MOST_ON_GPU) if self._on_gpu else self.size

    def rebuild(self) -> None:
        """A generation of the ring as it is now; returns when it is in use.

        With fewer frames than training takes there is none: the search stays exact.
        """
        self.catch_up()
        if self._next is not None:
            self._swap()
        if len(self.ring) >= self._fewest:
            self._begin()
            self._swap()

    def newest(self) -> Tensor | None:
        if self._removes:
            return None
        slots = self._stale.nonzero().flatten()
        return slots if slots.numel() > 0 else None

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        scores, slots = proposals(self._index, queries, count)
        if self._places is not None:
            there = slots >= 0
            slots = torch.where(there, self._places[slots.clamp(min=0)], -1)
            slots = slots.masked_fill(self._stale[slots.clamp(min=0)], -1)
        return scores, slots

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
                f"FAISS cannot build search {self._factory!r}: {_reason(error)}"
            ) from error
        self._stale.zero_()
        self._take(self._since.nonzero().flatten())

    def _vectors(self, slots: Tensor) -> np.ndarray:
        """Embeddings of slots as FAISS takes them, copied: the ring goes on meanwhile."""
        embedding = self.ring.embedding
        chosen = embedding[slots.to(embedding.device)].to("cpu", torch.float32)
        return chosen.contiguous().numpy()

    def _nprobe(self, inverted: Any) -> int:
        return min(self._options.nprobe or max(8, inverted.nlist // 64), inverted.nlist)

    def _empty(self, ring: Ring) -> Any:
        faiss = import_faiss()
        return faiss.index_factory(ring.dim, self._factory, faiss.METRIC_INNER_PRODUCT)

    def _build(self, vectors: np.ndarray, slots: Tensor) -> tuple[Any, Tensor | None]:
        faiss = import_faiss()
        index = self._empty(self.ring)
        inverted, graph = _inverted(index), _graph(index)
        if inverted is not None:
            inverted.cp.min_points_per_centroid = 1  # the bank has its own say in that
            if hasattr(inverted, "pq"):
                inverted.pq.cp.min_points_per_centroid = 1
            inverted.nprobe = self._nprobe(inverted)
        if graph is not None:
            graph.efSearch = self._options.ef_search or _EF_SEARCH
        if not index.is_trained:
            index.train(vectors)
        if self._removes:
            inverted.set_direct_map_type(faiss.DirectMap.Hashtable)  # slots are found at once
            index.add_with_ids(vectors, slots.numpy())
            return index, None
        index.add(vectors)
        if self._on_gpu:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(_GPU_SCRATCH)
            index = faiss.index_cpu_to_gpu(resources, self.ring.embedding.device.index or 0, index)
        return index, slots


def _graph(index: Any) -> Any:
    """The graph of an HNSW index, a transform before it or not, or None."""
    faiss = import_faiss()
    bare = faiss.downcast_index(index)
    if isinstance(bare, faiss.IndexPreTransform):
        bare = faiss.downcast_index(bare.index)
    return getattr(bare, "hnsw", None)


def _inverted(index: Any) -> Any:
    """The inverted file in an index, as what it is, or None."""
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    return None if inverted is None else faiss.downcast_index(inverted)


def _reason(error: Exception) -> str:
    """What FAISS says, without where in its source it says so."""
    return re.sub(r"^.*?\.(?:cpp|h):\d+: (?:Error: )?", "", str(error), flags=re.DOTALL).strip()
