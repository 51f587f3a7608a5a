"""Which frames have which class, and which patients are tested, validated and trained on."""

from __future__ import annotations

import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from usucl._warnings import outside
from usucl.data import VideoCatalog, VideoEntry
from usucl.data.catalog.folds import assign_folds
from usucl.data.catalog.patients import UNIT, Patients
from usucl.data.catalog.tables.columns import LABELS
from usucl.embedding import numbered
from usucl.evaluation.probes import IntArray, Level
from usucl.finetuning.config import FinetuningConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """The videos with a class, and the frames that have it.

    Attributes:
        entries: the V videos.
        level: what has a class.
        classes: names of the C classes, in order.
        frames: numbers of the labelled frames of each video, ascending.
        targets: index of the class of each of these frames.
        video_class: index of the class of each video, ``[V]``; -1 where its frames differ.
        group: number of the patient of each video, ``[V]``.
        fold: fold of each video, ``[V]``.
        patients: whether the patients are known.
        unlabelled: ids of the videos without a class.
        left_out: number of videos, or of frames, per label that ``classes`` leaves out.
    """

    entries: tuple[VideoEntry, ...]
    level: Level
    classes: tuple[str, ...]
    frames: tuple[IntArray, ...]
    targets: tuple[IntArray, ...]
    video_class: IntArray
    group: IntArray
    fold: IntArray
    patients: Patients
    unlabelled: tuple[str, ...]
    left_out: Mapping[str, int]

    @property
    def folds(self) -> list[int]:
        """The numbers of the folds, in order."""
        return np.unique(self.fold).tolist()

    @property
    def unit(self) -> str:
        """What is never on both sides of a split, in words."""
        return UNIT[self.patients]

    def table(self) -> list[tuple[object, ...]]:
        """Returns the rows under :data:`VIDEOS`."""
        rows: list[tuple[object, ...]] = []
        for v, entry in enumerate(self.entries):
            name = self.classes[self.video_class[v]] if self.video_class[v] >= 0 else ""
            known = "yes" if entry.patient_known else "no"
            about = entry.group, known, name, int(self.fold[v])
            rows.append((entry.id, *about, entry.num_frames, len(self.frames[v])))
        return rows

    def patients_per_class(self) -> dict[str, int]:
        """Returns the number of patients with frames of each class, by its name."""
        having = _having(self.targets, self.group, len(self.classes))
        return {name: len(groups) for name, groups in zip(self.classes, having, strict=True)}


VIDEOS = ("video_id", "group", "patient_known", "class", "fold", "num_frames", "labelled_frames")


def labelled(catalog: VideoCatalog, config: FinetuningConfig) -> Labelled:
    """Returns the videos of a catalogue that have a class, with folds.

    Raises:
        ValueError: fewer than two classes or patients are left, ``classes`` names an unknown label,
            or a fold leaves only one class to train on.

    Warns:
        UserWarning: see :func:`usucl.evaluate` on patients; a class has fewer patients than there
            are folds.
    """
    level = _level(catalog, config)
    classes = dict(config.classes or {})
    names = [_names(entry, level) for entry in catalog]
    known = {name for of_video in names for name in of_video if name}
    if unknown := sorted(set(classes) - known):
        raise ValueError(
            f"classes must be of labels in column {config.label!r}, {', '.join(sorted(known))}, "
            f"got {unknown[0]!r}"
        )
    left_out: Counter[str] = Counter()
    kept: list[tuple[VideoEntry, IntArray, list[str]]] = []
    unlabelled = []
    for entry, of_video in zip(catalog, names, strict=True):
        mapped = [classes.get(name, name) if name else None for name in of_video]
        gone = [n for n, m in zip(of_video, mapped, strict=True) if n and not m]
        left_out.update(set(gone) if level == "video" else gone)
        frames = np.array([i for i, name in enumerate(mapped) if name], dtype=np.int64)
        if len(frames):
            kept.append((entry, frames, [name for name in mapped if name]))
        elif not gone:
            unlabelled.append(entry.id)
    distinct, _ = numbered(name for *_, of_video in kept for name in of_video)
    if len(distinct) < 2:
        got = f"only {distinct[0]!r}" if distinct else "none"
        raise ValueError(
            f"label must be a column with at least two classes, got {config.label!r} with {got} "
            f"(level {level})"
        )
    number = {name: c for c, name in enumerate(distinct)}
    targets = tuple(np.array([number[n] for n in of], dtype=np.int64) for *_, of in kept)
    # Folds are balanced by the usual class of a video.
    usual = [distinct[int(np.bincount(of).argmax())] for of in targets]
    entries = tuple(replace(e, label=name) for (e, *_), name in zip(kept, usual, strict=True))
    one = [int(of[0]) if (of == of[0]).all() else -1 for of in targets]
    _, group = numbered(entry.group for entry in entries)
    if len(np.unique(group)) < 2:
        raise ValueError("data must hold labelled videos of at least two patients, got one")
    folds = replace(catalog, entries=entries).with_folds(config.folds, config.seed)
    found = Labelled(
        entries=entries,
        level=level,
        classes=tuple(distinct),
        frames=tuple(frames for _, frames, _ in kept),
        targets=targets,
        video_class=np.array(one, dtype=np.int64),
        group=group,
        fold=np.array([entry.fold for entry in folds], dtype=np.int64),
        patients=folds.patients,
        unlabelled=tuple(unlabelled),
        left_out=dict(sorted(left_out.items())),
    )
    _warn(found, folds.patient_doubt)
    return found


