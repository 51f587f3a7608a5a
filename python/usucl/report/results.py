"""The figures of the evaluation as rows and tables, each with what it means and does not mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from usucl.data.catalog.tables.columns import LABEL
from usucl.evaluation import Evaluation
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.embed import ENCODERS
from usucl.evaluation.probes import FIGURES, PROBES
from usucl.evaluation.schema import Comparison, Efficiency, ProbeResult
from usucl.report.page import Html, escape, heading, isolated, lines, paragraph, table, terms
from usucl.report.probes import bound, more_tables
from usucl.report.verdicts import OTHERS, Row, every_interval, interval, verdict
from usucl.report.wording import Subjects, count, number


class _Task(NamedTuple):
    """A retrieval task: its title, its name in a sentence, and its meaning."""

    title: str
    skill: str
    meaning: str


RETRIEVAL = {
    "same_video": _Task(
        "Finds its own video",
        "finding its own video",
        "An altered frame against all clean frames: does its own video come before "
        "{other_videos}? Part of the figure may rest on the look of the machine, not on anatomy.",
    ),
    "temporal": _Task(
        "Finds its place in time",
        "finding its place in time",
        "Frames within {near_frames} of an altered frame against frames of the same video farther "
        "than {far_fraction} of its length. Methods without intra-video negatives can raise it as "
        "well, so it does not show which negatives did it.",
    ),
    "temporal_hard": _Task(
        "Finds its place among near frames",
        "finding its place among near frames",
        "The same against frames within {hard_fraction} of the length, where intra-video negatives "
        "act. Differences of a hundredth or two come and go with the seed.",
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
LABELS = ("label", "frame_label")
PROTOCOLS = ("held_out", "cross_validation")
HEAD = ["", "trained", "random", "pixels", "trained − random", "trained − pixels"]  # noqa: RUF001


class _Protocol(NamedTuple):
    """How probes are fitted and tested: a title, a part of a sentence, and its meaning."""

    title: str
    how: str
    meaning: str
    held_out: bool

    @classmethod
    def of(cls, evaluation: Evaluation, protocol: str, noun: str = "patient") -> _Protocol:
        """Returns the words for a protocol, by what pretraining saw of the videos."""
        if protocol == "held_out":
            meaning = "Fitted on the videos that pretraining saw, tested on the held-out videos."
            return cls("held out", f"on held-out {_videos(evaluation)}", meaning, True)
        title, how = "cross-validation", "by cross-validation"
        meaning = f"Every {noun} is tested once, by a probe fitted on the other folds. "
        seen, unseen = (evaluation.counts[part].videos for part in ("pretraining", "held_out"))
        if not seen:
            return cls(title, how, f"{meaning}Pretraining saw none of these videos.", True)
        meaning += (
            f"Pretraining saw {seen} of all {count(seen + unseen, 'video')} (never their labels): "
            "not a held-out figure."
        )
        return cls(f"{title}, not held out", f"{how}: not held out", meaning, False)


def label_title(evaluation: Evaluation, label: str) -> str:
    """Returns what a probe tells: the label of the video or of the frame, by its column's name."""
    name = "Label" if evaluation.label == LABEL else evaluation.label
    return f"{name} of the {_level(label)}"


def _level(label: str) -> str:
    return "video" if label == "label" else "frame"


def retrieval_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the retrieval figures, in the order of the report."""
    held_out = evaluation.protocol.measured_on == "held-out videos"
    videos = _videos(evaluation)
    how = f"on held-out {videos}" if held_out else f"on {videos} that pretraining saw"
    return [
        Row(
            name=task.title,
            estimates=evaluation.retrieval[key],
            chance=0.5,
            unit="AUROC",
            skill=task.skill,
            how=how,
            held_out=held_out,
        )
        for key, task in RETRIEVAL.items()
        if key in evaluation.retrieval
    ]


def probe_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the balanced accuracy of the linear probe for every label and protocol."""
    rows = []
    for label, protocol, result in _protocols(evaluation):
        level = _level(label)
        what = "the label" if evaluation.label == LABEL else evaluation.label
        words = _Protocol.of(evaluation, protocol)
        rows.append(
            Row(
                name=f"{label_title(evaluation, label)},\n{words.title}",
                estimates=result.probes["linear"][level]["balanced_accuracy"],
                chance=result.chance,
                unit="Balanced accuracy",
                skill=f"telling {what} of the {level}"
                + ("" if words.held_out else " (not held out)"),
                how=f"linear probe per {level}, {words.how}",
                held_out=words.held_out,
            )
        )
    return rows


def _videos(evaluation: Evaluation) -> str:
    return "synthetic videos" if evaluation.synthetic else "videos"


def leading_rows(evaluation: Evaluation) -> list[Row]:
    """Returns the figures of the headline: held-out ones, and others where there are none."""
    rows = retrieval_rows(evaluation)
    for label in LABELS:
        title = label_title(evaluation, label)
        probes = [row for row in probe_rows(evaluation) if row.name.startswith(f"{title},")]
        best = [row for row in probes if row.held_out] or probes
        rows += [row._replace(name=title) for row in best[:1]]
    return rows


