"""The figures of a classification as cards and tables, with what they mean."""

from __future__ import annotations

from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.classification import OVERALL, PER_CLASS, Figures
from usucl.finetuning import Finetuning
from usucl.report.page import Html, escape, heading, isolated, lines, paragraph, table, terms
from usucl.report.verdicts import interval
from usucl.report.wording import Subjects, count, number

LEADING = ("balanced_accuracy", "macro_auroc", "macro_f1", "calibration_error")
MEANING = {
    "Balanced accuracy": "The mean over the classes of the share that is told right; chance is one "
    "over the number of classes.",
    "Macro AUROC": "How often a random example of a class has a higher probability of it than one "
    "of the rest, averaged over the classes; chance is 0.5.",
    "Macro F1": "The mean over the classes of the harmonic mean of precision and sensitivity.",
    "Calibration error (ECE)": "How far probabilities are from shares that are right, on average "
    "over ten bins; 0 is best.",
    "Brier score": "The squared difference of the probabilities from the truth, summed over the "
    "classes and averaged over the examples; 0 is best, 2 worst.",
    "Sensitivity at a specificity": "The greatest sensitivity of a threshold that keeps the "
    "specificity. The threshold is chosen on the tested examples themselves: on new ones expect "
    "less.",
}


def cards(result: Finetuning) -> str:
    """Returns cards with the leading figures."""
    level, figures = next(iter(result.figures.items()))
    content = "".join(_card(figures, name, level, result) for name in LEADING)
    return f'<div class="cards">{content}</div>'


def _card(figures: Figures, name: str, level: str, result: Finetuning) -> str:
    e, title = figures.overall[name], OVERALL[name]
    chance = {"balanced_accuracy": 1 / _tested(figures), "macro_auroc": 0.5}.get(name)
    unit = f"per {level}" + ("" if chance is None else f"; chance {chance:.3g}")
    under = []
    for other, of in list(result.figures.items())[1:]:
        under.append(f"per {other}: {_text(of.overall[name])}")
    if name in figures.over_folds:
        mean = figures.over_folds[name]
        spread = "" if mean.deviation is None else f" ± {mean.deviation:.2f}"
        under.append(f"over {count(mean.folds, 'fold')}: {mean.mean:.2f}{spread}")
    rows = "".join(f"<li>{escape(text)}</li>" for text in under)
    return (
        f'<div class="card"><h2>{escape(title)}</h2><div class="unit">{escape(unit)}</div>'
        f"<b>{number(e.value)} <small>{interval(e)}</small></b><ul>{rows}</ul></div>"
    )


def _tested(figures: Figures) -> int:
    return sum(1 for n in figures.patients_per_class.values() if n)


def _text(e: Estimate) -> str:
    return f"{number(e.value)} {interval(e)}".strip()


def _cell(e: Estimate) -> Html:
    small = f"<small>{interval(e)}</small>" if interval(e) else ""
    return Html(f'<td class="number">{number(e.value)}{small}</td>')


def _columns(result: Finetuning) -> list[tuple[str, Figures]]:
    columns = [(f"per {level}", of) for level, of in result.figures.items()]
    for level, of in (result.unseen or {}).items():
        columns.append((f"per {level}, not seen in pretraining", of))
    return columns


def tables(result: Finetuning, subjects: Subjects) -> str:
    """Returns the tables of all figures, and their terms."""
    columns = _columns(result)
    rows = [
        [title, *(_cell(of.overall[name]) for _, of in columns)]
        for name, title in OVERALL.items()
        if all(name in of.overall for _, of in columns)  # earlier versions had fewer figures
    ]
    rows.append([f"{subjects.noun.capitalize()}s", *(plain(of.patients) for _, of in columns)])
    parts = [table("All figures", ["", *(title for title, _ in columns)], rows)]
    for level, of in result.figures.items():
        rows = [
            [
                isolated(name),
                plain(of.patients_per_class[name]),
                *(_cell(of.per_class[name][figure]) for figure in PER_CLASS),
            ]
            for name in result.classes
        ]
        head = ["class", f"{subjects.noun}s", *PER_CLASS.values()]
        title = f"Each class against the rest, per {level}"
        parts += [heading(title), table(title, head, rows)]
    notes = {
        subjects.told(e.note)
        for _, of in columns
        for e in (*of.overall.values(), *(e for c in of.per_class.values() for e in c.values()))
        if e.note
    }
    if notes:
        parts.append(paragraph(f"No interval where: {'; '.join(sorted(notes))}.", "note"))
    return lines(*parts, terms(MEANING, "terms"))


def plain(value: int) -> Html:
    """Returns the cell of a number."""
    return Html(f'<td class="number">{value:,}</td>')
