"""The tables of the page on the evidence are those of the results that are kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_comparison import PRIMARY, experiment
from runs import BACKBONE, make_data

from benchmarks.evidence import __main__ as evidence
from usucl.comparison.analysis.conclusion import conclude
from usucl.comparison.design.config import PRESETS, read_config
from usucl.comparison.design.primary import Primary
from usucl.comparison.design.subject import read_subject
from usucl.comparison.folder import MARK, ComparisonFolder
from usucl.comparison.measurement.predictions import FINETUNED, Predictions, RunResult
from usucl.comparison.runs import Bench, Run
from usucl.comparison.written import write_tables

EXPERIMENTS = sorted(Path(evidence.__file__).parent.glob("*.yaml"))


def test_the_page_has_the_tables_of_the_results() -> None:
    page = evidence.PAGE.read_text(encoding="utf-8")
    assert evidence.written(page) == page, "python -m benchmarks.evidence writes them"
    named = {match[2] for match in evidence.BLOCK.finditer(page)}
    assert named == {file.stem for file in EXPERIMENTS}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_names_what_it_is_for(file: Path) -> None:
    config = read_config(file, {})
    assert config.primary and config.seed > 0 and config.seeds >= 5  # 0 is that of the pilots
    assert file.stem not in PRESETS


def test_the_size_for_a_gpu_runs_here_in_miniature(tmp_path: Path) -> None:
    """The precision, the workers and the fine-tuning of the preset; the rest is made small."""
    files = [file for file in EXPERIMENTS if file.stem.startswith("gpu")]
    small = {"backbone": BACKBONE, "image_size": 32, "steps": 1, "epochs": 1, "finetune": 1}
    small |= {"frames": 4, "videos": 2, "probe_frames": 2, "folds": 2, "retrieval": False}
    small |= {"data": str(make_data(tmp_path / "data")), "labels": ("label",)}
    small |= {"augmentation": "crop-flip-jitter"}
    first, *others = (
        replace(read_config(file, small), primary=(), pictures=True) for file in files
    )
    assert others and all(replace(other, arms=first.arms) == first for other in others)
    assert (first.precision, first.num_workers) == ("bf16-mixed", 2)
    Bench(first, read_subject(first)).do(Run(1, 1, "both"), tmp_path / "run")
    found = RunResult.load(tmp_path / "run")
    asked = {(p.probe, p.share) for p in found.predictions}
    assert asked == set(itertools.product(("linear", "knn", "finetuned"), (1.0, 0.2, 0.05)))


def _tuned(predictions: Sequence[Predictions]) -> tuple[Predictions, ...]:
    return (*predictions, *(replace(p, probe=FINETUNED) for p in predictions))


def test_a_conclusion_becomes_tables(tmp_path: Path) -> None:
    facts = dict.fromkeys(("data", "encoder", "training", "machine"), "made up")
    runs = experiment().results
    tuned = [replace(r, predictions=_tuned(r.predictions)) for r in runs]
    named = Primary("both", "simclr", "zone", "balanced_accuracy", "finetuned", 0.2)
    made_up = experiment(facts=facts, results=tuple(tuned), primary=(*PRIMARY, named))
    folder = ComparisonFolder(tmp_path)
    arms = {arm.name: {"weights": "random", "title": arm.title} for arm in made_up.arms}
    folder.config.write_text(f"{MARK}arms: {arms}\n")
    write_tables(folder, conclude(made_up))
    record = evidence.read_json(folder.conclusion)
    text = "\n".join(evidence.tables(record))
    assert "| zone, fine-tuned with 20 % of the patients, balanced accuracy |" in text
    titles = {arm.name: arm.title for arm in made_up.arms}
    assert all(f"| {title} |" in text for title in titles.values())
    assert "| zone, share of the patients | linear, 100 % |" in text
    named_first, rest = text.split("| exploratory: ")
    further, others = rest.split("| exploratory, ")
    verdicts = ("| better |", "| not told apart |", "| worse |")
    primary = [d for d in record["differences"] if d["primary"] == "yes"]
    assert sum(map(named_first.count, verdicts)) == len(primary)
    first = (primary[0]["arm"], primary[0]["reference"])
    besides = {
        d["task"]
        for d in record["differences"]
        if (d["arm"], d["reference"], d["primary"], d["share"]) == (*first, "no", 1)
        and d["probe"] in ("linear", "retrieval")
        and d["figure"] in (primary[0]["figure"], "auroc")
    }
    assert besides and sum(map(further.count, verdicts)) == len(besides)
    assert all(f"| {task.replace('_', ' ')} |" in further for task in besides)
    assert others.startswith(f"zone: {titles[primary[0]['arm']]} minus |")
    references = {
        d["reference"]
        for d in record["differences"]
        if (d["arm"], d["task"], d["probe"], d["primary"], d["share"])
        == (primary[0]["arm"], "zone", "linear", "no", 1)
        and d["figure"] == primary[0]["figure"]
    }
    assert references and sum(map(others.count, verdicts)) == len(references)
    assert all(f"| {titles[name]} |" in others for name in references)
