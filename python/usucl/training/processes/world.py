"""The place of this process among those that train together."""

from __future__ import annotations

import os
from typing import NamedTuple

from usucl.training.options import RunningConfig

# Where starters that are not supported write how many processes there are.
_OTHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class World(NamedTuple):
    """A process among several.

    Attributes:
        rank, size: its number, and how many there are.
        local_rank, local_size: the same among those of its machine.
        starter: what has started them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    starter: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return max(1, self.size // max(1, self.local_size))

    @classmethod
    def here(cls) -> World:
        """Returns the place that the environment gives to this process.

        Raises:
            RuntimeError: the processes were started by something that is not supported.
            ValueError: the environment contradicts itself.
        """
        if _number("WORLD_SIZE", 1) > 1:
            if "RANK" not in os.environ:
                raise RuntimeError(
                    "RANK must be in the environment beside WORLD_SIZE "
                    f"{os.environ['WORLD_SIZE']}, got none: start with torchrun, or unset "
                    "WORLD_SIZE"
                )
            return cls._of_torch()
        if _number("SLURM_STEP_NUM_TASKS", 1) > 1:
            return cls._of_slurm()
        for name in _OTHERS:
            if _number(name, 1) > 1:
                raise RuntimeError(
                    f"training must be started by usucl itself, torchrun or srun, got "
                    f"{os.environ[name]} processes of mpirun ({name})"
                )
        return cls()

    @classmethod
    def _of_torch(cls) -> World:
        size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
        local_size = _number("LOCAL_WORLD_SIZE", 1)
        return cls(rank, size, _number("LOCAL_RANK", rank), local_size, "torchrun")._checked()

    @classmethod
    def _of_slurm(cls) -> World:
        size = _number("SLURM_STEP_NUM_TASKS", 1)
        nodes = _number("SLURM_STEP_NUM_NODES", _number("SLURM_NNODES", 1))
        rank, local_rank = _number("SLURM_PROCID", 0), _number("SLURM_LOCALID", 0)
        if size % nodes:
            raise ValueError(
                f"srun must start as many processes on every machine, got {size} on {nodes}: give "
                "--ntasks-per-node"
            )
        return cls(rank, size, local_rank, size // nodes, "srun")._checked()

    def _checked(self) -> World:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise ValueError(f"the environment must give a possible rank, got {self}")
        return self

    def check(self, running: RunningConfig) -> None:
        """Checks that as many processes were started as the options say, if they say anything.

        Raises:
            ValueError: there are more or fewer.
        """
        wanted = running.devices * running.nodes
        if self.size > 1 and wanted not in (1, self.size):
            raise ValueError(
                f"running.devices x running.nodes must be the number of processes that "
                f"{self.starter} has started, {self.size}, or both 1, got {running.devices} x "
                f"{running.nodes}"
            )

    def meet(self) -> None:
        """Writes into the environment where the processes meet, if it is not there."""
        if self.starter == "srun":
            from lightning.fabric.plugins.environments import SLURMEnvironment

            slurm = SLURMEnvironment(auto_requeue=False)
            os.environ["MASTER_ADDR"] = slurm.main_address
            os.environ["MASTER_PORT"] = str(slurm.main_port)
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise RuntimeError(
                    f"{name} must be in the environment of every process of {self.starter}, got "
                    "none: it names where rank 0 listens"
                )
        if not 0 < _number("MASTER_PORT", 0) < 65536:
            raise RuntimeError(
                f"MASTER_PORT must be in 1 .. 65535, got {os.environ['MASTER_PORT']}: for a free "
                "port, give --standalone to torchrun"
            )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
