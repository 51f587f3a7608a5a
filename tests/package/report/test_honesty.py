"""What the report says follows from the figures, and from what is known about the data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from runs import make_data, make_run

from usucl import _style as style
from usucl._files import read_json, write_json
from usucl.cli import main
from usucl.data import VideoEntry
from usucl.evaluation import evaluate
from usucl.evaluation.bootstrap import Estimate, form_of_bound
from usucl.gallery import Pair
from usucl.report import write_report
from usucl.report.contact import ContactRow, ContactSheet, Tile
from usucl.report.sheets import _pairs_title
from usucl.report.verdicts import Row, brief, cards, verdict
from usucl.report.wording import Subjects
from usucl.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

UNKNOWN = "atients unknown: split by video; a patient may be on both sides"


def difference(low: float, high: float, *, wider: float = 0.0) -> Estimate:
    """A difference whose adjusted interval is wider on both sides."""
    middle = (low + high) / 2
    return Estimate(middle, low, high, 9, None, low - wider, high + wider)


def row(skill: str, random: Estimate, pixels: Estimate) -> Row:
    figure = Estimate(0.7, 0.6, 0.8, 9)
    estimates = dict.fromkeys(("trained", "random", "pixels"), figure)
    estimates |= {"trained - random": random, "trained - pixels": pixels}
    return Row(skill.capitalize(), estimates, 0.125, "AUROC", skill, "on held-out videos", True)


def test_a_verdict_is_that_of_the_adjusted_interval() -> None:
    assert verdict(difference(0.1, 0.3), "raw pixels") == ("better", "better than raw pixels")
    assert verdict(difference(-0.3, -0.1), "raw pixels") == ("worse", "worse than raw pixels")
    assert verdict(difference(-0.1, 0.1), "x") == ("open", "not told apart from x")
    word, text = verdict(difference(0.1, 0.3, wider=0.2), "x")
    assert word == "open"
    assert text.endswith("(better only by the interval that ignores the other differences)")
    old = replace(difference(-0.3, -0.1), adjusted_low=None, adjusted_high=None)
    assert verdict(old, "x").word == "open" and "(worse only" in verdict(old, "x").text
    assert verdict(Estimate(0.1, None, None, 3), "x").text == "not told apart from x: no interval"
    assert "not defined" in verdict(Estimate(None, None, None, 3), "x").text


def test_worse_than_pixels_is_said_as_plainly_as_better_than_random() -> None:
    rows = [
        row("finding this", difference(0.1, 0.3), difference(-0.3, -0.1)),
        row("finding that", difference(-0.1, 0.1), difference(-0.3, -0.1)),
        row("finding what", difference(0.1, 0.3), Estimate(None, None, None, 2)),
    ]
    said = brief(rows)
    assert "Compared with random initialisation, the trained encoder <" in said
    assert '"better">is better at</span> finding this and finding what; ' in said
    assert '"open">cannot be told apart at</span> finding that.' in said
    assert '"worse">is worse at</span> finding this and finding that; ' in said
    assert '"undefined">cannot be compared at</span> finding what.' in said
    card = cards(rows[:1])
    assert '"better">better than random initialisation' in card
    assert '"worse">worse than raw pixels' in card and "chance 0.125" in card
    assert "all: [+0.10, +0.30]" in card
    alone = row("finding one", Estimate(0.1, None, None, 3), difference(0.004, 0.3))
    said = brief([alone])
    assert '"open">has no interval at</span> finding one.' in said
    assert "better at" in said and "all: [+0.004, +0.30]" in cards([alone])  # not [0.00, ...]


def test_a_bound_keeps_its_side_of_0() -> None:
    forms = {0.004: "+.3f", -0.0004: "+.4f", 0.01: "+.2f", 0.0: "+.2f", 1e-9: "+.2f"}
    assert {bound: form_of_bound(bound, "+.2f") for bound in forms} == forms


def test_a_bound_beside_zero_shows_its_side() -> None:
    near = difference(0.003, 0.3)
    assert "all: [+0.003, +0.30]" in cards([row("finding this", near, near)])


def test_a_card_gives_no_difference_where_there_is_none() -> None:
    none = Estimate(None, None, None, 2)
    assert "difference" not in cards([row("finding what", none, none)])


def test_others_are_named_once() -> None:
    assert Subjects("unknown").other_videos == "other videos"
    assert Subjects().other_videos == "videos of other patients"


def test_patients_are_named_only_as_far_as_they_are_known() -> None:
    assert Subjects().videos(3, 2) == "3 videos of 2 patients" and not Subjects().split
    assert Subjects("unknown").videos(3, 3) == "3 videos" and UNKNOWN in Subjects("unknown").split
    assert Subjects("unknown").other_videos == "other videos"
    assert Subjects().other_videos == "videos of other patients"
    assert Subjects("partly").split and "2 groups" in Subjects("partly").videos(3, 2)
    assert Subjects(synthetic=True).videos(1, 1) == "1 synthetic video of 1 made-up patient"
    assert "synthetic" in Subjects(synthetic=True).cautions[0]


def test_a_report_on_unknown_patients_says_so_at_every_figure(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=4, labels=False)
    run = make_run(tmp_path / "run", data, held_out=2)
    (data / "SYNTHETIC.txt").write_text("")
    evaluate(run=run, data=data, frames_per_video=4, queries_per_video=2, resamples=20)
    html = write_report(run).read_text(encoding="utf-8")
    assert html.count(UNKNOWN) >= 4 and "Synthetic data, made-up patients" in html
    assert "patients it never saw" not in html and "intervals over videos" in html
    assert "<li>video_<wbr>0" in html.replace("<bdi>", "")  # held-out videos by name
    assert "frame 6" in html and "more similar to their anchor than its positive" in html

    # the same record elsewhere, on other data, has a page of its own
    before = RunFolder(run).report.read_bytes()
    content = read_json(RunFolder(run).evaluation)
    other = tmp_path / "elsewhere"
    other.mkdir()
    content |= {"own_data": False, "data": str(tmp_path / "other clips")}
    write_json(RunFolder(other).evaluation, content)
    path = write_report(run, evaluation=other)
    assert path == other / "report.html" and RunFolder(run).report.read_bytes() == before
    html = path.read_text(encoding="utf-8")
    assert "<h1>The encoder of run, measured on other clips</h1>" in html
    assert "4 synthetic videos" not in html and 'id="training"' not in html
    with pytest.raises(FileNotFoundError, match=r"holds? no|without evaluation\.json"):
        write_report(run, evaluation=tmp_path)


def test_a_run_that_did_not_learn_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(make_run(tmp_path / "run", make_data(tmp_path / "data", videos=2)))
    shutil.copy(RunFolder(run.initial).encoder_weights, run.encoder_weights)
    run.metrics.write_text("step,epoch,loss\n1,0,0\n2,0,0\n")
    run.warnings.write_text("step,warning\n1,nothing <was> found\n")
    run.facts.write_text(
        json.dumps({"command": "usucl train <a> b", "seconds": 4007, "commit": "abc"})
    )
    assert main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out == f"Report: {run.report}\n"
    html = run.report.read_text(encoding="utf-8")
    head = html[: html.index('class="lead"')]
    assert "This run did not learn" in head and "Training did not change the encoder" in head
    assert "The loss was 0 at all 2 logged steps" in head
    assert "Training gave 1 warning" in html and "nothing &lt;was&gt; found" in html
    assert "usucl train &lt;a&gt; b" in html and "1:06:47" in html and ">abc<" in html
    assert "load_encoder" in html


def test_negatives_above_the_positive_are_counted() -> None:
    entry = VideoEntry("a", Path("a"), 9, None)
    anchor, positive = Tile(entry, 0, None), Tile(entry, 3, 0.8)
    intra = [Tile(entry, 6, 0.9), Tile(entry, 7, 0.8), Tile(entry, 8, 0.7)]
    sheet = ContactSheet([ContactRow(anchor, positive, intra, [Tile(entry, 1, 0.81)])], True)
    assert sheet.above("intra") == (1, 3) and sheet.above("cross") == (1, 1)


def test_the_sheet_of_pairs_is_titled_for_what_it_shows() -> None:
    pairs = [Pair(0, 1, 0.99, 1, c, 1.0, other_patient=o)
             for c, o in ((0.95, True), (0.3, False), (0.2, None), (None, None))]  # fmt: skip
    title, note = _pairs_title(pairs, 7, 0.98)
    assert title == (
        "4 pairs of similar frames: 1 shows the same picture, 2 are only alike to the encoder, "
        "1 cannot be compared"
    )
    assert "4 of 7 pairs" in note and "1 of them join" in note and "For 2 it is not known" in note


@pytest.mark.parametrize("text", ["a_b-c/d e.f" * 9, "x" * 90, "--out case 7", "", " ", "a"])
def test_names_are_wrapped_whole(text: str) -> None:
    lines = style.wrapped(text, 8, 1.2)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(style.width_of(line, 8) <= 1.2 for line in lines)


def test_a_line_does_not_end_at_the_point_of_a_number() -> None:
    lines = style.wrapped("pneumonia: AUROC 0.66 [0.45, 0.79]", 9, 2.1)
    assert len(lines) > 1 and " ".join(lines) == "pneumonia: AUROC 0.66 [0.45, 0.79]"
