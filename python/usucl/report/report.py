"""``report.html``, one file that shows what a run did; the pictures are also in ``figures/``."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from usucl._files import DamagedFileError, write_atomically
from usucl._progress import job
from usucl.data.catalog.tables.columns import LABEL
from usucl.data.sampling.clock import UNIT_WORDS
from usucl.embedding import Embeddings
from usucl.evaluation import Evaluation
from usucl.report import contact_views, facts, figures, results, verdicts
from usucl.report.contact import ContactSheet, contact_sheet
from usucl.report.page import (
    Html,
    Section,
    address,
    alert,
    code,
    escape,
    heading,
    isolated,
    lines,
    page,
    paragraph,
    picture,
    table,
)
from usucl.report.probes import duplicates
from usucl.report.record import RunRecord
from usucl.report.wording import Subjects, count

logger = logging.getLogger(__name__)


@job("Writing the report", {"Drawing the map": 10, "Drawing the contact sheet": 10})
def write_report(
    run: str | Path, *, evaluation: str | Path | None = None, progress: bool = False
) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` from what lies in a run folder.

    Nothing is measured again. The report leaves out what the run lacks: without
    ``evaluation.json`` there are only the training curves and the data, without labels no probes,
    without the data no contact sheet.

    Args:
        run: run folder written by :func:`usucl.train`, best after :func:`usucl.evaluate`.
        evaluation: folder of an evaluation of the run, such as one on other data. The report goes
            there, and that of the run stays as it is. By default the evaluation in the run folder.
        progress: show the progress on standard error.

    Returns:
        The path of ``report.html``. It holds its pictures and refers to nothing outside itself.

    Raises:
        FileNotFoundError: ``run`` is not a run folder, or ``evaluation`` holds no evaluation.
        ValueError: one of the files is damaged; the message names it.
    """
    record = RunRecord.read(run, evaluation)
    try:
        content = _page(record)
    except KeyError as error:
        raise DamagedFileError(record.target.evaluation, f"it has no {error}") from error
    write_atomically(record.target.report, content.encode())
    return record.target.report


def _page(record: RunRecord) -> str:
    sections = [
        Section("What it learned", _measured(record)),
        Section("Use this encoder", facts.how_to_use(record)),
        Section("Training", _training(record) if record.is_of_own_data else ""),
        Section("Embedding map", _map(record)),
        Section("What it finds alike", _contact(record)),
        Section("Data", _data(record)),
        Section("This run", _run(record)),
    ]
    return page(_title(record), _head(record), [part for part in sections if part.content])


def _title(record: RunRecord) -> str:
    trained = Path(record.config.data).name
    if record.evaluation is None:
        return f"Pretraining on {trained}" if trained else "Pretraining report"
    measured = Path(record.evaluation.data).name
    if record.is_of_own_data:
        return f"Pretraining on {measured}"
    run = record.folder.path.absolute().name
    return f"The encoder of {run}, measured on {measured}"


def _head(record: RunRecord) -> str:
    subjects, evaluation = record.subjects, record.evaluation
    badge = '<p><span class="badge">Synthetic data, made-up patients</span></p>'
    parts = [
        badge if subjects.synthetic else "",
        paragraph(facts.byline(record), "byline"),
        alert("This run did not learn", facts.failures(record)),
        paragraph(_lead(record), "lead"),
    ]
    cautions = alert("Before you read on", [*subjects.cautions, *facts.doubts(record)], mild=True)
    if evaluation is not None:
        rows = results.leading_rows(evaluation)
        parts.append(duplicates(evaluation))
        parts += [cautions, verdicts.brief(rows), verdicts.cards(rows)]
        words = f"One run with one seed. {verdicts.multiplicity(evaluation, subjects)}"
        parts.append(paragraph(words, "note"))
    else:
        parts.append(cautions)
    return lines(*parts)


def _lead(record: RunRecord) -> str:
    encoder, subjects, evaluation = record.encoder, record.subjects, record.evaluation
    name = facts.backbone(encoder)
    seen = [row for row in record.split if row.get("part") == "train"]
    held = [row for row in record.split if row.get("part") == "held_out"]
    trained = record.trained_on
    steps = record.facts.get("steps_done") or next(iter(record.series("loss")[0][::-1]), None)
    length = f" in {count(int(steps), 'step')}" if steps else ""
    lead = f"A {name} at {encoder.get('image_size', '?')} px, pretrained without labels on "
    lead += _videos(seen, trained)
    if not record.is_of_own_data:
        lead += f" ({Path(record.config.data).name or 'other data'})"
    lead += length
    if evaluation is None:
        lead += ". It has not been evaluated yet."
        return lead + (f" Held out: {_videos(held, trained)}." if held else "")
    if evaluation.protocol.measured_on != "held-out videos":
        return lead + ". No video was held out: every figure is measured on what pretraining saw."
    counts = evaluation.counts["held_out"]
    lead += f", and measured on {subjects.videos(counts.videos, counts.patients)}"
    if not record.is_of_own_data:
        lead += f" ({Path(evaluation.data).name})"
    if subjects.patients == "known":
        return f"{lead} that it never saw."
    return f"{lead} that it never saw (but it may have seen other videos of the same patients)."


