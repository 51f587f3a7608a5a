"""What one run of a comparison leaves behind: the answers of its probes, and how it went.

A folder of a finished run holds ``result.json`` and ``predictions.safetensors``, both sealed. The
JSON is written last, so a folder with it is a run that need not be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from usucl._files import DamagedFileError, read_json, read_tensors, write_json, write_tensors
from usucl.comparison.measurement.neighbours import Neighbour, Neighbours
from usucl.evaluation.probes import IntArray, Level

RESULT, PREDICTIONS = "result.json", "predictions.safetensors"
SUPERVISED = "supervised"
"""The probe of an arm that was trained with labels and answers itself."""
FINETUNED = "finetuned"
"""The probe that trains the whole network of an arm with the labels of a share."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a probe said of the n held-out frames or videos of one run.

    Attributes:
        task: column of the labels, such as "zone".
        probe: "linear" or "knn"; or the network's own classifier: :data:`SUPERVISED`,
            :data:`FINETUNED`.
        level: what a sample is.
        share: share of the training patients whose labels it was fitted on, in (0, 1].
        classes: names of the C classes, the same in every run. For a task of two classes the
            second is the one that sensitivity is about.
        truth: index of the class, int64 ``[n]``.
        probability: float32 ``[n, C]``.
        patient: of each sample, length n.
    """

    task: str
    probe: str
    level: Level
    share: float
    classes: tuple[str, ...]
    truth: IntArray
    probability: NDArray[np.float32]
    patient: tuple[str, ...]

    def __post_init__(self) -> None:
        n, c = len(self.patient), len(self.classes)
        if self.truth.shape != (n,) or self.probability.shape != (n, c):
            raise ValueError(
                f"truth and probability must be [{n}] and [{n}, {c}] for {n} patients and {c} "
                f"classes, got {list(self.truth.shape)} and {list(self.probability.shape)}"
            )
        if n and not 0 <= self.truth.min() <= self.truth.max() < c:
            raise ValueError(
                f"truth must be in 0 .. {c - 1}, got {self.truth.min()} .. {self.truth.max()}"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")


@dataclass(frozen=True, eq=False)
class RunResult:
    """One arm, trained with one seed and measured on the patients of one held-out fold.

    Attributes:
        arm: name of the arm.
        seed, fold: runs of the same seed and fold are paired across arms.
        predictions: of every task, probe, level and share.
        retrieval: AUROC by task of :data:`usucl.evaluation.retrieval.TASKS` and patient.
        spread: measures of the held-out features, by the names of :data:`usucl._spread.MEASURES`.
        curve: steps, each with the mean loss of the part of the run that ends there.
        seconds: duration of the training.
        images_per_second: speed of the training.
        neighbours: the frames that the encoder finds most like a few tested ones.
    """

    arm: str
    seed: int
    fold: int
    predictions: tuple[Predictions, ...]
    retrieval: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, float]
    curve: tuple[tuple[int, float], ...]
    seconds: float
    images_per_second: float
    neighbours: tuple[Neighbours, ...] = ()

    def save(self, folder: Path) -> None:
        """Writes the run to a folder, which is made if necessary.

        Raises:
            OSError: a file cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)  # no earlier JSON beside later predictions
        patients = sorted({name for p in self.predictions for name in p.patient})
        number = {name: i for i, name in enumerate(patients)}
        tensors = {}
        for i, p in enumerate(self.predictions):
            tensors[f"{i}.truth"] = torch.from_numpy(np.ascontiguousarray(p.truth, np.int64))
            tensors[f"{i}.probability"] = torch.from_numpy(
                np.ascontiguousarray(p.probability, np.float32)
            )
            tensors[f"{i}.patient"] = torch.tensor([number[name] for name in p.patient]).long()
        write_tensors(folder / PREDICTIONS, tensors)
        write_json(
            folder / RESULT,
            {
                "arm": self.arm,
                "seed": self.seed,
                "fold": self.fold,
                "patients": patients,
                "predictions": [
                    {
                        "task": p.task,
                        "probe": p.probe,
                        "level": p.level,
                        "share": p.share,
                        "classes": list(p.classes),
                    }
                    for p in self.predictions
                ],
                "retrieval": {
                    task: {name: _finite(value) for name, value in by.items()}
                    for task, by in self.retrieval.items()
                },
                "spread": {name: _finite(value) for name, value in self.spread.items()},
                "curve": [[step, _finite(loss)] for step, loss in self.curve],
                "seconds": _finite(self.seconds),
                "images_per_second": _finite(self.images_per_second),
                "neighbours": [list(map(list, (n.query, *n.nearest))) for n in self.neighbours],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> RunResult:
        """Reads what :meth:`save` wrote.

        Raises:
            DamagedFileError: a file is not as it was written.
            FileNotFoundError: the folder holds no finished run.
        """
        table = read_json(folder / RESULT)
        tensors, _ = read_tensors(folder / PREDICTIONS)
        try:
            return cls(
                arm=table["arm"],
                seed=table["seed"],
                fold=table["fold"],
                predictions=tuple(
                    Predictions(
                        **{**head, "classes": tuple(head["classes"])},
                        truth=tensors[f"{i}.truth"].numpy(),
                        probability=tensors[f"{i}.probability"].numpy(),
                        patient=tuple(table["patients"][j] for j in tensors[f"{i}.patient"]),
                    )
                    for i, head in enumerate(table["predictions"])
                ),
                retrieval={
                    task: {name: _number(value) for name, value in by.items()}
                    for task, by in table["retrieval"].items()
                },
                spread={name: _number(value) for name, value in table["spread"].items()},
                curve=tuple((step, _number(loss)) for step, loss in table["curve"]),
                seconds=_number(table["seconds"]),
                images_per_second=_number(table["images_per_second"]),
                neighbours=tuple(
                    Neighbours(Neighbour(*query), tuple(Neighbour(*other) for other in nearest))
                    for query, *nearest in table.get("neighbours", [])  # earlier runs have none
                ),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DamagedFileError(folder / RESULT, f"it lacks a part: {error}") from error


def _finite(value: float) -> float | None:
    """Returns a number as JSON has it: None for one that is not finite."""
    return float(value) if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
