"""``usucl finetune``: a classifier from a pretrained encoder, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from usucl._progress import job
from usucl.cli.console import hint, say, table
from usucl.cli.errors import keeping
from usucl.cli.parameters import (
    Change,
    Data,
    Label,
    NewFolder,
    Pattern,
    Run,
    Seed,
    Sweep,
    rules,
)

if TYPE_CHECKING:
    from usucl.evaluation.bootstrap import Estimate
    from usucl.evaluation.classification import Figures
    from usucl.finetuning import Finetuning


def _parts(options: Any) -> dict[str, float | None]:
    parts: dict[str, float | None] = {"Fine-tuning": None}
    return parts if options["no_report"] else parts | {"Writing the report": 5}


@rules(
    not_both=("overwrite", "resume"),
    needed=("run", "data", "out"),
    unless={"print_config": ("run", "data", "out"), "resume": ("run", "data")},
)
@job("Fine-tuning and report", _parts)
def finetune(
    run: Run | None = None,
    data: Data | None = None,
    *,
    out: NewFolder | None = None,
    preset: str = "default",
    label: Label | None = None,
    start: Literal["trained", "random", "imagenet", "scratch"] | None = None,
    patient_pattern: Pattern | None = None,
    sweep: Sweep | None = None,
    set_: Sequence[Change] = (),
    seed: Seed | None = None,
    overwrite: bool = False,
    resume: bool = False,
    print_config: bool = False,
    no_report: bool = False,
) -> None:
    """Train a classifier from a pretrained encoder, measured by cross-validation over patients.

    Every patient is tested once, by a classifier that saw no other part of the test fold either:
    the best epoch is chosen on patients of the other folds. Intervals are 95 %, by bootstrap over
    patients.

      usucl finetune runs/first my/videos --out finetuned --label diagnosis

    Args:
        run: run folder, or another folder of an encoder, such as its initial/.
        data: folder of videos, with labels.csv or frame_labels.csv.
        out: folder for finetune.json, predictions.csv, the classifiers and the report.
        preset: default, gbcu or pocus (the paper's two), or a YAML file of options.
        label: column that holds the classes (default: that of the run).
        start: first weights: the run's, its random ones, ImageNet's or new random ones (default:
            that of the preset, trained).
        patient_pattern: regular expression with one group, ( ), that finds the patient in the path
            of each video within the folder (default: that of the run).
        sweep: regular expression that makes one video of the clips of an examination, or none
            (default: as in the run).
        set_: changes to the preset, such as epochs=10 trainable=head 'classes={viral: null}';
            --print-config lists all names (default: no changes).
        seed: seed of every random draw (default: the preset's).
        overwrite: replace an earlier fine-tuning in the folder.
        resume: go on with the fine-tuning in the folder, whose finished folds are kept, or start it
            if there is none; needs neither RUN nor DATA to go on.
        print_config: print every option with its value and what it means, and stop; needs neither
            RUN nor DATA nor --out.
        no_report: write no report.
    """
    given = {
        "label": label,
        "start": start,
        "patient_pattern": patient_pattern,
        "sweep": sweep,
        "seed": seed,
    }
    flags: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    changes = dict(text.split("=", 1) for text in set_)
    if twice := [name for name in given if name in flags and name in changes]:
        raise ValueError(f"{twice[0]} must be given by --set or by its own option, got both")
    if apart := [name for name in ("run", "data") if name in changes]:
        raise ValueError(f"{apart[0]} must be given as an argument, got it by --set")
    options = changes | flags
    if print_config:
        from usucl.finetuning import read_config
        from usucl.training.explained import explain

        for line in explain(read_config(preset, options)).splitlines():
            say(line)
        return
    assert out is not None
    from usucl import finetuning
    from usucl.cli import finished
    from usucl.data import VideoError
    from usucl.finetuning.folder import FinetuneFolder

    folder = FinetuneFolder(out)
    before = _folds(folder.folds)

    def kept() -> str:
        after = _folds(folder.folds)
        if not after or (not resume and after == before):
            return "nothing was kept, as no fold was finished; start again"
        again = finished.command("finetune", "--out", out, "--resume")
        done = f"{len(after)} fold{'s' * (len(after) != 1)}"
        return f"{done} finished in {out}; to go on: {again}"

    with keeping(kept, VideoError):
        result = finetuning.finetune(
            run=run,
            data=data,
            out=out,
            preset=preset,
            overwrite=overwrite,
            resume=resume,
            **options,
        )
    for line in _sentences(result):
        say(line)
    show(result)
    say(f"Figures: {folder.results}")
    say(f"Predictions: {folder.predictions}")
    if folder.final.is_dir():
        say(f"Classifier: {folder.final}")
    if not no_report:
        from usucl.report import write_finetuning_report

        say(f"Report: {write_finetuning_report(out)}")
    saved = folder.final if folder.final.is_dir() else folder.fold(result.folds[0].fold)
    hint("In Python, after 'import usucl':")
    hint(f"  classifier = usucl.load_classifier({str(saved)!r})")
    hint("  classifier.predict('video.mp4').mean(0)  # probability of each classifier.classes")


def _folds(folder: Path) -> dict[str, int]:
    """Returns when each finished fold was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/fold.json")}


def show(result: Finetuning) -> None:
    """Prints the figures as tables."""
    from usucl.evaluation.classification import OVERALL, PER_CLASS

    columns = [("all", level, figures) for level, figures in result.figures.items()]
    columns += [("unseen", level, figures) for level, figures in (result.unseen or {}).items()]
    heads = [
        f"per {level}" + (", not seen" if part == "unseen" else "") for part, level, _ in columns
    ]
    rows = [
        [title, *(_cell(figures.overall[name]) for *_, figures in columns)]
        for name, title in OVERALL.items()
    ]
    table(["", *heads], rows)
    level, figures = next(iter(result.figures.items()))
    rows = [
        [title, *(_cell(figures.per_class[c][name]) for c in result.classes)]
        for name, title in PER_CLASS.items()
    ]
    table([f"per {level}, against the rest", *result.classes], rows)
    table(*_confusion(result, figures), numbers=result.classes)
    every = [e for *_, of in columns for e in _estimates(of)]
    for note in dict.fromkeys(e.note for e in every if e.note):
        say(f"Without an interval: {note.removesuffix(': no interval')}.")
    say(f"Brackets: {result.interval}.")


def _confusion(result: Finetuning, figures: Figures) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"is {name}", *map(str, counts)]
        for name, counts in zip(result.classes, figures.confusion, strict=True)
    ]
    return ["told as", *result.classes], rows


