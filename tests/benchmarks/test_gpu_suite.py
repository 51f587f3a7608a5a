"""The GPU suite on a machine without a GPU: its order, limits, file and own code."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import FAILED, NOT_REACHED, PASSED, SKIPPED, TIMED_OUT, Process, Suite
from benchmarks.gpu_machine import COMPARED, GROUPS
from benchmarks.gpu_report import summary
from benchmarks.gpu_stages import (
    BUILD,
    CUDA_TESTS,
    DENSE,
    GOALS,
    SANITIZED,
    SANITIZERS,
    SECONDS,
    Stage,
    arch_of,
    stages,
)
from benchmarks.rows import (
    MATMUL,
    MMA_SYNC,
    OURS,
    Row,
    read,
)

ROW = Row("gpu", "hard_negative_nce", OURS, "both", (512, 65536, 128), "bfloat16", (3, 32),
          "random", 0, "time", 2.0, 1.0, 3.0, "ms", 20)  # fmt: skip
HOPPER = (9, 0)
MACHINE = {
    "run": {
        "machine": {
            "cpu": "a CPU",
            "gpu": {"name": "A GPU", "nvidia_smi": {"driver_version": "1.2"}},
        },
        "versions": {"usucl": "1", "torch": "2", "built_with_cuda": "13"},
        "commit": None,
        "date": "today",
    },
    "providers": {name: {"what": "", "cannot": "", "skipped": ""} for name in COMPARED},
}


def stage(name: str, code: str, **fields: object) -> Stage:
    one = Stage(name, "does something", (sys.executable, "-c", code), 60)
    return replace(one, **fields)  # type: ignore[arg-type]


def writes(rows: Path, row: Row, then: str = "") -> str:
    """Returns code that appends a row, as the benchmarks do."""
    return f"open({str(rows)!r}, 'a').write({json.dumps(asdict(row))!r} + '\\n'); {then}"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows"


Runner = Callable[..., Suite]


@pytest.fixture
def run(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Runs stages as on a machine with a GPU; the file is read back after every stage."""
    monkeypatch.setattr(gpu, "describe", lambda: MACHINE)

    def call(listed: Sequence[Stage], seconds: float = 100, has_gpu: bool = True) -> Suite:
        suite = Suite(tmp_path / "out.json", MACHINE, seconds, has_gpu, commit="abc")
        suite.run(listed, rows)
        assert read(suite.out).run["stages"] == suite.outcomes
        return suite

    return call


def execute(one: Stage) -> tuple[str, str]:
    process = Process(one, one.limit)
    while not process.done():
        time.sleep(0.01)
    return process.outcome()["status"], process.output()


def status(suite: Suite) -> dict[str, str]:
    return {one["stage"]: one["status"] for one in suite.outcomes}


# --- the stages -----------------------------------------------------------------------------------


def of_part(part: int) -> dict[str, Stage]:
    return {one.name: one for one in stages(part, HOPPER, Path("rows"))}


def test_correct_comes_before_fast_and_what_may_hang_late() -> None:
    first, second = list(of_part(1)), list(of_part(2))
    n, m = GOALS[0]
    for names, in_order in (
        (first, [BUILD, "CUDA tests, dense", f"kernels {n} x {m}", f"goals {n} x {m}", "ceilings"]),
        (second, [BUILD, f"simple {n} x {m}", "CUDA tests, mma.sync", f"mma.sync {n} x {m}",
                  *SANITIZERS, "sweep", "memcheck, mma.sync"]),
    ):  # fmt: skip
        assert [name for name in names if name in in_order] == in_order
        assert len(set(names)) == len(names) and not any("CPU" in name for name in names)
    assert not any("mma.sync" in name or "hopper" in name for name in first)


@pytest.mark.parametrize("part", SECONDS)
def test_nothing_that_is_timed_has_company(part: int) -> None:
    for one in of_part(part).values():
        assert one.shares == ("pytest" in one.command and "mma.sync" not in one.name) or (
            one.name in ("margin, wgmma", "memcheck, mma.sync") and one.shares
        )


@pytest.mark.parametrize("part", SECONDS)
def test_every_command_names_files_that_are_there(part: int) -> None:
    root = gpu.ROOT
    for one in stages(part, None, Path("rows")):
        named = [word for word in one.command if word.startswith("tests/") or word == "setup.py"]
        assert all((root / word).exists() for word in named)
        modules = [b for a, b in zip(one.command, one.command[1:], strict=False) if a == "-m"]
        for module in (m for m in modules if m != "pytest"):
            assert (root / (module.replace(".", "/") + ".py")).is_file()


def test_what_is_needed_comes_before() -> None:
    for part in SECONDS:
        seen: set[str] = set()
        for one in of_part(part).values():
            assert set(one.needs) <= seen, one.name
            seen.add(one.name)


