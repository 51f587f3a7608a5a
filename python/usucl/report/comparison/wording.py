"""What a comparison says, in sentences: what was found, and what cannot be concluded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from usucl.comparison.analysis.conclusion import Conclusion, Difference
from usucl.comparison.analysis.inference import MIN_SEEDS
from usucl.comparison.analysis.measures import RETRIEVAL, Measure
from usucl.comparison.analysis.tallies import FIGURES
from usucl.comparison.measurement.predictions import FINETUNED, SUPERVISED
from usucl.evaluation.bootstrap import form_of_bound
from usucl.evaluation.probes import PROBES
from usucl.report.wording import Subjects, count, listed, number

FEW_IN_CLASS = 5
TASKS = {
    "same_video": "finding the own video",
    "temporal": "finding the place in time",
    "temporal_hard": "finding the place among near frames",
}
"""The tasks of temporal retrieval, in words."""

FIGURE_NAMES = {**FIGURES, "auroc": "AUROC"}
PROBE_NAMES = {SUPERVISED: "own classifier", FINETUNED: "fine-tuned"}


def title_of_task(task: str) -> str:
    """Returns the name of a task in a table."""
    return TASKS[task].capitalize() if task in TASKS else task


def title_of_measure(measure: Measure) -> str:
    """Returns what is measured, as a heading."""
    figure = FIGURE_NAMES[measure.figure]
    if measure.probe == RETRIEVAL:
        return f"{title_of_task(measure.task)}, {figure}"
    share = "" if measure.share == 1 else f", {share_in_words(measure.share)} of the patients"
    how = "" if measure.probe == "linear" else f", {title_of_probe(measure.probe)}"
    return f"{measure.task}{how}, {figure}{share}"


def title_of_probe(probe: str) -> str:
    """Returns the name of a probe in a table."""
    return PROBES[probe].title if probe in PROBES else PROBE_NAMES[probe]


def share_in_words(share: float) -> str:
    """Returns a share in per cent."""
    return f"{100 * share:g} %"


def bounds(d: Difference) -> str:
    """Returns a difference with its adjusted interval, or without if there is none."""
    e = d.estimate
    if e.adjusted_low is None or e.adjusted_high is None:
        return number(e.value, "+.2f")
    ends = (number(x, form_of_bound(x, "+.2f")) for x in (e.adjusted_low, e.adjusted_high))
    return f"{number(e.value, '+.2f')} [{', '.join(ends)}]"


def finding(conclusion: Conclusion, d: Difference) -> str:
    """Returns what was found, how large an effect could have been, and what it does not show."""
    titles = conclusion.experiment.title_of
    arm, reference = titles(d.arm), titles(d.reference)
    at, e = _skill(d.measure), d.estimate
    figures = conclusion.figures.get(d.measure, {})
    one, other = (figures[name].value for name in (d.arm, d.reference))
    figure = FIGURE_NAMES[d.measure.figure]
    values = f"{figure} {number(one)} against {number(other)}"
    if e.value is None:
        return f"{arm} and {reference} cannot be compared at {at}: the figure is not defined."
    if d.half_width is None or e.adjusted_low is None or e.adjusted_high is None:
        why = (e.note or "no interval").removesuffix(": no interval")
        return (
            f"Whether {arm} is better than {reference} at {at} is not known: {values}, and there "
            f"is no interval ({why})."
        )
    low, high = (number(x, form_of_bound(x, "+.2f")) for x in (e.adjusted_low, e.adjusted_high))
    values = f"{values}, a difference of {number(e.value, '+.2f')} [{low}, {high}]"
    size = number(d.half_width, form_of_bound(d.half_width, ".2f"))
    power = f"The experiment could tell a difference of about {size} from none"
    task, beyond = conclusion.tasks.get(d.measure.task), ""
    if task is not None and not task.within_videos:
        where = (
            "differs only between patients"
            if task.only_between_patients
            else ("never changes inside a video")
        )
        beyond = f" As the label {where}, it says nothing about telling frames of one video apart."
    if d.verdict == "not told apart":
        return (
            f"{arm} and {reference} are not told apart at {at}: {values}. {power}, not a smaller "
            "one. This does not show that they are equal: any difference inside the brackets fits "
            f"what was measured.{beyond}"
        )
    return (
        f"{arm} is {d.verdict} than {reference} at {at}: {values}. {power}. This does not show "
        "that it is so on other videos, with another encoder or after longer training, nor how "
        f"large the difference is, beyond the brackets.{beyond}"
    )


def _skill(measure: Measure) -> str:
    if measure.probe == RETRIEVAL:
        return TASKS.get(measure.task, measure.task)
    words = "" if measure.share == 1 else f"{share_in_words(measure.share)} of the patients"
    if measure.probe == FINETUNED:
        return f"telling {measure.task} after fine-tuning on {words or 'all patients'}"
    return f"telling {measure.task}{words and f' from {words}'}"


def cautions(conclusion: Conclusion, subjects: Subjects) -> list[str]:
    """Returns what a reader has to know before any figure."""
    experiment = conclusion.experiment
    texts = Subjects(experiment.patients).cautions
    if subjects.synthetic:
        texts.append(
            "The data are synthetic: the videos are computed, and their patients are made up. The "
            "figures compare methods on these videos, and say nothing about ultrasound of patients."
        )
    seeds = len(experiment.seeds)
    if 0 < seeds < MIN_SEEDS:
        texts.append(
            f"There are runs of {count(seeds, 'seed')} only. Intervals need {MIN_SEEDS}: nothing "
            "is called better or worse."
        )
    texts += _of_labels(conclusion, subjects)
    missing = list(_missing(conclusion))
    if missing:
        texts.append(
            f"Runs are missing: {listed(missing)}. A difference is of the runs that both arms "
            "have, while a figure of an arm is of all its runs."
        )
    return texts


def _of_labels(conclusion: Conclusion, subjects: Subjects) -> Iterator[str]:
    noun = subjects.noun
    between = [name for name, task in conclusion.tasks.items() if task.only_between_patients]
    if between:
        yield (
            f"{listed(between)}: no {noun} has two classes. The label differs only between "
            f"{noun}s and never inside a video, so a probe may tell the machine, the hospital or "
            f"the {noun} instead, and whether frames of one video are told apart is not tested."
        )
    steady = [
        name
        for name, task in conclusion.tasks.items()
        if not task.within_videos and not task.only_between_patients
    ]
    if steady:
        yield (
            f"{listed(steady)}: the label never changes inside a video. Whether frames of one "
            "video are told apart, which is what intra-video negatives are for, is not tested."
        )
    for name, task in conclusion.tasks.items():
        few = [
            f"{label} ({count(n, noun)})"
            for label, n in task.patients_per_class.items()
            if n < FEW_IN_CLASS
        ]
        if few:
            yield (
                f"{name}: few {noun}s have {listed(few)}. Figures of this task can change with one "
                f"of them, and say little of other {noun}s."
            )


def _missing(conclusion: Conclusion) -> Iterator[str]:
    experiment = conclusion.experiment
    every = {(r.seed, r.fold) for r in experiment.results}
    for arm in experiment.arms:
        there = {(r.seed, r.fold) for r in experiment.results if r.arm == arm.name}
        if len(there) < len(every):
            yield f"{arm.title} ({len(there)} of {len(every)})"


def limits(conclusion: Conclusion, subjects: Subjects) -> list[str]:
    """Returns what the comparison as a whole cannot show."""
    experiment = conclusion.experiment
    patients, seeds = len(experiment.tested), len(experiment.seeds)
    texts = [
        f"Everything here is of {count(patients, subjects.noun)} of one data set, one encoder, one "
        f"length of training and {count(seeds, 'seed')}. Other data, larger encoders and longer "
        "training can put the arms in another order.",
        "All arms have the same optimiser, augmentation and number of steps. A method whose "
        "authors tuned these for it may do better than here.",
        "“Not told apart” is no proof of equality. The half width of an interval says how large a "
        "difference would have had to be: smaller ones can be real and useful.",
    ]
    if conclusion.exploratory:
        texts.append(
            f"The {count(len(conclusion.exploratory), 'exploratory difference')} were not named "
            "before the experiment. Take one that excludes 0 as a reason for a new experiment, not "
            "as its result."
        )
    if any(measure.probe == FINETUNED for measure in conclusion.figures):
        texts.append(
            "Fine-tuning had one fixed number of steps and one learning rate for all arms, and all "
            "columns of labels were learned together. Choosing these for each arm can change the "
            "order, and nothing was chosen here."
        )
    else:
        texts.append("A probe of frozen features is not a fine-tuned classifier.")
    texts.append("None of these figures is one of a diagnosis.")
    return texts


def method(conclusion: Conclusion, subjects: Subjects) -> str:
    """Returns how intervals were made."""
    families = [
        f"{count(number_of, kind + ' difference')}"
        for kind, number_of in (
            ("primary", len(conclusion.primary)),
            ("exploratory", len(conclusion.exploratory)),
        )
        if number_of
    ]
    return (
        f"Brackets are 95 % intervals over seeds and {subjects.noun}s: both are resampled "
        f"({conclusion.experiment.resamples:,} times each), and their variances added. Differences "
        "are paired by seed, tested patients and labels. "
        + (
            f"Intervals of differences are widened to hold for all of a family at once; the "
            f"families are {listed(families)}. Better and worse are said by these alone."
            if families
            else ""
        )
    ).strip()


def headline(differences: Sequence[Difference]) -> str:
    """Returns how many of the primary differences were told from none."""
    if not differences:
        return "No difference was named as primary before the experiment."
    words = ("better", "worse", "not told apart", "no interval")
    number_of = {word: sum(d.verdict == word for d in differences) for word in words}
    parts = [f"{n} {word}" for word, n in number_of.items() if n]
    return f"Of {count(len(differences), 'primary difference')}: {listed(parts)}."
