"""The report of a fine-tuning, one file; the pictures are also in ``figures/``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from usucl._files import DamagedFileError, read_json, write_atomically
from usucl._progress import duration, job
from usucl._tables import read_table
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes import Predictions
from usucl.finetuning import Finetuning, FinetuningConfig, read_config
from usucl.finetuning.folder import FinetuneFolder
from usucl.finetuning.predictions import Tested, read_predictions
from usucl.report import mistakes
from usucl.report.classification import cards, plain, tables
from usucl.report.figures import classification
from usucl.report.page import (
    Html,
    Section,
    alert,
    code,
    heading,
    isolated,
    lines,
    page,
    paragraph,
    picture,
    table,
    terms,
)
from usucl.report.wording import Subjects, count, listed
from usucl.run_folder import RunFolder

logger = logging.getLogger(__name__)

FEW = 20  # patients, below which intervals tend to be too narrow
FEW_IN_CLASS = 5
START = {
    "trained": "the pretrained weights",
    "random": "the run's weights before training",
    "imagenet": "ImageNet weights",
    "scratch": "random weights",
}
PART = {"all": "the whole network", "last-block": "the last block", "head": "the head alone"}


@job("Writing the report")
def write_finetuning_report(out: str | Path, *, progress: bool = False) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` from what lies in the folder of a fine-tuning.

    Nothing is measured again. Without the data there are no pictures of mistakes.

    Args:
        out: folder written by :func:`usucl.finetune`.
        progress: show the progress on standard error.

    Returns:
        The path of ``report.html``. It holds its pictures and refers to nothing outside itself.

    Raises:
        FileNotFoundError: ``out`` holds no finished fine-tuning.
        ValueError: one of the files is damaged; the message names it.
    """
    folder = FinetuneFolder(out)
    if not folder.results.is_file():
        raise FileNotFoundError(
            f"out must be the folder of a finished fine-tuning, got {folder.path} without "
            f"{folder.results.name}"
        )
    try:
        result = Finetuning.from_json(read_json(folder.results))
    except ValueError as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(folder.results, str(error)) from error
    tested = read_predictions(folder.predictions, result.classes)
    config = read_config(folder.config, {})
    subjects = Subjects(result.patients, result.synthetic)
    predictions = {
        level: tested[level].predictions(np.ones(len(result.classes), bool))
        for level in result.figures
    }
    sections = [
        Section("Figures", tables(result, subjects)),
        Section("Confusion", _confusion(folder, result)),
        Section("Thresholds", _thresholds(folder, result, predictions)),
        Section("Calibration", _calibration(folder, result, predictions)),
        Section("Training", _training(folder, result)),
        Section("Surest mistakes", _mistakes(folder, result, tested, config)),
        Section("Data", _data(folder, result, subjects)),
        Section("Use this classifier", _use(folder, result)),
        Section("This fine-tuning", _facts(folder, result, config)),
    ]
    what = "" if result.label == "label" else f": {result.label}"
    title = f"Fine-tuning on {Path(result.data).name}{what}"
    head = _head(result, config, subjects)
    content = page(title, head, [part for part in sections if part.content])
    write_atomically(folder.report, content.encode())
    return folder.report


def _head(result: Finetuning, config: FinetuningConfig, subjects: Subjects) -> str:
    badge = '<p><span class="badge">Synthetic data, made-up patients</span></p>'
    now = datetime.now(timezone.utc)
    parts = (
        f"Encoder {Path(result.run).name}",
        f"trained for {duration(result.seconds)}",
        f"report of {now:%Y-%m-%d %H:%M} UTC",
        f"USUCL {result.versions['usucl']}" if result.versions.get("usucl") else "",
    )
    return lines(
        badge if subjects.synthetic else "",
        paragraph(" · ".join(filter(None, parts)), "byline"),
        paragraph(_lead(result, config, subjects), "lead"),
        alert("Before you read on", _cautions(result, subjects), mild=True),
        cards(result),
        paragraph(
            f"Brackets: {result.interval}. Out-of-fold predictions of all folds together.", "note"
        ),
    )


