"""Fine-tuning in one call: a run's encoder, a folder of labelled videos, and what it tells."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usucl._environment import Machine, version_of
from usucl._files import DamagedFileError, check_writable, read_json, remove, write_json
from usucl._progress import Stage, job, stage
from usucl._tables import read_table, write_table
from usucl._terminal import say
from usucl.data import VideoCatalog
from usucl.data.phantom import is_synthetic
from usucl.evaluation.classification import Figures, measure
from usucl.evaluation.evaluate import INTERVALS, PACKAGES
from usucl.finetuning.batches import Frames
from usucl.finetuning.classifier import save_classifier
from usucl.finetuning.config import FinetuningConfig, read_config
from usucl.finetuning.fold import Epoch, Fitted, first_encoder, fit, probabilities
from usucl.finetuning.folder import FOLD, FinetuneFolder
from usucl.finetuning.labels import VIDEOS, Labelled, Parts, labelled, parts_of
from usucl.finetuning.predictions import (
    Tested,
    joined,
    per_video,
    read_predictions,
    write_predictions,
)
from usucl.finetuning.record import Finetuning, Fold
from usucl.models import FrameEncoder
from usucl.run_folder import RunFolder
from usucl.training.processes.world import World

FINAL = 2**31  # stands for the number of a fold where random numbers are drawn


@job(
    "Fine-tuning",
    {"Reading videos": 1, "Decoding videos": 2, "Training": None, "Measuring": 1},
)
def finetune(
    *,
    run: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path,
    preset: str | Path = "default",
    label: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    seed: int | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Finetuning:
    """Trains a classifier from a pretrained encoder, and measures it by cross-validation.

    Every patient is tested once, by a classifier that saw neither the patient nor, for the choice
    of its epoch, anything of the test fold. A video's probabilities are the mean of its frames'.

    Args:
        run: run folder written by :func:`usucl.train`, or another folder of an encoder, such as its
            ``initial``. Optional with ``resume``.
        data: folder of videos with ``labels.csv``, or ``frame_labels.csv``. Optional with
            ``resume``, where it may name the folder to which the same videos have moved.
        out: folder for the results.
        preset: ``"default"``, ``"gbcu"``, ``"pocus"`` or the path of a YAML file.
        label: column that holds the classes; by default that of the preset or, if that is the
            usual one, of the run.
        overwrite: replace an earlier fine-tuning in ``out``, which is back if the new one ends
            before its first fold is finished. Other files stay.
        resume: go on with the fine-tuning in ``out``, whose options replace ``preset``: giving
            another value than it has is an error. Finished folds are kept; the others begin again,
            with the same random draws. Where ``out`` is missing or empty, a new one starts.
        seed: seed of every random draw; by default that of the preset.
        progress: show the progress on standard error.
        **overrides: fields of :class:`FinetuningConfig`.

    Returns:
        The content of ``finetune.json``.

    Raises:
        ValueError, TypeError: an option, the labels or the patients do not allow it; says why.
        FileNotFoundError: ``run`` holds no encoder; or with ``resume``, ``out`` holds other files,
            or nothing while ``run`` or ``data`` is not given.
        FileExistsError: ``out`` is not empty, and neither ``overwrite`` nor ``resume`` is given, or
            it holds no fine-tuning.
        RuntimeError: this is one of several processes, the loss is not finite, or the ImageNet
            weights cannot be fetched.
        KeyboardInterrupt, SystemExit: it was interrupted; the finished folds are kept.
        OSError: a file cannot be written.

    Warns:
        UserWarning: the patients of videos are unknown, a class has few of them, or see
            :func:`usucl.evaluate`.
    """
    folder = FinetuneFolder(out)
    if (world := World.here()).size > 1:
        raise RuntimeError(
            f"fine-tuning takes one process, got {world.size}: start it without {world.starter}"
        )
    for name, value in (("run", run), ("data", data)):
        if value is not None:
            overrides[name] = os.path.abspath(value)
    if label is not None:
        overrides["label"] = label
    if seed is not None:
        overrides["seed"] = seed
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other, got both")
    resume = resume and folder.is_there(may_start=run is not None and data is not None)
    is_named = label is not None or resume
    if resume:
        config = _continued(folder, overrides)
        if folder.is_unfinished:
            say(f"{folder.path} has no finished fold yet: it begins again", stderr=True)
            resume = False
    else:
        config = read_config(preset, overrides)
        for name in ("run", "data"):
            if not getattr(config, name):
                raise TypeError(f"{name} must be a folder, got None")
        folder.check_free(overwrite=overwrite)
    if not Path(config.run).is_dir():
        raise FileNotFoundError(f"run must be a run folder, got {config.run}")
    encoder = first_encoder(config)
    given = {name: getattr(config, name) for name in ("patient_pattern", "sweep", "min_frames")}
    is_named = is_named or config.label != FinetuningConfig.label
    given["label"] = config.label if is_named else None
    catalog = RunFolder(config.run).scan(config.data, **given)
    config = replace(config, label=catalog.label)
    found = labelled(catalog, config)
    seen = _seen(config, catalog, found)
    check_writable(folder.path)
    if resume:
        _check_videos(folder, found)
        folder.check_first_weights(_digest(encoder))
    else:
        folder.set_aside()
    try:
        folder.write_config(config.to_yaml())
        write_table(folder.videos, VIDEOS, found.table())
        return _Finetuning(folder, config, found, seen, encoder, catalog).result()
    finally:
        folder.recover()


def _continued(folder: FinetuneFolder, overrides: Mapping[str, Any]) -> FinetuningConfig:
    """Returns the options of the fine-tuning in a folder, which those given may not change."""
    stored = read_config(folder.config, {})
    given = read_config(folder.config, overrides)
    for name in overrides:
        was, now = getattr(stored, name), getattr(given, name)
        if was != now and name not in ("run", "data", "num_workers", "cache_gb"):
            raise ValueError(f"{name} must be as in {folder.path} to resume, {was!r}, got {now!r}")
    return given


def _check_videos(folder: FinetuneFolder, found: Labelled) -> None:
    """Raises ValueError unless the labelled videos and folds are those of an earlier start."""
    before = {
        row["video_id"]: tuple(row[c] for c in VIDEOS) for row in read_table(folder.videos, VIDEOS)
    }
    now = {str(row[0]): tuple(map(str, row)) for row in found.table()}
    if before != now:
        other = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
        raise ValueError(
            f"data must hold the videos, labels and patients of the fine-tuning in {folder.path}, "
            f"got others: {len(other)} differ, such as {min(other)}; start again with "
            "overwrite=True"
        )


def _digest(encoder: FrameEncoder) -> str:
    """Returns what tells one encoder's weights from another's."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _seen(
    config: FinetuningConfig, catalog: VideoCatalog, found: Labelled
) -> tuple[bool, ...] | None:
    """Returns whether the pretraining of the first weights saw each video or its patient."""
    none = (False,) * len(found.entries)
    run = RunFolder(config.run)
    is_initial = os.path.realpath(RunFolder(run.path.parent).initial) == os.path.realpath(run.path)
    if config.start != "trained" or (is_initial and RunFolder(run.path.parent).is_run):
        return none
    if not run.split.is_file():
        return None
    held_out = run.held_out_videos(catalog)
    of = {entry.id: not kept for entry, kept in zip(catalog, held_out, strict=True)}
    return tuple(of[entry.id] for entry in found.entries)


