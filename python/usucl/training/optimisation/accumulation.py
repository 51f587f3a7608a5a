"""Gradient accumulation: which batches of an epoch make one step of the optimiser.

Batches are numbered from 0 in their epoch. The last step of an epoch takes what is left.
"""

from __future__ import annotations

from lightning.pytorch import Trainer


def begins_step(trainer: Trainer, batch: int) -> bool:
    """Returns whether a batch is the first of its step."""
    return batch % trainer.accumulate_grad_batches == 0


def ends_step(trainer: Trainer, batch: int) -> bool:
    """Returns whether a batch is the last of its step."""
    return begins_step(trainer, batch + 1) or batch + 1 == trainer.num_training_batches


def batches_in_step(trainer: Trainer, batch: int) -> int:
    """Returns the number of batches in the step of a batch."""
    most = trainer.accumulate_grad_batches
    return min(most, int(trainer.num_training_batches) - batch // most * most)
