"""The videos of a comparison: who is held out when, and what the probes are asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from usucl.comparison.design.config import ComparisonConfig
from usucl.data import VideoCatalog
from usucl.data.catalog.tables.columns import label_columns
from usucl.evaluation.retrieval import TASKS

UNLABELLED = -1


@dataclass(frozen=True)
class Task:
    """A column of labels that probes tell apart.

    Attributes:
        name: the column, or ``"<column> of videos"`` where frames have labels of that column too.
        classes: names of the C classes.
        level: whether frames have labels of their own, or videos as a whole.
        truth: class of every frame of every video, int64 ``[num_frames]`` each, -1 without one.
    """

    name: str
    classes: tuple[str, ...]
    level: Literal["frame", "video"]
    truth: tuple[NDArray[np.int64], ...]

    @property
    def changes_within_videos(self) -> bool:
        """Whether a video has frames of two classes."""
        return any(len(np.unique(of_video[of_video >= 0])) > 1 for of_video in self.truth)


@dataclass(frozen=True)
class Subject:
    """The videos, with folds by patient, and their tasks."""

    catalog: VideoCatalog
    tasks: tuple[Task, ...]

    @property
    def folds(self) -> tuple[int, ...]:
        """The numbers of the folds."""
        return tuple(sorted({entry.fold for entry in self.catalog if entry.fold is not None}))

    def held_out(self, fold: int) -> NDArray[np.bool_]:
        """Returns which videos are held out with a fold ``[V]``."""
        return np.array([entry.fold == fold for entry in self.catalog])

    def share_of_patients(self, fold: int, share: float, seed: int) -> NDArray[np.bool_]:
        """Returns which videos are of a random share of the training patients ``[V]``.

        The patients of a smaller share are among those of a larger one; there is at least one.

        Args:
            fold: the patients that are held out.
            share: in (0, 1].
            seed: chooses the patients.
        """
        groups = self.training_patients(fold)
        order = np.random.default_rng((seed, len(groups))).permutation(len(groups))
        chosen = {groups[i] for i in order[: number_in_share(len(groups), share)]}
        return np.array([entry.group in chosen for entry in self.catalog])

    def training_patients(self, fold: int) -> list[str]:
        """Returns the patients that are not held out with a fold, sorted."""
        return sorted({entry.group for entry in self.catalog if entry.fold != fold})

    def task(self, name: str) -> Task:
        """Returns the task of a column."""
        return next(task for task in self.tasks if task.name == name)


def read_subject(config: ComparisonConfig) -> Subject:
    """Reads the videos and the labels of a comparison.

    Raises:
        ValueError: a column is unknown or has fewer than two classes, or there is one patient only.
    """
    root = Path(config.data)
    columns: Sequence[str] = config.labels or label_columns(root)
    if not columns:
        raise ValueError(f"data must have labels in labels.csv or frame_labels.csv, got {root}")
    first: VideoCatalog | None = None
    tasks: list[Task] = []
    for column in columns:
        with warnings.catch_warnings():
            if first is not None:  # what is to be said of the folder has been said
                warnings.simplefilter("ignore")
            catalog = VideoCatalog.scan(
                root,
                min_frames=config.min_frames,
                label=column,
                patient_pattern=config.patient_pattern,
                sweep=config.sweep,
            )
        if first is None:
            first = catalog
        found = list(_tasks(column, catalog))
        tasks += found
        if not found and config.labels:
            raise ValueError(f"labels must have two classes or more each, got {column!r}")
    if not tasks or first is None:
        raise ValueError(f"labels must have two classes or more, got none in {', '.join(columns)}")
    for primary in config.primary:
        names = ["", *(task.name for task in tasks), *(TASKS if config.retrieval else ())]
        if primary.task not in names:
            raise ValueError(f"primary must be of {', '.join(names[1:])}, got {primary.task!r}")
    _check_supervised(config, tasks)
    return Subject(first.with_folds(config.folds, config.seed), tuple(tasks))


def _check_supervised(config: ComparisonConfig, tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    for arm in config.arms:
        for column in () if arm.supervised in (None, "all") else arm.supervised or ():
            if column not in names:
                raise ValueError(
                    f"arms.{arm.name}.supervised must be all or of {', '.join(names)}, "
                    f"got {column!r}"
                )


def _tasks(column: str, catalog: VideoCatalog) -> Iterator[Task]:
    """Yields what a column asks: of frames, of videos, or, where both have labels, of both."""
    by_frame = any(entry.frame_labels for entry in catalog)
    if by_frame:
        names = [entry.frame_labels or (None,) * entry.num_frames for entry in catalog]
        yield from _task(column, "frame", names)
        if any(entry.parts for entry in catalog):
            return  # the label of a sweep only says that those of its clips agree
    names = [(entry.label,) * entry.num_frames for entry in catalog]
    yield from _task(f"{column} of videos" if by_frame else column, "video", names)


def _task(
    name: str, level: Literal["frame", "video"], names: Sequence[Sequence[str | None]]
) -> Iterator[Task]:
    classes = sorted({n for of_video in names for n in of_video if n})
    if len(classes) < 2:
        return
    number = {label: i for i, label in enumerate(classes)}
    truth = tuple(
        np.array([number[n] if n else UNLABELLED for n in of_video], dtype=np.int64)
        for of_video in names
    )
    yield Task(name, tuple(classes), level, truth)


def number_in_share(patients: int, share: float) -> int:
    """Returns how many of the training patients a share is."""
    return max(1, round(share * patients))


def without_labels(catalog: VideoCatalog) -> VideoCatalog:
    """Returns the videos without what the probes are asked, for pretraining."""
    entries = tuple(replace(e, label=None, frame_labels=None) for e in catalog.entries)
    return replace(catalog, entries=entries)