class _Finetuning:
    """The folds one after the other, and their files."""

    def __init__(
        self,
        folder: FinetuneFolder,
        config: FinetuningConfig,
        found: Labelled,
        seen: tuple[bool, ...] | None,
        encoder: FrameEncoder,
        catalog: VideoCatalog,
    ) -> None:
        self.folder, self.config, self.found = folder, config, found
        self.seen, self.encoder, self.catalog = seen, encoder, catalog
        self.first_weights = _digest(encoder)
        self.frames: Frames

    def result(self) -> Finetuning:
        """Trains what is missing, measures, and writes the results."""
        config, found = self.config, self.found
        self.frames = Frames(found, config, self.encoder.config.image_size)
        parts = {k: parts_of(found, k, config.validation, config.seed) for k in found.folds}
        left = {k: part for k, part in parts.items() if not self._is_done(k)}
        if len(left) < len(parts):
            say(f"{len(parts) - len(left)} of {len(parts)} folds are finished", stderr=True)
        steps = {k: config.epochs * self.frames.steps(part.train) for k, part in left.items()}
        everything = Parts(np.arange(len(found.entries)), np.arange(0), np.arange(0))
        train_final = config.final and not (self.folder.final / FOLD).is_file()
        more = config.epochs * self.frames.steps(everything.train) if train_final else 0
        with stage("Training", sum(steps.values()) + more, unit="steps") as bar:
            for number, (k, part) in enumerate(left.items()):
                what = f"Fold {len(parts) - len(left) + number + 1}/{len(parts)}"
                before = bar.done
                self._train(k, part, bar, what)
                # Epochs that were saved are no work that was done.
                bar.update(total=(bar.total or 0) - steps[k] + bar.done - before)
                self.folder.forget_earlier()
            folds = [self._fold(k) for k in parts]
            epochs = None
            if config.final:
                epochs = max(1, round(float(np.median([fold.best_epoch for fold, _ in folds]))))
                if train_final:
                    bar.update(total=bar.done + epochs * self.frames.steps(everything.train))
                    self._train_final(everything, epochs, bar)
        with stage("Measuring"):
            return self._measured([fold for fold, _ in folds], [t for _, t in folds], epochs)

    def _is_done(self, fold: int) -> bool:
        return (self.folder.fold(fold) / FOLD).is_file()

    def _train(self, fold: int, parts: Parts, bar: Stage, what: str) -> None:
        config, found, out = self.config, self.found, self.folder.fold(fold)
        begun = time.perf_counter()
        fitted = fit(
            self.frames, self.encoder, parts, fold, epochs=config.epochs, bar=bar, what=what
        )
        samples = self.frames.tested(parts.test)
        probability = probabilities(fitted.classifier, self.frames.test(samples))
        remove(out)
        out.mkdir(parents=True)
        video = samples[:, 0].tolist()
        tested = Tested(
            level="frame",
            video_id=[found.entries[v].id for v in video],
            group=[found.entries[v].group for v in video],
            frame=samples[:, 1],
            fold=np.full(len(samples), fold),
            seen=[self.seen[v] if self.seen else None for v in video],
            truth=samples[:, 2],
            probability=probability,
        )
        write_predictions(FinetuneFolder(out).predictions, [tested], found.classes)
        if config.save_folds:
            save_classifier(fitted.classifier, out)
        learned = {c for v in parts.train for c in found.targets[v].tolist()}
        record = Fold(
            fold=fold,
            train=len(parts.train),
            validation=len(parts.validation),
            test=len(parts.test),
            epochs=len(fitted.epochs),
            best_epoch=fitted.best_epoch,
            not_fitted=tuple(n for c, n in enumerate(found.classes) if c not in learned),
            seconds=round(time.perf_counter() - begun, 3),
        )
        self._finish(out, record, fitted)

    def _finish(self, out: Path, record: Fold, fitted: Fitted) -> None:
        """Writes the last file of a fold, which says that it is finished."""
        epochs = [asdict(epoch) for epoch in fitted.epochs]
        besides = {"history": epochs, "first_weights": self.first_weights}
        table = asdict(record) | {"not_fitted": list(record.not_fitted)} | besides
        write_json(out / FOLD, table)

    def _train_final(self, parts: Parts, epochs: int, bar: Stage) -> None:
        begun = time.perf_counter()
        fitted = fit(
            self.frames, self.encoder, parts, FINAL, epochs=epochs, bar=bar, what="All folds"
        )
        remove(self.folder.final)
        self.folder.final.mkdir()
        save_classifier(fitted.classifier, self.folder.final)
        seconds = round(time.perf_counter() - begun, 3)
        record = Fold(FINAL, len(parts.train), 0, 0, epochs, epochs, (), seconds)
        self._finish(self.folder.final, record, fitted)

    def _fold(self, fold: int) -> tuple[Fold, Tested]:
        """Returns a finished fold and its predictions.

        Raises:
            DamagedFileError: a file of it was changed.
        """
        path = self.folder.fold(fold) / FOLD
        try:
            table = read_json(path)
            for name in ("history", "first_weights"):
                table.pop(name, None)
            record = Fold(**{**table, "not_fitted": tuple(table["not_fitted"])})
        except (KeyError, TypeError) as error:
            raise DamagedFileError(path, f"it is no record of a fold: {error}") from error
        predictions = FinetuneFolder(path.parent).predictions
        return record, read_predictions(predictions, self.found.classes)["frame"]

    def _history(self, folds: Sequence[Fold]) -> list[tuple[object, ...]]:
        rows = []
        paths = [(str(fold.fold), self.folder.fold(fold.fold)) for fold in folds]
        if self.config.final:
            paths.append(("final", self.folder.final))
        for name, path in paths:
            for epoch in read_json(path / FOLD)["history"]:
                rows.append((name, *epoch.values()))
        return rows

    def _measured(
        self, folds: Sequence[Fold], tested: Sequence[Tested], final_epochs: int | None
    ) -> Finetuning:
        config, found, folder = self.config, self.found, self.folder
        frames = joined(tested)
        of_video = {e.id: int(c) for e, c in zip(found.entries, found.video_class, strict=True)}
        levels = {"video": per_video(frames, of_video), "frame": frames}
        write_predictions(folder.predictions, list(levels.values()), found.classes)
        header = ("fold", *Epoch.__dataclass_fields__)
        write_table(folder.learning, header, self._history(folds))
        missing = {name for fold in folds for name in fold.not_fitted}
        fitted = np.array([name not in missing for name in found.classes])
        seen = None if self.seen is None else sum(self.seen)
        some_seen = seen is not None and 0 < seen < len(found.entries)
        result = Finetuning(
            run=config.run,
            data=config.data,
            start=config.start,
            label=config.label,
            level=found.level,
            classes=found.classes,
            videos=len(found.entries),
            groups=len(np.unique(found.group)),
            patients=found.patients,
            interval=INTERVALS[found.patients],
            unlabelled=len(found.unlabelled),
            left_out=found.left_out,
            seen=seen,
            folds=tuple(folds),
            figures=self._figures(levels, fitted),
            unseen=self._figures(levels, fitted, only_unseen=True) if some_seen else None,
            final_epochs=final_epochs,
            synthetic=is_synthetic(config.data),
            versions={
                "python": platform.python_version(),
                **{name: version_of(name) for name in PACKAGES},
            },
            machine=Machine.here(),
            seconds=sum(fold.seconds for fold in folds),
        )
        write_json(folder.results, result.to_json())
        return result

    def _figures(
        self, levels: Mapping[str, Tested], fitted: np.ndarray, *, only_unseen: bool = False
    ) -> dict[str, Figures]:
        figures = {}
        for name, tested in levels.items():
            mask = np.array([s is False for s in tested.seen]) if only_unseen else None
            kept = (tested.truth >= 0) & (mask if mask is not None else True)
            if not kept.any():
                continue  # every video has frames of several classes
            figures[name] = measure(
                tested.predictions(fitted, mask),
                tested.fold[kept],
                self.found.classes,
                resamples=self.config.resamples,
                seed=self.config.seed,
                unit=self.found.unit,
            )
        return figures