def _measured(record: RunRecord) -> str:
    evaluation, subjects = record.evaluation, record.subjects
    if evaluation is None:
        return ""
    rows = [*results.retrieval_rows(evaluation), *results.probe_rows(evaluation)]
    chart = figures.interval_chart(rows, record.target.results_figure)
    parts = [
        paragraph(_method(record, evaluation)),
        picture(chart, "Figures of the three encoders with intervals; the tables have the numbers"),
        heading("Retrieval and spread"),
        paragraph(subjects.split, "note"),
        results.retrieval_table(evaluation, subjects),
    ]
    probes = results.probe_tables(evaluation, subjects)
    if probes:
        words = (
            f"Probes are classifiers of the frozen features. With few {subjects.noun}s in a class, "
            "encoders can seldom be told apart, and training again with another seed can move a "
            "figure by a tenth: a probe at chance is an alarm, but a small difference means "
            "nothing."
        )
        parts += [heading("Probes"), paragraph(words), _few_labels(record, evaluation), probes]
    return lines(*parts)


def _few_labels(record: RunRecord, evaluation: Evaluation) -> str:
    curves = results.efficiency_curves(evaluation)
    if not curves:
        return ""
    path = record.target.efficiency_figure
    drawing = figures.label_efficiency(curves, record.subjects.noun, path)
    return picture(drawing, "Linear probes fitted on few labels; the tables have the numbers")


def _method(record: RunRecord, evaluation: Evaluation) -> str:
    subjects, start = record.subjects, facts.started_from(record)
    temporal = evaluation.retrieval["temporal"]["trained"]
    groups, noun = temporal.groups, subjects.noun
    before = start or "random weights, and a batch normalisation that has seen no data"
    others = "Supervised training is" if start else "ImageNet weights and supervised training are"
    method = (
        f"The trained encoder is compared with the same network before training ({before}) and "
        "with raw pixels. Frames are not altered but for retrieval's queries: the encoder sees "
        "the centre square of each, so the ends of the longer side are not seen. "
        f"{others} not compared. Brackets are 95 % intervals from "
        f"{count(evaluation.protocol.resamples, 'resample')} of the {noun}s; differences are "
        "paired on the same resamples; a figure without brackets has no interval. "
    )
    if temporal.note:
        return f"{method}Retrieval has no intervals: {subjects.told(temporal.note)}."
    few = ", so few that the intervals tend to be too narrow" if groups < 20 else ""
    return f"{method}Retrieval rests on {count(groups, noun)}{few}."


def _training(record: RunRecord) -> str:
    parts = []
    if record.metrics:
        curves = figures.training_curves(record, record.target.curves_figure)
        words = (
            "Negatives are the ones that the loss selected, the hardest among its keys: their "
            "similarity can rise while the encoder improves, as where the curriculum narrows the "
            "window."
        )
        words += figures.curves_legend(record)
        parts += [picture(curves, "Training curves"), paragraph(words, "note")]
    if mining := figures.mining_curves(record, record.target.mining_figure):
        parts.append(heading("What was mined"))
        parts.append(picture(mining, "Curves and histograms of the mined negatives"))
        parts.append(paragraph(figures.mining_legend(record), "note"))
    if (sheet := record.folder.last_negatives) is not None:
        image = address(sheet.read_bytes(), "png")
        words = (
            f"Negatives of a few anchors of one batch, as the loss selected them ({sheet.name} in "
            f"{sheet.parent.name}/, which has the earlier sheets)."
        )
        alt = "Anchors with their positives and hardest negatives"
        parts.append(f'<img class="mined drawing" alt="{alt}" src="{image}">')
        parts.append(paragraph(words, "note"))
    parts.append(paragraph(facts.guarded(record), "note"))
    if record.warnings:
        parts.append(heading(f"Warnings of the training: {len(record.warnings)}"))
        parts.append(
            table(
                "Warnings of the training",
                ["step", "warning"],
                [[w["step"], w["warning"]] for w in record.warnings],
            )
        )
    return lines(*parts)


