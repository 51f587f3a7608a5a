"""The page and the tables of a comparison: all that was measured, and words on what it means."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_comparison import ARMS, FACTS, experiment, predictions, result
from pages import faults

from usucl.cli.comparison_views import show
from usucl.comparison.analysis.conclusion import conclude
from usucl.comparison.analysis.experiment import Experiment
from usucl.comparison.design.primary import Primary
from usucl.comparison.measurement.predictions import RunResult
from usucl.report.comparison import write_comparison_report
from usucl.report.comparison.wording import cautions, finding
from usucl.report.wording import Subjects

pytestmark = pytest.mark.usefixtures("one_thread")


def _page(tmp_path: Path, given: Experiment) -> str:
    path = write_comparison_report(conclude(given), tmp_path / "page.html")
    return path.read_text(encoding="utf-8")


def _findings(given: Experiment) -> list[str]:
    concluded = conclude(given)
    return [finding(concluded, d) for d in concluded.primary]


def test_page_shows_everything(tmp_path: Path) -> None:
    html = _page(tmp_path, experiment())
    assert re.findall(r"<h2 id=.*?>(.*?)</h2>", html) == [
        "What was found",
        "What cannot be concluded",
        "Arms",
        "Label efficiency",
        "Exploratory differences",
        "Training",
        "Labels",
        "This comparison",
    ]
    assert faults(html) == []
    for shown in (*(arm.title for arm in ARMS), *FACTS, *FACTS.values()):
        assert shown in html
    pictures = {"primary.png", "exploratory.png", "labels.png", "curves.png"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == pictures
    assert html.count("data:image/svg+xml;base64,") == 2 * len(pictures)
    text = re.sub(r"data:image/[^\"]*", "", html)
    assert not re.search(r"https?:|//\w|<script|<link|@import|url\(|src=\"(?!\")", text)


def test_names_are_text(tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    arms = tuple(arm._replace(title=f"{bad} {arm.title}") for arm in ARMS)

    def renamed(r: RunResult) -> RunResult:
        made = [replace(p, task=bad, classes=(bad, *p.classes[1:])) for p in r.predictions[:1]]
        return replace(r, predictions=tuple(made))

    html = _page(
        tmp_path,
        experiment(
            title=bad,
            arms=arms,
            results=tuple(map(renamed, experiment().results)),
            primary=(Primary("both", "simclr", bad, "balanced_accuracy"),),
            facts={bad: bad},
        ),
    )
    assert "<img src=x" not in html and "&lt;img src=x" in html


def test_nothing_has_run(tmp_path: Path) -> None:
    html = _page(tmp_path, experiment(results=()))
    assert "No run has finished yet." in html and "What was found" not in html


def test_a_finding_says_what_how_large_and_what_not() -> None:
    better, _, between = _findings(experiment(seeds=10))
    assert re.match(
        r"Intra- and cross-video is better than Cross-video only at telling zone: balanced "
        r"accuracy 0\.\d\d against 0\.\d\d, a difference of \+0\.\d\d \[\+0\.\d\d, \+0\.\d\d\]\. ",
        better,
    )
    assert re.search(r"could tell a difference of about 0\.\d\d from none\.", better)
    assert "does not show that it is so on other videos" in better
    assert "frames of one video" in between and "frames of one video" not in better

    same = tuple(result(name, s, skill=0.6) for name in ("simclr", "both") for s in range(5))
    (open_,) = _findings(
        experiment(results=same, primary=(Primary("both", "simclr", "zone", "balanced_accuracy"),))
    )
    assert "are not told apart" in open_ and "does not show that they are equal" in open_
    (short,) = _findings(
        experiment(seeds=2, primary=(Primary("both", "simclr", "zone", "balanced_accuracy"),))
    )
    assert "is not known" in short and "only 2 seeds" in short


def test_a_worse_arm_is_called_worse() -> None:
    primary = (Primary("simclr", "both", "temporal", "auroc"),)
    (text,) = _findings(experiment(primary=primary))
    assert text.startswith("SimCLR is worse than Intra- and cross-video at finding the place in")


def test_cautions_name_the_labels_that_say_little() -> None:
    given = experiment(synthetic=True)
    texts = cautions(conclude(given), Subjects(synthetic=True))
    assert any("synthetic" in text for text in texts)
    assert any(t.startswith("lines: no made-up patient has two classes") for t in texts)
    assert not any(t.startswith("zone") for t in texts)

    rare = {f"patient {i}": int(i < 3) for i in range(20)}

    def with_rare_class(r: RunResult) -> RunResult:
        names = sorted({name for p in r.predictions for name in p.patient})
        rng = np.random.default_rng(r.seed)
        made = predictions(rng, names, task="rare", classes=("no", "yes"), of_patient=rare)
        return replace(r, predictions=(replace(made, level="video"),))

    runs = tuple(with_rare_class(r) for r in given.results)
    texts = cautions(conclude(experiment(results=runs[:-1], primary=())), Subjects())
    assert "rare: few patients have yes (3 patients)." in " ".join(texts)
    assert any("Runs are missing: Intra- and cross-video (4 of 5)" in text for text in texts)


def test_a_label_of_frames_that_never_changes_in_a_video_is_named() -> None:
    given = experiment(steady=("zone",))
    concluded = conclude(given)
    texts = cautions(concluded, Subjects())
    assert any(text.startswith("zone: the label never changes inside a video") for text in texts)
    assert "nothing about telling frames of one video apart" in finding(
        concluded, concluded.primary[0]
    )


def test_fine_tuning_is_shown_beside_the_linear_probe(tmp_path: Path) -> None:
    def tuned(r: RunResult) -> RunResult:
        more = [replace(p, probe="finetuned") for p in r.predictions]
        return replace(r, predictions=(*r.predictions, *more))

    named = Primary("both", "simclr", "zone", "balanced_accuracy", "finetuned", 0.2)
    given = experiment(results=tuple(map(tuned, experiment().results)), primary=(named,))
    concluded = conclude(given)
    (primary,) = concluded.primary
    assert (primary.measure.probe, primary.measure.share) == ("finetuned", 0.2)
    assert "at telling zone after fine-tuning on 20 % of the patients" in finding(
        concluded, primary
    )
    probes = {d.measure.probe for d in concluded.exploratory}
    assert probes == {"linear", "finetuned", "retrieval"}
    html = _page(tmp_path, given)
    assert "fine-tuned, 20 % of the patients" in html and "one learning rate for all arms" in html


def test_shell_tables(capsys: pytest.CaptureFixture[str]) -> None:
    show(conclude(experiment(seeds=10)))
    out = capsys.readouterr().out
    assert "Every arm" in out and "Primary differences" in out
    assert "better:  +0." in out and "Of 3 primary differences: 3 better." in out
    assert "10 seeds and 20 patients" in out
    show(conclude(experiment(results=())))
    assert capsys.readouterr().out == "No run has finished yet.\n"
