"""A run folder as the report reads it; every part may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usucl._files import DamagedFileError, read_json
from usucl._tables import read_table
from usucl.data.catalog.tables.split_table import SPLIT
from usucl.data.phantom import is_synthetic
from usucl.evaluation import Evaluation
from usucl.evaluation.metrics import FloatArray
from usucl.report.wording import Subjects
from usucl.run_folder import RunFolder
from usucl.training import TrainingConfig, read_config


@dataclass(frozen=True)
class RunRecord:
    """What a run left behind.

    Attributes:
        folder: the run folder.
        target: the folder of the evaluation and of the report: the run folder, or another one for
            an evaluation on other data.
        metrics: columns of ``metrics.csv``, ``[steps]``, NaN where a cell is empty.
        split, skipped: rows of the files of that name.
        encoder: content of ``encoder.json``.
        config, config_text: ``config.yaml``, parsed and as text.
        evaluation: content of ``evaluation.json``; None before the evaluation.
        facts: content of ``run.json``; empty for a run of an earlier version.
        warnings, guard, probe, hardness: rows of the files of that name.
    """

    folder: RunFolder
    target: RunFolder
    metrics: Mapping[str, FloatArray]
    split: list[dict[str, str]]
    skipped: list[dict[str, str]]
    encoder: Mapping[str, Any]
    config: TrainingConfig
    config_text: str
    evaluation: Evaluation | None
    facts: Mapping[str, Any]
    warnings: list[dict[str, str]]
    guard: list[dict[str, str]]
    probe: list[dict[str, str]]
    hardness: list[dict[str, str]]

    @classmethod
    def read(cls, run: str | Path, evaluation: str | Path | None = None) -> RunRecord:
        """Reads a run folder, and the folder of an evaluation if it is another one.

        Raises:
            FileNotFoundError: ``run`` is not a folder written by training, or ``evaluation`` holds
                no evaluation.
            ValueError: a file is damaged or malformed; the message names it.
        """
        folder = RunFolder(run)
        target = folder if evaluation is None else RunFolder(evaluation)
        if not folder.encoder_config.is_file():
            name = folder.encoder_config.name
            raise FileNotFoundError(f"run must be a run folder, got {folder.path} without {name}")
        if evaluation is not None and not target.evaluation.is_file():
            name = target.evaluation.name
            raise FileNotFoundError(
                f"evaluation must be the folder of an evaluation, got {target.path} without {name}"
            )
        written = folder.config.is_file()
        rows = _rows(folder.metrics, growing=True)
        return cls(
            folder=folder,
            target=target,
            metrics={
                name: np.array([as_number(row[name]) for row in rows])
                for name in (rows[0] if rows else ())
            },
            split=_rows(folder.split, SPLIT),
            skipped=_rows(folder.skipped, ("path", "reason")),
            encoder=read_json(folder.encoder_config),
            config=read_config(folder.config, {}) if written else TrainingConfig(),
            config_text=folder.config.read_text("utf-8", "backslashreplace") if written else "",
            evaluation=_evaluation(target.evaluation),
            facts=read_json(folder.facts) if folder.facts.is_file() else {},
            warnings=_rows(folder.warnings, ("step", "warning"), growing=True),
            guard=_rows(folder.guard, ("video_id", "pairs", "refused"), growing=True),
            probe=_rows(folder.probe, ("step", "probe", "balanced_accuracy"), growing=True),
            hardness=_rows(folder.hardness, ("step", "group"), growing=True),
        )

    @property
    def is_of_own_data(self) -> bool:
        """Whether the evaluation, if there is one, is on the data of the run."""
        return self.target is self.folder or bool(self.evaluation and self.evaluation.own_data)

    @property
    def label(self) -> str:
        """The column of the labels that were measured, or else of the run's."""
        return self.evaluation.label if self.evaluation else self.config.label

    @property
    def subjects(self) -> Subjects:
        """What is known about the patients of the data measured, or else trained on."""
        if self.evaluation is None:
            return self.trained_on
        data = self.evaluation.data
        return Subjects(self.evaluation.patients, self.evaluation.synthetic or is_synthetic(data))

    @property
    def trained_on(self) -> Subjects:
        """What is known about the patients of the videos of the run, held out or not."""
        if self.evaluation is not None and self.evaluation.own_data:
            return self.subjects
        patients = self.folder.patients() if self.split else "unknown"
        return Subjects(patients, is_synthetic(self.config.data))

    def series(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Returns steps and values of a metric where it has a value; empty if never logged."""
        values = self.metrics.get(name)
        if values is None:
            return np.empty(0), np.empty(0)
        steps = self.metrics.get("step", np.arange(len(values), dtype=float))
        kept = np.isfinite(values) & np.isfinite(steps)
        return steps[kept], values[kept]

    @property
    def window(self) -> tuple[float, float] | None:
        """The last temporal window of the curriculum; None without intra-video negatives."""
        lo, hi = (self.series(name)[1] for name in ("window_lo", "window_hi"))
        if not self.series("intra_similarity")[1].size or not lo.size or lo[-1] > hi[-1]:
            return None
        return float(lo[-1]), float(hi[-1])


def _rows(
    path: Path, columns: Sequence[str] = (), *, growing: bool = False
) -> list[dict[str, str]]:
    return read_table(path, columns, growing=growing) if path.is_file() else []


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        return Evaluation.from_json(content)
    except ValueError as error:
        raise DamagedFileError(path, str(error)) from error


def as_number(cell: str | None) -> float:
    """Returns the number in a cell, NaN where there is none."""
    try:
        return float(cell or "nan")
    except ValueError:
        return float("nan")