def retrieval_table(evaluation: Evaluation, subjects: Subjects) -> str:
    """Returns the table of retrieval and the spread of the embeddings, and its terms."""
    rows, meanings = [], {}
    for key, task in RETRIEVAL.items():
        if key in evaluation.retrieval:
            options = {**vars(evaluation.protocol), "other_videos": subjects.other_videos}
            meanings[task.title] = task.meaning.format(**options)
            rows.append([f"{task.title}, AUROC", *_cells(evaluation.retrieval[key])])
    for measure, (name, meaning, form) in GEOMETRY.items():
        if measure in evaluation.geometry:
            meanings[name] = meaning
            values = evaluation.geometry[measure]
            cells = [_number(number(values[e], form)) for e in ENCODERS]
            rows.append([name, *cells, _number(""), _number("")])
    meanings["AUROC"] = "How often the frame that should be nearer is nearer: chance is 0.5."
    return lines(table("Retrieval and spread", HEAD, rows), terms(meanings, "terms"))


def probe_tables(evaluation: Evaluation, subjects: Subjects) -> str:
    """Returns tables of all probe figures, by label and protocol; empty without labels."""
    parts = []
    for label, protocol, result in _protocols(evaluation):
        words = _Protocol.of(evaluation, protocol, subjects.noun)
        classes = ", ".join(f"{isolated(c)} {n}" for c, n in result.patients_per_class.items())
        title = f"{label_title(evaluation, label)}: {words.title}"
        parts.append(heading(title))
        tested = f"{subjects.noun.capitalize()}s tested"
        split = escape(subjects.split)
        note = f"{escape(words.meaning)} {tested}: {classes}.{_gaps(result, subjects)} {split}"
        parts.append(paragraph(Html(note.rstrip()), "note"))
        rows = [
            [f"{PROBES[probe].title}, {FIGURES[figure]}, per {level}", *_cells(comparison)]
            for probe, levels in result.probes.items()
            for level, figures in levels.items()
            for figure, comparison in figures.items()
        ]
        parts += [table(title, HEAD, rows), paragraph(_baselines(result), "note")]
        parts.append(more_tables(result, subjects))
    if parts:
        parts.append(bound())
    if any(result.source is not None for *_, result in _protocols(evaluation)):
        parts.append(
            paragraph(
                "Source alone answers with the usual class of the hospital or publisher that a "
                "video comes from, without looking at a frame. Where it scores as high as the "
                "probes, classes go with sources, and a probe may only recognise the source.",
                "note",
            )
        )
    return lines(*parts)


def efficiency_curves(
    evaluation: Evaluation,
) -> dict[str, tuple[Sequence[Efficiency], float]]:
    """Returns, by title, what probes of few patients tell, and the figure of guessing."""
    return {
        f"{label_title(evaluation, label)}, {_Protocol.of(evaluation, protocol).title}": (
            result.efficiency,
            result.chance,
        )
        for label, protocol, result in _protocols(evaluation)
        if len(result.efficiency) > 1
    }


def _protocols(evaluation: Evaluation) -> Iterator[tuple[str, str, ProbeResult]]:
    for label in LABELS:
        reached = evaluation.probes.get(label)
        for protocol in PROTOCOLS:
            result = reached.protocols.get(protocol) if reached else None
            if result is not None:
                yield label, protocol, result


def _gaps(result: ProbeResult, subjects: Subjects) -> str:
    text = ""
    if result.not_tested:
        text += f" Without a tested video: {', '.join(map(isolated, result.not_tested))}."
    if result.not_fitted:
        missing = ", ".join(map(isolated, result.not_fitted))
        text += f" Missing from a fit, so never predicted there: {missing}."
    reason = result.probes["linear"]["frame"]["balanced_accuracy"]["trained"].note
    if reason:
        reason = subjects.told(reason.removesuffix(": no interval"))
    return text + (f" No intervals: {escape(reason)}." if reason else "")


def _baselines(result: ProbeResult) -> str:
    text = f"Chance: balanced accuracy {result.chance:.3g}, macro AUROC 0.5."
    if result.source is not None:
        parts = []
        for figure, e in result.source.items():
            parts.append(f"{FIGURES[figure]} {number(e.value)} {interval(e)}".strip())
        text += f" Source alone, per video: {', '.join(parts)}."
    return text


def _cells(estimates: Comparison) -> list[Html]:
    values = [_number(_estimate(estimates[name])) for name in ENCODERS]
    for key, other in OTHERS.items():
        e = estimates[f"trained - {key}"]
        values.append(_number(_estimate(e, "+.2f"), verdict(e, other).word))
    return values


def _number(content: str, style: str = "") -> Html:
    return Html(f'<td class="{f"number {style}".strip()}">{escape(content)}</td>')


def _estimate(e: Estimate, form: str = ".2f") -> Html:
    small = [text for text in (interval(e, form), every_interval(e, form)) if text]
    return Html(number(e.value, form) + "".join(f"<small>{text}</small>" for text in small))
