"""The report: every section, nothing fetched from elsewhere, whatever a run lacks left out."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import faults
from PIL import Image
from runs import make_data, make_run

from usucl.evaluation import embed, evaluate
from usucl.report import write_report
from usucl.report.figures import project
from usucl.report.wording import number
from usucl.training import TrainingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

COLUMNS = (
    *("step", "epoch", "loss", "positive_similarity", "intra_similarity", "cross_similarity"),
    *("short_of_negatives", "effective_rank", "images_per_second"),
    *("data_share", "encoder_share", "loss_share", "window_lo", "window_hi"),
)


def add_logs(run: Path, *, intra: bool = True) -> None:
    rows = []
    for i in range(1, 8):
        window = (0.7, 0.2, 0.6) if intra and i > 2 else ("", "", "")
        rows.append((10 * i, i, 3 / i, 0.9, window[0], 0.4, 0, 5, 80, 0.1, 0.8, 0.1, *window[1:]))
    with (run / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    with (run / "skipped.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "reason"), ("a<b>.mp4", "no frame could be decoded")])
    (run / "config.yaml").write_text(TrainingConfig().to_yaml())


def make_evaluated(tmp_path: Path, **data: bool | int) -> Path:
    folder = make_data(tmp_path / "data", **data)  # type: ignore[arg-type]
    run = make_run(tmp_path / "run", folder, held_out=2)
    evaluate(run=run, data=folder, frames_per_video=4, queries_per_video=2, resamples=50)
    return run


def headings(html: str) -> list[str]:
    return re.findall(r"<h2 id=.*?>(.*?)</h2>", html)


def test_report_of_a_whole_run(tmp_path: Path) -> None:
    run = make_evaluated(tmp_path)
    add_logs(run)
    path = write_report(run)
    html = path.read_text(encoding="utf-8")
    assert path == run / "report.html"
    assert headings(html) == [
        "What it learned", "Use this encoder", "Training", "Embedding map", "What it finds alike",
        "Data", "This run",
    ]  # fmt: skip
    assert "Source alone" in html and "a&lt;b&gt;.mp4" in html and "no frame could be" in html
    pictures = {"results.png", "few-labels.png", "curves.png", "map.png", "contact.png"}
    assert {p.name for p in (run / "figures").iterdir()} == pictures
    for picture in (run / "figures").iterdir():
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 200 and pixels.std() > 5  # not blank
    assert faults(html) == []
    # one file: pictures inside, no address, nothing that would be loaded
    assert html.count("data:image/svg+xml;base64,") == 2 * 4  # for screens and for phones
    text = re.sub(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.search(r"https?:|//\w|<script|<link|@import|url\(|src=\"(?!\")", text)
    # folders are named only where the reader needs them: in code and in the facts of the run
    told = re.sub(r"(?s)<(pre|dl)\b.*?</\1>", "", text)
    assert "nan" not in re.findall(r"[a-z]+", text) and "None" not in told
    assert str(tmp_path) not in told


def test_report_without_labels_or_intra_negatives(tmp_path: Path) -> None:
    run = make_evaluated(tmp_path, labels=False, videos=4)
    add_logs(run, intra=False)
    html = write_report(run).read_text(encoding="utf-8")
    assert "Probes" not in html and "intra-video negatives come" not in html.lower()
    assert "What it finds alike" in headings(html)


def test_report_before_the_evaluation_and_without_the_data(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=4)
    run = make_run(tmp_path / "run", data)
    html = write_report(run).read_text(encoding="utf-8")
    assert headings(html) == ["Use this encoder", "Data", "This run"]
    assert "It has not been evaluated yet" in html
    evaluate(run=run, data=data, frames_per_video=4, queries_per_video=2, resamples=20)
    shutil.rmtree(data)
    assert "What it finds alike" not in headings(write_report(run).read_text(encoding="utf-8"))


def test_report_says_what_the_pixel_guard_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_data(tmp_path / "data", videos=4))
    guard = run / "guard.csv"
    assert "pixel guard" not in write_report(run).read_text(encoding="utf-8")
    sampling = replace(TrainingConfig().sampling, guard=0.98)
    (run / "config.yaml").write_text(replace(TrainingConfig(), sampling=sampling).to_yaml())
    guard.write_text("epoch,video_id,pairs,refused\n")
    html = write_report(run).read_text(encoding="utf-8")
    assert "correlate by more than 0.98" in html and "No two frames within a window" in html
    rows = ["0,a,10,1", "4,a,10,4", "4,b<c,100,5", "4,d,100,4", "4,e,100,1", "4,f,100,2"]
    guard.write_text("epoch,video_id,pairs,refused\n" + "\n".join(rows) + "\n")
    html = write_report(run).read_text(encoding="utf-8")
    named = "40% in <bdi>a</bdi>, 5% in <bdi>b&lt;c</bdi>, 4% in <bdi>d</bdi>"
    assert f"up to {named} and less in 2 other videos (guard.csv)" in html
    guard.write_text("epoch,video_id,pairs,refused\n0,a,0,1\n")
    with pytest.raises(ValueError, match=r"guard\.csv is damaged"):
        write_report(run)


def test_report_after_other_frames_were_embedded(tmp_path: Path) -> None:
    run = make_evaluated(tmp_path, videos=4)
    embed(run=run, data=tmp_path / "data", frames_per_video=1)
    assert "Embedding map" in headings(write_report(run).read_text(encoding="utf-8"))


def test_report_says_that_an_encoder_collapsed(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=4)
    run = make_run(tmp_path / "run", data)
    options = {"frames_per_video": 4, "queries_per_video": 2, "resamples": 20}
    result = evaluate(run=run, data=data, **options).to_json()
    for uniformity, told in ((-0.02, True), (-2.0, False)):
        result["geometry"]["uniformity"]["trained"] = uniformity
        (run / "evaluation.json").write_text(json.dumps(result))
        assert ("has collapsed" in write_report(run).read_text(encoding="utf-8")) is told


def test_report_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run must be a run folder"):
        write_report(tmp_path)


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_data(tmp_path / "data", videos=2))
    (run / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run/evaluation\.json is damaged \(content must be"):
        write_report(run)


@pytest.mark.parametrize("points", [1, 2, 5, 12, 40])
def test_projection_of_any_number_of_points(points: int) -> None:
    flat = project(np.random.default_rng(0).normal(size=(points, 6)))
    assert flat.shape == (points, 2) and np.isfinite(flat).all()


def test_numbers_as_text() -> None:
    assert number(0.8349) == "0.83" and number(-0.004, "+.2f") == "0.00"
    assert number(-0.25) == "\N{MINUS SIGN}0.25" and number(0.25, "+.2f") == "+0.25"
    assert number(None) == "\N{EN DASH}"
