"""FAISS behind a bank: indexes that propose candidates, and are kept up with the ring.

An index only proposes. It knows slots and embeddings; videos, patients, ages and the final order
are the business of hardest.py. Index files are never read: an index is always built from the ring.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl.bank.ring import Ring

_POINTS_PER_CELL = 39  # k-means of fewer points than that FAISS calls too few
_FEWEST = 1024  # frames below which a graph is not worth building
_EF_SEARCH = 256  # FAISS's own 16 is for k = 1
_MOST_ON_GPU = 2048  # candidates a query, GPU_MAX_SELECTION_K of FAISS
_GPU_SCRATCH = 128 << 20  # bytes; FAISS would take 1.5 GiB beside PyTorch


@dataclass(frozen=True)
class SearchOptions:
    """What an index may be told; None is the default of each.

    Attributes:
        nprobe: cells of an inverted file looked through by each query.
        ef_search: candidates that a graph search keeps.
        rebuild_after: frames that change until the index is built anew, centroids and all.
    """

    nprobe: int | None = None
    ef_search: int | None = None
    rebuild_after: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an int or None, got {type(value).__name__}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "a bank with a search other than 'exact' needs FAISS: install faiss-cpu, or faiss-gpu, "
            "but not both"
        ) from error
    return faiss


def flat_storage(capacity: int, dim: int) -> tuple[Any, Tensor]:
    """An IndexFlatIP with room for a bank, and that room: ``[capacity, dim]`` zeros."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(dim)
    index.add(np.zeros((capacity, dim), np.float32))
    room = faiss.rev_swig_ptr(index.get_xb(), capacity * dim).reshape(capacity, dim)
    return index, torch.from_numpy(room)


