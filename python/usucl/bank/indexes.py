"""What a bank needs of an index: it proposes candidates, and is kept up with the ring.

An index only proposes. It knows slots and embeddings; videos, patients, ages and the final order
are the business of hardest.py. Index files are never read: an index is always built from the ring.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from usucl.bank.ring import Ring


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
        for name, value in self.told.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int or None, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")

    @property
    def told(self) -> dict[str, Any]:
        """What the index is told, by name; without what is left to its default."""
        options = {name: value for name, value in vars(self).items() if name != "search"}
        return {name: value for name, value in options.items() if value is not None}

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> SearchOptions:
        """Those that are among other values; a bank saved in earlier times lacks some."""
        own: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**own)


class Index(ABC):
    """What hardest.py needs of an index. searches.py lists the kinds there are.

    Attributes:
        understands: names of the search options that this kind may be told.
        faithful: scores are inner products of the embeddings themselves, in float32.
        exhaustive: and every slot it holds takes part in every search.
    """

    understands: ClassVar[frozenset[str]] = frozenset()
    faithful: bool
    exhaustive: bool

    def __init__(self, ring: Ring, options: SearchOptions) -> None:
        self.ring, self.options = ring, options
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

    def rebuild(self) -> None:
        """Builds the index anew and returns when it is in use."""
        return  # most have nothing to build

    def newest(self) -> Tensor | None:
        """Slots, ascending, that the index does not hold as they are, if any."""
        return None

    @abstractmethod
    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Scores, descending, and slots ``[N, count]``; slot -1 where there is no candidate."""


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
