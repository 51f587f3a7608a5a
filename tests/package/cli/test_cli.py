"""The shell commands: help, bad input, and what they write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import stderr_line, write_video

import usucl
from usucl.cli import COMMANDS, main, run
from usucl.cli.errors import as_typed
from usucl.cli.parameters import parameters_of
from usucl.data import VideoCatalog


def _names(commands: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    names = [prefix]
    for name, command in commands.items():
        deeper = (*prefix, name)
        names += [deeper] if callable(command) else _names(command, deeper)
    return names


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos of two patients, and three that cannot be used."""
    root = tmp_path / "videos"
    for seed, name in enumerate("abc"):
        write_video(root / name, seed)
    write_video(root / "one_frame", 9, frames=1)
    (root / "empty").mkdir()
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "labels.csv").write_text(
        "video_id,label,patient,note\na,cyst,p1,x\nb,stone,p1,y\nc,cyst,p2,z\n"
    )
    return root


@pytest.mark.parametrize("words", _names(COMMANDS), ids=" ".join)
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: usucl")
    assert "<class" not in text and "SET_" not in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, usucl, usucl.cli\n"
        "try: usucl.cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'lightning', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reading_videos_and_searching_a_bank_import_nothing_that_they_do_not_need() -> None:
    heavy = "{'torchvision', 'lightning', 'sklearn', 'matplotlib', 'faiss', 'pydicom', 'pandas'}"
    found = f"', '.join({heavy} & set(sys.modules)) or 0"
    code = f"import sys, usucl.data, usucl.gallery; sys.exit({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names() -> None:
    for name in usucl.__all__:
        assert getattr(usucl, name) is not None
        assert name in dir(usucl)
    with pytest.raises(AttributeError, match="no_such_name"):
        usucl.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "command must be one of demo, train"),
        (["bank"], "command must be one of build, info, search, duplicates"),
        (["trian"], "got 'trian'; did you mean usucl train?"),
        (["bank", "serch"], "did you mean usucl bank search?"),
        (["duplicates"], "did you mean usucl bank duplicates?"),
        (["--bogus"], "command must be one of demo, train"),
        (["train", "folder"], "required"),
        (["train"], "DATA and --out are required: usucl train DATA --out PATH [options]"),
        (["train", "folder", "--out"], "--out must be followed by PATH"),
        (["train", "folder", "--out", ""], "--out must be a path"),
        (["train", "folder", "more", "--out", "x"], "unexpected 'more'"),
        (["train", "folder", "--out", "x", "--resum=1"], "--resume takes no value"),
        (["train", "folder", "--out", "x", "--seed", "z"], "--seed must be a whole number, got"),
        (["train", "folder", "--out", "x", "--held-out", "-1"], "--held-out must be at least 0"),
        (["train", "folder", "--out", "x", "--overwritten"], "did you mean --overwrite?"),
        (["train", "folder", "--out", "x", "--o"], "--o is ambiguous: --out or --overwrite"),
        (
            ["train", "f", "--out", "x", "--resume", "--overwrite"],
            "--resume and --overwrite",
        ),
        (["train", "no_folder", "--out", "x"], "no_folder"),
        (["train", "folder", "--out", "x", "--set", "epochs"], "NAME=VALUE"),
        (["train", "folder", "--out", "x", "--set", "epoch=1", "--print-config"], "epochs"),
        (["embed", "no_run", "folder"], "no_run"),
        (["evaluate", "no_run", "folder"], "no_run"),
        (["bank", "build", "no_run", "folder", "--out", "x"], "no_run"),
        (["bank", "build", "no_run", "folder", "--out", "x", "--batch-size", "0"], "--batch-size"),
        (["bank", "info", "no_bank"], "BANK must be the folder of a bank, got no_bank"),
        (["bank", "info", "."], ". holds no bank"),
        (["bank", "search", "no_bank", "x"], "no_bank: there is no such folder"),
        (["bank", "search", "no_bank"], "either QUERY or --slot must be given, got none"),
        (["bank", "search", "no_bank", "x", "--slot", "1"], "must be given, got both"),
        (["bank", "search", "no_bank", "x", "--time", "0.5"], "--time must be followed by LO HI"),
        (
            ["bank", "search", "no_bank", "x", "--time", "0.5", "2"],
            "--time must be a fraction, 0 to 1",
        ),
        (["bank", "duplicates", "no_bank"], "no_bank: there is no such folder"),
        (["data", "check", "no_folder"], "no_folder"),
        (["data", "convert", "no_folder", "--out", "x", "--size", "4"], "at least 8"),
        (["demo", "--minutes", "0"], "--minutes must be positive, got 0"),
        (["demo", "--minutes", "inf"], "--minutes must be positive, got inf"),
        (["data", "check", ".", "--damaged", "skp"], "got 'skp'; did you mean skip?"),
        (["bench", "--bogus"], "--bogus is no option of usucl bench; see usucl bench --help"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in stderr_line(capsys)
    assert not list(tmp_path.iterdir())


def test_messages_name_options_as_they_are_typed() -> None:
    typed = {name: parameter.typed for name, parameter in parameters_of(run.train).items()}
    typed |= {"exclude_video": "--exclude-video", "run": "--run", "batch_size": "--batch-size"}
    for message, said in (
        ("batch_size must be at least 1, got 0", "--batch-size must be at least 1, got 0"),
        ("exclude_video: no such video", "--exclude-video: no such video"),
        ("data must be a folder, got x", "DATA must be a folder, got x"),
        ("root must be a folder, got x", "DATA must be a folder, got x"),
        (
            "give overwrite=True to replace it, or resume=True to go on",
            "give --overwrite to replace it, or --resume to go on",
        ),
        ("2 after exclude_video=, 0 after run=", "2 after --exclude-video, 0 after --run"),
        ("use pretrained=False, or go", "use --set pretrained=false, or go"),
        ("a/batch_size/run=1/x is missing", "a/batch_size/run=1/x is missing"),
        ("folder/overwrite=True", "folder/overwrite=True"),
        ("run holds a run", "run holds a run"),  # a path
    ):
        assert as_typed(message, typed) == said
    assert as_typed("resume=True", {"run": "RUN"}) == "resume=True"  # no option of this command


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "data", "check", "no_folder"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_options_reach_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "epochs=7", "optimiser.lr=1e-2", "--set", "cross_k=5", "--held-out"]
    assert main(["train", "folder", "--out", "x", *changes, "--print-config"]) == 0
    text = capsys.readouterr().out
    for line in ("epochs: 7", "  lr: 0.01", "  cross_k: 5", "held_out: []"):
        assert line in text


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["usucl"] == usucl.__version__
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["cuda"] or facts["cuda_reason"]
    assert main(["info"]) == 0
    assert torch.__version__ in capsys.readouterr().out


