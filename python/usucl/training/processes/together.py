"""What the processes of a run do together before its first step, and how they end together."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from usucl._progress import left_to_others
from usucl.training.options import RunningConfig
from usucl.training.processes.world import World

T = TypeVar("T")
START = timedelta(minutes=30)  # for all processes to be started
PREPARATION = timedelta(days=7)  # for rank 0 to read the videos, and for all to decode them

_stores: dict[str, Any] = {}  # by address: one port takes one store
_joined = 0  # groups so far, as many in every process


class LostRankError(ConnectionError):
    """Another process of the run is gone or stuck."""


class Together:
    """The processes of a run, once they know of each other.

    Args:
        world: the place of this process.
        store: where they leave messages.
    """

    def __init__(self, world: World, store: Any) -> None:
        self.world = world
        self._store = store

    def of_first(self, make: Callable[[], T], running: Callable[[T], RunningConfig]) -> T:
        """Returns to every process what rank 0 makes, and connects them.

        Args:
            make: called by rank 0 alone, however long it takes.
            running: returns the options, for the time that they wait for each other from now on.

        Raises:
            SystemExit: rank 0 has raised an error, which it tells itself.
        """
        made: list[Any] = [None]
        if self.world.is_first:
            try:
                made = [make()]
            except BaseException:
                self._store.set("timeout", "failed")
                raise
            self._store.set("timeout", str(running(made[0]).timeout))
        self._store.wait(["timeout"], PREPARATION)
        timeout = self._store.get("timeout").decode()
        if timeout == "failed":
            raise SystemExit(2)
        with self.naming("the others to connect"):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=dist.PrefixStore("group", self._store),
                rank=self.world.rank,
                world_size=self.world.size,
                timeout=timedelta(seconds=float(timeout)),
            )
            dist.broadcast_object_list(made, 0)
        return made[0]

    def wait_for_all(self, what: str) -> None:
        """Waits until all processes are here, however long that takes."""
        self._store.set(f"{what}/{self.world.rank}", "")
        self._store.wait([f"{what}/{rank}" for rank in range(self.world.size)], PREPARATION)

    @contextlib.contextmanager
    def naming(self, what: str) -> Iterator[None]:
        """Says in words of one's own that another process is gone.

        Raises:
            LostRankError: it is.
        """
        try:
            yield
        except (dist.DistBackendError, RuntimeError, TimeoutError, ConnectionError) as error:
            if isinstance(error, LostRankError) or not _is_of_connection(error):
                raise
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise LostRankError(
                f"rank {self.world.rank} of {self.world.size} has lost another process in {what}, "
                f"which is gone or stuck ({first})"
            ) from error


def _is_of_connection(error: Exception) -> bool:
    if isinstance(error, (dist.DistError, TimeoutError, ConnectionError)):
        return not isinstance(error, BrokenPipeError)
    words = ("gloo", "Connection", "connection", "Timed out", "NCCL", "Socket")
    return any(word in str(error) for word in words)


@contextlib.contextmanager
def joined(world: World) -> Iterator[Together]:
    """Joins the processes that were started with this one; all but the first are silent."""
    global _joined
    with contextlib.nullcontext() if world.is_first else _silence():
        world.meet()
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        if place not in _stores:
            rendezvous = dist.rendezvous("env://", world.rank, world.size, timeout=START)
            _stores[place] = next(iter(rendezvous))[0]
        _joined += 1
        yield Together(world, dist.PrefixStore(f"usucl/{_joined}", _stores[place]))
    if dist.is_initialized():  # after an error, others may never come
        dist.destroy_process_group()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Prints nothing: rank 0 says it already."""
    nowhere = io.StringIO()
    with (
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        left_to_others(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def flush() -> None:
    """Writes what is still in the buffers of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