@job("Drawing the map")
def _map(record: RunRecord) -> str:
    folder = record.target.embeddings
    names = [n for n in ("trained", "random") if (folder / f"{n}.safetensors").is_file()]
    if record.evaluation is None or not names:
        return ""
    embeddings = {name: Embeddings.load(folder, name) for name in names}
    drawing = figures.embedding_map(embeddings, record.target.map_figure, label=record.label)
    if drawing is None:
        return paragraph("No embedding is finite: there is no map.")
    held_out = any(next(iter(embeddings.values())).held_out)
    words = (
        f"Frames of {'held-out videos' if held_out else 'videos that pretraining saw'} by t-SNE of "
        "the embeddings; lines join a video's frames in order. Neighbours on the map are "
        "neighbours in the embedding; the distances between clusters and their sizes mean nothing."
    )
    words = f"{words} {record.subjects.split}".strip()
    return lines(picture(drawing, "Map of embeddings"), paragraph(words, "note"))


@job("Drawing the contact sheet", {"Reading videos": 5, "Embedding frames": 5})
def _contact(record: RunRecord) -> str:
    if record.evaluation is None:
        return ""
    data = record.evaluation.data
    if not Path(data).is_dir():
        logger.warning("no contact sheet: the data folder %s is gone", data)
        return ""
    try:
        sheet = contact_sheet(record, data)
        if sheet is None:
            return ""
        synthetic = record.subjects.synthetic
        contact_views.draw(sheet, record.target.contact_sheet, synthetic=synthetic)
        return lines(paragraph(_legend(record, sheet)), contact_views.as_html(sheet))
    except DamagedFileError:
        raise
    except ValueError as error:  # of videos that have changed, or of an encoder that is not finite
        logger.warning("no contact sheet: %s", error)
        return ""


def _legend(record: RunRecord, sheet: ContactSheet) -> Html:
    counts = []
    for kind in ("intra", "cross") if sheet.with_intra else ("cross",):
        above, every = sheet.above(kind)
        counts.append(f"{above} of {every} {kind}-video negatives")
    words = (
        "Anchors with a positive and the frames that the trained encoder finds hardest to tell "
        "from them. Numbers are cosine similarities. The positive is the farthest frame that "
        f"training takes as one, {record.config.sampling.positive_radius} frames away. "
    )
    if record.window is not None:
        words += (
            f"Intra-video negatives come from the last window of the curriculum, "
            f"{record.window[0]:.2g} to {record.window[1]:.2g} "
            f"({UNIT_WORDS[record.config.sampling.time_unit]}), kept beyond the positives. "
        )
    words += (
        "Cross-video negatives are the hardest frame of each of the nearest "
        f"{record.subjects.other_videos}. "
    )
    told = f"{' and '.join(counts)} shown here are more similar to their anchor than its positive"
    split = record.subjects.split
    return Html(f"{escape(words)}<b>{told}</b>; they are marked ▲. {escape(split)}".strip())


def _data(record: RunRecord) -> str:
    subjects = record.trained_on
    rows = []
    for part, title in (("train", "pretraining"), ("held_out", "held out")):
        videos = [row for row in record.split if row.get("part") == part]
        labels = Counter(row["label"] for row in videos if row["label"])
        patients = str(len({row["group"] for row in videos}))
        mix = ", ".join(f"{isolated(label)} {n}" for label, n in sorted(labels.items()))
        unknown = subjects.patients == "unknown"
        rows.append(
            [title, str(len(videos)), "unknown" if unknown else patients, Html(mix or "–")]  # noqa: RUF001
        )
    if record.evaluation is not None and not record.is_of_own_data:
        counts, here = record.evaluation.counts, record.subjects
        for part, title in (("pretraining", "seen by it"), ("held_out", "held out")):
            some = counts[part]
            patients = "unknown" if here.patients == "unknown" else str(some.patients)
            rows.append([f"measured here, {title}", str(some.videos), patients, "–"])  # noqa: RUF001
    noun = "patient" if subjects.patients == "unknown" else subjects.noun
    head = [
        "part",
        "videos",
        f"{noun}s",
        "labels" if record.config.label == LABEL else record.config.label,
    ]
    parts = [
        table("Videos of each part", head, rows) if record.split else "",
        facts.held_out(record),
    ]
    if record.skipped:
        parts.append(heading(f"Skipped: {count(len(record.skipped), 'file')}"))
        cells = [[isolated(row["path"]), row["reason"]] for row in record.skipped]
        parts.append(table("Skipped files", ["path", "reason"], cells))
    elif record.split:
        parts.append(paragraph("Every file could be read.", "note"))
    return lines(*parts)


def _run(record: RunRecord) -> str:
    parts = [facts.facts(record)]
    if record.config_text:
        parts += [heading("Configuration"), code(record.config_text, "Configuration", "columns")]
    return lines(*parts)


def _videos(rows: list[dict[str, str]], subjects: Subjects) -> str:
    return subjects.videos(len(rows), len({row["group"] for row in rows}))
