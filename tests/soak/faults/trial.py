"""One command, disturbed once: what came of it, and whether going on leads to the whole result."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from runs import make_data
from tiny_videos import write

from tests.soak.faults.calls import Ended, call
from tests.soak.faults.commands import COMMANDS, Folders, train
from tests.soak.faults.differences import damaged, differences
from tests.soak.faults.shim import COUNT, END, FAIL_FROM, FAIL_ONCE, FAULTS, SLOW, VANISH, Plan, arm

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
_WAY_ON = re.compile(r"to go on|start(s)? again|resume|same command")
_SLOW = (500, 4000)  # microseconds per operation


@dataclass(frozen=True)
class Whole:
    """A command that was not disturbed: what it did to files, what it read, in which time."""

    operations: int
    readings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """What came of one disturbance.

    Attributes:
        outcome: ``"ended"`` by a signal, ``"told"`` as an error, ``"done"``: with the whole result,
            or ``"less"``: done without a file that had vanished before it was listed or read.
        moment: when it was disturbed, in words.
        faults: what is not as it should be.
    """

    outcome: str
    moment: str
    faults: tuple[str, ...]


class Bench:
    """Disturbs commands in a folder, which several processes share.

    Args:
        root: the folder.
        library: the compiled shim, which is preloaded into this process.
    """

    def __init__(self, root: Path, library: Path) -> None:
        self.root, self.library = root, library
        self.inputs = root / "inputs"
        self.data, self.run = self.inputs / "videos", self.inputs / "run"
        self.place = root / f"work-{os.getpid()}"
        self.case = self.place / "case"
        self.folders = Folders(self.data, self.run, self.case / "out")

    def make_inputs(self, *, with_run: bool) -> None:
        """Makes the videos, and the run that some commands read."""
        _make_videos(self.data)
        self._clear()
        if with_run:
            self._call(train(Folders(self.data, self.run, self.run)))

    def make_whole(self, name: str) -> list[str]:
        """Keeps what a command does undisturbed; returns the files whose writes escaped."""
        kept = self.root / "whole" / name
        kept.mkdir(parents=True)
        command = COMMANDS[name]
        self._clear()
        if command.in_run:
            shutil.copytree(self.run, self.folders.out)
        if command.before is not None:
            self._call(command.before(self.folders))
        if self.folders.out.exists():
            shutil.copytree(self.folders.out, kept / "before")
        log = self.place / "log.txt"
        log.unlink(missing_ok=True)

        def begin() -> None:
            arm(self.library, self._plan(COUNT, log=os.open(log, os.O_CREAT | os.O_WRONLY)))

        ended = self._call(command.words(self.folders), begin)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
        read = tuple(path for what, _, _, path in lines if what == "read")
        whole = Whole(len(lines) - len(read), read, ended.seconds)
        (kept / "counts.json").write_text(json.dumps(asdict(whole)))
        written: dict[int, int] = {}
        for _, inode, size, _ in lines:
            written[int(inode)] = written.get(int(inode), 0) + int(size)
        files = [] if (kept / "before").exists() else self.folders.out.rglob("*")
        missed = [
            f for f in files if f.is_file() and f.stat().st_size > written.get(f.stat().st_ino, 0)
        ]
        shutil.move(self.folders.out, kept / "out")
        return [f"{name}: writes of {path.name} are not counted" for path in missed]

    def whole(self, name: str) -> Whole:
        """Returns what was counted of a command."""
        return Whole(**json.loads((self.root / "whole" / name / "counts.json").read_text()))

    def disturb(self, name: str, fault: str, draw: Random) -> Trial:
        """Disturbs a command once, goes on, and compares."""
        command, whole = COMMANDS[name], self.whole(name)
        kept = self.root / "whole" / name
        self._clear()
        if (kept / "before").exists():
            shutil.copytree(kept / "before", self.folders.out)
        kind, value = FAULTS[fault]
        at = draw.randint(1, len(whole.readings) if kind == VANISH else whole.operations)
        victim = Path(draw.choice(whole.readings)) if kind == VANISH else Path("/dev/null")
        moment, signum = f"operation {at} of {whole.operations}", value if kind == END else 0
        plan = self._plan(kind, at=at, value=value, victim=victim)
        meanwhile = None
        if kind == VANISH:
            moment = f"{victim.relative_to(self.inputs)} at file {at} of {len(whole.readings)}"
        if kind == SLOW:
            micros, signum = draw.randint(*_SLOW), draw.choice(_SIGNALS)
            seconds = draw.uniform(0, whole.seconds + whole.operations * micros / 1e6)
            moment = f"{signal.Signals(signum).name} after {seconds:.2f} s, {micros} us each"
            plan = self._plan(kind, value=micros)

            def meanwhile(process: int) -> None:
                time.sleep(seconds)
                os.kill(process, signum)

        before = _hash(self.inputs)
        ended = call(
            command.words(self.folders), self.place, lambda: arm(self.library, plan), meanwhile
        )
        faults = self._misconduct(ended, kind, signum, value, victim)
        if (hidden := self.place / "hidden").exists():
            hidden.rename(victim)
        if _hash(self.inputs) != before:
            faults.append("the inputs were changed")
        faults += [f"damaged: {file}" for file in damaged(self.folders.out)]
        outcome = "ended" if signum and ended.code else "told"
        if ended.code == 0:
            differ = differences(self.folders.out, kept / "out")
            outcome = "less" if differ and kind == VANISH else "done"
            faults += [f"code 0, but {line}" for line in differ if outcome == "done"]
        else:
            faults += self._go_on(name, kept)
        if faults:
            faults = [*faults, f"it said: {ended.said}"]
        return Trial(outcome, moment, tuple(faults))

    def _go_on(self, name: str, kept: Path) -> list[str]:
        command = COMMANDS[name]
        again = call(command.on(self.folders), self.place)
        if again.code != 0:
            return [f"going on ended with {again.code}: {again.said}"]
        differ = differences(self.folders.out, kept / "out")
        if differ and command.either and not differences(self.folders.out, kept / "before"):
            return []
        return [f"after going on, {line}" for line in differ[:5]]

    def _misconduct(
        self, ended: Ended, kind: int, signum: int, value: int, victim: Path
    ) -> list[str]:
        """Returns what is wrong with the way a command has ended."""
        faults = ["it has shown a traceback"] if any("Traceback" in x for x in ended.lines) else []
        if ended.code == 0 and (kind != END or signum != signal.SIGKILL):
            return faults
        if signum:
            if ended.code not in (_CODES[signum], -signum):
                faults.append(f"{signal.Signals(signum).name} ended it with {ended.code}")
            if ended.code < 0:
                return faults
        elif ended.code not in (1, 2):
            return [*faults, f"it ended with {ended.code}"]
        errors = [line for line in ended.lines if line.startswith("usucl: error: ")]
        if len(errors) != 1 or errors[0] != ended.said:
            return [*faults, f"{len(errors)} lines of errors"]
        if not _WAY_ON.search(ended.said):
            faults.append("the message tells no way to go on")
        if kind in (FAIL_FROM, FAIL_ONCE):
            if os.strerror(value) not in ended.said:
                faults.append("the message does not say what is wrong")
            if str(self.case) not in ended.said:
                faults.append("the message names no file")
        if kind == VANISH and not {victim.name, victim.parent.name} & set(
            re.split(r"[/\s:,'\"]+", ended.said)
        ):
            faults.append("the message does not name the file")
        return faults

    def _plan(self, kind: int, **options: object) -> Plan:
        return Plan(self.case, self.inputs, kind, hidden=self.place / "hidden", **options)  # type: ignore[arg-type]

    def _call(self, words: list[str], begin: object = None) -> Ended:
        ended = call(words, self.place, begin)  # type: ignore[arg-type]
        if ended.code != 0:
            raise RuntimeError(f"usucl {' '.join(words)} ended with {ended.code}: {ended.said}")
        return ended

    def _clear(self) -> None:
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir(parents=True)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(os.fsencode(path.relative_to(folder)))
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _make_videos(folder: Path) -> None:
    """Writes videos of two kinds, folders of images and files, with labels and patients."""
    data = make_data(folder, videos=8, frames=5)
    frames = [np.array(Image.open(data / "video_7" / f"{n}.png").convert("RGB")) for n in range(5)]
    for file in (data / "video_7").iterdir():
        file.unlink()
    (data / "video_7").rmdir()
    write(data / "video_7.avi", frames, "mjpeg", "yuvj420p")
