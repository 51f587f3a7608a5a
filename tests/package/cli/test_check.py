"""``usucl data check``: warnings, JSON and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit
from tiny_dicom import write as write_dicom
from tiny_videos import moving

from tests.helpers.shell import write_video
from usucl.cli import main


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """Three videos, of which one is a copy of another patient's."""
    folder = tmp_path / "videos"
    for seed, name in enumerate(("a", "b")):
        write_video(folder / name, seed)
    shutil.copytree(folder / "a", folder / "copy")
    (folder / "broken.avi").write_bytes(b"")
    (folder / "labels.csv").write_text("video_id,label,patient\na,x,P1\nb,x,P2\ncopy,y,P3\n")
    return folder


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["data", "check", *words, "--json"])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, content


def test_warnings_are_a_table_and_no_error(
    doubtful: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(doubtful)]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("duplicate")]
    assert line.strip().split(maxsplit=2)[1:] == [
        "copy",
        "the same frames as a, which is of another patient (P1, not P3)",
    ]
    assert "Warnings of 1 video: 1 duplicate." in out
    assert "Not looked at: " in out


def test_one_warning_of_many_videos_is_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    for number in range(4):
        folder = tmp_path / f"still_{number}"
        folder.mkdir()
        for name in ("0.png", "1.png"):
            Image.fromarray(np.roll(frame, 7 * number, axis=1)).save(folder / name)
    assert main(["data", "check", str(tmp_path), "--quick"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("static")]
    assert "still_0, still_1 and 2 more  all 2 frames show the same" in line
    assert "4 static" in out
    _, found = check(capsys, str(tmp_path), "--quick")
    assert [note["video"] for note in found["notes"] if note["kind"] == "static"] == [
        f"still_{number}" for number in range(4)
    ]


def test_strict_makes_warnings_an_error(doubtful: Path) -> None:
    assert main(["data", "check", str(doubtful), "--strict"]) == 1
    shutil.rmtree(doubtful / "copy")
    assert main(["data", "check", str(doubtful), "--strict"]) == 0


def test_the_whole_result_as_json(doubtful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, str(doubtful))
    assert code == found["exit_code"] == 0
    assert found["root"] == str(doubtful)
    assert found["error"] is None
    assert [video["id"] for video in found["videos"]] == ["a", "b", "copy"]
    assert found["videos"][0] == {
        "id": "a",
        "path": "a",
        "clips": [],
        "frames": 4,
        "width": 40,
        "height": 40,
        "frame_rate": None,
        "label": "x",
        "patient": "P1",
        "fold": None,
        "damage": None,
    }
    assert [item["path"] for item in found["left_out"]] == ["broken.avi"]
    assert [(note["video"], note["kind"]) for note in found["notes"]] == [("copy", "duplicate")]
    assert found["patients"] == "known"
    assert sorted([*found["train"], *found["held_out"]]) == ["a", "b", "copy"]
    assert check(capsys, str(doubtful), "--strict")[1]["exit_code"] == 1


def test_quick_says_what_it_leaves_out(doubtful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, str(doubtful), "--quick")
    assert code == 0
    assert "the pictures: text and colours" in found["not_looked_at"]
    assert "the pictures: text and colours" not in check(capsys, str(doubtful))[1]["not_looked_at"]


def test_json_of_nothing_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.avi").write_bytes(b"")
    code, found = check(capsys, str(tmp_path))
    assert code == found["exit_code"] == 1
    assert any("broken.avi: the file is empty" in line for line in found["error"])


def test_json_of_what_train_refuses(doubtful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = "video_id,label,patient,fold\na,x,P1,0\nb,x,P1,1\ncopy,y,P3,1\n"
    (doubtful / "labels.csv").write_text(table)
    code, found = check(capsys, str(doubtful))
    assert code == found["exit_code"] == 1
    assert "P1" in " ".join(found["error"])


def test_names_in_json_act_on_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a\x1b[31m\u202e"
    write_video(tmp_path / name, 0)
    write_video(tmp_path / "b", 0)
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert {video["id"] for video in json.loads(out)["videos"]} == {name, "b"}
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_coloured_loop_with_a_wrong_label_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = np.stack(moving(8)) // np.array([1, 8, 8], dtype=np.uint8)  # red all over
    for name in ("a.dcm", "b.dcm"):
        write_dicom(tmp_path / name, frames, "RGB", syntax=JPEGBaseline8Bit)  # which is YBR
    assert main(["data", "check", str(tmp_path), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "e+" not in captured.out
