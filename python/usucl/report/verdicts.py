"""What a difference between two encoders says: better, worse, or not told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from usucl.evaluation import Evaluation
from usucl.evaluation import verdict as judged
from usucl.evaluation.bootstrap import Estimate, form_of_bound
from usucl.evaluation.schema import Comparison
from usucl.report.page import Html, escape, items
from usucl.report.wording import Subjects, count, listed, number

OTHERS = {"random": "random initialisation", "pixels": "raw pixels"}
"""What the trained encoder is compared with, in words."""

Word = Literal["better", "worse", "open"]


class Row(NamedTuple):
    """One figure of the evaluation, ready to be drawn or printed.

    Attributes:
        name: what the encoder does, or is asked for.
        estimates: the figure of each encoder, and their differences.
        chance: what guessing gives.
        unit: name of the figure, such as "AUROC".
        skill: what the encoder is better or worse at, as part of a sentence.
        how: how it was measured, as part of a sentence.
        held_out: whether pretraining saw none of the videos it is measured on.
    """

    name: str
    estimates: Comparison
    chance: float
    unit: str
    skill: str
    how: str
    held_out: bool


class Verdict(NamedTuple):
    """Whether the trained encoder is better than another, and the sentence for it."""

    word: Word
    text: str


def verdict(difference: Estimate, other: str) -> Verdict:
    """Judges a difference as :func:`usucl.evaluation.verdict` does, and says so.

    Where only the interval that ignores the other differences excludes 0, that is said, too.
    """
    if difference.value is None:
        return Verdict("open", f"not compared with {other}: not defined on these videos")
    word = judged(difference)
    if word == "better" or word == "worse":
        return Verdict(word, f"{word} than {other}")
    text = f"not told apart from {other}"
    if difference.low is None or difference.high is None:
        return Verdict("open", f"{text}: no interval")
    if difference.low > 0 or difference.high < 0:
        alone = "better" if difference.low > 0 else "worse"
        text += f" ({alone} only by the interval that ignores the other differences)"
    return Verdict("open", text)


def adjusted(difference: Estimate) -> tuple[float, float] | None:
    """Returns the interval that holds for all differences at once; None where there is none."""
    low, high = difference.adjusted_low, difference.adjusted_high
    return None if low is None or high is None else (low, high)


def multiplicity(evaluation: Evaluation, subjects: Subjects) -> str:
    """Returns what the number of differences means for each of them."""
    every = [e for e in evaluation.differences() if e.low is not None]
    text = f"This report holds {count(evaluation.comparisons, 'difference')}"
    if not every:
        return f"{text}, none with an interval: nothing can be told apart."
    text = f"Brackets are 95 % intervals over {subjects.noun}s. {text}"
    with_interval = "each" if len(every) == evaluation.comparisons else str(len(every))
    text += f", {with_interval} with an interval. "
    if len(every) > 1:
        text += (
            f"Of {len(every)} intervals of 95 %, {len(every) / 20:.2g} would miss 0 on average if "
            "no encoder differed. "
        )
    if any(adjusted(e) for e in every):
        return text + (
            "So each has a second, wider interval that holds for all of them at once (“all:”), and "
            "better and worse are said by that one alone."
        )
    return text + (
        "This evaluation, of an earlier version, has no intervals that allow for that, so nothing "
        "is called better or worse: evaluate again to get them."
    )


def brief(rows: Sequence[Row]) -> str:
    """Returns one sentence per other encoder on where the trained one is better and worse."""
    return items((_sentence(rows, key, other) for key, other in OTHERS.items()), "brief")


def _sentence(rows: Sequence[Row], key: str, other: str) -> Html:
    at: dict[str, list[str]] = {}
    for row in rows:
        difference = row.estimates[f"trained - {key}"]
        word: str = verdict(difference, other).word
        if word == "open" and difference.low is None:
            word = "undefined" if difference.value is None else "none"
        at.setdefault(word, []).append(row.skill)
    said = {
        "better": ("better", "is better at"),
        "worse": ("worse", "is worse at"),
        "open": ("open", "cannot be told apart at"),
        "none": ("open", "has no interval at"),
        "undefined": ("undefined", "cannot be compared at"),
    }
    parts = [
        f'<span class="{style}">{words}</span> {escape(listed(at[word]))}'
        for word, (style, words) in said.items()
        if word in at
    ]
    return Html(f"Compared with {other}, the trained encoder {'; '.join(parts)}.")


def cards(rows: Iterable[Row]) -> str:
    """Returns cards with the leading figures, each beside both other encoders."""
    return f'<div class="cards">{"".join(_card(row) for row in rows)}</div>'


def _card(row: Row) -> str:
    trained = row.estimates["trained"]
    against = []
    for key, other in OTHERS.items():
        difference = row.estimates[f"trained - {key}"]
        word, text = verdict(difference, other)
        parts = [f'<span class="{word}">{escape(text)}</span>']
        if difference.value is not None:
            figures = f"{number(row.estimates[key].value)}, difference "
            figures += f"{number(difference.value, '+.2f')} "
            parts.append(f"{figures}<small>{interval(difference, '+.2f')}</small>")
        if every := every_interval(difference):
            parts.append(f"<small>{every}</small>")
        against.append(Html("<br>".join(parts)))
    return (
        f'<div class="card"><h2>{escape(row.name)}</h2>'
        f'<div class="unit">{escape(row.unit)}, {escape(row.how)}; chance {row.chance:.3g}</div>'
        f"<b>{number(trained.value)} <small>{interval(trained)}</small></b>"
        f"{items(against)}</div>"
    )


def interval(e: Estimate, form: str = ".2f") -> str:
    """Returns the 95 % interval of one figure; empty where there is none."""
    return "" if e.low is None or e.high is None else _bounds(e.low, e.high, form)


def every_interval(e: Estimate, form: str = "+.2f") -> str:
    """Returns the interval that holds for all differences at once; empty where there is none."""
    bounds = adjusted(e)
    return "" if bounds is None else f"all: {_bounds(*bounds, form)}"


def _bounds(low: float, high: float, form: str) -> str:
    return f"[{', '.join(number(bound, form_of_bound(bound, form)) for bound in (low, high))}]"
