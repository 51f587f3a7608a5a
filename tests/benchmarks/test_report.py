"""Result files, the figures made from their rows, the report and the pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from results import a_result, a_row, made_up

from benchmarks import plots, report
from benchmarks.rows import COMPILED, EAGER, LIGHTLY, MATMUL, OURS, read, write
from benchmarks.targets import Target, advantage, share_of_peak, targets


def test_results_survive_the_file(tmp_path: Path) -> None:
    write(result := made_up(), path := tmp_path / "folder" / "a.json")
    assert read(path) == result
    with pytest.raises(FileExistsError):
        write(result, path)
    with pytest.raises(ValueError, match="rows must be of one run, got 2"):
        write(a_result([a_row(), a_row(commit="other")]), tmp_path / "b.json")
    content = json.loads(path.read_text())
    for change, message in (
        ({"schema": 1}, "must be a result file of schema 2, got 1"),
        ({"rows": [{"op": "x"}]}, "row 0: missing or unknown fields"),
        ({"rows": [{**content["rows"][0], "metric": "x"}]}, "metric must be one of"),
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


@pytest.mark.parametrize("option", ["--page", "--readme"])
def test_the_block_is_replaced_and_nothing_else(option: str, tmp_path: Path) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "results" / "a.json"
    write(made_up(), file)
    readme.write_text(f"before\n\n{report.BEGIN}\nstale\n{report.END}\n\nafter\n")
    command = [str(file), option, str(readme), "--out", str(tmp_path / "pictures")]
    assert report.main(command) == 0
    text = readme.read_text()
    assert text.startswith(f"before\n\n{report.BEGIN}")
    assert text.endswith(f"{report.END}\n\nafter\n") and "stale" not in text
    assert "| eager | 12 x |" in text and "(results/a.json)" in text
    assert ("](pictures/a-shapes.png)" in text) is (option == "--page")
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


def test_the_ticks_of_a_picture_are_plain_text() -> None:
    """The style draws a dollar as a dollar, so formulas of ticks would be shown as source."""
    with plots.styled():
        for figure in (plots._shapes(made_up()), plots._sweeps(made_up())):
            assert figure is not None
            figure.canvas.draw()
            ticks = [
                t for axes in figure.axes for t in axes.get_xticklabels() + axes.get_yticklabels()
            ]
            assert ticks and not any("$" in tick.get_text() for tick in ticks)


def test_committed_results_are_readable() -> None:
    for path in (Path(report.__file__).parent / "results").glob("*.json"):
        text = report.markdown(read(path))
        assert MATMUL in text or "| stage |" in text  # of the GPU suite, cut short before that
