"""The table of out-of-fold probabilities, of videos and of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from usucl._files import DamagedFileError
from usucl._tables import read_table, write_table
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes import IntArray, Level, Predictions

COLUMNS = ("level", "video_id", "frame", "group", "fold", "seen", "class", "predicted")
PROBABILITY = "probability of "


@dataclass(frozen=True)
class Tested:
    """Probabilities of n tested samples, videos or frames.

    Attributes:
        level: what they are.
        video_id, group: of each sample.
        frame: frame number; -1 for a video.
        fold: fold in which it was tested, ``[n]``.
        seen: whether pretraining saw the video or its patient; None where not known.
        truth: index of the class, ``[n]``; -1 for a video whose frames have several.
        probability: ``[n, C]``.
    """

    level: Level
    video_id: Sequence[str]
    group: Sequence[str]
    frame: IntArray
    fold: IntArray
    seen: Sequence[bool | None]
    truth: IntArray
    probability: FloatArray

    def predictions(self, fitted: np.ndarray, only: np.ndarray | None = None) -> Predictions:
        """Returns the samples with a class, of those in the mask ``only`` ``[n]``."""
        kept = self.truth >= 0 if only is None else (self.truth >= 0) & only
        _, group = np.unique(np.array(self.group, dtype=object).astype(str), return_inverse=True)
        return Predictions(self.truth[kept], self.probability[kept], group[kept], fitted)

    def rows(self, classes: Sequence[str]) -> list[tuple[object, ...]]:
        """Returns the rows of the table."""
        seen = {True: "yes", False: "no", None: ""}
        return [
            (
                self.level,
                self.video_id[i],
                None if self.frame[i] < 0 else int(self.frame[i]),
                self.group[i],
                int(self.fold[i]),
                seen[self.seen[i]],
                classes[self.truth[i]] if self.truth[i] >= 0 else "",
                classes[int(self.probability[i].argmax())],
                *map(repr, self.probability[i].tolist()),
            )
            for i in range(len(self.truth))
        ]


def per_video(frames: Tested, video_class: dict[str, int]) -> Tested:
    """Returns the mean of the probabilities of each video's frames."""
    ids = list(dict.fromkeys(frames.video_id))
    number = {name: i for i, name in enumerate(ids)}
    video = np.array([number[name] for name in frames.video_id])
    total = np.zeros((len(ids), frames.probability.shape[1]))
    np.add.at(total, video, frames.probability)
    first = [int(np.flatnonzero(video == i)[0]) for i in range(len(ids))]
    return Tested(
        level="video",
        video_id=ids,
        group=[frames.group[i] for i in first],
        frame=np.full(len(ids), -1),
        fold=frames.fold[first],
        seen=[frames.seen[i] for i in first],
        truth=np.array([video_class[name] for name in ids], dtype=np.int64),
        probability=total / np.bincount(video)[:, None],
    )


def joined(parts: Sequence[Tested]) -> Tested:
    """Returns the samples of all folds."""
    return Tested(
        level=parts[0].level,
        video_id=[name for part in parts for name in part.video_id],
        group=[name for part in parts for name in part.group],
        frame=np.concatenate([part.frame for part in parts]),
        fold=np.concatenate([part.fold for part in parts]),
        seen=[seen for part in parts for seen in part.seen],
        truth=np.concatenate([part.truth for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
    )


def write_predictions(path: Path, levels: Sequence[Tested], classes: Sequence[str]) -> None:
    """Writes a row per sample; every number is read again to the bit.

    Raises:
        OSError: the file cannot be written.
    """
    header = (*COLUMNS, *(f"{PROBABILITY}{name}" for name in classes))
    write_table(path, header, [row for level in levels for row in level.rows(classes)])


def read_predictions(path: Path, classes: Sequence[str]) -> dict[str, Tested]:
    """Reads what :func:`write_predictions` wrote, by level.

    Raises:
        DamagedFileError: the file is no such table.
        FileNotFoundError: there is no such file.
    """
    names = [f"{PROBABILITY}{name}" for name in classes]
    every = read_table(path, (*COLUMNS, *names))
    number = {name: c for c, name in enumerate(classes)} | {"": -1}
    seen = {"yes": True, "no": False, "": None}
    found: dict[str, Tested] = {}
    try:
        for level in dict.fromkeys(row["level"] for row in every):
            rows = [row for row in every if row["level"] == level]
            found[level] = Tested(
                level="video" if level == "video" else "frame",
                video_id=[row["video_id"] for row in rows],
                group=[row["group"] for row in rows],
                frame=np.array([int(row["frame"] or -1) for row in rows]),
                fold=np.array([int(row["fold"]) for row in rows]),
                seen=[seen[row["seen"]] for row in rows],
                truth=np.array([number[row["class"]] for row in rows], dtype=np.int64),
                probability=np.array([[float(row[name]) for name in names] for row in rows]),
            )
    except (ValueError, KeyError) as error:
        raise DamagedFileError(path, f"a cell is not as it was written: {error}") from error
    return found
