"""The page of a comparison, one file; the pictures are also in ``figures/``."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from usucl._environment import version_of
from usucl._files import write_atomically
from usucl.comparison.analysis.conclusion import Conclusion
from usucl.comparison.design.subject import Subject
from usucl.comparison.measurement.predictions import FINETUNED
from usucl.report.comparison import figures, tables
from usucl.report.comparison.sheets import neighbours_sheet
from usucl.report.comparison.wording import cautions, finding, headline, limits, method
from usucl.report.page import (
    Drawing,
    Section,
    alert,
    folded,
    heading,
    items,
    lines,
    page,
    paragraph,
    picture,
    terms,
)
from usucl.report.results import GEOMETRY
from usucl.report.wording import Subjects, count
from usucl.run_folder import RunFolder


def write_comparison_report(
    conclusion: Conclusion, path: Path, pictured: Subject | None = None
) -> Path:
    """Writes the page of a comparison to ``path``, and its pictures to ``figures/`` beside it.

    Args:
        conclusion: what is shown.
        path: the page.
        pictured: the videos, if frames of them may be shown.

    Returns:
        The path. The page holds its pictures and refers to nothing outside itself.

    Raises:
        OSError: a file cannot be written.
    """
    experiment = conclusion.experiment
    subjects = Subjects(experiment.patients, experiment.synthetic)
    folder = RunFolder(path.parent)
    sections = [
        Section("What was found", _found(conclusion, folder)),
        Section("What cannot be concluded", items(limits(conclusion, subjects), "brief")),
        Section("Arms", _arms(conclusion)),
        Section("Label efficiency", _efficiency(conclusion, folder)),
        Section("Exploratory differences", _exploratory(conclusion, folder)),
        Section("Similar frames", _similar(conclusion, pictured)),
        Section("Training", _training(conclusion, folder)),
        Section("Labels", _labels(conclusion, subjects)),
        Section("This comparison", terms(experiment.facts, "facts") if experiment.facts else ""),
    ]
    if not experiment.results:
        sections = sections[-1:]
    shown = [part for part in sections if part.content]
    content = page(experiment.title, _head(conclusion, subjects), shown)
    write_atomically(path, content.encode())
    return path


def _head(conclusion: Conclusion, subjects: Subjects) -> str:
    experiment = conclusion.experiment
    badge = '<p><span class="badge">Synthetic data, made-up patients</span></p>'
    byline = f"report of {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC · USUCL"
    byline = f"{byline} {version_of('usucl') or ''}".rstrip()
    if not experiment.results:
        return lines(paragraph(byline, "byline"), paragraph("No run has finished yet.", "lead"))
    lead = (
        f"{count(len(experiment.arms), 'way')} to an encoder, each with "
        f"{count(len(experiment.seeds), 'seed')}, tested on "
        f"{count(len(experiment.tested), subjects.noun)} that the run had not seen. "
    )
    return lines(
        badge if experiment.synthetic else "",
        paragraph(byline, "byline"),
        paragraph(lead + headline(conclusion.primary), "lead"),
        alert("Before you read on", cautions(conclusion, subjects), mild=True),
        paragraph(method(conclusion, subjects), "note"),
    )


def _found(conclusion: Conclusion, folder: RunFolder) -> str:
    if not conclusion.primary:
        return ""
    drawing = figures.forest(conclusion, conclusion.primary, folder.figures / "primary.png")
    return lines(
        picture(drawing, "Primary differences with intervals; the sentences have the numbers"),
        paragraph(
            "A thick line is the interval of a difference alone, a thin one the interval that "
            "holds for all primary differences at once.",
            "note",
        ),
        items((finding(conclusion, d) for d in conclusion.primary), "brief"),
    )


def _arms(conclusion: Conclusion) -> str:
    words = (
        "Figures of the linear probe on frozen features, fitted on the labels of all training "
        "patients, over all seeds and tested patients; retrieval fits nothing. Each interval is of "
        "one figure alone. Intervals of two arms may overlap although their difference is told "
        "from none, because differences are paired."
    )
    return lines(
        paragraph(words, "note"), tables.arms_table(conclusion), tables.task_tables(conclusion)
    )


def _efficiency(conclusion: Conclusion, folder: RunFolder) -> str:
    drawing = figures.label_efficiency(conclusion, folder.figures / "labels.png")
    words = "Probes that see the labels of fewer patients."
    if any(measure.probe == FINETUNED for measure in conclusion.figures):
        words += (
            " Fine-tuned: the whole network was trained further with these labels, for as many "
            "steps in every arm; random weights so trained are supervised training alone."
        )
    return _drawn(drawing, "Figures over the share of labelled patients", words)


def _exploratory(conclusion: Conclusion, folder: RunFolder) -> str:
    if not conclusion.exploratory:
        return ""
    shown = [d for d in conclusion.exploratory if d.measure.share == 1]
    words = (
        "Not named before the experiment; their intervals hold for all of them at once. The table "
        "has the smaller shares of the labels too."
    )
    return lines(
        paragraph(words, "note"),
        _drawn(
            figures.forest(conclusion, shown, folder.figures / "exploratory.png")
            if shown
            else None,
            "Exploratory differences with intervals; the table has the numbers",
        ),
        folded("All exploratory differences", tables.differences_table(conclusion)),
    )


def _training(conclusion: Conclusion, folder: RunFolder) -> str:
    drawing = figures.learning_curves(conclusion, folder.curves_figure)
    spread = {title: meaning for title, meaning, _ in GEOMETRY.values()}
    return lines(
        _drawn(
            drawing,
            "Loss of every arm",
            "A line per run, each point the mean of a tenth of it. Losses of different methods "
            "have different scales and cannot be compared.",
        ),
        heading("Contraction and time"),
        paragraph(
            "Means over the runs, and the least and the greatest below; of the features of tested "
            "patients' frames.",
            "note",
        ),
        tables.training_table(conclusion),
        terms(spread, "terms"),
    )


def _similar(conclusion: Conclusion, pictured: Subject | None) -> str:
    sheet = neighbours_sheet(conclusion.experiment, pictured) if pictured else ""
    words = (
        "Frames of patients that no arm was trained on, and the most similar frames of other "
        "patients by the features of each arm, at most one of each video, in the first seed. "
        "Numbers are cosine similarities, which do not compare across arms; labels that differ "
        "from the query's are coloured."
    )
    return lines(paragraph(words, "note"), sheet) if sheet else ""


def _labels(conclusion: Conclusion, subjects: Subjects) -> str:
    return tables.patients_table(conclusion, subjects.noun) if conclusion.tasks else ""


def _drawn(drawing: Drawing | None, description: str, words: str = "") -> str:
    if drawing is None:
        return ""
    return lines(picture(drawing, description), paragraph(words, "note"))
