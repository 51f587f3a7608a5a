"""``report.html``, one file that shows what a run did; the pictures are also in ``figures/``."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from usucl._files import DamagedFileError, write_atomically
from usucl._progress import job
from usucl.embedding import Embeddings
from usucl.evaluation import Evaluation
from usucl.report import figures, results
from usucl.report.contact import contact_sheet
from usucl.report.page import Html, escape, isolated, page, paragraph, picture, section, table
from usucl.report.record import RunRecord
from usucl.run_folder import RunFolder

logger = logging.getLogger(__name__)

COLLAPSED = -0.1
"""Uniformity above this: typical pairs lie within 0.22 of each other on the unit sphere."""


@job("Writing the report", {"Drawing the map": 10, "Drawing the contact sheet": 10})
def write_report(run: str | Path, *, progress: bool = False) -> Path:
    """Writes ``report.html`` and ``figures/*.png`` into a run folder.

    The report leaves out what the run lacks: without ``evaluation.json`` there are only the
    training curves and the data, without labels no probes, without the data no contact sheet.

    Args:
        run: run folder written by :func:`usucl.train`, best after :func:`usucl.evaluate`.
        progress: show the progress on standard error.

    Returns:
        The path of ``report.html``. It holds its pictures and refers to nothing outside itself.

    Raises:
        FileNotFoundError: ``run`` is not a run folder.
        ValueError: one of its files is damaged; the message names it.
    """
    record = RunRecord.read(run)
    evaluation = record.evaluation
    parts = [_head(record)]
    if evaluation is not None:
        try:
            parts += _measured(evaluation, record.folder)
        except KeyError as error:
            raise DamagedFileError(record.folder.evaluation, f"it has no {error}") from error
    parts.append(_training(record))
    if evaluation is not None:
        parts += [_map(record), _contact(record, evaluation.data)]
    parts += [_data(record), _setting(record)]
    path = record.folder.report
    write_atomically(path, page(_title(record), "\n".join(filter(None, parts))).encode())
    return path


def _title(record: RunRecord) -> str:
    data = Path(record.evaluation.data if record.evaluation else record.config.data).name
    return f"Pretraining on {data}" if data else "Pretraining report"


def _head(record: RunRecord) -> str:
    encoder = record.encoder
    name = str(encoder.get("backbone", "network")).replace("resnet", "ResNet-")
    what = f"A {name} at {encoder.get('image_size', '?')} px"
    seen = [row for row in record.split if row.get("part") == "train"]
    held = [row for row in record.split if row.get("part") == "held_out"]
    steps = record.series("loss")[0]
    length = f" in {int(steps[-1])} steps" if steps.size else ""
    lead = f"{what}, pretrained without labels on {_videos(seen)}{length}"
    if record.evaluation is None:
        lead += ". Not evaluated yet."
    elif record.evaluation.protocol.measured_on == "held-out videos":
        counts = record.evaluation.counts["held_out"]
        lead += (
            f", and measured on {_count(counts.videos, 'video')} of "
            f"{_count(counts.patients, 'patient')} it never saw."
        )
    else:
        lead += ". No video was held out: every figure is measured on what pretraining saw."
    if held and record.evaluation is None:
        lead += f" Held out: {_videos(held)}."
    return "\n".join([f"<h1>{escape(_title(record))}</h1>", paragraph(lead, "lead")])


def _measured(evaluation: Evaluation, folder: RunFolder) -> list[str]:
    parts = []
    spread = evaluation.geometry["uniformity"]["trained"]
    if spread is not None and spread > COLLAPSED:
        words = (
            f"The trained embeddings nearly coincide (uniformity {spread:.2f}): this encoder "
            "has collapsed, and its figures below say little else."
        )
        parts.append(paragraph(words, "lower"))
    words = "One run with one seed; brackets are 95 % intervals over patients."
    return [
        *parts,
        results.summary(evaluation),
        paragraph(words, "note"),
        _figures(evaluation, folder),
    ]


def _figures(evaluation: Evaluation, folder: RunFolder) -> str:
    rows = [*results.retrieval_rows(evaluation), *results.probe_rows(evaluation)]
    chart = figures.results(rows, folder.results_figure)
    temporal = evaluation.retrieval["temporal"]["trained"]
    patients, note = temporal.groups, temporal.note
    method = (
        f"The trained encoder is compared with the same network before training and raw pixels. "
        f"Brackets are 95 % intervals from {evaluation.protocol.resamples} resamples of the "
        f"patients; differences are paired on the same resamples. Retrieval rests on "
        f"{_count(patients, 'patient')}"
    )
    if note:
        method += f" ({note})."
    else:
        method += ", so few that the intervals tend to be too narrow." if patients < 20 else "."
    parts = [paragraph(method), picture(chart, "Figures of the three encoders with intervals")]
    parts += ["<h3>Retrieval and spread</h3>", results.retrieval_table(evaluation)]
    probes = results.probe_tables(evaluation)
    if probes:
        words = (
            "Probes of the frozen features. With few patients in a class, encoders can seldom be "
            "told apart, and training again with another seed can move a figure by a tenth: a "
            "probe at chance is an alarm, but a small difference means nothing."
        )
        parts += ["<h3>Probes</h3>", paragraph(words), probes]
    return section("What it learned", *parts)


def _training(record: RunRecord) -> str:
    if not record.metrics:
        return ""
    curves = figures.training_curves(record, record.folder.curves_figure)
    words = (
        "Negatives are the ones that the loss selected, the hardest among its keys: their "
        "similarity can rise while the encoder improves, because the window narrows. Faint lines "
        "are single steps, strong lines are running means."
    )
    return section("Training", picture(curves, "Training curves"), paragraph(words, "note"))


@job("Drawing the map")
def _map(record: RunRecord) -> str:
    folder = record.folder.embeddings
    names = [n for n in ("trained", "random") if (folder / f"{n}.safetensors").is_file()]
    if not names:
        return ""
    embeddings = {name: Embeddings.load(folder, name) for name in names}
    path = figures.embedding_map(embeddings, record.folder.map_figure)
    if path is None:
        return section("Embedding map", paragraph("No embedding is finite: there is no map."))
    words = (
        "Frames of held-out videos by t-SNE of the embeddings; lines join a video's frames in "
        "order. Neighbours on the map are neighbours in the embedding; the distances between "
        "clusters and their sizes mean nothing."
    )
    return section("Embedding map", picture(path, "Map of embeddings"), paragraph(words, "note"))


@job("Drawing the contact sheet", {"Reading videos": 5, "Embedding frames": 5})
def _contact(record: RunRecord, data: str) -> str:
    if not Path(data).is_dir():
        logger.warning("no contact sheet: the data folder %s is gone", data)
        return ""
    try:
        path = contact_sheet(record, data, record.folder.contact_sheet)
    except DamagedFileError:
        raise
    except ValueError as error:  # of videos that have changed, or of an encoder that is not finite
        logger.warning("no contact sheet: %s", error)
        return ""
    if path is None:
        return ""
    words = (
        "Held-out anchors with a positive and the frames that the trained encoder finds hardest to "
        "tell from them. Numbers are cosine similarities; f30 is frame 30 of its video. "
    )
    if record.window is not None:
        words += (
            f"Intra-video negatives come from the last window of the curriculum, "
            f"{record.window[0]:.2g} to {record.window[1]:.2g} "
            f"({figures.TIME_UNITS[record.config.sampling.time_unit]}), kept beyond the positives. "
        )
    words += (
        "Cross-video negatives are the hardest frame of each of the nearest videos of other "
        "patients. The loss works on negatives that are more similar than the positive."
    )
    return section("What it finds alike", paragraph(words), picture(path, "Contact sheet"))


def _data(record: RunRecord) -> str:
    rows = []
    for part, title in (("train", "pretraining"), ("held_out", "held out")):
        videos = [row for row in record.split if row.get("part") == part]
        count = Counter(row["label"] for row in videos if row["label"])
        patients = len({row["group"] for row in videos})
        mix = ", ".join(f"{isolated(label)} {n}" for label, n in sorted(count.items()))
        rows.append([title, str(len(videos)), str(patients), Html(mix or "–")])  # noqa: RUF001
    parts = (
        [table(["part", "videos", "patients or groups", "labels"], rows)] if record.split else []
    )
    if record.skipped:
        parts.append(f"<h3>Skipped: {_count(len(record.skipped), 'file')}</h3>")
        cells = [[isolated(row["path"]), row["reason"]] for row in record.skipped]
        parts.append(table(["path", "reason"], cells))
    elif record.split:
        parts.append(paragraph("Every file could be read.", "note"))
    return section("Data", *parts) if parts else ""


def _setting(record: RunRecord) -> str:
    parts = []
    if record.config_text:
        text = "\n".join(map(escape, record.config_text.strip().split("\n")))
        parts += ["<h3>Configuration</h3>", f"<pre>{text}</pre>"]
    if record.evaluation is not None:
        machine, versions = record.evaluation.machine, record.evaluation.versions
        device = machine.accelerator or "no accelerator"
        text = f"Evaluated on {machine.system}, {_count(machine.cpu_cores, 'CPU core')}, {device}; "
        text += ", ".join(f"{name} {v}" for name, v in versions.items() if v) + "."
        parts += ["<h3>Machine and versions</h3>", paragraph(text)]
    return section("Setting", *parts) if parts else ""


def _videos(rows: list[dict[str, str]]) -> str:
    patients = len({row["group"] for row in rows})
    return f"{_count(len(rows), 'video')} of {_count(patients, 'patient')}"


def _count(number: int | None, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
