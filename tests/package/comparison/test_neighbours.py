"""The frames that each arm finds alike, and their sheet on the page."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_comparison import experiment
from runs import make_data

from usucl.comparison.analysis.conclusion import conclude
from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.design.subject import Subject, read_subject
from usucl.comparison.measurement.neighbours import NEAREST, Neighbours
from usucl.comparison.measurement.predictions import RunResult
from usucl.comparison.measurement.probing import Probed
from usucl.report.comparison import write_comparison_report
from usucl.report.comparison.sheets import neighbours_sheet


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    root = make_data(tmp_path_factory.mktemp("data"))
    return read_subject(ComparisonConfig(data=str(root), labels=("label",), folds=2))


@pytest.fixture(scope="module")
def found(subject: Subject) -> tuple[Neighbours, ...]:
    probed = Probed(subject, ComparisonConfig(probe_frames=4))
    features = torch.randn(len(probed.video), 6, generator=torch.Generator().manual_seed(0))
    return probed.neighbours(features, subject.folds[0])


def test_neighbours_are_of_other_patients_and_videos(
    subject: Subject, found: tuple[Neighbours, ...]
) -> None:
    patient = {entry.id: entry.group for entry in subject.catalog}
    tested = {patient[entry.id] for entry in subject.catalog if entry.fold == subject.folds[0]}
    assert {patient[of.query.video_id] for of in found} == tested
    for query, nearest in found:
        assert len(nearest) == NEAREST and len({n.video_id for n in nearest}) == NEAREST
        assert patient[query.video_id] not in {patient[n.video_id] for n in nearest}
        similarity = [n.similarity for n in nearest]
        assert similarity == sorted(similarity, reverse=True)


def test_neighbours_come_back(tmp_path: Path, found: tuple[Neighbours, ...]) -> None:
    saved = replace(experiment().results[0], neighbours=found)
    saved.save(tmp_path)
    assert RunResult.load(tmp_path).neighbours == found


@pytest.mark.usefixtures("blank_pictures")
def test_frames_are_on_the_page_only_if_they_may_be(
    tmp_path: Path, subject: Subject, found: tuple[Neighbours, ...]
) -> None:
    given = experiment(seeds=1)
    assert not neighbours_sheet(given, subject)
    results = tuple(
        replace(r, neighbours=found) if r.arm in ("both", "simclr") else r for r in given.results
    )
    concluded = conclude(experiment(results=results))
    sheet = neighbours_sheet(concluded.experiment, subject)
    shown = len(found) * (1 + 2 * NEAREST)
    assert sheet.count("data:image/jpeg;base64,") == shown == sheet.count("<figcaption>")
    assert sheet.count("SimCLR") == len(found) and "Random weights" not in sheet
    names = {of.query.video_id: of.query.frame for of in found}
    for video, frame in names.items():
        assert f'alt="frame {frame} of {video}"' in sheet
    truth = {e.id: e.label for e in subject.catalog}
    differ = sum(truth[n.video_id] != truth[q.video_id] for q, near in found for n in near)
    assert sheet.count('<span class="worse">label: ') == 2 * differ > 0

    page = write_comparison_report(concluded, tmp_path / "page.html", subject).read_text()
    assert "Similar frames" in page and sheet in page
    page = write_comparison_report(concluded, tmp_path / "page.html").read_text()
    assert "Similar frames" not in page and "image/jpeg" not in page


def test_a_video_that_is_gone_has_a_caption(
    subject: Subject, found: tuple[Neighbours, ...]
) -> None:
    gone = found[0].nearest[0].video_id
    kept = [entry.id != gone for entry in subject.catalog]
    entries = tuple(itertools.compress(subject.catalog, kept))
    tasks = [replace(t, truth=tuple(itertools.compress(t.truth, kept))) for t in subject.tasks]
    less = Subject(replace(subject.catalog, entries=entries), tuple(tasks))
    results = (replace(experiment().results[0], neighbours=found[:1]),)
    sheet = neighbours_sheet(experiment(results=results, primary=()), less)
    assert sheet.count("cannot be read") == 1 and sheet.count("<figcaption>") == 1 + NEAREST
