"""Options of the processes that train together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from usucl._ranges import check_range

MOST_PROCESSES = 65536


@dataclass(frozen=True)
class RunningConfig:
    """Where a run is computed: on how many processes of how many machines.

    Each process has a device of its own and a share of every batch, so ``sampling.videos`` stays
    the number of videos of the whole batch, and the result is the same up to rounding, but for
    batch normalisation (``encoder.norm``, ``key.batch_norm``). A resumed run may have another
    number of processes.

    Attributes:
        accelerator: ``"gpu"``, ``"cpu"``, or ``"auto"`` for GPUs where there are any.
        devices: processes per machine, each with a GPU or a share of the CPU's cores. With more
            than one, ``usucl train`` starts them, unless torchrun or srun has.
        nodes: machines; for more than one, torchrun or srun has to start the processes.
        timeout: seconds that a process waits in a step for the others before it gives up. Raise it
            if the first of them takes longer than that between epochs, to write large files or to
            probe the encoder; processes that end are noticed at once.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    timeout: float = 600.0

    def __post_init__(self) -> None:
        check_range("running.devices", self.devices, 1, MOST_PROCESSES)
        check_range("running.nodes", self.nodes, 1, MOST_PROCESSES)
        check_range("running.timeout", self.timeout, 0, 1e9, above=True)

    def chosen_accelerator(self) -> Literal["cpu", "gpu"]:
        """Returns what several processes compute on."""
        if self.accelerator != "auto":
            return self.accelerator
        import torch

        return "gpu" if torch.cuda.is_available() else "cpu"