def test_the_sanitizers_have_tests_of_every_kind() -> None:
    """Tests are chosen by a string, so a renamed one would drop out unnoticed."""
    sanitizers = [of_part(2)[tool] for tool in SANITIZERS]
    assert all(one.environment.items() >= DENSE.items() for one in sanitizers)
    command = (sys.executable, "-m", "pytest", "--collect-only", "-q", CUDA_TESTS, "-k", SANITIZED)
    outcome, output = execute(Stage("", "", command, 300))
    assert outcome == PASSED, output
    for word in ("mixed_in_one", "broken", "bounds", "crowded_keys"):
        assert word in SANITIZED and word in output


def test_only_the_build_knows_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arch_of((9, 0)) == "9.0a+PTX" and arch_of((8, 6)) == "8.6+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")  # the Makefile's, not this GPU's
    build = of_part(1)[BUILD]
    assert build.environment == {"TORCH_CUDA_ARCH_LIST": "9.0a+PTX", "USUCL_CUDA": "1"}
    (build,) = (one for one in stages(1, None, Path("rows")) if one.name == BUILD)
    assert build.environment == {"TORCH_CUDA_ARCH_LIST": "8.0", "USUCL_CUDA": "auto"}


# --- the run --------------------------------------------------------------------------------------


def test_a_run_keeps_what_every_stage_gave(run: Runner, rows: Path) -> None:
    suite = run(
        [
            stage("first", writes(rows, ROW, "print('well')")),
            stage("second", writes(rows, replace(ROW, provider=MATMUL, mode="forward"))),
            stage("absent", "", missing="no such tool"),
        ]
    )
    assert status(suite) == {"first": PASSED, "second": PASSED, "absent": SKIPPED}
    assert suite.outcomes[0]["detail"] == "well"
    result = read(suite.out)
    assert result.value(provider=OURS, mode="both") == 2.0 and len(result.rows) == 2
    words = {"machine": "A GPU, driver 1.2", "versions": "usucl 1, torch 2, CUDA 13"}
    assert result.rows[0] == replace(ROW, commit="abc", **words)  # type: ignore[arg-type]
    text = summary(result)
    assert "no such tool" in text and "2 [1, 3]" in text and "driver_version 1.2" in text


def test_a_stage_that_takes_too_long_keeps_its_rows(run: Runner, rows: Path) -> None:
    slow = writes(rows, ROW, "print('begun', flush=True); import time; time.sleep(600)")
    suite = run([stage("slow", slow, limit=3), stage("next", "")])
    assert status(suite) == {"slow": TIMED_OUT, "next": PASSED}
    assert "begun" in suite.outcomes[0]["detail"] and suite.rows[0].value == 2.0


def test_a_run_out_of_time_keeps_what_it_has(run: Runner, rows: Path) -> None:
    waits = writes(rows, ROW, "import time; time.sleep(2)")
    suite = run([stage("first", waits), stage("late", "")], seconds=gpu.SHORTEST + 1)
    assert status(suite) == {"first": PASSED, "late": NOT_REACHED}
    assert len(read(suite.out).rows) == 1


def test_a_failure_is_told_and_what_needs_it_left_out(run: Runner) -> None:
    suite = run([stage(BUILD, "raise ValueError('no compiler')", needs=()), stage("tests", "")])
    assert status(suite) == {BUILD: FAILED, "tests": SKIPPED}
    assert "no compiler" in suite.outcomes[0]["detail"]
    assert any("Traceback" in line for line in suite.outcomes[0]["output"])
    where = f"import sys; print({str(gpu.ROOT / 'csrc')!r}, sys.prefix); sys.exit(1)"
    assert run([stage("told", where)]).outcomes[0]["output"] == ["./csrc python"]
    suite = run([stage("tests", "")])  # as with --no-build, which takes the built libraries
    assert status(suite) == {"tests": PASSED}


def test_stages_that_share_run_at_the_same_time(run: Runner, tmp_path: Path) -> None:
    """Each waits for what the other writes; the third must find both ended."""
    waits = (
        "import pathlib, time; {own}.touch()\n"
        "while not {other}.exists(): time.sleep(0.01)\n"
        "time.sleep(0.2); {own}.unlink()"
    )
    names = [f"pathlib.Path({str(tmp_path / name)!r})" for name in ("a", "b")]
    pair = [
        stage(own, waits.format(own=own, other=other), shares=True, limit=20)
        for own, other in (names, names[::-1])
    ]
    alone = f"import pathlib; assert not {names[0]}.exists() and not {names[1]}.exists()"
    assert set(status(run([*pair, stage("alone", alone)])).values()) == {PASSED}


