"""Made-up runs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from usucl.comparison.analysis.experiment import Entrant, Experiment
from usucl.comparison.design.primary import Primary
from usucl.comparison.measurement.predictions import Predictions, RunResult

ARMS = (
    Entrant("random", "Random weights", "baseline"),
    Entrant("simclr", "SimCLR", "peer"),
    Entrant("cross-only", "Cross-video only", "ours"),
    Entrant("both", "Intra- and cross-video", "ours"),
)
PRIMARY = (
    Primary("both", "cross-only", "zone", "balanced_accuracy"),
    Primary("both", "simclr", "", "balanced_accuracy"),
)
FACTS = {"Data": "made up", "Encoder": "none", "Steps": "0"}
SKILL = {"random": 0.0, "simclr": 0.6, "cross-only": 0.6, "both": 1.4}


def predictions(
    rng: np.random.Generator,
    patients: list[str],
    *,
    task: str = "zone",
    classes: tuple[str, ...] = ("a", "b", "c"),
    skill: float = 1.0,
    frames: int = 6,
    share: float = 1.0,
    probe: str = "linear",
    of_patient: Mapping[str, int] | None = None,
) -> Predictions:
    """Scores that know the class the better the greater ``skill`` is."""
    patient = tuple(name for name in patients for _ in range(frames))
    if of_patient is None:
        truth = rng.integers(len(classes), size=len(patient))
    else:
        truth = np.array([of_patient[name] for name in patient])
    logits = rng.normal(size=(len(patient), len(classes)))
    logits[np.arange(len(patient)), truth] += skill
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(
        task, probe, "frame", share, classes, truth, probability.astype(np.float32), patient
    )


def result(
    arm: str, seed: int, folds: int = 5, patients: int = 20, skill: float = 1.0
) -> RunResult:
    """A run whose labels are those of every other arm with the same seed."""
    fold = seed % folds
    names = [f"patient {i}" for i in range(patients) if i % folds == fold]
    made = []
    for share in (1.0, 0.2):
        for number, (task, classes) in enumerate(
            (("zone", ("a", "b", "c")), ("lines", ("no", "yes")))
        ):
            of_patient = {name: int(name.split()[1]) // folds % 2 for name in names}
            made.append(
                predictions(
                    np.random.default_rng((seed, number)),
                    names,
                    task=task,
                    classes=classes,
                    skill=skill * share**0.3,
                    share=share,
                    of_patient=of_patient if task == "lines" else None,
                )
            )
    rng = np.random.default_rng((seed, 9))
    return RunResult(
        arm=arm,
        seed=seed,
        fold=fold,
        predictions=tuple(made),
        retrieval={"temporal": {name: float(rng.uniform(0.5, 0.7) + skill / 10) for name in names}},
        spread={"effective_rank": 10 + 5 * skill, "uniformity": -1 - skill},
        curve=tuple((10 * i, 4.0 / i) for i in range(1, 11)) if skill else (),
        seconds=12.0 * skill,
        images_per_second=300.0 * skill,
    )


def experiment(seeds: int = 5, **changes: object) -> Experiment:
    """Four arms, of which the last is made the best."""
    results = tuple(result(a.name, s, skill=SKILL[a.name]) for a in ARMS for s in range(seeds))
    options = {
        "title": "Made-up comparison",
        "results": results,
        "arms": ARMS,
        "primary": PRIMARY,
        "facts": FACTS,
        "resamples": 300,
    }
    return Experiment(**{**options, **changes})  # type: ignore[arg-type]
