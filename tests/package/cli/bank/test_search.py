"""``usucl bank search``: by frame, image and slot, and its messages about impossible searches."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from shell import bank_json, stderr_line, write_run

from usucl.cli import main


def test_search_by_frame_image_and_slot(
    bank: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    query = f"{videos / 'b'}@1"
    answer = bank_json(capsys, "search", str(bank), query, "--k", "3", "--out", str(sheet))
    found = answer["neighbours"]
    assert [n["rank"] for n in found] == [1, 2, 3]
    assert (found[0]["video"], found[0]["frame"]) == ("b", 1)
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert Image.open(sheet).width > 500
    image = bank_json(capsys, "search", str(bank), str(videos / "b" / "1.png"), "--k", "3")
    assert image["neighbours"] == found
    slot = bank_json(capsys, "search", str(bank), "--slot", "5", "--k", "30")
    assert slot["query"] == "b @1" and slot["searched"] == 18
    assert sorted(n["slot"] for n in slot["neighbours"]) == [s for s in range(19) if s != 5]
    assert main(["bank", "search", str(bank), "--slot", "5", "--one-per-video"]) == 0
    assert "Nearest to b @1 of 18 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{b}@4"], "has 4 frames"),
        (["{b}", "--k", "0"], "k must be at least 1"),
        (["{b}/1.png@0"], "must have no frame number"),
        (["{b}/9.png"], "no such file"),
        (["--slot", "19"], "slot must be 0 to 18"),
        (["--slot", "0", "--video", "aa"], "no video 'aa'; did you mean a?"),
        (["--slot", "0", "--exclude-video", "zz"], "it has a, b, c, d, e"),
        (["--slot", "0", "--label", "Stones"], "no label 'Stones'; did you mean stone?"),
        (["--slot", "0", "--patient", "p9"], "no patient 'p9'; it has p1, p2, p3"),
        (["--slot", "0", "--time", "0.5"], "LO HI"),
        (["--slot", "0", "--time", "0.5", "0.4"], "LO <= HI"),
        (
            ["--slot", "0", "--video", "a", "--label", "stone"],
            "nothing is left to search: 19 frames, 4 after --video, 0 after --label",
        ),
        (["--slot", "0", "--video", "a", "--time", "0", "0.1"], "only the slot itself"),
    ],
)
def test_a_search_that_cannot_be(
    words: list[str], said: str, bank: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [word.format(b=videos / "b") for word in words]
    assert main(["bank", "search", str(bank), *named]) == 2
    assert said in stderr_line(capsys)


def test_a_bank_is_searched_with_its_own_encoder(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, run = tmp_path / "bank", write_run(tmp_path / "run")
    assert main(["bank", "build", str(run), str(videos), "--out", str(bank)]) == 0
    other = write_run(tmp_path / "other", seed=1)
    capsys.readouterr()
    search = ["bank", "search", str(bank), str(videos / "a")]
    assert main([*search, "--run", str(other)]) == 2
    assert "not the one that made the bank" in stderr_line(capsys)
    run.rename(tmp_path / "moved")
    assert main(search) == 2
    assert "--run" in stderr_line(capsys)
    assert main([*search, "--run", str(tmp_path / "moved")]) == 0
