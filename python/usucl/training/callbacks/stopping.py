"""Signals that end a run: it is saved first, at the end of the step, and a second one ends it."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from usucl._terminal import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME = 1.0  # seconds: launchers and clusters may deliver one request several times


class Stopped(BaseException):
    """A run is to end because of a signal: no error that anything else may catch."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Stopping(Callback):
    """Turns signals into ``Stopped``, between two steps at once, else at the end of the step.

    While Lightning trains, its own handlers are replaced. What the steps leave is consistent only
    between them; that includes waiting for a batch and all that happens at the end of an epoch.
    Several processes end after the same step.

    Attributes:
        requested: the signal, None before there was one.
        between: whether no step is being done, so that a signal may end the run at once.
        handlers: what handles each signal before and afterwards.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.between = False
        self._since = 0.0
        self._process = os.getpid()
        self._alone = True
        self.handlers: dict[int, Any] = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens from now on."""
        self._alone = trainer.world_size == 1
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._handle)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins, and must not be torn."""
        self.between = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saving is over: from now on a signal is for whoever had listened before."""
        self.between = False
        self.restore()

    def settle(self) -> None:
        """Raises Stopped at the end of a step, if a signal has come to any process."""
        if not self._alone:
            asked = torch.tensor(self.requested or 0)  # on the CPU: no step waits for a GPU
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            self.requested = int(asked) or None
        self.check()
        self.between = self._alone

    def check(self) -> None:
        """Raises Stopped if a signal has come."""
        if self.requested is not None:
            self.between = False
            raise Stopped(self.requested)

    def restore(self) -> None:
        """Gives the signals back to whoever listened when this was made."""
        if threading.current_thread() is threading.main_thread():
            for signum, handler in self.handlers.items():
                signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker, before it has handlers of its own
            return
        if self.requested is None:
            self.requested, self._since = signum, time.monotonic()
            if self.between:
                self.check()
            say(
                f"{signal.Signals(signum).name}: the run is saved at the end of this step "
                "(a second signal ends it at once)",
                stderr=True,
            )
        elif time.monotonic() - self._since > SAME:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
