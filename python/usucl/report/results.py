"""The evaluation in words and tables: each figure with what it means and what it does not mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from usucl.evaluation import Evaluation
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.embed import ENCODERS
from usucl.evaluation.probes import FIGURES, PROBES
from usucl.evaluation.schema import Comparison, ProbeResult
from usucl.report.page import Html, escape, isolated, paragraph, table

RETRIEVAL = {
    "same_video": (
        "Finds its own video",
        "An altered frame against all clean frames: does its own video come before the videos of "
        "other patients? Pretraining lifts this readily. Part of it may rest on the look of the "
        "machine, not on anatomy.",
    ),
    "temporal": (
        "Finds its place in time",
        "Frames within {near_frames} of an altered frame against frames of the same video farther "
        "than {far_fraction} of its length. It shows that pretraining worked; methods without "
        "intra-video negatives rise as well, so it does not show which negatives did it.",
    ),
    "temporal_hard": (
        "The same, near frames",
        "Against frames within {hard_fraction} of the length, where intra-video negatives act. "
        "Differences of a hundredth or two come and go with the seed.",
    ),
}
GEOMETRY = {
    "uniformity": (
        "Uniformity",
        "0 when all embeddings coincide, lower the more evenly they fill the sphere. It tells "
        "collapse from spread, not good from bad.",
        ".2f",
    ),
    "effective_rank": (
        "Effective rank",
        "How many directions the embeddings use; near 1 is collapse. Beyond that, more is not "
        "better.",
        ".1f",
    ),
}
LABELS = {"label": "Label of the video", "frame_label": "Label of the frame"}
PROTOCOLS = {
    "held_out": (
        "Held-out patients",
        "Fitted on the videos that pretraining saw, tested on videos of patients it never saw.",
    ),
    "cross_validation": (
        "Cross-validation over all patients",
        "Every patient is tested once by a probe fitted on the others. It has more patients, but "
        "pretraining saw most of their frames (never their labels): not a held-out figure.",
    ),
}
HEAD = ["", "trained", "random", "pixels", "trained − random", "trained − pixels"]  # noqa: RUF001


class Row(NamedTuple):
    """One figure of the evaluation, ready to be drawn or printed."""

    name: str
    estimates: Comparison
    chance: float


def retrieval_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the retrieval figures, in the order of the report."""
    figures = evaluation.retrieval
    return [Row(name, figures[t], 0.5) for t, (name, _) in RETRIEVAL.items() if t in figures]


