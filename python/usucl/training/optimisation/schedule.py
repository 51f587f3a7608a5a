"""The learning rate over the steps of a run, and of what is added to it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR


class HalfCosines(CosineAnnealingLR):
    """A half cosine from the optimiser's learning rate to 0 up to each of several steps.

    The first may begin later, after a warm-up in which the learning rate of step s, counted from 0,
    is the share ``s / warmup`` of the optimiser's.

    Without a warm-up and with one end this is PyTorch's own schedule, to the bit, and has its
    state. The first cosine is the same whether others follow or not, so a run that is extended goes
    on as if it had been planned so. Source of the restarts: Loshchilov and Hutter, ICLR 2017
    (SGDR).

    Args:
        optimiser: has the learning rates at the start.
        ends: numbers of steps at which the learning rate reaches 0, ascending.
        warmup: number of steps of the warm-up, less than the first end.
    """

    def __init__(self, optimiser: Optimizer, ends: Sequence[int], warmup: int = 0) -> None:
        self.ends = tuple(ends)
        self.warmup = warmup
        super().__init__(optimiser, T_max=self.ends[0])

    def get_lr(self) -> list[float | Tensor]:
        """Returns the learning rates of the current step."""
        step, ends = self.last_epoch, self.ends
        part = min(bisect.bisect_right(ends, step), len(ends) - 1)
        if part == 0 and self.warmup == 0:
            return super().get_lr()
        begin, end = ends[part - 1] if part else self.warmup, ends[part]
        if step < begin:
            share = step / begin
        else:
            share = (1 + math.cos(math.pi * (step - begin) / (end - begin))) / 2
        return [share * float(rate) for rate in self.base_lrs]

    def resume(self) -> None:
        """Gives the optimiser the learning rate of the current step, where a part has been added.

        The state of a run that had reached its end holds a learning rate of 0.
        """
        if self.last_epoch >= self.ends[0] and len(self.ends) > 1:
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state without the ends and the warm-up, which the config has."""
        state = super().state_dict()
        return {name: value for name, value in state.items() if name not in ("ends", "warmup")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of this schedule or of PyTorch's."""
        super().load_state_dict({**state_dict, "ends": self.ends, "warmup": self.warmup})
