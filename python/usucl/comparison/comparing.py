"""A comparison in one call: what is missing is trained and measured, and all of it concluded."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from usucl._environment import Machine, version_of
from usucl._files import check_writable
from usucl._progress import job, stage
from usucl.comparison.analysis.conclusion import Conclusion, conclude
from usucl.comparison.analysis.experiment import Entrant, Experiment
from usucl.comparison.design.config import ComparisonConfig, read_config
from usucl.comparison.design.subject import Subject, number_in_share, read_subject
from usucl.comparison.folder import ComparisonFolder
from usucl.comparison.measurement.predictions import RunResult
from usucl.comparison.runs import Failure, do_all, planned
from usucl.comparison.written import write_tables
from usucl.data.catalog.patients import UNIT
from usucl.data.phantom import is_synthetic
from usucl.evaluation.evaluate import PACKAGES

# What may change from one call to the next: it adds runs, or is about figures alone.
_GROWING = (
    *("arms", "primary", "seeds", "resamples", "pictures"),
    *("data", "cache_gb", "num_workers"),
)


@dataclass(frozen=True)
class Comparison:
    """What has been compared.

    Attributes:
        folder: where everything is written.
        config: the options.
        subject: the videos and their labels.
        results: the finished runs.
        failures: the runs that could not be done.
        missing: number of runs that are not done yet.
    """

    folder: ComparisonFolder
    config: ComparisonConfig
    subject: Subject
    results: tuple[RunResult, ...]
    failures: tuple[Failure, ...] = ()
    missing: int = 0

    @functools.cached_property
    def conclusion(self) -> Conclusion:
        """The figures of every arm and all differences, with their intervals."""
        return conclude(self.experiment)

    @property
    def experiment(self) -> Experiment:
        """What is concluded from."""
        config, catalog = self.config, self.subject.catalog
        groups = len({entry.group for entry in catalog})
        frames = sum(entry.num_frames for entry in catalog)
        turns = "every fold" if config.hold_out == "all" else "one fold"
        here = Machine.here()
        return Experiment(
            title=f"Methods compared on {catalog.root.name}",
            results=self.results,
            arms=tuple(Entrant(arm.name, arm.title, arm.group) for arm in config.arms),
            primary=config.primary,
            facts={
                "data": f"{len(catalog)} videos of {groups} {UNIT[catalog.patients]}s in "
                f"{catalog.root.name}, {frames:,} frames",
                "encoder": f"{config.backbone} at {config.image_size} px",
                "training": f"{config.steps} steps of at most {config.frames} anchors with two "
                f"views each; AdamW, learning rate {config.lr:g}",
                "augmentation": str(config.augmentation),
                "seeds": f"{config.seeds}, each tested on {turns} of {len(self.subject.folds)}",
                "probes": f"on {config.probe_frames} frames per video",
                "labels": self._shares(),
                **(
                    {"fine-tuning": f"{config.finetune} steps with the labels of each share"}
                    if config.finetune
                    else {}
                ),
                "machine": f"{here.system}, {here.accelerator or f'{here.cpu_cores} CPU cores'}",
                "versions": ", ".join(f"{name} {version_of(name)}" for name in PACKAGES),
            },
            patients=catalog.patients,
            synthetic=is_synthetic(catalog.root),
            steady=tuple(t.name for t in self.subject.tasks if not t.changes_within_videos),
            resamples=config.resamples,
        )

    def _shares(self) -> str:
        """Returns how many of the training patients each share is."""
        subject = self.subject
        trained = [len(subject.training_patients(fold)) for fold in subject.folds]
        words = []
        for share in sorted(self.config.shares):
            ends = sorted({number_in_share(n, share) for n in trained})
            number = " to ".join(str(n) for n in dict.fromkeys((ends[0], ends[-1])))
            words.append(f"{100 * share:g} % are {number}")
        unit = UNIT[subject.catalog.patients]
        return f"of the {unit}s trained on, {'; '.join(words)}"


@job("Comparing", {"Reading videos": 3, "Training and measuring": None, "Concluding": 5})
def compare(
    *,
    data: str | Path | None = None,
    out: str | Path,
    preset: str | Path | None = None,
    arms: Sequence[str] = (),
    processes: int | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Comparison:
    """Trains every arm with every seed on the same videos, and probes all of them alike.

    The same call goes on where an earlier one was stopped, and adds arms and seeds.

    Args:
        data: folder of videos with labels; optional where ``out`` holds a comparison.
        out: folder for the comparison.
        preset: ``"core"``, ``"full"`` or the path of a YAML file, see
            :class:`ComparisonConfig`; by default that of the comparison in ``out``, or ``"core"``.
        arms: names of the arms that are run and shown now; by default all.
        processes: runs at the same time, which share the cores; by default as many as there are
            cores, or one on a machine with a GPU. Results differ between numbers of threads by
            rounding.
        progress: show the progress on standard error.
        **overrides: fields of :class:`ComparisonConfig`.

    Raises:
        ValueError, TypeError: an option or the labels do not allow it; says why.
        FileExistsError: ``out`` holds something else.
        KeyboardInterrupt: it was interrupted; finished runs are kept.
        OSError: a file cannot be written.
    """
    folder = ComparisonFolder(out)
    folder.check_free()
    if data is not None:
        overrides["data"] = os.path.abspath(data)
    config = _configured(folder, preset, overrides)
    shown = config.only(tuple(arms)) if arms else config
    _check_options(config)
    subject = read_subject(config)
    check_writable(folder.path)
    folder.write(config.to_yaml(), subject)
    runs = planned(shown, subject.folds)
    missing = {run: folder.run(run) for run in runs if not folder.is_done(run)}
    failures = []
    with stage("Training and measuring", len(missing), unit="runs") as bar:
        if missing:
            number = min(_processes(processes), len(missing))
            for _, failure in do_all(shown, subject, missing, number):
                if failure is not None:
                    failures.append(failure)
                bar.advance()
    done = [run for run in runs if folder.is_done(run)]
    results = tuple(RunResult.load(folder.run(run)) for run in done)
    found = Comparison(folder, shown, subject, results, tuple(failures), len(runs) - len(done))
    with stage("Concluding"):
        write_tables(folder, found.conclusion)
    return found


def _check_options(config: ComparisonConfig) -> None:
    """Raises an error that names the arm, before anything is trained, if an option is wrong."""
    from usucl.comparison.training.pretraining import objective_options, training_config

    for arm in config.arms:
        if arm.method is not None:
            training_config(arm, config, config.seed)
        elif arm.objective is not None:
            objective_options(arm)


def _processes(given: int | None) -> int:
    import torch

    if given is not None:
        if given < 1:
            raise ValueError(f"processes must be at least 1, got {given}")
        return given
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _configured(
    folder: ComparisonFolder, preset: str | Path | None, overrides: dict[str, Any]
) -> ComparisonConfig:
    """Returns the options, which may add to those of an earlier call and not change them."""
    if not folder.is_comparison:
        config = read_config("core" if preset is None else preset, overrides)
        if not config.data:
            raise TypeError("data must be a folder of videos, got None")
        return config
    stored = read_config(folder.config, {})
    given = {"data": stored.data, **overrides}
    config = read_config(folder.config if preset is None else preset, given)
    for option in fields(ComparisonConfig):
        was, now = getattr(stored, option.name), getattr(config, option.name)
        if was != now and option.name not in _GROWING:
            raise ValueError(
                f"{option.name} must be as in {folder.path}, {was!r}, got {now!r}; give another out"
            )
    earlier = {arm.name: arm for arm in stored.arms}
    for arm in config.arms:
        if arm.name in earlier and earlier[arm.name] != arm:
            raise ValueError(
                f"arms.{arm.name} must be as in {folder.path}, {earlier[arm.name].to_dict()}, got "
                f"{arm.to_dict()}; give it another name"
            )
    kept = {arm.name for arm in config.arms}
    added = tuple(arm for arm in stored.arms if arm.name not in kept)
    return config if not added else replace(config, arms=config.arms + added)
