"""The order of the steps in the processes of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from torch.utils.data import Dataset, DistributedSampler

if TYPE_CHECKING:
    from usucl.data.sampling.batch import BatchPart, FrameBatch
    from usucl.data.sampling.batches import FrameBatches

Key: TypeAlias = "tuple[int, int] | tuple[int, int, tuple[int, ...]]"
"""(epoch, step), and what the curriculum has learned of the run, if it learns."""


class EpochSteps(DistributedSampler[Key]):
    """The keys of the batches of one process.

    It is a DistributedSampler because Lightning calls the ``set_epoch`` of one and leaves it in
    place. Several processes take turns at the steps, and the last turn is filled up.

    Args:
        steps: batches per epoch, over all processes.
        rank, world: number of this process, and of all.
        narrowed: returns the third part of the keys, at the start of every epoch: workers have a
            copy of the batches that does not change with the run.

    Warns:
        UserWarning: an epoch's batches are drawn again, because ``set_epoch`` was not called.
    """

    def __init__(
        self,
        steps: int,
        *,
        rank: int = 0,
        world: int = 1,
        narrowed: Callable[[], tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(range(steps), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.steps = steps
        self.narrowed = narrowed
        self._first = (0, 0)
        self._drawn: int | None = None

    def go_on(self, epoch: int, turn: int) -> None:
        """Begins with ``epoch``, of which the first ``turn`` batches of this process are left out.

        Data loaders with workers draw as soon as they have an iterator, which Lightning makes
        before it sets the epoch.
        """
        self._first = (epoch, turn)
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[Key]:
        epoch = self.epoch
        if self._drawn == epoch:  # checked at the first step: data loaders discard some iterators
            warnings.warn(
                f"the batches of epoch {epoch} are drawn again: call "
                "loader.sampler.set_epoch(epoch) before each epoch",
                stacklevel=2,
            )
        self._drawn = epoch
        first = self._first[1] if self._first[0] == epoch else 0
        for turn in range(first, len(self)):
            step = (turn * self.num_replicas + self.rank) % self.steps
            yield (epoch, step) if self.narrowed is None else (epoch, step, self.narrowed())

    def __len__(self) -> int:
        return -(-self.steps // self.num_replicas)


class ShareOfBatches(Dataset["FrameBatch | BatchPart"]):
    """What one of several processes has of every batch.

    It is a :meth:`FrameBatches.share` or, with ``whole``, a :meth:`FrameBatches.part`.
    """

    def __init__(
        self, batches: FrameBatches, rank: int, world: int, *, whole: bool = False
    ) -> None:
        self.batches = batches
        self.rank = rank
        self.world = world
        self.whole = whole

    def __getitem__(self, key: Key) -> FrameBatch | BatchPart:
        """Returns the share of one batch."""
        get = self.batches.part if self.whole else self.batches.share
        return get(key, self.rank, self.world)
