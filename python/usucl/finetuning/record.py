"""The record of a fine-tuning, and its form in ``finetune.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from usucl._environment import Machine
from usucl.data.catalog.patients import Patients
from usucl.evaluation.classification import Figures
from usucl.evaluation.probes import Level
from usucl.evaluation.schema import check_types


@dataclass(frozen=True)
class Fold:
    """What one fold of the cross-validation was.

    Attributes:
        fold: its number.
        train, validation, test: numbers of videos.
        epochs: epochs that were trained.
        best_epoch: epoch, from 1, whose weights were kept.
        not_fitted: classes without a frame to train on.
        seconds: time of the training.
    """

    fold: int
    train: int
    validation: int
    test: int
    epochs: int
    best_epoch: int
    not_fitted: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Finetuning:
    """Everything measured about a fine-tuning. Undefined numbers are None.

    Attributes:
        run, data: folders.
        start: which first weights the backbone had.
        label: column that the classes are from.
        level: whether videos or frames have a class.
        classes: names, in order.
        videos, groups: numbers of labelled videos, and of their patients (or what stands for them).
        patients: whether the patients are known.
        interval: description of the intervals, in words.
        unlabelled: number of videos without a class.
        left_out: number of videos or frames of each label that was left out.
        seen: number of the labelled videos that pretraining saw, they or their patient; None where
            that is not known.
        folds: the folds.
        figures: by what is predicted, ``"video"`` (the mean over its frames) and ``"frame"``.
        unseen: the same of only those videos that pretraining did not see; None where that is all,
            none or not known.
        final_epochs: epochs of the classifier that was trained on all folds; None without it.
        synthetic: whether the videos are made up.
        versions, machine: what it was measured with.
        seconds: time of all training.
    """

    run: str
    data: str
    start: str
    label: str
    level: Level
    classes: tuple[str, ...]
    videos: int
    groups: int
    patients: Patients
    interval: str
    unlabelled: int
    left_out: Mapping[str, int]
    seen: int | None
    folds: tuple[Fold, ...]
    figures: Mapping[str, Figures]
    unseen: Mapping[str, Figures] | None
    final_epochs: int | None
    synthetic: bool
    versions: Mapping[str, str | None]
    machine: Machine
    seconds: float

    def __repr__(self) -> str:
        value = self.figures["video" if "video" in self.figures else "frame"].overall
        accuracy = value["balanced_accuracy"].value
        said = "" if accuracy is None else f", balanced accuracy {accuracy:.2f}"
        return f"Finetuning({self.run!r} on {self.data!r}, {', '.join(self.classes)}{said})"

    def __getitem__(self, name: str) -> Any:
        """An entry of ``finetune.json``, for callers that read it as such."""
        return self.to_json()[name]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``finetune.json``."""
        return _lists(asdict(self))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finetuning:
        """Reads what :meth:`to_json` returned.

        Raises:
            ValueError: something is missing or malformed.
        """
        try:
            unseen = content["unseen"]
            read = {
                "classes": tuple(content["classes"]),
                "folds": tuple(_fold(fold) for fold in content["folds"]),
                "figures": {level: Figures.from_json(f) for level, f in content["figures"].items()},
                "unseen": unseen and {level: Figures.from_json(f) for level, f in unseen.items()},
                "machine": Machine(**content["machine"]),
            }
            result = cls(**{**content, **read})
            check_types(result, cls, "it")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"content must be that of a fine-tuning, got {error!r}") from error
        return result


def _fold(content: Mapping[str, Any]) -> Fold:
    return Fold(**{**content, "not_fitted": tuple(content["not_fitted"])})


def _lists(value: Any) -> Any:
    """Returns a value with lists in place of tuples, as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _lists(item) for name, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value