def _level(catalog: VideoCatalog, config: FinetuningConfig) -> Level:
    if config.level != "auto":
        return config.level
    of_videos = {entry.label for entry in catalog if entry.label}
    of_frames = {name for entry in catalog for name in entry.frame_labels or () if name}
    return "video" if len(of_videos) > 1 or len(of_frames) < 2 else "frame"


def _names(entry: VideoEntry, level: Level) -> Sequence[str | None]:
    if level == "video":
        return [entry.label] * entry.num_frames
    return entry.frame_labels or [None] * entry.num_frames


def _having(targets: Sequence[IntArray], group: IntArray, classes: int) -> list[set[int]]:
    """Returns the patients that have each class."""
    having: list[set[int]] = [set() for _ in range(classes)]
    for of_video, patient in zip(targets, group.tolist(), strict=True):
        for c in np.unique(of_video).tolist():
            having[c].add(patient)
    return having


def _warn(found: Labelled, doubt: str) -> None:
    if doubt:
        warnings.warn(
            f"{doubt}; name the patients in {LABELS}, or by patient_pattern",
            stacklevel=outside(),
        )
    having = _having(found.targets, found.group, len(found.classes))
    number = len(found.folds)
    for name, groups in zip(found.classes, having, strict=True):
        if len(groups) < number:
            end = "" if len(groups) == 1 else "s"
            told = (
                f"class {name!r} has {len(groups)} {found.unit}{end}, fewer than the {number} "
                "folds: "
            )
            told += (
                "no fold can both learn and test it"
                if len(groups) == 1
                else "some folds do not test it, and its figures rest on very few"
            )
            warnings.warn(
                f"{told}; leave it out or put it together with another by "
                f"classes, as in --set 'classes={{{name}: null}}'",
                stacklevel=outside(),
            )
    for fold in found.folds:
        learned = {c for v in np.flatnonzero(found.fold != fold) for c in found.targets[v].tolist()}
        if len(learned) < 2:
            (only,) = learned
            raise ValueError(
                f"folds must each leave two classes to train on: without fold {fold} there is only "
                f"{found.classes[only]!r}"
            )


@dataclass(frozen=True)
class Parts:
    """Numbers of the videos that a classifier is trained, validated and tested on."""

    train: IntArray
    validation: IntArray
    test: IntArray


def parts_of(found: Labelled, fold: int, share: float, seed: int) -> Parts:
    """Returns the parts of one fold of the cross-validation; no patient is in two of them.

    The validation part is one of equal folds of the training patients, with as many classes as any
    of them has, among those that leave every class to train on; it is empty if there is none.
    """
    test = np.flatnonzero(found.fold == fold)
    rest = np.flatnonzero(found.fold != fold)
    groups = [found.entries[v].group for v in rest]
    patients = len(set(groups))
    n = min(round(1 / share), patients) if share else 0
    if n < 2:
        return Parts(rest, rest[:0], test)
    labels = [found.entries[v].label for v in rest]
    inner = np.array(assign_folds(groups, labels, [None] * len(rest), n=n, seed=seed))
    classes = _classes(found, rest)
    choices = []
    for k in range(n):
        if classes == _classes(found, rest[inner != k]):
            choices.append((-len(_classes(found, rest[inner == k])), k))
    if not choices:
        return Parts(rest, rest[:0], test)
    _, best = min(choices)
    return Parts(rest[inner != best], rest[inner == best], test)


def _classes(found: Labelled, videos: IntArray) -> set[int]:
    return {c for v in videos for c in found.targets[v].tolist()}


def class_weights(found: Labelled, videos: IntArray, limit: int | None) -> list[float]:
    """Returns a weight per class, N / (C n) for n of N frames per epoch; 0 for an absent class.

    C counts the classes that are there.
    """
    count: dict[int, float] = defaultdict(float)
    for v in videos:
        of = found.targets[v]
        drawn = len(of) if limit is None else min(limit, len(of))
        for c in np.unique(of).tolist():
            count[c] += drawn * float((of == c).mean())
    total = sum(count.values())
    return [
        total / (len(count) * count[c]) if count.get(c) else 0.0 for c in range(len(found.classes))
    ]