def _lead(result: Finetuning, config: FinetuningConfig, subjects: Subjects) -> str:
    encoder = RunFolder(result.run)
    backbone, size = "network", ""
    if encoder.encoder_config.is_file():
        options = read_json(encoder.encoder_config)
        backbone = f"{options.get('backbone', 'network')}"
        size = f" at {config.image_size or options.get('image_size')} px"
    videos, names = subjects.videos(result.videos, result.groups), result.classes
    return (
        f"A {backbone}{size} from {START[result.start]}, {PART[config.trainable]} fine-tuned to "
        f"tell the class of a {result.level}: {', '.join(names[:-1])} or {names[-1]}. Each of "
        f"{videos} was tested once in {len(result.folds)} folds, by a classifier that was trained "
        "on the other folds."
    )


def _cautions(result: Finetuning, subjects: Subjects) -> list[str]:
    texts = list(subjects.cautions)
    figures = next(iter(result.figures.values()))
    few = [
        f"{name} ({count(n, subjects.noun)})"
        for name, n in figures.patients_per_class.items()
        if n < FEW_IN_CLASS
    ]
    if few:
        texts.append(
            f"Few {subjects.noun}s have {listed(few)}: figures of such a class, and means over "
            "classes with it, can change with one of them."
        )
    if figures.patients < FEW:
        texts.append(
            f"All figures rest on {count(figures.patients, subjects.noun)}, so few that intervals "
            "tend to be too narrow."
        )
    if result.seen:
        texts.append(
            f"Pretraining saw {result.seen} of the {count(result.videos, 'video')}, or others of "
            "their patients, without labels."
            + ("" if result.unseen else " None of them is new to the encoder.")
        )
    elif result.seen is None:
        texts.append("It is not known which of these videos the encoder was pretrained on.")
    missing = {name for fold in result.folds for name in fold.not_fitted}
    if missing:
        texts.append(f"Not learned in every fold: {listed(sorted(missing))}.")
    return texts


def _confusion(folder: FinetuneFolder, result: Finetuning) -> str:
    path = folder.figures / "confusion.png"
    drawing = classification.confusion_matrices(result.figures, result.classes, path)
    words = "Rows are the true classes, and sum to 100 %; columns what the classifier says."
    return lines(picture(drawing, "Confusion matrices"), paragraph(words, "note"))


def _thresholds(
    folder: FinetuneFolder, result: Finetuning, predictions: Mapping[str, Predictions]
) -> str:
    drawing = classification.roc_curves(
        predictions, result.figures, result.classes, folder.figures / "roc.png"
    )
    words = (
        "A curve per class, against the rest. Probabilities of the classifiers of all folds are "
        "put in one order, although no two folds have the same classifier."
    )
    return lines(picture(drawing, "ROC curves"), paragraph(words, "note"))


def _calibration(
    folder: FinetuneFolder, result: Finetuning, predictions: Mapping[str, Predictions]
) -> str:
    path = folder.figures / "calibration.png"
    drawing = classification.reliability_diagrams(predictions, result.figures, path)
    words = (
        "A dot below the diagonal is too sure, one above it not sure enough. With class weights, "
        "probabilities are those of classes that are equally frequent."
    )
    return lines(picture(drawing, "Reliability diagrams"), paragraph(words, "note"))


def _training(folder: FinetuneFolder, result: Finetuning) -> str:
    history = _history(folder)
    best = {str(fold.fold): fold.best_epoch for fold in result.folds}
    if result.final_epochs is not None:
        best["final"] = result.final_epochs
    drawing = classification.learning_curves(history, best, folder.figures / "learning.png")
    validated = any(fold.validation for fold in result.folds)
    words = (
        "A dot is the epoch whose weights were kept: the one with the lowest validation loss, on "
        "patients of the training folds."
        if validated
        else "The weights of the last epoch were kept."
    )
    rows = [
        [f"{f.fold}", *map(plain, (f.train, f.validation, f.test, f.epochs, f.best_epoch))]
        for f in result.folds
    ]
    head = ["fold", "videos trained on", "validation", "test", "epochs", "epoch kept"]
    folds = table("Folds", head, rows)
    return lines(picture(drawing, "Learning curves"), paragraph(words, "note"), folds)


