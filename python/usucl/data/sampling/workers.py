"""The worker processes of a data loader, and what they do when a batch cannot be handed over."""

from __future__ import annotations

import os
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper


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
