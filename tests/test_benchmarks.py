"""The benchmarks run, write what the report reads, and refuse to measure wrong results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import bench_loss, report
from benchmarks.__main__ import main
from benchmarks.harness import Row, machine, peak_extra_memory, record, time_in_turns

FIELDS = set(Row.__dataclass_fields__)


@pytest.fixture(autouse=True)
def _native() -> None:
    facts = machine()
    if facts["cpu_capability"] is None:
        pytest.skip("no native kernels")


def test_all_providers_agree() -> None:
    bench_loss.check()


def test_a_wrong_provider_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        bench_loss.LOSSES, "usucl", lambda a, p, k: bench_loss.whole_eager(a, p, k) * 1.01
    )
    with pytest.raises(AssertionError, match="loss of usucl"):
        bench_loss.check()


def test_rows_and_their_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_loss, "QUICK_SHAPES", ((8, 24), (16, 100)))
    monkeypatch.setattr(bench_loss, "MAX_EAGER_PAIRS", 1000)
    monkeypatch.setattr("benchmarks.__main__.QUICK_SECONDS", 0)
    out = tmp_path / "result.json"
    assert main(["--quick", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert {"cpu", "cores", "threads", "commit", "versions", "cpu_capability"} <= set(
        result["machine"]
    )
    assert all(set(row) == FIELDS for row in result["rows"])
    times = [row for row in result["rows"] if row["metric"] == "time"]
    assert {(row["shape"]["M"], row["provider"]) for row in times} == {
        (m, name) for m in (24, 100) for name in ("usucl", "torch.mm", "chunked eager", "eager")
    } - {(100, "eager")}
    assert all(row["low"] <= row["median"] <= row["high"] for row in result["rows"])
    assert all(row["repeats"] >= 3 for row in times)
    assert table.strip() == report.markdown(result).strip()
    assert "| 8 x 24 |" in table and "| 16 x 100 |" in table

    with pytest.raises(SystemExit, match="never overwritten"):
        main(["--quick", "--out", str(out)])


def test_committed_results_are_readable() -> None:
    results = sorted((Path(report.__file__).parent / "results").glob("*.json"))
    assert results
    for path in results:
        assert "torch.mm" in report.markdown(json.loads(path.read_text()))


def test_providers_take_turns() -> None:
    calls: list[str] = []
    steps = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}
    times = time_in_turns(steps, seconds=0, max_repeats=3)
    assert calls == ["a", "b"] * 4  # one round is not counted
    assert [len(values) for values in times.values()] == [3, 3]


def test_peak_memory_sees_what_a_call_frees_again() -> None:
    def step() -> None:
        torch.ones(64 * 2**20 // 4).sum()

    peak = peak_extra_memory(step)
    if peak is None:
        pytest.skip("this system does not tell its memory")
    assert 60 <= peak <= 80


def test_a_result_without_memory_has_a_report() -> None:
    shape = {"N": 8, "M": 24, "D": 128, "intra_k": 3, "cross_k": 32}
    row = Row("op", "usucl", "forward", shape, "float32", "time", "ms", 1.0, 0.5, 2000.0, 3)
    text = report.markdown(record(machine(), [row]))
    assert "1 [0.5, 2000]" in text and "memory" not in text
