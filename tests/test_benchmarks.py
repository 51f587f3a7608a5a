"""The benchmarks refuse wrong results, write what the report reads, and count as they say."""

from __future__ import annotations

import importlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import usucl_ext
from benchmarks import harness, plots, report, suite
from benchmarks.__main__ import main
from benchmarks.harness import Step, Times, peak_extra_memory, time_in_turns
from benchmarks.problems import DTYPES, ORDERS, Problem, Setting
from benchmarks.providers import PROVIDERS
from benchmarks.rows import COMPILED, EAGER, LIGHTLY, MATMUL, OURS, SEARCH, Result, Row, read, write
from benchmarks.targets import Target, advantage, share_of_peak, targets

WORDS = {"machine": "a machine", "versions": "usucl 1", "commit": "abc"}
MAIN = ((256, 16384), (512, 65536), (1024, 65536), (256, 262144))


@pytest.fixture
def native() -> None:
    if not usucl_ext.build_info()["native"]:
        pytest.skip(f"no native kernels: {usucl_ext.build_info()['native_reason']}")


def a_row(**fields: object) -> Row:
    row = Row("shapes", suite.OP, OURS, "both", (512, 65536, 128), "float32", (3, 32), "random", 2,
              "time", 100.0, 90.0, 110.0, "ms", 20, **WORDS)  # fmt: skip
    return replace(row, **fields)  # type: ignore[arg-type]


def a_result(rows: list[Row], **run: object) -> Result:
    """A run on two threads, whose providers are all there."""
    facts = {"cpu": "a CPU", "cores": 2, "threads": 2, "features": [], "cpu_capability": "avx2",
             "torch_cpu_capability": "AVX2", "load_before": 0.1, "settings": {}}  # fmt: skip
    head = {"machine": facts, "versions": {"usucl": "1", "torch": "2"}, "commit": "abc",
            "date": "today", "quick": False, "cores_of_others": 0.1, **run}  # fmt: skip
    told = {name: {"what": "", "cannot": "", "skipped": ""} for name in PROVIDERS}
    return Result(head, told, rows)


def made_up() -> Result:
    """Every figure that has a goal: ours 100 ms at 65536 keys, others a known multiple."""
    peak = a_row(group="machine", op="fma_peak", provider="machine", mode="", shape=(0, 0, 0),
                 metric="rate", value=100.0, unit="GFLOP/s")  # fmt: skip
    rows = [peak]
    multiples = {MATMUL: 2.0, EAGER: 12.0, SEARCH: 6.0}
    for shape in (*MAIN, (32, 65536), (32, 96)):
        one = a_row(shape=(*shape, 128))
        rows += [one, replace(one, metric="memory", value=shape[0] / 16, unit="MiB")]
        for provider, multiple in multiples.items():
            theirs = replace(one, provider=provider, value=100.0 * multiple)
            rows += [theirs if provider == EAGER else replace(theirs, mode="forward")]
            rows += [replace(theirs, metric="ratio", value=multiple, unit="x", versus=OURS)]
    rows += _sweep("k", [{"k": (3, k)} for k in (4, 32, 256)], [1.1, 1.2])
    rows += _sweep("dtype", [{"dtype": name} for name in DTYPES], [0.5, 0.7])
    rows += _sweep("order", [{"order": name} for name in ORDERS], [1.5, 1.0, 2.5, 1.1])
    varied = {"N": ((64, 65536, 128), (512, 65536, 128)), "D": ((512, 65536, 64),)}
    for group, shapes in varied.items():
        one = [a_row(group=group, shape=shape) for shape in shapes]
        rows += one + [replace(row, provider=MATMUL, mode="forward") for row in one]
    return a_result(rows)


def _sweep(group: str, changes: list[dict[str, object]], ratios: list[float]) -> list[Row]:
    times = [a_row(group=group, **change) for change in changes]
    relative = [replace(row, metric="ratio", unit="x", value=ratio, versus=group)
                for row, ratio in zip(times[1:], ratios, strict=True)]  # fmt: skip
    return times + relative


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
    assert report.markdown(result).strip() == shown.strip() and "| 8 x 100 |" in shown
    with pytest.raises(SystemExit, match="never overwritten"):
        main(["--quick", "--out", str(out)])


