"""The interface of an index: it proposes candidates, and is kept up to date with the ring.

An index only proposes. It knows slots and embeddings; hardest.py deals with videos, patients, ages
and the final order. Index files are never read: an index is always built from the ring.
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

from usucl.bank.arguments import GREATEST, check_int
from usucl.bank.ring import Ring


class Tally:
    """Number of frames of each id in the bank at the last update."""

    def __init__(self, capacity: int) -> None:
        self._known = np.full(capacity, -1, np.int64)
        self._count: Counter[int] = Counter()

    def update(self, slots: Tensor, ids: Tensor) -> None:
        """Records the ids that these slots now hold; negative ids are not counted."""
        where, new = slots.numpy(), ids.cpu().numpy()
        for sign, column in ((-1, self._known[where]), (1, new)):
            values, counts = np.unique(column[column >= 0], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self._count[value] += sign * count
                if self._count[value] == 0:
                    del self._count[value]
        self._known[where] = new

    def of(self, ids: Tensor) -> Tensor:
        """Returns the number of frames of each id: ``[N]`` int64 on the CPU."""
        unique, inverse = ids.cpu().unique(return_inverse=True)
        return torch.tensor([self._count[i] for i in unique.tolist()], dtype=torch.int64)[inverse]


@dataclass(frozen=True)
class SearchOptions:
    """The search of a bank and the options of its index; None is the default of each.

    Attributes:
        search: ``"exact"``, ``"Flat"`` or a string of FAISS's index factory.
        nprobe: cells of an inverted file that each query searches.
        ef_search: candidates that a graph search keeps.
        rebuild_after: frames that change until the index is built again, with its centroids.
    """

    search: str
    nprobe: int | None = None
    ef_search: int | None = None
    rebuild_after: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.search, str):
            raise TypeError(f"search must be a string, got {type(self.search).__name__}")
        for name, value in self.told.items():
            try:
                object.__setattr__(self, name, check_int(name, value, 1, GREATEST))
            except TypeError as error:
                raise TypeError(f"{error}".replace(" an int,", " an int or None,")) from None

    @property
    def told(self) -> dict[str, Any]:
        """The options of the index that are not left to their defaults, by name."""
        options = {name: value for name, value in vars(self).items() if name != "search"}
        return {name: value for name, value in options.items() if value is not None}

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> SearchOptions:
        """Picks the options out of other values; a bank saved by an earlier version lacks some."""
        own: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**own)


class Index(ABC):
    """An index as hardest.py uses it; searches.py lists the kinds.

    Attributes:
        understands: names of the search options that this kind takes.
        faithful: whether scores are inner products of the embeddings themselves, in float32.
        exhaustive: whether, in addition, every search covers every slot that it holds.
        bytes: memory that it takes while it is built, besides the bank, estimated.
    """

    understands: ClassVar[frozenset[str]] = frozenset()
    faithful: bool
    exhaustive: bool
    bytes: int

    def __init__(self, ring: Ring, options: SearchOptions) -> None:
        self.ring, self.options = ring, options
        self._replaced: list[Tensor] = []
        self.largest_norm = 0.0  # over all embeddings since reset(), float64
        self.reset()

    def reset(self) -> None:
        """Starts from nothing: the ring holds other frames than before."""
        self._seen = max(self.ring.enqueued - self.ring.capacity, 0)
        self._replaced.clear()
        self.largest_norm = 0.0
        self._videos, self._patients = Tally(self.ring.capacity), Tally(self.ring.capacity)

    def replaced(self, slots: Tensor) -> None:
        """Notes that the embeddings of these slots were replaced."""
        self._replaced.append(slots.cpu())

    def catch_up(self) -> None:
        """Brings the index up to date; a search calls it, so that writing costs nothing."""
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
            self.reset()  # an index that has missed frames is useless: the next search is exact
            raise

    def excluded(self, video: Tensor, patient: Tensor) -> Tensor:
        """Estimates how many frames of the bank each anchor may not take, ``[N]`` on the CPU."""
        return torch.maximum(self._videos.of(video), self._patients.of(patient))

    @abstractmethod
    def _update(self, changed: Tensor) -> None:
        """Takes the slots that hold other frames or embeddings than at the last update."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Frames in the index; 0 where only an exact search is possible."""

    @property
    def most(self) -> int:
        """Greatest number of candidates per query."""
        return self.size

    def rebuild(self) -> None:
        """Builds the index again and returns when it is in use."""
        return  # most have nothing to build

    def newest(self) -> Tensor | None:
        """Returns the slots, ascending, that the index does not hold as they are now, if any."""
        return None

    @abstractmethod
    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns scores, descending, and slots ``[N, count]``; slot -1 without a candidate."""


def score_error(queries: Tensor, dim: int, largest_norm: float) -> Tensor:
    """Bounds how far a faithful index's scores lie from the canonical similarities: [N] float64.

    Summed in float32 in any order, fused or not, a dot product of D terms is off by at most
    gamma_D |q| |k|, gamma_n = n u / (1 - n u), u = 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1, and Cauchy-Schwarz). The canonical chain is one such sum, and
    FAISS's is another. Rounding float64 embeddings to float32 adds two factors, and each term that
    underflows adds 2^-149. Beyond 10^37 a partial sum might overflow in one order and not in the
    other, so the bound is infinity, as for a query that is not finite.
    """
    norm = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64) * (largest_norm * 1.000001)
    terms = (dim + 2) * 2.0**-24
    error = 2 * terms / (1 - terms) * norm + 2 * dim * 2.0**-149
    return torch.where(norm < 1e37, error, math.inf)
