"""What each process runs that :func:`usucl.training.processes.launch.launch` has started."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from types import FrameType
from typing import IO, Any

from usucl._progress import listen
from usucl.training.processes.launch import Report
from usucl.training.processes.together import flush
from usucl.training.processes.world import World

GRACE = 60.0  # seconds to end, once the process that has started this one is gone


def main(report: int, alive: int, shown: bool) -> None:
    """Reads a job, of rank 0 from standard input, does it, and tells how it ended.

    Args:
        report: a pipe to the process that has started this one.
        alive: a pipe that ends with it.
        shown: whether rank 0 shows its progress.
    """
    from usucl.training.run import do_together

    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    world = World.here()
    with os.fdopen(report, "wb", buffering=0) as pipe:
        _send_warnings(pipe)
        try:
            with listen(shown and world.is_first):
                job = pickle.load(sys.stdin.buffer) if world.is_first else None
                do_together(world, lambda: job)
        except BaseException as error:
            _tell(pipe, "error", error)
            flush()
            os._exit(_code(error))  # nothing that waits for the others
    flush()


def _code(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _tell(pipe: IO[bytes], kind: str, value: BaseException) -> None:
    """Sends an exception; one that cannot be sent as what it is, becomes a RuntimeError."""
    value.__traceback__ = value.__cause__ = value.__context__ = None
    try:
        content = pickle.dumps(Report(kind, value, time.time()))
        pickle.loads(content)
    except Exception:  # whatever an exception's own code raises
        kept: Any = RuntimeWarning if kind == "warning" else RuntimeError
        content = pickle.dumps(Report(kind, kept(f"{type(value).__name__}: {value}"), time.time()))
    with contextlib.suppress(OSError):
        pipe.write(content)


def _send_warnings(pipe: IO[bytes]) -> None:
    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        _tell(pipe, "warning", message if isinstance(message, Warning) else category(message))

    warnings.showwarning = show


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _end_with(alive: int) -> None:
    """Ends this process when the one that has started it is gone."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3])))
