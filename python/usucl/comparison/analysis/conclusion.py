"""What can be concluded from a comparison: the figures of every arm, and paired differences.

The primary differences, named before the experiment, are one family of adjusted intervals; all
others, which are exploratory, are the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from usucl.comparison.analysis.experiment import Experiment
from usucl.comparison.analysis.inference import estimates
from usucl.comparison.analysis.measures import RETRIEVAL, Measure, Runs
from usucl.comparison.design.primary import Primary
from usucl.comparison.measurement.predictions import FINETUNED
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.probes import Level
from usucl.evaluation.retrieval import TASKS
from usucl.evaluation.simultaneous import Verdict, verdict

LEADING = ("linear", FINETUNED)
"""The probes whose differences are looked at."""

_Pair: TypeAlias = tuple[Measure, str, str]


@dataclass(frozen=True)
class Difference:
    """A paired difference ``arm - reference`` of one measure.

    Attributes:
        measure: what is compared.
        arm, reference: names of the arms.
        estimate: the difference, with its interval alone and adjusted for the family.
        runs: number of runs that both arms have.
        is_primary: whether it was named before the experiment.
    """

    measure: Measure
    arm: str
    reference: str
    estimate: Estimate
    runs: int
    is_primary: bool

    @property
    def verdict(self) -> Verdict:
        """Whether the arm is better or worse than the reference, by the adjusted interval."""
        return verdict(self.estimate)

    @property
    def half_width(self) -> float | None:
        """About the smallest difference that could have been told from none."""
        low, high = self.estimate.adjusted_low, self.estimate.adjusted_high
        return None if low is None or high is None else (high - low) / 2


@dataclass(frozen=True)
class Task:
    """What a column of labels can tell.

    Attributes:
        level: whether a frame or a video has a label.
        patients_per_class: number of tested patients that have an example of each class.
        only_between_patients: whether no patient has two classes, so that whatever tells patients
            apart, such as the machine, may tell the classes.
        within_videos: whether the label changes within a video, so that telling frames of one video
            apart is tested.
    """

    level: Level
    patients_per_class: Mapping[str, int]
    only_between_patients: bool
    within_videos: bool


@dataclass(frozen=True)
class Conclusion:
    """The figures of every arm, and the differences between arms.

    Attributes:
        experiment: what is concluded from.
        figures: estimates by measure and arm. Their intervals are those of each figure alone.
        differences: the primary ones first, then the exploratory.
        tasks: the columns of labels.
    """

    experiment: Experiment
    figures: Mapping[Measure, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]
    tasks: Mapping[str, Task]

    @property
    def primary(self) -> tuple[Difference, ...]:
        """The differences that the experiment was made for."""
        return tuple(d for d in self.differences if d.is_primary)

    @property
    def exploratory(self) -> tuple[Difference, ...]:
        """All other differences."""
        return tuple(d for d in self.differences if not d.is_primary)


def conclude(experiment: Experiment) -> Conclusion:
    """Returns all figures and differences of a comparison.

    The exploratory differences are those of every arm of a primary difference to all other arms, in
    the figures of the primary ones, by the linear probe and after fine-tuning, on every share of
    the labels, and in temporal retrieval.
    """
    runs = Runs(experiment)
    arms = [arm.name for arm in experiment.arms]
    figures: dict[Measure, dict[str, Estimate]] = {}
    for measure in runs.measures:
        for arm in arms:
            sample = runs.sample(measure, arm, runs.of(measure, arm))
            if sample is not None:
                figures.setdefault(measure, {})[arm] = estimates([sample], (0.0, 1.0))[0]
    primary = _primary(experiment, runs.measures)
    exploratory = _exploratory(experiment, runs.measures, primary)
    differences = tuple(
        difference
        for pairs, is_primary in ((primary, True), (exploratory, False))
        for difference in _differences(runs, pairs, is_primary)
    )
    return Conclusion(experiment, figures, differences, _tasks(experiment))


def _primary(experiment: Experiment, measures: Sequence[Measure]) -> list[_Pair]:
    found = []
    for named in experiment.primary:
        of_named = [m for m in measures if _is_named(m, named)]
        if not of_named and experiment.results:
            raise ValueError(
                "primary must name a task, a figure, a probe and a share that were measured, got "
                f"{named.task!r}, {named.figure!r}, {named.probe!r} and {named.share}"
            )
        found += [(measure, named.arm, named.reference) for measure in of_named]
    return list(dict.fromkeys(found))


def _is_named(measure: Measure, named: Primary) -> bool:
    is_retrieval = named.task in TASKS or named.figure == "auroc"
    probe, share = (RETRIEVAL, 1.0) if is_retrieval else (named.probe, named.share)
    return (
        measure.probe == probe
        and measure.share == share
        and measure.figure == named.figure
        and named.task in ("", measure.task)
    )


def _exploratory(
    experiment: Experiment, measures: Sequence[Measure], primary: Sequence[_Pair]
) -> list[_Pair]:
    leading = list(dict.fromkeys(p.arm for p in experiment.primary))
    leading = leading or [arm.name for arm in experiment.arms if arm.group == "ours"]
    figures = {p.figure for p in experiment.primary if p.figure != "auroc"} or {"balanced_accuracy"}
    known = {(measure, frozenset(arms)) for measure, *arms in primary}
    pairs: list[_Pair] = []
    for arm in leading:
        for other in (other.name for other in experiment.arms if other.name != arm):
            for measure in measures:
                is_of_labels = measure.probe in LEADING and measure.figure in figures
                both = (measure, frozenset((arm, other)))
                if (is_of_labels or measure.probe == RETRIEVAL) and both not in known:
                    known.add(both)  # not again with the other sign
                    pairs.append((measure, arm, other))
    return pairs


def _differences(runs: Runs, pairs: Sequence[_Pair], is_primary: bool) -> list[Difference]:
    found, samples = [], []
    for measure, arm, reference in pairs:
        common = runs.of(measure, arm) & runs.of(measure, reference)
        first, second = (runs.sample(measure, name, common) for name in (arm, reference))
        if first is not None and second is not None:
            found.append((measure, arm, reference, len(common)))
            samples.append(first.minus(second))
    made = estimates(samples, (-1.0, 1.0))
    return [
        Difference(measure, arm, reference, estimate, number, is_primary)
        for (measure, arm, reference, number), estimate in zip(found, made, strict=True)
    ]


def _tasks(experiment: Experiment) -> dict[str, Task]:
    classes: dict[str, tuple[str, ...]] = {}
    levels: dict[str, Level] = {}
    seen: dict[str, set[tuple[str, int]]] = {}
    for p in (p for result in experiment.results for p in result.predictions):
        if classes.setdefault(p.task, p.classes) != p.classes:
            raise ValueError(
                f"classes of {p.task} must be the same in all runs, got {p.classes} and "
                f"{classes[p.task]}"
            )
        levels[p.task] = p.level
        seen.setdefault(p.task, set()).update(zip(p.patient, p.truth.tolist(), strict=True))
    found = {}
    for task, names in classes.items():
        between = len({patient for patient, _ in seen[task]}) == len(seen[task])
        found[task] = Task(
            level=levels[task],
            patients_per_class={
                name: sum(c == number for _, c in seen[task]) for number, name in enumerate(names)
            },
            only_between_patients=between,
            within_videos=not between and levels[task] == "frame" and task not in experiment.steady,
        )
    return found