def _history(folder: FinetuneFolder) -> dict[str, dict[str, FloatArray]]:
    """Returns the columns of the table of epochs, by fold."""
    rows = read_table(folder.learning, ("fold", "epoch"))
    names = [name for name in (rows[0] if rows else ()) if name != "fold"]
    try:
        return {
            fold: {
                name: np.array([float(r[name] or "nan") for r in rows if r["fold"] == fold])
                for name in names
            }
            for fold in dict.fromkeys(row["fold"] for row in rows)
        }
    except ValueError as error:
        raise DamagedFileError(folder.learning, str(error)) from error


@job("Drawing mistakes", {"Reading videos": 1})
def _mistakes(
    folder: FinetuneFolder,
    result: Finetuning,
    tested: Mapping[str, Tested],
    config: FinetuningConfig,
) -> str:
    if not Path(result.data).is_dir():
        logger.warning("no pictures of mistakes: the data folder %s is gone", result.data)
        return ""
    try:
        catalog = RunFolder(result.run).scan(
            result.data,
            label=result.label,
            patient_pattern=config.patient_pattern,
            sweep=config.sweep,
            min_frames=config.min_frames,
        )
        found = mistakes.mistakes(catalog, tested["video"], tested["frame"], result.classes)
    except ValueError as error:  # of videos that have changed
        logger.warning("no pictures of mistakes: %s", error)
        return ""
    if not found:
        return ""
    mistakes.draw(found, folder.figures / "mistakes.png")
    words = (
        "The videos that were taken for another class with the highest probability, each by the "
        "frame that most looked like it: worth a second look at the label, too."
    )
    return lines(paragraph(words), mistakes.as_html(found))


def _data(folder: FinetuneFolder, result: Finetuning, subjects: Subjects) -> str:
    videos = read_table(folder.videos)
    folds = sorted({row["fold"] for row in videos}, key=int)
    rows = []
    for name in (*result.classes, ""):
        of = [row for row in videos if row["class"] == name]
        if of:
            cells = [sum(row["fold"] == fold for row in of) for fold in folds]
            title = isolated(name) if name else Html("frames of several classes")
            patients = len({row["group"] for row in of})
            rows.append([title, *map(plain, (len(of), patients, *cells))])
    head = ["class", "videos", f"{subjects.noun}s", *(f"fold {fold}" for fold in folds)]
    texts = []
    if result.unlabelled:
        texts.append(f"{count(result.unlabelled, 'video')} without a class are left out.")
    for name, n in result.left_out.items():
        texts.append(f"Left out on request: {count(n, result.level)} of class {name}.")
    return lines(table("Videos of each class", head, rows), paragraph(" ".join(texts), "note"))


def _use(folder: FinetuneFolder, result: Finetuning) -> str:
    saved = folder.final if result.final_epochs else folder.fold(result.folds[0].fold)
    if not (saved / "classifier.json").is_file():
        return ""
    text = (
        "import usucl\n\n"
        f"classifier = usucl.load_classifier({str(saved)!r})\n"
        'classifier.predict("video.mp4").mean(0)  # probability of each of classifier.classes'
    )
    words = (
        "This classifier was trained on all folds; the figures above are those of the folds' "
        "classifiers, and stand for it."
        if result.final_epochs
        else "The classifier of one fold. With --set final=true one is trained on all folds."
    )
    return lines(code(text, "Python"), paragraph(words, "note"))


def _facts(folder: FinetuneFolder, result: Finetuning, config: FinetuningConfig) -> str:
    machine = result.machine
    where: Sequence[str | None] = (
        machine.system,
        count(machine.cpu_cores, "CPU core"),
        machine.accelerator,
    )
    texts = {
        "Encoder": result.run,
        "First weights": START[result.start],
        "Data": result.data,
        "Seed": str(config.seed),
        "Trained for": f"{duration(result.seconds)} (h:min:s)",
        "On": ", ".join(filter(None, where)),
        "Versions": ", ".join(f"{name} {v}" for name, v in result.versions.items() if v),
    }
    text = folder.config.read_text("utf-8", "backslashreplace")
    return lines(terms(texts, "facts"), heading("Options"), code(text, "Options", "columns"))
