"""FAISS behind a bank: indexes that propose candidates, and are kept up with the ring.

An index only proposes. It knows slots and embeddings; videos, patients, ages and the final order
are the business of hardest.py. Index files are never read: an index is always built from the ring.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl.bank.ring import Ring


def import_faiss() -> Any:
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
    faiss = import_faiss()
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
        return proposals(self._index, queries, count)


def proposals(index: Any, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What an index of FAISS answers: scores and slots ``[N, count]``, on the CPU."""
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
