"""Everything that only a GPU can tell, in two parts: ``python -m benchmarks.gpu --part 1``.

Builds for the GPU at hand, runs the CUDA tests, compute-sanitizer and the benchmarks of the loss,
each as a process of its own, and writes a result file as ``benchmarks/rows.py`` describes it, with
``stages`` in its ``run``, and a log of all that the stages printed. Both are complete after every
stage, so a run that is cut short keeps what it has. They go to the folder that OUT names, if it is
set. It needs Python with torch, numpy, pytest, hypothesis and setuptools, a C++ compiler and nvcc,
but no network.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import summary
from benchmarks.gpu_stages import BUILD, ROOT, SECONDS, Stage, stages
from benchmarks.rows import Result, Row, read, write

COMMAND = "python -m benchmarks.gpu"
SHORTEST = 5.0  # seconds; with less time left no stage begins
POLL = 0.05  # seconds
MODULES = ("torch", "numpy", "pytest", "hypothesis", "setuptools")
OLDEST_SETUPTOOLS = 77  # the first to read the licence in pyproject.toml
PATIENCE = 10.0  # seconds for a process to end: one that waits for a GPU may never do so
KEPT_LINES = 60  # lines of output kept in the file for a stage that did not pass
LOGGED = 400_000  # characters per stage in the log; the middle of longer output is left out
PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"
SKIPPED, NOT_REACHED = "skipped", "not reached"


class Process:
    """A running command of a stage, with all processes that it starts."""

    def __init__(self, stage: Stage, limit: float) -> None:
        self.stage, self._limit, self._begun = stage, limit, time.monotonic()
        # The output is read once the process has ended.
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None
        self._status, self._error, self._seconds = "", "", 0.0
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        try:
            self._process = subprocess.Popen(
                list(stage.command),
                cwd=ROOT,
                env={**environment, **stage.environment},
                stdout=self._output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._status, self._error = FAILED, f"{stage.command[0]}: {error}"

    def done(self) -> bool:
        """Returns whether the process has ended; at its limit it is killed."""
        if self._status or self._process is None:
            return True
        self._seconds = time.monotonic() - self._begun
        code = self._process.poll()
        if code is not None:
            self._status = PASSED if code == 0 else FAILED
        elif self._seconds >= self._limit:
            self._status = TIMED_OUT
        if self._status:
            self.end()
        return bool(self._status)

    def end(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)

    def output(self) -> str:
        """Returns the output without this machine's paths, as the file may be published."""
        self._output.seek(0)
        text = self._error + self._output.read()
        return text.replace(sys.prefix, "python").replace(str(ROOT), ".")

    def outcome(self) -> dict[str, Any]:
        """Returns status, seconds and last line; more of the output if the stage did not pass."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        detail = lines[-1].strip() if lines else ""
        outcome: dict[str, Any] = {"status": self._status, "seconds": round(self._seconds, 1)}
        if self._status == TIMED_OUT:
            detail = f"after {self._limit:.0f} s; last line: {detail}"
        if self._status != PASSED:
            outcome["output"] = lines[-KEPT_LINES:]
        return outcome | {"detail": detail[:200]}


@dataclass
class Suite:
    """A run: its stages one after the other, and the files that grow with them.

    Attributes:
        out: result file, written again after every stage; the log lies next to it.
        machine: ``run`` and ``providers``, as :func:`describe` returned them at the start.
        seconds: for all stages together.
        has_gpu: whether stages that need one are run.
        commit: commit of the sources, if git cannot tell.
    """

    out: Path
    machine: dict[str, Any]
    seconds: float
    has_gpu: bool
    commit: str = ""
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._at_start = self.machine["run"]["machine"]["gpu"]

    def run(self, listed: Sequence[Stage], rows: Path) -> bool:
        """Returns whether no stage failed; keeps the rows that stages append to ``rows``."""
        waiting = list(listed)
        try:
            with _stopped_as_interrupt():
                while waiting:
                    self._run(self._next(waiting), waiting, rows)
        except KeyboardInterrupt:
            for stage in waiting:
                self._keep(stage, {"status": NOT_REACHED, "detail": "interrupted"}, rows)
        if self.has_gpu:
            self._describe()  # records the clocks at the end
        self._save()
        return all(one["status"] in (PASSED, SKIPPED, NOT_REACHED) for one in self.outcomes)

    def _next(self, waiting: Sequence[Stage]) -> list[Stage]:
        """Returns the first stage, with those after it that may share the machine with it."""
        count = next((i for i, one in enumerate(waiting) if not one.shares), len(waiting))
        return list(waiting[: max(1, count)])

    def _run(self, together: Sequence[Stage], waiting: list[Stage], rows: Path) -> None:
        """Runs stages at the same time; each leaves ``waiting`` once its outcome is kept."""
        under_way: list[Process] = []
        try:
            for stage in together:
                print(f"--- {stage.name}: {stage.what}", flush=True)
                reason = self._unable(stage)
                if reason:
                    self._keep(stage, reason, rows, waiting)
                else:
                    left = self.seconds - (time.monotonic() - self._begun)
                    under_way.append(Process(stage, min(stage.limit, left)))
            while under_way:
                for process in [one for one in under_way if one.done()]:
                    under_way.remove(process)
                    self._log(process)
                    self._keep(process.stage, process.outcome(), rows, waiting)
                time.sleep(POLL)
        finally:
            for process in under_way:
                process.end()
                self._log(process)

    def _unable(self, stage: Stage) -> dict[str, Any]:
        """Returns the outcome of a stage that cannot begin; empty if it can."""
        found = {one["stage"]: one["status"] for one in self.outcomes}
        broken = [name for name in stage.needs if found.get(name, PASSED) != PASSED]
        if stage.missing or (stage.gpu and not self.has_gpu):
            return {"status": SKIPPED, "detail": stage.missing or "no CUDA device"}
        if broken:
            return {"status": SKIPPED, "detail": f"needs {', '.join(broken)}, which did not pass"}
        if self.seconds - (time.monotonic() - self._begun) < SHORTEST:
            return {"status": NOT_REACHED, "detail": f"none of the {self.seconds:g} s were left"}
        return {}

    def _keep(
        self, stage: Stage, outcome: dict[str, Any], rows: Path, waiting: list[Stage] | None = None
    ) -> None:
        if waiting is not None:
            waiting.remove(stage)
            if outcome["status"] == FAILED and stage.again:
                waiting.insert(next((i for i, one in enumerate(waiting) if not one.shares),
                                    len(waiting)), stage.after_failure())  # fmt: skip
        self.outcomes.append({"stage": stage.name, "what": stage.what, **outcome})
        known = len(self.rows)
        self.rows += _read(rows)[known:]
        print(f"    {stage.name} {outcome['status']}: {outcome['detail']}", flush=True)
        if stage.name == BUILD:
            self._describe()  # what was built is known now
        self._save()

    def _log(self, process: Process) -> None:
        text = process.output()
        if len(text) > LOGGED:
            half = LOGGED // 2
            text = f"{text[:half]}\n... {len(text) - LOGGED} characters ...\n{text[-half:]}"
        with self.out.with_suffix(".log").open("a", encoding="utf-8") as log:
            log.write(f"===== {process.stage.name}\n{text.rstrip()}\n\n")

    def _describe(self) -> None:
        """Describes the machine as it is now, or leaves the last description if that fails."""
        try:
            self.machine = describe()
        except RuntimeError as error:
            print(error, file=sys.stderr)

    def _save(self) -> None:
        """Replaces the file in one step, so that readers always find it whole."""
        told = self.machine["run"]
        run = told | {
            "machine": told["machine"] | {"gpu_at_start": self._at_start},
            "commit": told["commit"] or self.commit or None,
            "quick": False,
            "seconds": round(time.monotonic() - self._begun),
            "cores_of_others": None,
            "stages": self.outcomes,
        }
        words = in_words(run)
        self.rows = [replace(row, **words) for row in self.rows]
        beside = self.out.with_suffix(f".{os.getpid()}.tmp")
        beside.unlink(missing_ok=True)
        write(Result(run, self.machine["providers"], self.rows), beside)
        beside.replace(self.out)


@contextmanager
def _stopped_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM, which time limits send, end the run as Ctrl-C does, with its results kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(rows: Path) -> list[Row]:
    """Returns the rows of a file; its last line is dropped if it is incomplete."""
    lines = rows.read_text(encoding="utf-8").split("\n")[:-1] if rows.exists() else []
    given = [json.loads(line) for line in lines]
    return [Row(**{**one, "shape": tuple(one["shape"]), "k": tuple(one["k"])}) for one in given]


def describe() -> dict[str, Any]:
    """Returns ``run`` and ``providers`` of the result file, from a process of its own.

    Raises:
        RuntimeError: the process fails; the message has its output.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_machine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def in_words(run: dict[str, Any]) -> dict[str, Any]:
    """Returns machine, versions and commit as every row has them."""
    gpu, versions = run["machine"]["gpu"], run["versions"]
    told = gpu.get("nvidia_smi")
    driver = f", driver {told['driver_version']}" if isinstance(told, dict) else ""
    named = {"usucl": "usucl", "torch": "torch", "built_with_cuda": "CUDA"}
    return {
        "machine": f"{gpu['name']}{driver}" if "name" in gpu else str(run["machine"]["cpu"]),
        "versions": ", ".join(f"{word} {versions[k]}" for k, word in named.items() if versions[k]),
        "commit": run["commit"] or "",
    }


