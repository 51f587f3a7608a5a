"""The worker processes of a data loader, and what they do when a batch cannot be handed over."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper


def check_context(name: str | None) -> None:
    """Raises ValueError if processes cannot be started so here; None is Python's default."""
    known = multiprocessing.get_all_start_methods()
    if name is not None and name not in known:
        raise ValueError(f"multiprocessing_context must be one of {known} here, got {name!r}")


def report_errors(worker: int) -> None:
    """Makes a worker send the errors of handing over a batch; else the loader waits for ever.

    Batches go through shared memory, in a thread of their own, whose errors Python only prints.
    """
    Queue._on_queue_feeder_error = _send  # type: ignore[attr-defined]


def _send(queue: Queue[Any], error: Exception, item: Any) -> None:
    """Puts the error in the place of the batch; the worker ends if not even that can be sent."""
    if not isinstance(item, tuple) or isinstance(item[1], ExceptionWrapper):
        os._exit(1)
    told = RuntimeError(
        f"a worker cannot hand over a batch ({error}): give /dev/shm more room or the process more "
        "open files (ulimit -n), or use sampling.num_workers 0"
    )
    queue.put((item[0], ExceptionWrapper((RuntimeError, told, None), "in DataLoader worker")))