def test_data_check_names_what_is_left_out(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(videos)]) == 0
    text = capsys.readouterr().out
    for name, reason in (("broken.mp4", "decoded"), ("empty", "empty"), ("one_frame", "too short")):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
        assert reason in line
    assert "3 videos, 12 frames, 3 left out, 2 labels, 2 patients" in text


def test_data_check_of_nothing_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.avi").write_bytes(b"")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "broken.avi: the file is empty" in capsys.readouterr().err


def test_convert_keeps_frames_and_tables_and_resumes(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "converted"
    assert main(["data", "convert", str(videos), "--out", str(out)]) == 0
    before, after = VideoCatalog.scan(videos), VideoCatalog.scan(out)
    assert [(e.id, e.label, e.group) for e in before] == [(e.id, e.label, e.group) for e in after]
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a.open().frames(range(4)), b.open().frames(range(4)))
    assert "note" in (out / "labels.csv").read_text()

    for file in (out / "b").iterdir():
        file.unlink()
    (out / "b").rmdir()
    stamp = (out / "a" / "00000.png").stat().st_mtime_ns
    assert main(["data", "convert", str(videos), "--out", str(out)]) == 0
    assert len(VideoCatalog.scan(out)) == 3
    assert (out / "a" / "00000.png").stat().st_mtime_ns == stamp


def test_convert_overwrites_nothing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "converted"
    words = ["data", "convert", str(videos), "--out", str(out)]
    assert main([*words, "--image-format", "jpeg", "--size", "32"]) == 0
    capsys.readouterr()
    for other in (["--image-format", "jpeg"], [], ["--size", "32"]):
        assert main([*words, *other]) == 2
        assert "already exists" in stderr_line(capsys)
    assert main(["data", "convert", str(videos), "--out", str(videos / "inside")]) == 2
    assert "outside" in stderr_line(capsys)
