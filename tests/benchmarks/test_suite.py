"""The benchmarks refuse wrong results and count as they say."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from results import MAIN, WORDS, a_row

import usucl_ext
from benchmarks import harness, report, suite
from benchmarks.__main__ import main
from benchmarks.harness import Step, Times, peak_extra_memory, time_in_turns
from benchmarks.problems import DTYPES, ORDERS, Problem, Setting
from benchmarks.providers import PROVIDERS
from benchmarks.rows import COMPILED, EAGER, LIGHTLY, MATMUL, OURS, SEARCH, Row, read


@pytest.fixture
def native() -> None:
    if not usucl_ext.build_info()["native"]:
        pytest.skip(f"no native kernels: {usucl_ext.build_info()['native_reason']}")


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_computes_what_it_must(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if PROVIDERS[name].skipped():
        pytest.skip(PROVIDERS[name].skipped())
    if name == OURS:
        request.getfixturevalue("native")
    if name == COMPILED:  # the same graph, without half a minute in the C++ compiler
        compiled = torch.compile
        monkeypatch.setattr(torch, "compile", lambda f: compiled(f, backend="aot_eager"))
    suite.check([name])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ours_is_checked_in_every_dtype(native: None, dtype: str) -> None:
    suite.check([OURS], replace(suite.CHECKED, dtype=dtype))


def test_the_checked_problem_leaves_no_choice_to_rounding() -> None:
    setting = suite.CHECKED
    problem = Problem.make(setting)
    query, key = problem.anchors.embedding.detach().double(), problem.keys.embedding.double()
    same = problem.anchors.video[:, None] == problem.keys.video
    gap = (problem.anchors.time[:, None] - problem.keys.time).abs()
    inside = same & (gap > 0) & (gap >= 0.2) & (gap <= 0.8)
    roundings = 2 * setting.d * torch.finfo(torch.float32).eps
    for group, k in ((inside, setting.intra_k), (~same, setting.cross_k), (~same, 1)):
        last = (query @ key.T).masked_fill(~group, -9.0).topk(k + 1).values[:, k - 1 :]
        assert (last[:, 0] - last[:, 1])[last[:, 0] > -9].min() > roundings
    assert (inside.sum(1) > setting.intra_k).any()


@pytest.mark.parametrize(("factor", "shift", "what"), [(1.01, 0.0, "loss"), (0.0, 1.0, "gradient")])
def test_a_wrong_provider_is_found(
    monkeypatch: pytest.MonkeyPatch, factor: float, shift: float, what: str
) -> None:
    def make(problem: Problem) -> Step:
        right = PROVIDERS[EAGER].make(problem)
        value = right.forward().detach()
        return Step(lambda: right.forward() * factor + shift * value, right.leaf)

    monkeypatch.setitem(suite.PROVIDERS, "wrong", replace(PROVIDERS[EAGER], make=make))
    with pytest.raises(AssertionError, match=f"{what} of wrong is off"):
        suite.check(["wrong"])
    entries = {"wrong": suite.Entry("wrong", Setting(8, 200))}
    if what == "loss":
        with pytest.raises(AssertionError, match="loss of wrong"):
            list(suite.Suite(0, WORDS).run(suite.Case("shapes", entries)))


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_what_they_are_called(order: str) -> None:
    problem = Problem.make(Setting(16, 1920, order=order))
    keys, query = problem.keys, problem.anchors.embedding.detach()
    for embedding in (query, keys.embedding, problem.positives):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
    similarity, neighbours = query @ keys.embedding.T, keys.embedding[1:] * keys.embedding[:-1]
    if order == "ascending":
        assert (similarity.diff(dim=1) > 0).all()
    elif order == "all equal":
        assert (keys.embedding == keys.embedding[0]).all()
    elif order == "one video":
        assert not keys.video.any() and not problem.anchors.video.any()
    elif order == "correlated":
        within = keys.video.diff() == 0
        assert neighbours.sum(1)[within].min() > 0.9 > neighbours.sum(1)[~within].mean()
        assert (keys.time.diff()[within] > 0).all() and (keys.video.diff() >= 0).all()
    else:
        assert similarity.abs().max() < 0.6 and len(keys.video.unique()) == 640


def test_a_row_counts_what_was_measured() -> None:
    row = Row("bank", "search", "x", "forward", (1, 1, 1), "float32", (0, 1), "random", 1,
              "time", None, None, None, "ms", 0)  # fmt: skip
    told = row.with_figures([1.0, np.nan, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (told.value, told.low, told.high, told.repeats) == (3.5, 2.0, 5.0, 6)
    silent = row.with_figures([np.nan], absent="never in the same round")
    assert silent == replace(row, note="never in the same round")


def test_providers_take_turns_and_slow_ones_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now = list[str](), [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr(harness, "time", clock)

    def step(name: str, seconds: float) -> Step:
        def forward() -> None:
            calls.append(name)
            now[0] += seconds

        return Step(forward)

    steps = {"tiny": step("tiny", 0.001), "slow": step("slow", 2.0)}
    times = time_in_turns(steps, seconds=1.0, rounds=9)
    assert np.flatnonzero(np.isfinite(times["slow"].forward)).tolist() == [0, 4, 8]
    assert np.nanmax(times["slow"].forward) == pytest.approx(2000)
    assert times["tiny"].forward == pytest.approx(np.ones(9))
    turn = [*["tiny"] * 3, "slow"]  # a sample of the tiny one is three calls
    assert calls[3:] == [*turn, *["tiny"] * 9] * 2 + turn


def test_backward_is_timed_alone_and_leaves_no_gradient() -> None:
    leaf = torch.ones(3, requires_grad=True)
    seen: list[object] = []

    def forward() -> torch.Tensor:
        seen.append(leaf.grad)
        return (leaf * 2).sum()

    times = time_in_turns({"a": Step(forward, leaf)}, seconds=0, rounds=3)["a"]
    assert (times.backward > 0).all() and leaf.grad is None and not any(seen)
    assert np.array_equal(times.mode("both"), times.forward + times.backward)


def test_peak_memory_sees_what_is_freed_again_but_not_the_gradient() -> None:
    leaf = torch.ones(8 * 2**20, requires_grad=True)  # 32 MiB

    def step() -> torch.Tensor:
        torch.ones(16 * 2**20).sum()  # 64 MiB
        return leaf.sum()

    peak = peak_extra_memory(Step(step, leaf))
    if peak is None:
        pytest.skip("this system does not tell its memory")
    assert 30 <= peak <= 70  # the gradient's 32 are there when those 64 are not


def test_the_fma_peak_adds_up_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usucl_ext, "_C", SimpleNamespace(fma_peak=lambda seconds: 50 * seconds))
    assert harness.fma_peak(3, seconds=2.0) == 300
    monkeypatch.setattr(usucl_ext, "_C", None)
    with pytest.raises(LookupError, match="fma_peak is not there"):
        harness.fma_peak(1)


def test_a_time_limit_stops_what_takes_too_long() -> None:
    with pytest.raises(TimeoutError, match="took longer"), harness.time_limit(0.01):
        while True:
            time.sleep(0.001)


def test_what_is_not_installed_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    reasons = suite.skipped()
    assert {SEARCH, LIGHTLY} <= set(reasons) and not {OURS, EAGER, MATMUL} & set(reasons)
    assert "No module named 'lightly'" in reasons[LIGHTLY] and "extra 'bench'" in reasons[LIGHTLY]
    case = suite.Case("shapes", {LIGHTLY: suite.Entry(LIGHTLY, Setting(8, 100))})
    assert not list(suite.Suite(0, WORDS, reasons).run(case))


def test_a_case_gives_times_paired_ratios_memory_and_reasons(
    native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(problem: Problem) -> Step:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setitem(suite.PROVIDERS, COMPILED, replace(PROVIDERS[COMPILED], make=broken))
    monkeypatch.setitem(suite.PROVIDERS, EAGER, replace(PROVIDERS[EAGER], pair_bytes=2**50))
    names = (OURS, MATMUL, "chunked eager", EAGER, COMPILED)
    case = suite._of_providers("shapes", Setting(8, 300), names, memory=True)
    rows = list(suite.Suite(0, WORDS).run(case))
    assert all(row.machine == "a machine" for row in rows)
    told = {(row.provider, row.mode, row.metric) for row in rows if row.value is not None}
    modes = ("forward", "backward", "both")
    assert {(OURS, mode, "time") for mode in modes} <= told
    assert {("chunked eager", mode, "ratio") for mode in modes} <= told
    assert {m for p, m, metric in told if (p, metric) == (MATMUL, "ratio")} == {"forward", "both"}
    assert {row.provider for row in rows if row.metric == "memory"} == {OURS, "chunked eager"}
    assert all(r.low <= r.value <= r.high for r in rows if r.value is not None)  # type: ignore[operator]
    notes = {row.provider: row.note for row in rows if row.note and row.metric == "time"}
    assert notes[COMPILED] == "RuntimeError: no compiler"
    assert "needs about" in notes[EAGER] and set(notes) == {COMPILED, EAGER}


def test_ratios_are_paired_by_round() -> None:
    ours = Times(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0]))
    theirs = Times(np.array([3.0, np.nan, 12.0]), np.array([1.0, np.nan, 4.0]))
    found = {row.mode: row.value for row in suite._ratios(a_row(), theirs, ours, True)}
    assert found == {"forward": 3.0, "backward": 1.0, "both": 2.0}
    found = {row.mode: row.value for row in suite._ratios(a_row(), theirs, ours, False)}
    assert found == {"forward": 3.0, "both": 1.5}


def test_the_full_run_has_what_the_goals_need() -> None:
    cases = suite.full()
    shapes = {next(iter(case.entries.values())).setting.shape[:2] for case in cases
              if case.group == "shapes" and len(case.entries) == len(PROVIDERS)}  # fmt: skip
    assert {*MAIN, (32, 65536), (32, 96)} <= shapes
    varied = {case.group: len(case.entries) for case in cases}
    assert varied["k"] == 7 and varied["order"] == len(ORDERS) and varied["dtype"] == 3
    assert {"N", "M", "D", "threads"} <= set(varied)


def test_a_run_is_written_read_and_shown(
    native: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = (OURS, MATMUL, EAGER)
    small = [suite._of_providers("shapes", Setting(n, m), names, memory=True)
             for n, m in ((8, 100), (16, 300))]  # fmt: skip
    small += [suite._of_ours("k", Setting(8, 300), "cross_k", (4, 8))]
    monkeypatch.setattr(suite, "quick", lambda: small)
    monkeypatch.setattr("benchmarks.__main__.QUICK_SECONDS", 0)
    monkeypatch.setattr(usucl_ext._C, "fma_peak", lambda seconds: 50.0, raising=False)
    out = tmp_path / "result.json"
    assert main(["--quick", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    result = read(out)
    assert result.run["quick"] and {"cpu", "cores", "threads"} <= set(result.run["machine"])
    content = json.loads(out.read_text())
    asked = {"op", "provider", "mode", "shape", "dtype", "k", "value", "unit"}
    assert all(asked <= set(row) for row in content["rows"])
    assert set(content["every_row"]) == {"machine", "versions", "commit"}
    assert all(f"torch {torch.__version__}" in row.versions for row in result.rows)
    assert result.value(op="fma_peak") == 50.0 * torch.get_num_threads()
    assert result.where(op="copy")[0].unit == "GB/s"
    assert "8 x 100" in shown and f"Results: {out}" in shown
    assert not any(mark in shown for mark in ("goal", "Goal", "**", "|"))
    assert "| 8 x 100 |" in report.markdown(result)
    with pytest.raises(SystemExit, match="never overwritten"):
        main(["--quick", "--out", str(out)])
    with pytest.raises(SystemExit, match="cannot be written"):
        main(["--quick", "--out", "/proc/result.json"])
