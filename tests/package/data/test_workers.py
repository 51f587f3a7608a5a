"""Workers of a data loader: no error of theirs leaves the loader waiting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from usucl.data.sampling.workers import begin


class Unsendable:
    """A batch for which there is no room in shared memory."""

    def __reduce__(self) -> Any:
        raise OSError(28, "No space left on device")


class Unsendables(Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return Unsendable() if index else torch.zeros(3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_that_cannot_be_handed_over_is_an_error_with_its_cause(workers: int) -> None:
    loader = DataLoader(
        Unsendables(),
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=begin,
        timeout=60,  # for versions that wait for ever
    )
    batches = iter(loader)
    assert torch.equal(next(batches), torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"cannot hand over a batch .*No space left on device"):
        next(batches)
