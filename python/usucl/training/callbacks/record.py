"""``run.json``: what is known of a run besides its options and figures."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from usucl import __version__
from usucl._environment import commit_of, typed_command
from usucl._files import DamagedFileError, read_json, write_json
from usucl._terminal import say
from usucl.models.weights import Start
from usucl.run_folder import RunFolder
from usucl.training import provenance


class RunRecord(Callback):
    """Keeps ``run.json`` up to date: before the first step, after each checkpoint and at the end.

    Args:
        run: folder of the run.
        start: the weights that the encoder starts from; None for random or ImageNet's.
        data: what :func:`usucl.training.provenance.data_facts` says of the videos.
    """

    def __init__(
        self, run: RunFolder, start: Start | None = None, data: dict[str, Any] | None = None
    ) -> None:
        self.run = run
        self.start = start
        self.data = data
        self.facts: dict[str, Any] = {}
        self._before = 0.0
        self._since: float | None = None

    @property
    def started(self) -> bool:
        """Whether a step may have been done."""
        return self._since is not None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes where the run begins, or goes on."""
        resumed = trainer.global_step > 0
        facts = self._read() if resumed else {}
        now = _now()
        self._before = float(facts.get("seconds") or 0.0)
        self._since = time.perf_counter()
        self.facts = {
            "started": facts.get("started", self._first_file() if resumed else now),
            "finished": None,
            "seconds": self._before,
            "command": facts.get("command", typed_command()),
            "usucl": __version__,
            "commit": commit_of(__file__),
            "working_directory": provenance.working_directory(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "device": str(trainer.strategy.root_device),
            "start": facts.get("start", self.start),
            **self._of_data(facts),
            "resumed": [*facts.get("resumed", []), *([now] if resumed else [])],
        }
        self._update(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes that the epoch before is done, which has its checkpoint by now."""
        self._update(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes that all epochs are done."""
        self.facts["finished"] = _now()
        self._update(trainer)

    def saved(self, epochs: int, steps: int) -> None:
        """Writes what the checkpoint that has just been written holds."""
        self.facts |= {"epochs_done": epochs, "steps_done": steps}
        self._write()

    def stop(self) -> None:
        """Writes the time until the end, however the run ended."""
        if self.started:
            with contextlib.suppress(OSError):  # such as a full disk, which has ended the run
                self._write()

    def _update(self, trainer: Trainer) -> None:
        self.facts |= {"epochs_done": trainer.current_epoch, "steps_done": trainer.global_step}
        self._write()

    def _write(self) -> None:
        assert self._since is not None
        self.facts["seconds"] = round(self._before + time.perf_counter() - self._since, 3)
        write_json(self.run.facts, self.facts)

    def _of_data(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Returns what is known of the data; says what has changed since the run was started."""
        if self.data is None:
            return {}
        before, earlier = facts.get("data"), list(facts.get("earlier_data", []))
        if changed := provenance.difference(before, self.data):
            earlier.append(before)
            say(
                f"The data are not as they were: {changed} have changed since this run was last "
                f"trained; {self.run.facts} keeps the digests of both",
                stderr=True,
            )
        return {"data": self.data} | ({"earlier_data": earlier} if earlier else {})

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self.run.facts)
        except (FileNotFoundError, DamagedFileError):  # an earlier version's run has none
            return {}

    def _first_file(self) -> str | None:
        """Returns when the first weights were written, which is the start of the run."""
        first = RunFolder(self.run.initial).encoder_config
        return _text(first.stat().st_mtime) if first.is_file() else None


def _now() -> str:
    return _text(time.time())


def _text(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")
