"""The GPU suite on a machine without one: its order, its limits, its file, and its own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_loss
from benchmarks.gpu import FAILED, NOT_REACHED, PASSED, SKIPPED, TIMED_OUT, Suite, execute
from benchmarks.gpu_machine import COMPARED
from benchmarks.gpu_report import summary
from benchmarks.gpu_stages import (
    BUILD,
    CUDA_TESTS,
    INSTRUCTION_TESTS,
    SANITIZERS,
    SHAPES,
    SMALL_TESTS,
    Stage,
    arch_of,
    stages,
)
from benchmarks.problems import Problem, Setting
from benchmarks.rows import CHUNKED, EAGER, FAISS_GPU, GRAPH, MATMUL, OURS, TRITON, Row, read

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
    """Code that appends a row, as the benchmarks do."""
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


def status(suite: Suite) -> dict[str, str]:
    return {one["stage"]: one["status"] for one in suite.outcomes}


# --- the stages -----------------------------------------------------------------------------------


def test_the_most_useful_comes_first() -> None:
    names = [one.name for one in stages(HOPPER, Path("rows"))]
    n, m = SHAPES[0][0]
    in_order = [
        BUILD,
        "device_instructions",
        "CUDA tests",
        f"loss {n} x {m}",
        *SANITIZERS,
        "all tests",
    ]
    assert [name for name in names if name in in_order] == in_order
    assert len(set(names)) == len(names) and not any("CPU" in name for name in names)


def test_every_command_names_files_that_are_there() -> None:
    root = gpu.ROOT
    for one in stages(None, Path("rows")):
        named = [word for word in one.command if word.startswith("tests/") or word == "setup.py"]
        there = all((root / word).exists() for word in named)
        assert there or one.missing or INSTRUCTION_TESTS[0] in one.command, one.name
        modules = [b for a, b in zip(one.command, one.command[1:], strict=False) if a == "-m"]
        for module in (m for m in modules if m != "pytest"):
            assert (root / (module.replace(".", "/") + ".py")).is_file()


def test_the_sanitizers_have_tests_of_every_kind() -> None:
    """Their expression is a string: a test that is renamed would fall out unseen."""
    command = (sys.executable, "-m", "pytest", "--collect-only", "-q", CUDA_TESTS, "-k")
    outcome, output = execute(Stage("", "", (*command, SMALL_TESTS), 300), 300)
    assert outcome == PASSED, output
    for word in ("mixed_in", "empty", "broken", "bounds"):
        assert word in SMALL_TESTS and word in output


def test_only_the_build_knows_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arch_of((9, 0)) == "9.0a+PTX" and arch_of((8, 6)) == "8.6+PTX"
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")  # the Makefile's, not this GPU's
    (build,) = (one for one in stages(HOPPER, Path("rows")) if one.name == BUILD)
    assert build.environment == {"TORCH_CUDA_ARCH_LIST": "9.0a+PTX", "USUCL_CUDA": "1"}
    (build,) = (one for one in stages(None, Path("rows")) if one.name == BUILD)
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
    suite = run([stage("tests", "")])  # --no-build: what is there is taken
    assert status(suite) == {"tests": PASSED}


def test_an_interrupt_keeps_what_there_is(run: Runner, rows: Path) -> None:
    """SIGTERM, as a time limit from outside sends it."""
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


# --- the benchmark --------------------------------------------------------------------------------


def test_every_provider_has_a_row() -> None:
    kept: list[Row] = []
    setting = Setting(16, 512, dtype="bfloat16")
    gpu_loss.measure(setting, torch.device("cpu"), 0.05, kept.append)
    found = {(row.provider, row.mode): row for row in kept}
    assert [*dict.fromkeys(row.provider for row in kept)] == list(COMPARED)
    for provider in (OURS, EAGER):
        forward, both = found[provider, "forward"], found[provider, "both"]
        assert forward.value is not None and both.value is not None
        assert forward.value < both.value and both.low <= both.value <= both.high  # type: ignore[operator]
    assert (MATMUL, "both") not in found and "CUDA" in found[GRAPH, "both"].note
    assert found[FAISS_GPU, "forward"].value is not None and (FAISS_GPU, "both") not in found
    assert "GPU" in found[TRITON, "both"].note


def test_a_sweep_varies_one_thing_at_a_time() -> None:
    base = Setting(512, 65536, dtype="bfloat16")
    varied = [asdict(one) for one in gpu_loss.sweep(base)]
    changes = [{key for key in one if one[key] != asdict(base)[key]} for one in varied]
    assert all(len(change) == 1 for change in changes)
    assert set.union(*changes) == {"n", "m", "d", "cross_k", "dtype"}


def test_nothing_is_timed_where_a_result_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_loss._loss_of_each

    def wrong(problem: Problem) -> object:
        loss, selection, gradient = right(problem)
        if problem.setting.n == 100:  # the device's call, of all anchors
            selection.cross_index[99, 0] += 1
        return loss, selection, gradient

    kept: list[Row] = []
    monkeypatch.setattr(gpu_loss, "_loss_of_each", wrong)
    with pytest.raises(AssertionError, match="cross_index: 1 of"):
        gpu_loss.measure(Setting(100, 512), torch.device("cpu"), 0.05, kept.append)
    assert not kept


def test_a_provider_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(problem: Problem) -> None:
        raise torch.OutOfMemoryError("too large by far")

    provider = replace(gpu_loss.PROVIDERS[EAGER], make=fails)  # type: ignore[arg-type]
    monkeypatch.setitem(gpu_loss.PROVIDERS, EAGER, provider)
    kept: list[Row] = []
    gpu_loss.measure(Setting(16, 512), torch.device("cpu"), 0.05, kept.append)
    (row,) = (row for row in kept if row.provider == EAGER)
    assert row.value is None and "too large" in row.note
    assert any(row.provider == CHUNKED and row.value is not None for row in kept)


# --- the command ----------------------------------------------------------------------------------


def command(*options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300,
                          cwd=gpu.ROOT)  # fmt: skip


def test_a_dry_run_runs_all_that_needs_no_gpu(tmp_path: Path) -> None:
    out = tmp_path / "dry.json"
    done = command("--dry-run", "--no-build", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    result = read(out)
    found = {one["stage"]: one["status"] for one in result.run["stages"]}
    on_cpu = ("loss on the CPU", "sweep on the CPU", "ceilings on the CPU")
    assert {found[stage] for stage in ("binary", *on_cpu)} == {PASSED}
    assert set(found.values()) <= {PASSED, SKIPPED}
    assert {row.provider for row in result.where(group="gpu")} == set(COMPARED)
    assert all(row.machine and row.versions for row in result.rows)
    assert "exists" in command("--dry-run", "--no-build", "--out", str(out)).stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    done = command("--out", str(tmp_path / "none.json"))
    assert done.returncode == 1 and not any(tmp_path.iterdir())
    assert "needs a CUDA device" in done.stderr and "--dry-run" in done.stderr


TRITON_SEARCH = """
import torch
from benchmarks.triton_search import hardest

generator = torch.Generator().manual_seed(1)
query, keys = (torch.randn(rows, 16, generator=generator) for rows in (70, 3000))
video = torch.arange(70) % 7, torch.arange(3000) % 9
value, index = hardest(query, keys, *video, 16)
similarity = (query @ keys.T).masked_fill(video[0][:, None] == video[1], -torch.inf)
expected = similarity.topk(16, dim=1)
torch.testing.assert_close(value, expected.values)
torch.testing.assert_close(similarity.gather(1, index.long()), value)
"""


def test_the_search_in_triton_finds_the_hardest() -> None:
    """In Triton's interpreter, which needs no GPU."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", TRITON_SEARCH]
    done = subprocess.run(
        command, cwd=gpu.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
