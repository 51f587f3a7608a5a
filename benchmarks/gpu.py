"""Everything that only a GPU can tell, in one command: ``python -m benchmarks.gpu``.

Builds for the GPU that is there, runs the CUDA tests, compute-sanitizer and the benchmarks of the
loss, each as a process of its own, and writes a result file as ``benchmarks/rows.py`` describes it,
with ``stages`` in its ``run``. The file is complete after every stage, so a run that is cut short
keeps what it has. Needs Python with torch, numpy, pytest, hypothesis and setuptools, a C++ compiler
and nvcc; no network.
"""

from __future__ import annotations

import argparse
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
from benchmarks.gpu_stages import BUILD, ROOT, Stage, stages
from benchmarks.rows import Result, Row, read, write

COMMAND = "python -m benchmarks.gpu"
SECONDS = 540.0
SHORTEST = 5.0  # seconds that a stage is still begun with
MODULES = ("torch", "numpy", "pytest", "hypothesis", "setuptools")
KEPT_LINES = 60  # of the output of a stage that did not pass
PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"
SKIPPED, NOT_REACHED = "skipped", "not reached"


@dataclass
class Suite:
    """A run: its stages one after the other, and the file that grows with them.

    Attributes:
        out: result file; written anew after every stage.
        machine: ``run`` and ``providers`` as :func:`describe` told them at the start.
        seconds: for all stages together.
        has_gpu: whether stages that need one are run.
        commit: of the sources, where git cannot tell.
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
        """Whether no stage failed; rows that a stage appends to the file ``rows`` are kept."""
        waiting = list(listed)
        try:
            with _stopped_as_interrupt():
                while waiting:
                    stage = waiting[0]
                    print(f"--- {stage.name}: {stage.what}", flush=True)
                    outcome = self._run(stage)
                    waiting.pop(0)
                    self._keep(stage, outcome, rows)
                    if stage.name == BUILD:
                        self._describe()  # what was built is known now
        except KeyboardInterrupt:
            for stage in waiting:
                self._keep(stage, {"status": NOT_REACHED, "detail": "interrupted"}, rows)
        if self.has_gpu:
            self._describe()  # with the clocks at the end
        self._save()
        return all(one["status"] in (PASSED, SKIPPED, NOT_REACHED) for one in self.outcomes)

    def _run(self, stage: Stage) -> dict[str, Any]:
        left = self.seconds - (time.monotonic() - self._begun)
        found = {one["stage"]: one["status"] for one in self.outcomes}
        broken = [name for name in stage.needs if found.get(name, PASSED) != PASSED]
        if stage.missing or (stage.gpu and not self.has_gpu):
            return {"status": SKIPPED, "detail": stage.missing or "no CUDA device"}
        if broken:
            return {"status": SKIPPED, "detail": f"needs {', '.join(broken)}, which did not pass"}
        if left < SHORTEST:
            return {"status": NOT_REACHED, "detail": f"of {self.seconds:g} s none were left"}
        limit = min(stage.limit, left)
        start = time.monotonic()
        status, output = execute(stage, limit)
        lines = [line for line in output.splitlines() if line.strip()]
        detail = lines[-1].strip() if lines else ""
        outcome = {"status": status, "seconds": round(time.monotonic() - start, 1)}
        if status == TIMED_OUT:
            detail = f"after {limit:.0f} s; last said: {detail}"
        if status != PASSED:
            outcome["output"] = lines[-KEPT_LINES:]
        return outcome | {"detail": detail[:200]}

    def _keep(self, stage: Stage, outcome: dict[str, Any], rows: Path) -> None:
        self.outcomes.append({"stage": stage.name, "what": stage.what, **outcome})
        known = len(self.rows)
        self.rows += _read(rows)[known:]
        print(f"    {outcome['status']}: {outcome['detail']}", flush=True)
        self._save()

    def _describe(self) -> None:
        """The machine as it is now; as it was told before where that fails, for the file's sake."""
        try:
            self.machine = describe()
        except RuntimeError as error:
            print(error, file=sys.stderr)

    def _save(self) -> None:
        """In one step: whoever reads the file meanwhile finds it whole."""
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