def test_results_survive_the_file(tmp_path: Path) -> None:
    write(result := made_up(), path := tmp_path / "folder" / "a.json")
    assert read(path) == result
    with pytest.raises(FileExistsError):
        write(result, path)
    with pytest.raises(ValueError, match="rows of one run, got 2"):
        write(a_result([a_row(), a_row(commit="other")]), tmp_path / "b.json")
    content = json.loads(path.read_text())
    for change, message in (
        ({"schema": 1}, "expected a result file of schema 2, got 1"),
        ({"rows": [{"op": "x"}]}, "row 0: missing or unknown fields"),
        ({"rows": [{**content["rows"][0], "metric": "x"}]}, "expected a metric of"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=message):
            read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read(path)


def test_figures_are_computed_from_the_rows() -> None:
    result = made_up()
    share = share_of_peak(result, a_row(value=100.0))
    assert share == pytest.approx(100 * 2 * 512 * 65536 * 128 / 0.1 / 100e9)
    assert share_of_peak(result, a_row(threads=1)) is None  # no peak on one thread
    assert advantage(result, (512, 65536), EAGER) == 12
    goals = {goal.what: goal for goal in targets(result)}
    share_at = goals["share of the float32 FMA peak, 512 x 65536"]
    assert share_at.figure == share and share_at.verdict == "met"
    assert goals["share of the float32 FMA peak, 256 x 16384"].verdict == "not met"
    mean = goals["time over torch.mm alone, geometric mean of four"]
    assert mean.figure == pytest.approx(0.5) and mean.verdict == "met"
    assert goals["eager's time over usucl's, 256 x 16384"].verdict == "met"  # 12, at least 10
    assert goals["eager's time over usucl's, 512 x 65536"].verdict == "not met"  # at least 15
    assert goals["FAISS search's time over usucl's, 512 x 65536"].verdict == "met"
    assert goals["time over eager, 32 x 96"].figure == pytest.approx(1 / 12)
    assert goals["slowest k up to 256 over k = 4, 512 x 65536"].figure == 1.2
    assert goals["keys one video over random order, 512 x 65536"].verdict == "not met"
    assert goals["peak extra memory, any shape"].figure == 64
    assert "does not apply" in goals["bfloat16 over float32 time, 512 x 65536"].verdict
    result.run["machine"]["features"].append("avx512_bf16")
    assert {goal.verdict for goal in targets(result) if "bfloat16" in goal.what} == {"met"}


def test_goals_of_what_was_not_measured() -> None:
    assert {goal.verdict for goal in targets(a_result([])) if not goal.note} == {"not measured"}
    assert Target("", 1.0, 1.0, True, "x").verdict == "met"
    assert Target("", math.nextafter(1.0, 0), 1.0, True, "x").verdict == "not met"


def test_the_report_shows_where_others_are_faster_and_why_figures_are_missing() -> None:
    lost = a_row(provider=EAGER, metric="ratio", value=0.52, unit="x", versus=OURS)
    failed = a_row(provider=COMPILED, value=None, note="TimeoutError: took longer than 90 s")
    result = a_result([a_row(), lost, failed])
    result.providers[LIGHTLY]["skipped"] = "lightly is not installed"  # type: ignore[index]
    text = report.markdown(result)
    assert "| **usucl** | 100 ms |" in text and "| eager | **0.52 x** |" in text
    assert f"{COMPILED} at 512 x 65536: TimeoutError: took longer than 90 s" in text
    assert "lightly is not installed" in text and "not part of this run" in text
    assert "This system does not tell." in text  # no row of memory
    assert "Not to be trusted" not in text
    assert "programs took 0.9 cores during" in report.markdown(
        a_result([a_row()], cores_of_others=0.9)
    )


def test_the_readme_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "results" / "a.json"
    write(made_up(), file)
    readme.write_text(f"before\n\n{report.BEGIN}\nstale\n{report.END}\n\nafter\n")
    command = [str(file), "--readme", str(readme), "--out", str(tmp_path / "pictures")]
    assert report.main(command) == 0
    text = readme.read_text()
    assert text.startswith(f"before\n\n{report.BEGIN}")
    assert text.endswith(f"{report.END}\n\nafter\n") and "stale" not in text
    assert "| eager | 12 x |" in text and "(results/a.json)" in text
    assert "](pictures/a-shapes.png)" in text
    assert report.main(command) == 0 and readme.read_text() == text
    readme.write_text("no markers")
    assert report.main(command) == 1 and readme.read_text() == "no markers"
    assert report.main([str(tmp_path / "missing.json")]) == 1


def test_pictures_of_a_result(tmp_path: Path) -> None:
    pictures = plots.draw(made_up(), tmp_path, "a")
    assert [path.name for path in pictures.values()] == ["a-shapes.png", "a-sweeps.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures.values())
    without_peak = [row for row in made_up().rows if row.group in ("shapes", "N")]
    assert len(plots.draw(a_result(without_peak), tmp_path, "b")) == 2
    assert not plots.draw(a_result([]), tmp_path, "c")


def test_committed_results_are_readable() -> None:
    for path in (Path(report.__file__).parent / "results").glob("*.json"):
        text = report.markdown(read(path))
        assert MATMUL in text or "| stage |" in text  # of the GPU suite, cut short before that
