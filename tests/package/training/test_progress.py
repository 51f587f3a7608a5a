"""What training says in a pipe: before, meanwhile and in the end."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import make_data

from usucl._progress import displays
from usucl._tables import read_table
from usucl.cli import main
from usucl.data import VideoCatalog
from usucl.data.phantom import write_phantom
from usucl.training import train
from usucl.training.callbacks import progress
from usucl.training.callbacks.progress import _videos

SETS = ["backbone=resnet10", "image_size=32", "dim=16", "pretrained=false", "log_every=1"]
SETS += ["videos=3", "frames=4", "steps_per_epoch=2", "epochs=2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("some") / "my videos"
    rng = np.random.default_rng(0)
    for video in range(5):
        folder = root / f"video{video}"
        folder.mkdir(parents=True)
        for frame in range(8):
            picture = rng.integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{frame:02}.png")
    (root / "broken.png").write_bytes(b"no picture")
    return root


def test_piped_training_says_what_it_does(
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,
) -> None:
    monkeypatch.setattr(displays, "WORTH_A_LINE", 0.0)
    out = tmp_path / "my run"
    words = ["train", str(videos), "--out", str(out)]
    assert main([*words, "--set", *SETS]) == 0
    captured = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", captured.out + captured.err)

    rows = [re.split(r"\s{2,}", line.strip()) for line in captured.out.splitlines()]
    told = {row[0]: row[1] for row in rows if len(row) == 2}
    assert told["trained on"] == "4 videos, 32 frames; 1 left out"
    assert told["held out"] == "1 video (fold 0)"
    assert told["split"] == "patients unknown: split by video; a patient may be on both sides"
    assert told["steps"] == "2 per epoch, 4 in 2 epochs"
    assert re.fullmatch(r"resnet10 at 32 px, \d\.\d million parameters", told["encoder"])
    assert told["device"].startswith("CPU") and told["device"].endswith("precision 32-true")

    lines = [line for line in captured.err.splitlines() if line.startswith("[")]
    assert [line.split("] ")[1].split(":")[0] for line in lines] == [
        "Reading videos",
        "Decoding videos",
        "Epoch 2/2",
    ]
    form = (
        r"\[\d:\d\d:\d\d\] Epoch 2/2: 4/4 steps, [\d.]+ images/s, loss \d\.\d{3}, "
        r"finished in \d:\d\d:\d\d"
    )
    assert re.fullmatch(form, lines[-1])

    assert re.fullmatch(r"\d:\d\d:\d\d, [\d.]+ images/s", told["time"])
    assert told["epochs"] == "2, of 4 steps in all"
    assert re.fullmatch(r"[\d.]+ at step 4, [\d.]+ at step 1", told["loss"])
    assert told["similarities"].startswith("positive ") and "cross-video" in told["similarities"]
    commands = [line for line in captured.out.splitlines() if line.startswith("  usucl")]
    pasted = [shlex.split(line, comments=True) for line in commands]
    assert ["usucl", "evaluate", str(out), str(videos)] in pasted
    assert ["usucl", *words, "--resume", "--set", "epochs=4"] in pasted
    assert f"  encoder = usucl.load_encoder({str(out)!r})" in captured.out.splitlines()

    assert main([*words, "--resume", "--set", "epochs=3"]) == 0
    captured = capsys.readouterr()
    assert "2 per epoch, 6 in 3 epochs, going on after epoch 2" in captured.out
    assert re.search(r"Epoch 3/3: 6/6 steps, .* finished in", captured.err)


def test_the_last_line_has_the_last_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is probed after the last step, whose line had the figure of the probe before."""
    monkeypatch.setattr(displays, "WORTH_A_LINE", 0.0)
    monkeypatch.setattr(progress, "BETWEEN_NOTES", math.inf)  # after that of the first step
    videos, out = make_data(tmp_path / "videos"), tmp_path / "run"
    options = ["held_out=[]", "probe_every=1", "probes=[knn]", "probe_frames=6"]
    assert main(["train", str(videos), "--out", str(out), "--set", *SETS, *options]) == 0
    form = r"Epoch 2/2: 4/4 steps.* loss (\d\.\d{3}), probe (\d\.\d\d)"
    (last,) = [row for row in read_table(out / "probe.csv") if row["epochs_done"] == "2"]
    loss, probe = read_table(out / "metrics.csv")[-1]["loss"], last["balanced_accuracy"]
    said = re.findall(form, capsys.readouterr().err)
    assert said[-1] == (f"{float(loss):.3f}", f"{float(probe):.2f}")


def test_training_that_shows_no_progress_is_silent(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    (videos / "broken.png").unlink()
    options = dict(name.split("=") for name in SETS)
    train(data=videos, out=tmp_path / "run", progress=False, **options)
    assert capsys.readouterr() == ("", "")


def test_synthetic_videos_are_called_so(tmp_path: Path) -> None:
    videos = write_phantom(tmp_path / "made", videos=2, frames=8, image_size=64)
    assert _videos(VideoCatalog.scan(videos)) == "2 synthetic videos of 1 made-up patient"