def _estimates(figures: Figures) -> Iterator[Estimate]:
    yield from figures.overall.values()
    for of_class in figures.per_class.values():
        yield from of_class.values()


def _sentences(result: Finetuning) -> Iterator[str]:
    """Yields what the figures rest on."""
    from usucl.data.catalog.patients import UNIT

    unit = UNIT[result.patients]
    text = f"{result.videos} videos"
    if unit != "video":
        text += f" of {result.groups} {unit}s"
    yield f"{text}, each tested once in {len(result.folds)} folds; classes of the {result.level}s"
    if result.unlabelled:
        yield f"{result.unlabelled} videos have no {result.label} and are left out"
    for name, number in result.left_out.items():
        yield f"{number} {result.level}s of class {name!r} are left out"
    if result.seen is None:
        yield "It is not known which of these videos pretraining saw."
    elif result.seen:
        yield f"Pretraining saw {result.seen} of these videos or their patients, without labels."
    else:
        yield "Pretraining saw none of these videos."


def _cell(estimate: Estimate) -> tuple[str, ...]:
    if estimate.value is None:
        return ("-",)
    if estimate.low is None or estimate.high is None:
        return (f"{estimate.value:.2f}",)
    return f"{estimate.value:.2f}", f"[{estimate.low:.2f}, {estimate.high:.2f}]"
