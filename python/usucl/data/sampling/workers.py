"""The worker processes of a data loader, and what they do when a batch cannot be handed over."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

from torch._utils import ExceptionWrapper


def check_context(name: str | None, **handed_over: Any) -> None:
    """Checks that workers can be started so.

    Args:
        name: "fork", "spawn" or "forkserver"; None is Python's default.
        **handed_over: what workers that are not forks get as pickles, by the names of arguments.

    Raises:
        ValueError: they cannot be started so here, or something cannot be pickled.
    """
    known = multiprocessing.get_all_start_methods()
    if name is not None and name not in known:
        raise ValueError(f"multiprocessing_context must be one of {known} here, got {name!r}")
    name = name or multiprocessing.get_start_method()
    if name == "fork":
        return
    for argument, value in handed_over.items():
        try:
            pickle.dumps(value)
        except Exception as error:  # whatever an object's own code raises
            raise ValueError(
                f"{argument} must be defined at the top of a module, so that it can be sent to "
                f"workers that are started by {name!r}, got {value!r} ({error})"
            ) from error


def begin(worker: int) -> None:
    """Makes a worker send the errors of handing over a batch; else the loader waits for ever.

    Batches go through shared memory, in a thread of their own, whose errors Python only prints.

    Signals that end a run reach its workers too where they are sent to all processes of a job or a
    terminal. Workers leave them to the process that trains, which still needs their batches until
    it has saved, and then ends them.
    """
    Queue._on_queue_feeder_error = _send  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _send(queue: Queue[Any], error: Exception, item: Any) -> None:
    """Puts the error in the place of the batch; the worker ends if not even that can be sent."""
    if not isinstance(item, tuple) or isinstance(item[1], ExceptionWrapper):
        os._exit(1)
    told = RuntimeError(
        f"a worker cannot hand over a batch ({error}): give /dev/shm more room or the process more "
        "open files (ulimit -n), or use sampling.num_workers 0"
    )
    queue.put((item[0], ExceptionWrapper((RuntimeError, told, None), "in DataLoader worker")))
