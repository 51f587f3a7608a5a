"""The tables of a comparison: figures of every arm, and how the arms were trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usucl._progress import duration
from usucl._spread import MEASURES
from usucl.comparison.analysis.conclusion import Conclusion
from usucl.comparison.analysis.measures import RETRIEVAL, Measure
from usucl.comparison.measurement.predictions import SUPERVISED, RunResult
from usucl.evaluation.bootstrap import Estimate
from usucl.report.comparison.wording import (
    FIGURE_NAMES,
    bounds,
    share_in_words,
    title_of_measure,
    title_of_probe,
    title_of_task,
)
from usucl.report.page import Html, escape, folded, heading, lines, table
from usucl.report.results import GEOMETRY
from usucl.report.verdicts import interval
from usucl.report.wording import number

GROUPS = {"baseline": "baseline", "peer": "others", "ours": "ours"}


def leading(conclusion: Conclusion) -> list[Measure]:
    """Returns the figures of the table of arms: one of each task on all labels, and retrieval."""
    named = [p.figure for p in conclusion.experiment.primary if p.figure != "auroc"]
    figure = named[0] if named else "balanced_accuracy"
    return [
        m
        for m in conclusion.figures
        if m.probe == RETRIEVAL or (m.probe == "linear" and m.share == 1 and m.figure == figure)
    ]


def arms_table(conclusion: Conclusion) -> str:
    """Returns the table of arms: the leading figures of each, with their intervals."""
    measures = leading(conclusion)
    head = [
        "arm",
        "group",
        *(f"{title_of_task(m.task)}, {FIGURE_NAMES[m.figure]}" for m in measures),
    ]
    return table("Figures of every arm", head, _rows(conclusion, measures))


def task_tables(conclusion: Conclusion) -> str:
    """Returns a folded table per task with every probe, share and figure."""
    parts = []
    for task in conclusion.tasks:
        by_probe: dict[tuple[str, float], list[Measure]] = {}
        for m in conclusion.figures:
            if m.task == task:
                by_probe.setdefault((m.probe, m.share), []).append(m)
        content = []
        for (probe, share), measures in by_probe.items():
            of = "" if probe == SUPERVISED else f", {share_in_words(share)} of the patients"
            title = f"{title_of_probe(probe)}{of}"
            content.append(heading(title))
            head = ["arm", "group", *(FIGURE_NAMES[m.figure] for m in measures)]
            content.append(table(f"{task}, {title}", head, _rows(conclusion, measures)))
        parts.append(folded(f"{task}: all probes and figures", lines(*content)))
    return lines(*parts)


def _rows(conclusion: Conclusion, measures: Sequence[Measure]) -> list[list[Html]]:
    return [
        [
            escape(arm.title),
            _number(GROUPS[arm.group]),
            *(_cell(conclusion.figures[m].get(arm.name)) for m in measures),
        ]
        for arm in conclusion.experiment.arms
        if any(arm.name in conclusion.figures[m] for m in measures)
    ]


def _cell(e: Estimate | None) -> Html:
    if e is None:
        return Html('<td class="number">–</td>')  # noqa: RUF001
    small = f"<small>{interval(e)}</small>" if interval(e) else ""
    return Html(f'<td class="number">{number(e.value)}{small}</td>')


def differences_table(conclusion: Conclusion) -> str:
    """Returns the table of the exploratory differences."""
    styles = {"better": "better", "worse": "worse"}
    titles = conclusion.experiment.title_of
    rows = [
        [
            f"{titles(d.arm)} − {titles(d.reference)}",  # noqa: RUF001
            title_of_measure(d.measure),
            Html(f'<td class="number {styles.get(d.verdict, "")}">{escape(bounds(d))}</td>'),
            d.verdict,
        ]
        for d in conclusion.exploratory
    ]
    return table("Exploratory differences", ["arms", "measured by", "difference", "verdict"], rows)


def training_table(conclusion: Conclusion) -> str:
    """Returns spread, duration and speed of the arms, as means over their runs."""
    rows = []
    for arm in conclusion.experiment.arms:
        runs = [r for r in conclusion.experiment.results if r.arm == arm.name]
        if runs:
            seconds, speed = _mean(runs, "seconds"), _mean(runs, "images_per_second")
            rows.append(
                [
                    escape(arm.title),
                    _number(str(len(runs))),
                    *(_spread(runs, name) for name in MEASURES),
                    _number(duration(seconds) if seconds else "–"),  # noqa: RUF001
                    _number(f"{speed:,.0f}" if speed else "–"),  # noqa: RUF001
                ]
            )
    spread = [GEOMETRY[name][0].lower() for name in MEASURES]
    head = ["arm", "runs", *spread, "time per run", "images per second"]
    return table("Contraction and time", head, rows)


def _spread(runs: Sequence[RunResult], name: str) -> Html:
    values = np.array([r.spread[name] for r in runs if np.isfinite(r.spread.get(name, np.nan))])
    if not len(values):
        return _number("–")  # noqa: RUF001
    form = GEOMETRY[name][2]
    low, high = (number(float(v), form) for v in (values.min(), values.max()))
    return Html(
        f'<td class="number">{number(float(values.mean()), form)}'
        f"<small>{low} to {high}</small></td>"
    )


def _mean(runs: Sequence[RunResult], name: str) -> float:
    values = [getattr(r, name) for r in runs]
    return float(np.mean(values)) if np.isfinite(values).all() else 0.0


def _number(text: str) -> Html:
    return Html(f'<td class="number">{escape(text)}</td>')


def patients_table(conclusion: Conclusion, noun: str) -> str:
    """Returns the number of tested patients of every class of every task."""
    rows = [
        [task, label, _number(f"{n:,}"), f"per {of.level}"]
        for task, of in conclusion.tasks.items()
        for label, n in of.patients_per_class.items()
    ]
    head = ["task", "class", f"{noun}s tested", "labels"]
    return table(f"{noun.capitalize()}s tested of every class", head, rows)
