"""A step whose batch is shared: embeddings are exchanged, and the loss is divided."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from usucl.bank.exchange import Exchange
from usucl.data import BatchPart
from usucl.data.sampling.balance import generator
from usucl.losses import Frames, LossInputs, Selection

Encode = Callable[[Tensor], Tensor]


class SharedEncoder:
    """Embeds images by number: each process those that it has, and all get all embeddings.

    A method is handed the whole batch with the numbers of the images in their place. It may order
    them as it likes; every process does so in the same way.

    Args:
        part: the images of this process.
        exchange: the processes.
    """

    def __init__(self, part: BatchPart, exchange: Exchange) -> None:
        self.part, self.exchange = part, exchange
        self._place = torch.full((len(part.owner),), -1)  # of each image among this process's
        self._place[part.number] = torch.arange(len(part.number))

    def by(self, encoder: Encode) -> Encode:
        """Returns a function of image numbers to embeddings, with the gradient of ``encoder``."""

        def encode(numbers: Tensor) -> Tensor:
            wanted = numbers.reshape(-1)
            owner = self.part.owner[wanted]
            own = self._images(wanted[owner == self.exchange.rank])
            return self._together(encoder(own), owner)

        return encode

    def shuffled(self, encoder: Encode, seed: tuple[int, ...]) -> Encode:
        """Returns the same with other images in each process, drawn by ``seed``.

        Batch normalisation then cannot tell which keys belong to a process's own anchors, which
        would give the answer away. Source: He et al., CVPR 2020 (momentum contrast).
        """

        def encode(numbers: Tensor) -> Tensor:
            wanted = numbers.reshape(-1)
            owner = self.part.owner[wanted]
            own = self._images(wanted[owner == self.exchange.rank])
            images = self._together(own, owner)
            turn = torch.from_numpy(generator(*seed).permutation(len(wanted)))
            other = turn % self.exchange.size
            mine = (other == self.exchange.rank).nonzero()[:, 0]
            return self._together(encoder(images[mine.to(images.device)]), other)

        return encode

    def _images(self, numbers: Tensor) -> Tensor:
        images = self.part.images
        return images[self._place[numbers].to(images.device)]

    def _together(self, own: Tensor, owner: Tensor) -> Tensor:
        """Gathers rows, and puts them in the order in which they were wanted."""
        counts = owner.bincount(minlength=self.exchange.size).tolist()
        order = owner.argsort(stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        rows: Tensor = _Gather.apply(own, counts, self.exchange)
        return rows[back.to(rows.device)]


class _Gather(torch.autograd.Function):
    """Concatenates the rows of all processes; their gradient is the sum over all processes."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: list[int], exchange: Exchange) -> Tensor:
        ctx.counts, ctx.exchange = counts, exchange
        return exchange.gather(own, counts, "the embeddings of each rank")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = ctx.exchange.sum(gradients[0], "the gradient of the embeddings")
        first = sum(ctx.counts[: ctx.exchange.rank])
        return total[first : first + ctx.counts[ctx.exchange.rank]], None, None


class SharedLoss:
    """The loss of a whole batch, of which each process computes an equal share of the anchors.

    DistributedDataParallel averages the gradients of all processes, so a process's share is
    weighted such that the average is the gradient of the mean over all anchors.

    Args:
        inputs: the whole step, the same in every process.
        exchange: the processes.

    Attributes:
        inputs: the anchors of this process, against the keys of the whole batch.
    """

    def __init__(self, inputs: LossInputs, exchange: Exchange) -> None:
        n, ranks = len(inputs.anchors.video), exchange.size
        ends = [rank * n // ranks for rank in range(ranks + 1)]
        self.exchange = exchange
        self.counts = [end - begin for begin, end in itertools.pairwise(ends)]
        own = slice(ends[exchange.rank], ends[exchange.rank + 1])
        self.inputs = anchors_of(inputs, own)

    def together(
        self, own: Tensor, found: Selection, keys: Sequence[Frames]
    ) -> tuple[Tensor, Selection]:
        """Returns the mean loss of the batch, with this share's gradient, and all negatives.

        Args:
            own: the loss of each anchor of this process.
            found: the negatives behind it.
            keys: the blocks of keys that they were found in.
        """
        share = own.sum() * (self.exchange.size / sum(self.counts))
        every = self._all(own.detach())
        selection = Selection(*(self._all(column) for column in found))
        # The candidates of a bank are others for the anchors of other processes: their indices
        # only tell that there is a negative.
        last = sum(len(block.video) for block in keys) - 1
        selection = selection._replace(
            intra_index=selection.intra_index.clamp(max=last),
            cross_index=selection.cross_index.clamp(max=last),
        )
        return _Valued.apply(share, every.mean()), selection

    def _all(self, column: Tensor) -> Tensor:
        if column.shape[1:].numel() == 0:
            return column.new_empty(sum(self.counts), *column.shape[1:])
        return self.exchange.gather(column.contiguous(), self.counts, "the losses of each rank")


class _Valued(torch.autograd.Function):
    """Returns ``value``, with the gradient of ``share``."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, value: Tensor) -> Tensor:
        return value.to(share.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def anchors_of(inputs: LossInputs, rows: slice) -> LossInputs:
    """Returns the inputs of some anchors, against the same keys."""
    own: dict[str, Any] = {
        name: value[rows]
        for name, value in inputs._asdict().items()
        if isinstance(value, Tensor) and value.dim() > 1  # one row per anchor
    }
    return inputs._replace(anchors=inputs.anchors.take(rows), **own)