def unmet() -> str:
    """Returns what the suite needs but lacks; empty if nothing."""
    absent = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed for {sys.executable}"
    setuptools = importlib.metadata.version("setuptools")
    if int(setuptools.split(".")[0]) < OLDEST_SETUPTOOLS:
        return f"setuptools {OLDEST_SETUPTOOLS} or newer: {setuptools} is installed"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a stage failed or took too long. Exits if something is missing."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--part", type=int, choices=SECONDS, required=True)
    parser.add_argument("--out", type=Path, help="JSON file; by default by GPU and date, in OUT")
    parser.add_argument("--seconds", type=float, help="for all stages; by default by the part")
    parser.add_argument("--arch", default="", help="architecture; by default the GPU's")
    parser.add_argument("--no-build", action="store_true", help="use the libraries already built")
    parser.add_argument("--dry-run", action="store_true", help="run only what needs no GPU")
    parser.add_argument("--commit", default="", help="commit of the sources, if git cannot tell")
    options = parser.parse_args(arguments)

    missing = unmet()
    if missing:
        sys.exit(f"{COMMAND} needs {missing}")
    told = describe()
    gpu = told["run"]["machine"]["gpu"]
    if "absent" in gpu and not options.dry_run:
        sys.exit(f"{COMMAND} needs a CUDA device: {gpu['absent']}. --dry-run runs what needs none.")
    dry = options.dry_run
    out = options.out or _default_out(gpu.get("name", "none"), told["run"]["date"], options)
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        listed = stages(options.part, None if dry else gpu["capability"], rows, options.arch)
        listed = [one for one in listed if not (options.no_build and one.name == BUILD)]
        suite = Suite(out, told, options.seconds or SECONDS[options.part], not dry, options.commit)
        fine = suite.run(listed, rows)
    for one in suite.outcomes:
        if one["status"] in (FAILED, TIMED_OUT):
            print(f"\n--- {one['stage']} {one['status']}:", *one["output"][-15:], sep="\n")
    print(f"\n{summary(read(out))}\n\nWritten: {out}, and the whole output next to it")
    return 0 if fine else 1


def _default_out(name: str, date: str, options: argparse.Namespace) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    time_of_day = date.replace(":", "").rstrip("Z").replace("T", "-")
    stem = f"{words}-{time_of_day}-part{options.part}.json"
    if options.dry_run:
        return ROOT / "build" / f"dry-{stem}"
    return Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results") / stem


if __name__ == "__main__":
    sys.exit(main())