def probe_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the balanced accuracy of the linear probe for every label and protocol."""
    rows = []
    for label, protocol, result in _protocols(evaluation):
        level = "video" if label == "label" else "frame"
        name = f"{LABELS[label]},\n{PROTOCOLS[protocol][0].lower()}"
        if protocol == "cross_validation":
            name = f"{LABELS[label]},\ncross-validation"
        figure = result.probes["linear"][level]["balanced_accuracy"]
        rows.append(Row(name, figure, result.chance))
    return rows


def summary(evaluation: Evaluation) -> str:
    """Returns cards with the main figures."""
    rows = [("AUROC", row) for row in retrieval_rows(evaluation)]
    probes = probe_rows(evaluation)
    if probes:
        name, how = probes[-1].name.split(",\n")
        unit = f"Linear probe, {how}: balanced accuracy"
        rows.append((unit, probes[-1]._replace(name=name)))
    return f'<div class="cards">{"".join(_card(unit, row) for unit, row in rows)}</div>'


def retrieval_table(evaluation: Evaluation) -> str:
    """Returns the table of retrieval and the spread of the embeddings."""
    rows = []
    for task, (name, meaning) in RETRIEVAL.items():
        if task in evaluation.retrieval:
            meaning = meaning.format(**vars(evaluation.protocol))
            rows.append([_name(name, meaning), *_cells(evaluation.retrieval[task])])
    for measure, (name, meaning, form) in GEOMETRY.items():
        if measure in evaluation.geometry:
            values = evaluation.geometry[measure]
            cells = [_number(_text(values[e], form)) for e in ENCODERS]
            rows.append([_name(name, meaning), *cells, _number(""), _number("")])
    return table(HEAD, rows)


def probe_tables(evaluation: Evaluation) -> str:
    """Returns tables of all probe figures, by label and protocol; empty without labels."""
    parts = []
    for label, protocol, result in _protocols(evaluation):
        title, meaning = PROTOCOLS[protocol]
        classes = ", ".join(f"{isolated(c)} {n}" for c, n in result.patients_per_class.items())
        parts.append(f"<h3>{escape(LABELS[label])}: {escape(title.lower())}</h3>")
        note = f"{escape(meaning)} Patients tested: {classes}.{_gaps(result)}"
        parts.append(paragraph(Html(note), "note"))
        rows = [
            [f"{PROBES[probe].title}, {FIGURES[figure]}, per {level}", *_cells(comparison)]
            for probe, levels in result.probes.items()
            for level, figures in levels.items()
            for figure, comparison in figures.items()
        ]
        parts += [table(HEAD, rows), paragraph(_baselines(result), "note")]
    if any(result.source is not None for *_, result in _protocols(evaluation)):
        parts.append(
            paragraph(
                "Source alone answers with the usual class of the hospital or publisher that a "
                "video comes from, without looking at a frame. Where it scores as high as the "
                "probes, classes go with sources, and a probe may only recognise the source.",
                "note",
            )
        )
    return "\n".join(parts)


def _protocols(evaluation: Evaluation) -> Iterator[tuple[str, str, ProbeResult]]:
    for label in LABELS:
        reached = evaluation.probes.get(label)
        for protocol in PROTOCOLS:
            result = reached.protocols.get(protocol) if reached else None
            if result is not None:
                yield label, protocol, result


def _gaps(result: ProbeResult) -> str:
    text = ""
    if result.not_tested:
        text += f" Without a tested video: {', '.join(map(isolated, result.not_tested))}."
    if result.not_fitted:
        missing = ", ".join(map(isolated, result.not_fitted))
        text += f" Missing from a fit, so never predicted there: {missing}."
    reason = result.probes["linear"]["frame"]["balanced_accuracy"]["trained"].note
    return text + (f" No intervals: {escape(reason)}." if reason else "")


def _baselines(result: ProbeResult) -> str:
    text = f"Chance: balanced accuracy {result.chance:.2f}, macro AUROC 0.50."
    if result.source is not None:
        parts = []
        for figure, e in result.source.items():
            parts.append(f"{FIGURES[figure]} {_text(e.value)} {_interval(e)}".strip())
        text += f" Source alone, per video: {', '.join(parts)}."
    return text


def _card(unit: str, row: Row) -> str:
    trained = row.estimates["trained"]
    others = " · ".join(f"{n} {_text(row.estimates[n].value)}" for n in ENCODERS[1:])
    verdict, words = _verdict(row.estimates["trained - random"])
    return (
        f'<div class="card">{escape(row.name)}<b>{_text(trained.value)} '
        f"<small>{_interval(trained)}</small></b>"
        f'<div class="note">{others}<br><span class="{verdict}">{words}</span><br>'
        f"{unit}</div></div>"
    )


def _verdict(difference: Estimate) -> tuple[str, str]:
    if difference.low is None or difference.high is None:
        return "open", "no interval over patients"
    if difference.low > 0:
        return "higher", "higher than random"
    if difference.high < 0:
        return "lower", "lower than random"
    return "open", "not told apart from random"


def _name(name: str, meaning: str) -> Html:
    return Html(f'<td>{escape(name)}<div class="note">{escape(meaning)}</div></td>')


def _cells(estimates: Comparison) -> list[Html]:
    values = [_number(_estimate(estimates[name])) for name in ENCODERS]
    for name in ("trained - random", "trained - pixels"):
        e = estimates[name]
        values.append(_number(_estimate(e, "+.2f"), _verdict(e)[0]))
    return values


def _number(content: str, style: str = "") -> Html:
    return Html(f'<td class="{f"number {style}".strip()}">{escape(content)}</td>')


def _estimate(e: Estimate, form: str = ".2f") -> Html:
    return Html(f"{_text(e.value, form)}<small>{_interval(e, form)}</small>")


def _interval(e: Estimate, form: str = ".2f") -> str:
    return "" if e.low is None else f"[{_text(e.low, form)}, {_text(e.high, form)}]"


def _text(value: float | None, form: str = ".2f") -> str:
    if value is None:
        return "–"  # noqa: RUF001
    text = format(value, form)
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # zero has no sign
    return text.replace("-", "−")  # noqa: RUF001
