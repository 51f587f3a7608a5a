"""Lightning's view of processes that were started by others."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments import ClusterEnvironment

from usucl.training.processes.world import World


class Started(ClusterEnvironment):
    """The places of processes that are there already."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 listens."""
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """The port at which rank 0 listens."""
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        """False: it is given, not found."""
        return False

    def world_size(self) -> int:
        """Returns how many processes there are."""
        return self.world.size

    def set_world_size(self, size: int) -> None:
        """Does nothing: the number is known."""

    def global_rank(self) -> int:
        """Returns the number of this process."""
        return self.world.rank

    def set_global_rank(self, rank: int) -> None:
        """Does nothing: the number is known."""

    def local_rank(self) -> int:
        """Returns the number of this process on its machine."""
        return self.world.local_rank

    def node_rank(self) -> int:
        """Returns the number of the machine."""
        return self.world.rank // self.world.local_size
