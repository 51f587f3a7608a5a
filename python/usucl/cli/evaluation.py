"""The figures of an evaluation as tables, each told for what it was measured on."""

from __future__ import annotations

from collections.abc import Iterator
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
LABELS = {"label": "label of video", "frame_label": "label of frame"}
DOUBTS = {"partly": "Patients of some videos unknown", "unknown": "Patients unknown"}
UNITS = "AUROC, and of labels the balanced accuracy of a linear probe"


class _Figure(NamedTuple):
    name: str
    of: Comparison
    is_cross_validation: bool


def show(evaluation: Evaluation) -> None:
    """Prints what was measured on what, the figures, and which encoder is better."""
    from usucl.data.patients import MAY_BE_SHARED

    figures = list(_figures(evaluation))
    say(_measured_on(evaluation))
    if evaluation.patients != "known":
        say(f"{DOUBTS[evaluation.patients]}: split by video; {MAY_BE_SHARED}.")
    everything = sum(count.videos for count in evaluation.counts.values())
    seen = evaluation.counts["pretraining"].videos
    parts = {
        False: f"On {evaluation.protocol.measured_on}",
        True: f"By cross-validation over all {everything} videos, of which pretraining saw {seen} "
        "(never their labels): not held out",
    }
    say()
    for is_cross_validation, title in parts.items():
        rows = [
            (f.name, *(_text(f.of[name], ".2f") for name in evaluation.encoders))
            for f in figures
            if f.is_cross_validation == is_cross_validation
        ]
        if rows:
            table(["", *evaluation.encoders], rows, title=title)
    others = [name for name in evaluation.encoders if name != "trained"]
    rows = [
        (
            f.name + (", cross-validation" if f.is_cross_validation else ""),
            *(_judged(f.of[f"trained - {name}"]) for name in others),
        )
        for f in figures
    ]
    table(["", *(f"against {name}" for name in others)], rows, title="The trained encoder is")
    say(f"Figures: {UNITS}.")
    say(
        f"Brackets: {evaluation.protocol.interval}; those of differences hold for all "
        f"{evaluation.comparisons} differences at once."
    )
    for note in dict.fromkeys(
        f"{f.name}: {f.of['trained'].note}" for f in figures if f.of["trained"].note
    ):
        say(f"No interval for {note.removesuffix(': no interval')}.")


def _figures(evaluation: Evaluation) -> Iterator[_Figure]:
    for task, name in RETRIEVAL.items():
        yield _Figure(name, evaluation.retrieval[task], False)
    for label, reached in evaluation.probes.items():
        for protocol, result in (reached.protocols if reached else {}).items():
            if result is not None:
                level = "video" if label == "label" else "frame"
                figure = result.probes["linear"][level]["balanced_accuracy"]
                yield _Figure(LABELS[label], figure, protocol == "cross_validation")


def _measured_on(evaluation: Evaluation) -> str:
    held_out = evaluation.counts["held_out"]
    what = "synthetic video" if evaluation.synthetic else "video"
    whose = "the data of the run" if evaluation.own_data else "other data than the run's"
    if not held_out.videos:
        saw = "pretraining saw all of these videos, or others of their patients"
        return f"{whose.capitalize()}, {evaluation.data}: nothing is held out; {saw}."
    text = f"{held_out.videos} held-out {what}{'s' * (held_out.videos != 1)}"
    if evaluation.patients == "known":
        text += f" of {held_out.patients} patient{'s' * (held_out.patients != 1)}"
    return f"Measured on {text} of {whose}, {evaluation.data}."


def _judged(difference: Estimate) -> tuple[str, ...]:
    """Returns the parts of a cell: the verdict, and the difference with its interval."""
    from usucl.evaluation import verdict

    low, high = difference.adjusted_low, difference.adjusted_high
    if low is None or high is None:
        return (f"{verdict(difference)}:", *_text(difference, "+.2f"))
    return f"{verdict(difference)}:", f"{difference.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _text(estimate: Estimate, form: str) -> tuple[str, ...]:
    """Returns the parts of a cell: a figure, and its interval if there is one."""
    if estimate.value is None:
        return ("-",)
    if estimate.low is None:
        return (f"{estimate.value:{form}}",)
    return f"{estimate.value:{form}}", f"[{estimate.low:{form}}, {estimate.high:{form}}]"
