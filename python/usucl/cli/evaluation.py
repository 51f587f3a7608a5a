"""The figures of an evaluation as tables, each told for what it was measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from usucl.cli.console import say, table

if TYPE_CHECKING:
    from usucl.evaluation import Evaluation
    from usucl.evaluation.bootstrap import Estimate
    from usucl.evaluation.simultaneous import Comparison

RETRIEVAL = {
    "same_video": "finds its video",
    "temporal": "place in time",
    "temporal_hard": "near frames",
}
LABELS = {"label": "video", "frame_label": "frame"}
DOUBTS = {"partly": "Patients of some videos unknown", "unknown": "Patients unknown"}
ENCODERS = "Encoders: trained; random, the same before training; pixels, the frames themselves."


class _Figure(NamedTuple):
    name: str
    of: Comparison
    chance: float
    is_cross_validation: bool

    @property
    def title(self) -> str:
        """The name, told apart from that of the held-out figure."""
        return self.name + (", cross-validation" if self.is_cross_validation else "")


def show(evaluation: Evaluation) -> None:
    """Prints what was measured on what, the figures, and which encoder is better."""
    from usucl.data.catalog.patients import MAY_BE_SHARED

    figures = list(_figures(evaluation))
    failures = _failures(evaluation)
    if failures:
        say(f"This run did not learn. {' '.join(failures)}")
    say(_measured_on(evaluation))
    if evaluation.patients != "known":
        say(f"{DOUBTS[evaluation.patients]}: split by video; {MAY_BE_SHARED}.")
    everything = sum(count.videos for count in evaluation.counts.values())
    seen = evaluation.counts["pretraining"].videos
    parts = {
        False: f"On {evaluation.protocol.measured_on}",
        True: "By cross-validation over the labelled videos; pretraining saw "
        + (
            f"{seen} of all {everything} (never their labels): not held out"
            if seen
            else f"none of all {everything}"
        ),
    }
    say()
    for is_cross_validation, title in parts.items():
        rows = [
            (f.name, *(bounded(f.of[name], ".2f") for name in evaluation.encoders))
            for f in figures
            if f.is_cross_validation == is_cross_validation
        ]
        if rows:
            table(["", *evaluation.encoders], rows, title=title)
    others = [name for name in evaluation.encoders if name != "trained"]
    rows = [
        (
            f.title,
            *(judged(f.of[f"trained - {name}"]) for name in others),
        )
        for f in figures
    ]
    table(["", *(f"against {name}" for name in others)], rows, title="The trained encoder is")
    for line in _notes(evaluation, figures):
        say(line)


def _notes(evaluation: Evaluation, figures: list[_Figure]) -> Iterator[str]:
    """Yields what has to be known to read the tables."""
    yield ENCODERS
    labels = [f for f in figures if f.name not in RETRIEVAL.values()]
    more = ", and of labels the balanced accuracy of a linear probe" if labels else ""
    yield f"Figures: AUROC{more}. What each means is said in the report."
    several = {f.name for f in labels for g in labels if g.name == f.name and g.chance != f.chance}
    chances = dict.fromkeys(
        f"{f.title if f.name in several else f.name} {f.chance:.3g}" for f in labels
    )
    yield f"Chance: {'; '.join(['AUROC 0.5', *chances])}."
    if any(f.of["trained"].low is not None for f in figures):
        text = f"Brackets: {evaluation.protocol.interval}"
        together = sum(e.adjusted_low is not None for e in evaluation.differences())
        if together > 1:
            text += f"; those of differences are wider, for all {together} to hold at once"
        yield f"{text}."
    for note in dict.fromkeys(
        f"{f.title}: {f.of['trained'].note}" for f in figures if f.of["trained"].note
    ):
        yield f"No interval for {note.removesuffix(': no interval')}."


def _failures(evaluation: Evaluation) -> list[str]:
    """Returns why the run has learned nothing; empty if it has, or its folder is gone."""
    from usucl.report.facts import failures
    from usucl.report.record import RunRecord

    try:
        return failures(replace(RunRecord.read(evaluation.run), evaluation=evaluation))
    except FileNotFoundError:
        return []


def _figures(evaluation: Evaluation) -> Iterator[_Figure]:
    for task, name in RETRIEVAL.items():
        yield _Figure(name, evaluation.retrieval[task], 0.5, False)
    for label, reached in evaluation.probes.items():
        for protocol, result in (reached.protocols if reached else {}).items():
            if result is not None:
                level = LABELS[label]
                figure = result.probes["linear"][level]["balanced_accuracy"]
                is_cross = protocol == "cross_validation"
                yield _Figure(f"{evaluation.label} of {level}", figure, result.chance, is_cross)


def _measured_on(evaluation: Evaluation) -> str:
    held_out = evaluation.counts["held_out"]
    what = "synthetic video" if evaluation.synthetic else "video"
    whose = "the data of the run" if evaluation.own_data else "other data than the run's"
    if not held_out.videos:
        saw = "pretraining saw all of these videos, or others of their patients"
        return f"{whose.capitalize()}, {evaluation.data}: nothing is held out; {saw}."
    text = f"{held_out.videos} held-out {what}{'s' * (held_out.videos != 1)}"
    if evaluation.patients == "known":
        whom = "made-up patient" if evaluation.synthetic else "patient"
        text += f" of {held_out.patients} {whom}{'s' * (held_out.patients != 1)}"
    return f"Measured on {text} of {whose}, {evaluation.data}."


def judged(difference: Estimate) -> tuple[str, ...]:
    """Returns the parts of a cell: the verdict, and the difference with its interval."""
    from usucl.evaluation import verdict

    low, high = difference.adjusted_low, difference.adjusted_high
    if low is None or high is None:
        return (f"{verdict(difference)}:", *bounded(difference, "+.2f"))
    return f"{verdict(difference)}:", f"{difference.value:+.2f} {_bounds(low, high, '+.2f')}"


def bounded(estimate: Estimate, form: str) -> tuple[str, ...]:
    """Returns the parts of a cell: a figure, and its interval if there is one."""
    if estimate.value is None:
        return ("-",)
    if estimate.low is None or estimate.high is None:
        return (f"{estimate.value:{form}}",)
    return f"{estimate.value:{form}}", _bounds(estimate.low, estimate.high, form)


def _bounds(low: float, high: float, form: str) -> str:
    from usucl.evaluation.bootstrap import form_of_bound

    return f"[{low:{form_of_bound(low, form)}}, {high:{form_of_bound(high, form)}}]"