class Tally:
    """How many frames of each id the bank holds, as of the last update."""

    def __init__(self, capacity: int) -> None:
        self._known = np.full(capacity, -1, np.int64)
        self._count: Counter[int] = Counter()

    def update(self, slots: Tensor, ids: Tensor) -> None:
        """These slots hold frames of these ids now; negative ids are not counted."""
        where, new = slots.numpy(), ids.cpu().numpy()
        for sign, column in ((-1, self._known[where]), (1, new)):
            values, counts = np.unique(column[column >= 0], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self._count[value] += sign * count
                if self._count[value] == 0:
                    del self._count[value]
        self._known[where] = new

    def of(self, ids: Tensor) -> Tensor:
        """``[N]`` int64 on the CPU."""
        unique, inverse = ids.cpu().unique(return_inverse=True)
        return torch.tensor([self._count[i] for i in unique.tolist()], dtype=torch.int64)[inverse]


class Index(ABC):
    """What hardest.py needs of an index; :class:`Flat` and :class:`Generations` are the two kinds.

    Attributes:
        faithful: scores are inner products of the embeddings themselves, in float32.
        exhaustive: and every slot it holds takes part in every search.
    """

    faithful: bool
    exhaustive: bool

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._replaced: list[Tensor] = []
        self.largest_norm = 0.0  # of any embedding since reset(), float64
        self.reset()

    def reset(self) -> None:
        """The ring holds other frames than before."""
        self._seen = max(self.ring.enqueued - self.ring.capacity, 0)
        self._replaced.clear()
        self.largest_norm = 0.0
        self._videos, self._patients = Tally(self.ring.capacity), Tally(self.ring.capacity)

    def replaced(self, slots: Tensor) -> None:
        """The embeddings of these slots were replaced."""
        self._replaced.append(slots.cpu())

    def catch_up(self) -> None:
        """Brings the index up with the ring; done by a search, so that writing costs nothing."""
        parts = [self.ring.slots_since(self._seen), *self._replaced]
        self._seen = self.ring.enqueued
        self._replaced.clear()
        changed = parts[0] if len(parts) == 1 else torch.cat(parts).unique()
        if changed.numel() > 0:
            norms = torch.linalg.vector_norm(
                self.ring.embedding[changed.to(self.ring.embedding.device)],
                dim=1,
                dtype=torch.float64,
            )
            self.largest_norm = max(self.largest_norm, float(norms.max()))
            here = changed.to(self.ring.embedding.device)
            self._videos.update(changed, self.ring.video[here])
            self._patients.update(changed, self.ring.patient[here])
        try:
            self._update(changed)
        except Exception:
            self.reset()  # an index that has missed frames is none: the next search is exact
            raise

    def excluded(self, video: Tensor, patient: Tensor) -> Tensor:
        """``[N]`` on the CPU: about how many frames of the bank an anchor may not take."""
        return torch.maximum(self._videos.of(video), self._patients.of(patient))

    @abstractmethod
    def _update(self, changed: Tensor) -> None:
        """These slots hold other frames or embeddings than at the last update."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Frames in the index; 0 where only an exact search will do."""

    @property
    def most(self) -> int:
        """Candidates that a query may ask for."""
        return self.size

    def newest(self) -> Tensor | None:
        """Slots, ascending, that the index does not hold as they are, if any."""
        return None

    @abstractmethod
    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores, descending, and slots ``[N, count]``; slot -1 where there is no candidate."""


class Flat(Index):
    """IndexFlatIP whose vectors are the ring's slots, where they can be: nothing to keep up."""

    faithful = True
    exhaustive = True

    def __init__(self, ring: Ring, index: Any, room: Tensor) -> None:
        self._index, self._room = index, room
        super().__init__(ring)

    def _update(self, changed: Tensor) -> None:
        embedding = self.ring.embedding
        if embedding.data_ptr() != self._room.data_ptr():
            self._room[changed] = embedding[changed.to(embedding.device)].to("cpu", torch.float32)
        self._index.ntotal = len(self.ring)

    @property
    def size(self) -> int:
        return len(self.ring)

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return _search(self._index, queries, count)


class Generations(Index):
    """Any index of FAISS's factory. Each generation is built beside the one in use, in a thread of
    its own, from the ring as it is then, and takes its place when it is whole.

    What changed since: an inverted file on the CPU takes it in place, by slot. Other indexes cannot
    remove; in those, changed slots no longer count, and the bank searches them exactly.
    """

    def __init__(self, ring: Ring, factory: str, options: SearchOptions) -> None:
        faiss = _faiss()
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
        faiss = _faiss()
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
        scores, slots = _search(self._index, queries, count)
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
        faiss = _faiss()
        return faiss.index_factory(ring.dim, self._factory, faiss.METRIC_INNER_PRODUCT)

    def _build(self, vectors: np.ndarray, slots: Tensor) -> tuple[Any, Tensor | None]:
        faiss = _faiss()
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
    bare = _faiss().downcast_index(index)
    if isinstance(bare, _faiss().IndexPreTransform):
        bare = _faiss().downcast_index(bare.index)
    return getattr(bare, "hnsw", None)


def _inverted(index: Any) -> Any:
    """The inverted file in an index, as what it is, or None."""
    inverted = _faiss().try_extract_index_ivf(index)
    return None if inverted is None else _faiss().downcast_index(inverted)


def _reason(error: Exception) -> str:
    """What FAISS says, without where in its source it says so."""
    return re.sub(r"^.*?\.(?:cpp|h):\d+: (?:Error: )?", "", str(error), flags=re.DOTALL).strip()


def _search(index: Any, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    vectors = queries.detach().to("cpu", torch.float32).contiguous().numpy()
    scores, slots = index.search(vectors, count)
    return torch.from_numpy(scores), torch.from_numpy(slots)


def score_error(queries: Tensor, dim: int, largest_norm: float) -> Tensor:
    """``[N]`` float64: how far a score of a faithful index may lie from the canonical similarity.

    Summed in float32 in any order, fused or not, a dot product of D terms is off by at most
    gamma_D |q| |k|, gamma_n = n u / (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1, and Cauchy-Schwarz); the chain is one such sum, FAISS's
    another. Rounding float64 embeddings to float32 adds two factors, and each term that underflows
    2^-149. Beyond 10^37 a partial sum might overflow in one order and not in the other: infinity,
    as for a query that is not finite.
    """
    norm = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64) * (largest_norm * 1.000001)
    terms = (dim + 2) * 2.0**-24
    error = 2 * terms / (1 - terms) * norm + 2 * dim * 2.0**-149
    return torch.where(norm < 1e37, error, math.inf)
