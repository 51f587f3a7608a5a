"""A command in a process of its own, which is forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from usucl.cli import main

PATIENCE = 300.0  # seconds
for _name in (
    *("timm", "torchvision.models", "tensorboard.summary.writer.event_file_writer"),
    *("usucl.comparison.measurement.probing", "usucl.comparison.training.pretraining"),
    *("usucl.evaluation", "usucl.finetuning", "usucl.gallery", "usucl.training.fitting"),
):
    with contextlib.suppress(ImportError):  # an extra that is not installed
        importlib.import_module(_name)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its code, negative for a signal, and the lines that it has written."""

    code: int
    lines: tuple[str, ...]
    seconds: float

    @property
    def said(self) -> str:
        """The last line on standard error."""
        return self.lines[-1] if self.lines else ""


def call(
    words: Sequence[str],
    folder: Path,
    begin: Callable[[], None] | None = None,
    disturb: Callable[[int], None] | None = None,
) -> Ended:
    """Runs ``usucl WORDS`` and returns how it ended.

    Args:
        words: the command.
        folder: where what it writes on standard error goes, and where its caches are.
        begin: called in its process before it.
        disturb: called meanwhile with the number of its process.
    """
    stderr, start = folder / "stderr.txt", time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _child(words, folder, stderr, begin)
    if disturb is not None:
        disturb(process)
    until = start + PATIENCE
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    lines = tuple(stderr.read_text("utf-8", "replace").splitlines())
    return Ended(os.waitstatus_to_exitcode(ended[1]), lines, time.monotonic() - start)


def _child(
    words: Sequence[str], folder: Path, stderr: Path, begin: Callable[[], None] | None
) -> None:
    code = 99
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with stderr.open("wb") as said, open(os.devnull, "r+b") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        os.environ["USUCL_CACHE"] = str(folder / "case" / "cache")
        torch.manual_seed(time.monotonic_ns())  # nothing may depend on it
        if begin is not None:
            begin()
        code = main([*words, "--quiet"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
