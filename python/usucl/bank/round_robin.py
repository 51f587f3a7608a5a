"""The bank of one process, dealt out over many: slot s lies on rank s modulo their number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usucl.bank.bank import NegativeBank, Window
from usucl.bank.exchange import Exchange
from usucl.bank.sharded import ShardedBank
from usucl_ext import Frames

_COLUMNS = ("embedding", "video", "time", "patient", "written")


class RoundRobinBank:
    """A bank of ``capacity`` frames of which every rank keeps a part, with the same content.

    All ranks enqueue the same frames, and each keeps those of its own slots. So at every step the
    parts together hold what a :class:`NegativeBank` of one process would hold, with the same ages,
    and a state of one can be loaded by the other, on any number of ranks. Every method is
    collective: all ranks call it, in the same order.

    Args:
        capacity, dim: see :class:`NegativeBank`; the capacity is that of all parts together.
        exchange: the ranks.
        max_age, options: see :class:`NegativeBank`.

    Raises:
        ValueError, TypeError: see :class:`NegativeBank`, or there are fewer slots than ranks.
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        exchange: Exchange,
        *,
        max_age: int | None = None,
        **options: Any,
    ) -> None:
        rank, ranks = exchange.rank, exchange.size
        if capacity < ranks:
            raise ValueError(
                f"bank must be at least the number of processes that share it, {ranks}, "
                f"got {capacity}"
            )
        self._exchange = exchange
        self._arguments = {**options, "max_age": max_age}
        self.capacity, self.dim, self.enqueued = capacity, dim, 0
        self.local = NegativeBank(_slots(capacity, rank, ranks), dim, max_age=max_age, **options)
        timeout = exchange.timeout.total_seconds()
        self._parts = ShardedBank(self.local, group=exchange.group, timeout=timeout)

    def __repr__(self) -> str:
        place = f"rank {self._exchange.rank} of {self._exchange.size}"
        return f"RoundRobinBank({place}, {self.capacity} slots, here {self.local!r})"

    def __len__(self) -> int:
        """Number of filled slots of all parts."""
        return min(self.enqueued, self.capacity)

    @property
    def max_age(self) -> int | None:
        """Greatest age of a frame that is used."""
        return self.local.max_age

    def ages(self) -> Tensor:
        """Returns the ages in this rank's part, in frames enqueued since into all parts."""
        return self.local.ages()

    def enqueue(self, frames: Frames) -> None:
        """Puts frames, the same on all ranks, into the parts; see :meth:`NegativeBank.enqueue`.

        Raises:
            ValueError, TypeError: see there. All ranks tell a frame that is not finite, for the
                one that would get it would leave the others waiting.
        """
        for row in (~frames.embedding.isfinite().all(1)).nonzero():
            raise ValueError(f"frames.embedding must be finite, row {int(row)} is not")
        number = torch.arange(self.enqueued, self.enqueued + len(frames.video))
        mine = number % self.capacity % self._exchange.size == self._exchange.rank
        self._count(self.enqueued + len(number))
        rows = mine.nonzero()[:, 0].to(frames.video.device)
        self.local.enqueue(frames.take(rows))

    def _count(self, enqueued: int) -> None:
        """Sets the number of all frames, which is how the parts tell ages."""
        self.enqueued = enqueued
        own = _enqueued(enqueued, self.capacity, self._exchange.rank, self._exchange.size)
        self.local.count_elsewhere(enqueued - own)

    def candidates(
        self,
        frames: Frames,
        k: int,
        *,
        window: Window = None,
        max_similarity: float | None = None,
    ) -> Frames:
        """Returns the candidates of this rank's anchors, in the order of the slots of one bank.

        Anchors may differ between ranks; see :meth:`NegativeBank.candidates`.
        """
        parts = self._parts
        found = parts.hardest(frames, k, window=window, max_similarity=max_similarity)
        index = torch.cat([found.intra_index, found.cross_index], dim=1).unique()
        index = index[index >= 0]
        return parts.gather(index).take(parts.turns(index).argsort())

    def recall(self, frames: Frames, k: int, *, sample: int = 64) -> float:
        """Measures this rank's part alone, not collectively; see :meth:`NegativeBank.recall`."""
        return self.local.recall(frames, k, sample=sample)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state of the bank of one process on the CPU of rank 0; {} on the others."""
        parts = self._parts.state_dict()
        if not parts:
            return {}
        ranks, state = len(parts), {}
        for name in _COLUMNS:
            first = parts[0][name]
            whole = first.new_empty(self.capacity, *first.shape[1:])
            for rank, part in enumerate(parts):
                whole[rank::ranks] = part[name]
            state[name] = whole
        return {**state, "enqueued": torch.tensor(self.enqueued)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Loads the state of the bank of one process. Not collective.

        Raises:
            ValueError: see :meth:`NegativeBank.load_state_dict`.
        """
        rank, ranks = self._exchange.rank, self._exchange.size
        if len(state["video"]) != self.capacity:
            raise ValueError(
                f"a bank's state must have {self.capacity} slots, got {len(state['video'])}"
            )
        enqueued = int(state["enqueued"])
        own = {name: state[name][rank::ranks] for name in _COLUMNS if name in state}
        self._count(enqueued)
        own["enqueued"] = torch.tensor(_enqueued(enqueued, self.capacity, rank, ranks))
        self.local.load_state_dict(own)

    def save(self, folder: str | Path) -> None:
        """Writes the bank of one process from rank 0; see :meth:`NegativeBank.save`."""
        state = self.state_dict()
        if state:
            whole = NegativeBank(self.capacity, self.dim, **{**self._arguments, "device": "cpu"})
            whole.load_state_dict(state)
            whole.save(folder)


def _slots(slots: int, rank: int, ranks: int) -> int:
    """Returns how many of the first ``slots`` numbers are a rank's."""
    return (slots - rank + ranks - 1) // ranks if slots > rank else 0


def _enqueued(enqueued: int, capacity: int, rank: int, ranks: int) -> int:
    """Returns how many of the first ``enqueued`` frames went to a rank."""
    rounds, rest = divmod(enqueued, capacity)
    return rounds * _slots(capacity, rank, ranks) + _slots(rest, rank, ranks)