def execute(stage: Stage, limit: float) -> tuple[str, str]:
    """Status and output of a stage's command; it and all it started are ended at the limit."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        try:
            process = subprocess.Popen(
                list(stage.command),
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **stage.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return FAILED, f"{stage.command[0]}: {error}"
        try:
            status = PASSED if process.wait(limit) == 0 else FAILED
        except subprocess.TimeoutExpired:
            status = TIMED_OUT
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        # The file is there to be published: without where this machine keeps things.
        return status, output.read().replace(sys.prefix, "python").replace(str(ROOT), ".")


@contextmanager
def _stopped_as_interrupt() -> Iterator[None]:
    """SIGTERM, which time limits send, ends the run as Ctrl-C does: what there is is kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(rows: Path) -> list[Row]:
    """The whole lines of a file of rows; the last may have been cut off."""
    lines = rows.read_text(encoding="utf-8").split("\n")[:-1] if rows.exists() else []
    given = [json.loads(line) for line in lines]
    return [Row(**{**one, "shape": tuple(one["shape"]), "k": tuple(one["k"])}) for one in given]


def describe() -> dict[str, Any]:
    """``run`` and ``providers`` of the result file, asked of a process of its own.

    Raises:
        RuntimeError: it fails, with what it says.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_machine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def in_words(run: dict[str, Any]) -> dict[str, Any]:
    """Machine, versions and commit as every row has them."""
    gpu, versions = run["machine"]["gpu"], run["versions"]
    told = gpu.get("nvidia_smi")
    driver = f", driver {told['driver_version']}" if isinstance(told, dict) else ""
    named = {"usucl": "usucl", "torch": "torch", "built_with_cuda": "CUDA"}
    return {
        "machine": f"{gpu['name']}{driver}" if "name" in gpu else str(run["machine"]["cpu"]),
        "versions": ", ".join(f"{word} {versions[k]}" for k, word in named.items() if versions[k]),
        "commit": run["commit"] or "",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where a stage failed or took too long. Exits where something is missing."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file; by default by GPU and date")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    parser.add_argument("--arch", default="", help="to build for; by default the GPU's")
    parser.add_argument("--no-build", action="store_true", help="take the libraries that are there")
    parser.add_argument("--dry-run", action="store_true", help="what runs without a GPU, there")
    parser.add_argument("--commit", default="", help="of the sources, where git cannot tell")
    options = parser.parse_args(arguments)

    absent = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"{COMMAND} needs {', '.join(absent)}: not installed for {sys.executable}")
    told = describe()
    gpu = told["run"]["machine"]["gpu"]
    if "absent" in gpu and not options.dry_run:
        sys.exit(f"{COMMAND} needs a CUDA device: {gpu['absent']}. --dry-run runs what needs none.")
    dry = options.dry_run
    out = options.out or _default_out(gpu.get("name", "none"), told["run"]["date"], dry)
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        listed = stages(None if dry else gpu["capability"], rows, options.arch)
        listed = [one for one in listed if not (options.no_build and one.name == BUILD)]
        suite = Suite(out, told, options.seconds, not dry, options.commit)
        fine = suite.run(listed, rows)
    for one in suite.outcomes:
        if one["status"] in (FAILED, TIMED_OUT):
            print(f"\n--- {one['stage']} {one['status']}:", *one["output"], sep="\n")
    print(f"\n{summary(read(out))}\n\nWritten: {out}")
    return 0 if fine else 1


def _default_out(name: str, date: str, dry: bool) -> Path:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    stem = f"{words}-{date.replace(':', '').rstrip('Z').replace('T', '-')}.json"
    return ROOT / ("build" if dry else "benchmarks/results") / (f"dry-{stem}" if dry else stem)


if __name__ == "__main__":
    sys.exit(main())
