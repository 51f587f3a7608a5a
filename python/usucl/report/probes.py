"""What the probes tell beyond the comparison of encoders: details, few patients, shortcuts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from usucl.evaluation import Evaluation
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.classification import OVERALL
from usucl.evaluation.probes import FIGURES, PROBES
from usucl.evaluation.schema import ProbeResult
from usucl.report.page import Html, alert, escape, heading, isolated, lines, paragraph, table
from usucl.report.verdicts import interval
from usucl.report.wording import Subjects, count, listed, number

NEAR = 0.05
"""Balanced accuracy by which a context may fall short of the probe and still be called near."""
MOST_PAIRS = 10  # of near-duplicates that are named


def more_tables(result: ProbeResult, subjects: Subjects) -> str:
    """Returns the further tables of a label under a protocol; empty for an earlier evaluation."""
    return lines(_choice(result), _details(result), _efficiency(result, subjects), _context(result))


def _choice(result: ProbeResult) -> str:
    """Says which settings were chosen for the trained encoder."""
    said = []
    for name, by_encoder in result.chosen.items():
        probe = PROBES[name]
        chosen = Counter(by_encoder["trained"])
        fixed = chosen.pop(None, 0)
        parts = [f"{value:g} in {count(n, 'split')}" for value, n in sorted(chosen.items())]
        parts += [f"the fixed {probe.fixed:g} in {count(fixed, 'split')}"] if fixed else []
        said.append(f"{probe.title}, {probe.setting}: {listed(parts)}")
    if not said:
        return ""
    words = (
        "Settings are chosen by inner cross-validation over the fit patients of each split alone; "
        "with too few of them they are fixed. For the trained encoder: "
    )
    return paragraph(f"{words}{'; '.join(said)}.", "note")


def _details(result: ProbeResult) -> str:
    """Returns the figures of the trained encoder's linear probe, and its confusion matrices."""
    by_level = {level: of["trained"] for level, of in result.details.get("linear", {}).items()}
    if not by_level:
        return ""
    rows: list[Sequence[str]] = [
        [title, *(_cell(of.overall[name]) for of in by_level.values())]
        for name, title in OVERALL.items()
    ]
    rows += [
        [Html(f"{figure.capitalize()}, {isolated(name)}")]
        + [_cell(of.per_class[name][figure]) for of in by_level.values()]
        for name in next(iter(by_level.values())).per_class
        for figure in ("sensitivity", "specificity")
    ]
    title = "Linear probe of the trained encoder"
    parts = [
        heading(title),
        table(title, ["", *(f"per {level}" for level in by_level)], rows),
    ]
    for level, of in by_level.items():
        names = list(of.per_class)
        counts: list[Sequence[str]] = [
            [Html(f"is {isolated(name)}"), *(_plain(n) for n in told)]
            for name, told in zip(names, of.confusion, strict=True)
        ]
        name = f"Confusion matrix of the linear probe, {level}s"
        parts.append(table(name, [f"{level}s, told as", *names], counts))
    words = (
        "Calibration error: |share that is right - mean probability| of the predicted class in ten "
        "bins of that probability, weighted by their share of the examples. Brier score: the "
        "squared difference of the probabilities from the truth, summed over the classes, from 0 "
        "to 2. Both judge probabilities that the balanced class weights move towards rare classes."
    )
    return lines(*parts, paragraph(words, "note"))


def _efficiency(result: ProbeResult, subjects: Subjects) -> str:
    """Returns what the linear probe tells that was fitted on a share of the patients."""
    if not result.efficiency:
        return ""
    rows = []
    for point in result.efficiency:
        of = point.figures["balanced_accuracy"]
        enough = " (one of each class)" if point.by_class else ""
        rows.append(
            [
                f"{100 * point.share:g} %: {point.patients:.3g} {subjects.noun}s{enough}",
                *(_cell(of[name]) for name in ("trained", "random")),
                _cell(of["trained - random"], "+.2f"),
            ]
        )
    draws = max(point.draws for point in result.efficiency)
    words = (
        f"Balanced accuracy of a linear probe fitted on a share of the {subjects.noun}s, the mean "
        f"of {draws} random draws. Intervals are over the tested {subjects.noun}s; those of "
        "differences hold one by one, not together."
    )
    head = ["fitted on", "trained", "random", "trained − random"]  # noqa: RUF001
    title = "With few labels"
    return lines(heading(title), table(title, head, rows), paragraph(words, "note"))


def _context(result: ProbeResult) -> str:
    """Returns what the class is told by without a look at a frame, and whether that is much."""
    if not result.context:
        return ""
    levels = result.probes["linear"]
    probe = levels["video" if "video" in levels else "frame"]["balanced_accuracy"]["trained"].value
    rows = [[name, *(_cell(of[f]) for f in FIGURES)] for name, of in result.context.items()]
    near = [
        name
        for name, of in result.context.items()
        if probe is not None
        and (value := of["balanced_accuracy"].value) is not None
        and value >= max(probe - NEAR, result.chance + NEAR)
    ]
    words = (
        "Each context alone answers with the usual class of the videos that share it, without "
        "looking at a frame. "
    )
    words += (
        f"The class is told about as well, or better, by {listed(near)} alone as by the probe of "
        "the trained encoder: the probe may only recognise that."
        if near
        else "None comes near the probe of the trained encoder."
    )
    head = ["Shortcuts", *FIGURES.values()]
    title = "What the class is told by without a look at a frame"
    return lines(table(title, head, rows), paragraph(words, "note"))


def duplicates(evaluation: Evaluation) -> str:
    """Returns a warning of videos that look the same on both sides of a split; empty if none."""
    found = evaluation.duplicates or ()
    sides = {"pretraining": "trained on and held out", "folds": "in two folds"}
    texts = [
        f"{pair.video} and {pair.other} look the same, {sides[pair.apart]} "
        f"({'equal frames' if pair.equal else f'{pair.bits:.1f} of 64 bits differ'})."
        for pair in found[:MOST_PAIRS]
    ]
    if len(found) > MOST_PAIRS:
        more = count(len(found) - MOST_PAIRS, "more pair")
        texts.append(f"And {more}, named in the record of the evaluation.")
    return alert("Videos that look the same are on both sides of a split", texts)


def bound() -> str:
    """Says how the supervised bound is had."""
    words = (
        "How much labels alone could do is told by fine-tuning the whole network on the same data, "
        "from the trained weights and, as the supervised bound, from random ones: "
    )
    command = "usucl finetune RUN DATA --out FOLDER --start scratch"
    return paragraph(Html(f"{escape(words)}<code>{escape(command)}</code>."), "note")


def _cell(e: Estimate, form: str = ".2f") -> Html:
    small = f"<small>{interval(e, form)}</small>" if interval(e, form) else ""
    return Html(f'<td class="number">{number(e.value, form)}{small}</td>')


def _plain(value: int) -> Html:
    return Html(f'<td class="number">{value:,}</td>')
