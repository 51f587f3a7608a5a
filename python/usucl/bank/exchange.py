"""Collective steps of a sharded bank, each with a name and a timeout."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Exchange:
    """Exchanges tensors within a process group, and waits for it at most ``timeout``.

    Every method raises:
        TimeoutError: a rank was not there in time.
        ConnectionError: a rank is gone, or the exchange failed otherwise.
    """

    def __init__(
        self, group: dist.ProcessGroup | None, timeout: timedelta, device: torch.device
    ) -> None:
        self.group, self.timeout, self.device = group, timeout, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather_numbers(self, numbers: list[int], what: str) -> Tensor:
        """Gathers the numbers of every rank: ``[ranks, len(numbers)]`` int64 on the CPU."""
        own = torch.tensor([numbers], dtype=torch.int64, device=self.device)
        return self.gather(own, [1] * self.size, what).cpu()

    def gather(self, rows: Tensor, counts: list[int], what: str) -> Tensor:
        """Concatenates the rows of all ranks; rank r has ``counts[r]`` of them."""
        if sum(counts) == 0:
            return rows
        # The collective needs equal shares, so short ones are padded, and cut again afterwards.
        most = max(counts)
        padded = _bytes(rows).new_zeros(most, *_bytes(rows).shape[1:])
        padded[: len(rows)] = _bytes(rows)
        out = padded.new_empty(self.size * most, *padded.shape[1:])
        self._wait(lambda: dist.all_gather_into_tensor(out, padded, self.group, True), what)
        if len(set(counts)) > 1:
            shares = out.reshape(self.size, most, -1)
            out = torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
        return _typed(out, rows)

    def sum(self, tensor: Tensor, what: str) -> Tensor:
        """Returns the sum of the tensors of all ranks."""
        out = tensor.clone(memory_format=torch.contiguous_format)
        self._wait(lambda: dist.all_reduce(out, group=self.group, async_op=True), what)
        return out

    def all_to_all(self, rows: Tensor, give: list[int], take: list[int], what: str) -> Tensor:
        """Gives the next ``give[r]`` rows to each rank r in turn, and takes ``take[r]`` from it."""
        own = _bytes(rows)
        out = own.new_empty(sum(take), *own.shape[1:])
        self._wait(lambda: dist.all_to_all_single(out, own, take, give, self.group, True), what)
        return _typed(out, rows)

    def collect(self, own: dict[str, Tensor], what: str) -> list[dict[str, Tensor]]:
        """Returns the tensors of every rank on rank 0; [] on the others."""
        # Tensors travel one by one: whole states may be larger than one message.
        parts: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for name, tensor in own.items():
            rows = tensor.reshape(len(tensor) if tensor.dim() else 1, -1).to(self.device)
            counts = self.gather_numbers([len(rows)], what)[:, 0].tolist()
            give = [len(rows) if r == 0 else 0 for r in range(self.size)]
            take = counts if self.rank == 0 else [0] * self.size
            together = self.all_to_all(rows.contiguous(), give, take, what).cpu()
            if self.rank == 0:
                for part, share in zip(parts, together.split(take), strict=True):
                    shape = (len(share), *tensor.shape[1:]) if tensor.dim() else ()
                    part[name] = share.reshape(shape)
        return parts if self.rank == 0 else []

    def _wait(self, begin: Any, what: str) -> None:
        start = time.monotonic()
        try:
            begin().wait(self.timeout)
        except RuntimeError as error:
            waited = time.monotonic() - start
            where = f"rank {self.rank} of {self.size} waited {waited:.1f} s for {what}"
            if waited >= 0.9 * self.timeout.total_seconds():
                raise TimeoutError(f"{where}: a rank is lost or stuck") from error
            raise ConnectionError(f"{where}: a rank is gone ({error})") from error


def _bytes(rows: Tensor) -> Tensor:
    """Returns rows as bytes, which every backend carries: ``[M, bytes]``."""
    return rows.contiguous().reshape(len(rows), rows.shape[1:].numel()).view(torch.uint8)


def _typed(rows: Tensor, like: Tensor) -> Tensor:
    return rows.contiguous().view(like.dtype).reshape(len(rows), *like.shape[1:])