def test_what_failed_runs_once_more_alone_and_the_log_has_all(run: Runner, tmp_path: Path) -> None:
    told = (
        "import os; print('blocking', os.environ.get('CUDA_LAUNCH_BLOCKING')); raise SystemExit(1)"
    )
    again = (sys.executable, "-c", told)
    suite = run(
        [
            stage("tests", "print('long ' * 500); raise ValueError", again=again, shares=True),
            stage("beside", "", shares=True),
            stage("next", "", needs=("tests",)),
            stage("last", ""),
        ]
    )
    assert [one["stage"] for one in suite.outcomes][2:] == ["tests, again", "next", "last"]
    assert status(suite)["tests, again"] == FAILED and status(suite)["next"] == SKIPPED
    log = (tmp_path / "out.log").read_text()
    assert "blocking 1" in log and "long " * 500 in log and "===== beside" in log


def test_the_log_leaves_out_the_middle_of_what_is_too_long(run: Runner, tmp_path: Path) -> None:
    run([stage("chatty", f"print('begin', 'x' * {3 * gpu.LOGGED}, 'end')")])
    log = (tmp_path / "out.log").read_text()
    assert len(log) < 1.1 * gpu.LOGGED and "begin" in log and log.rstrip().endswith("end")


def test_an_interrupt_keeps_what_there_is(run: Runner, rows: Path) -> None:
    """SIGTERM is what an outer time limit sends."""
    stops = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    suite = run([stage("first", writes(rows, ROW)), stage("stopped", stops), stage("last", "")])
    assert status(suite) == {"first": PASSED, "stopped": NOT_REACHED, "last": NOT_REACHED}
    assert len(read(suite.out).rows) == 1


def test_without_a_gpu_stages_that_need_one_are_skipped(run: Runner) -> None:
    suite = run([stage("kernels", ""), stage("host", "", gpu=False)], has_gpu=False)
    assert status(suite) == {"kernels": SKIPPED, "host": PASSED}


def test_a_command_that_is_not_there_fails(run: Runner) -> None:
    suite = run([stage("odd", "", command=("no-such-program",))])
    assert status(suite) == {"odd": FAILED} and "no-such-program" in suite.outcomes[0]["detail"]


# --- the report -----------------------------------------------------------------------------------


def test_the_report_has_kernels_and_useful_rates() -> None:
    kernel = replace(ROW, group="kernels", op="pack", unit="us", value=12.25)
    rows = [ROW, replace(ROW, mode="forward", value=1.0), kernel,
            replace(kernel, provider=MMA_SYNC, value=7.5)]  # fmt: skip
    machine = {**MACHINE["run"], "stages": []}  # type: ignore[dict-item]
    text = summary(gpu.Result(machine, {}, rows))
    assert "| pack | 12.2 | 7.5 |" in text and "bfloat16, mma.sync |" in text
    assert f"| {2 * 512 * 65536 * 128 / 1e9:.3g} |" in text  # in 1 ms


# --- the command ----------------------------------------------------------------------------------


def command(*options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300,
                          cwd=gpu.ROOT)  # fmt: skip


@pytest.mark.parametrize(
    ("part", "dry"),
    [
        (1, {"kernels on the CPU", "goals on the CPU", "ceilings on the CPU"}),
        pytest.param(
            2, {"comparisons on the CPU", "sweep on the CPU"}, marks=pytest.mark.at_length
        ),
    ],
)
def test_a_dry_run_runs_all_that_needs_no_gpu(tmp_path: Path, part: int, dry: set[str]) -> None:
    out = tmp_path / "dry.json"
    options = ("--part", str(part), "--dry-run", "--no-build", "--out", str(out))
    done = command(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read(out)
    found = {one["stage"]: one["status"] for one in result.run["stages"]}
    assert {name for name, status in found.items() if status == PASSED} == dry
    assert set(found.values()) == {PASSED, SKIPPED}
    measured = GROUPS["goals"] if part == 1 else COMPARED
    assert {row.provider for row in result.where(group="gpu")} == set(measured)
    assert bool(result.where(group="kernels", op="all kernels")) == (part == 1)
    assert all(row.machine and row.versions for row in result.rows)
    assert {path.name for path in tmp_path.iterdir()} == {"dry.json", "dry.log"}
    with pytest.raises(SystemExit, match=r"dry\.json exists: results are never overwritten"):
        gpu.main(options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"needs a CUDA device: .* --dry-run runs what needs none"):
        gpu.main(("--part", "1", "--out", str(tmp_path / "none.json")))
    assert not any(tmp_path.iterdir())


def test_an_old_setuptools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gpu.unmet()
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda name: "75.8.0")
    assert gpu.unmet() == "setuptools 77 or newer: 75.8.0 is installed"


def test_results_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(part=2, dry_run=False)
    monkeypatch.setenv("OUT", "/somewhere")
    path = gpu._default_out("NVIDIA H100", "2026-01-02T03:04:05Z", options)
    assert path == Path("/somewhere/nvidia-h100-2026-01-02-030405-part2.json")
    monkeypatch.delenv("OUT")
    path = gpu._default_out("NVIDIA H100", "2026-01-02T03:04:05Z", options)
    assert path.parent == gpu.ROOT / "benchmarks" / "results"
