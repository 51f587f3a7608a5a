"""Training in one call, from a folder of videos to a run folder."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from usucl._files import DamagedFileError, write_atomically
from usucl._progress import job, listening, stage
from usucl._terminal import say, table
from usucl.data import VideoCatalog, VideoDataModule
from usucl.data.labels import LABELS
from usucl.models import save_encoder
from usucl.run_folder import RunFolder
from usucl.training.checkpoint import ADVICE, Checkpoints
from usucl.training.config import NothingLearnedError, TrainingConfig
from usucl.training.health import Health, WarningsTable
from usucl.training.module import ContrastiveTraining
from usucl.training.monitor import MetricsTable, Monitor, SaveAfterEpoch
from usucl.training.presets import read_config
from usucl.training.progress import ProgressCallback, summary
from usucl.training.record import RunRecord
from usucl.training.rehearsal import rehearse
from usucl.training.resumption import (
    check_checkpoint,
    check_one_process,
    continued,
    is_finished,
    new_id,
)


@job("Pretraining", {"Reading videos": 1, "Decoding videos": 1, "Training": None})
def train(
    *,
    data: str | Path | None = None,
    out: str | Path,
    preset: str | Path = "dense",
    overwrite: bool = False,
    resume: bool = False,
    held_out: Sequence[int] | None = None,
    seed: int | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Path:
    """Pretrains an encoder on a folder of ultrasound videos.

    The run folder is complete at any moment: Ctrl-C leaves the encoder, the bank and the checkpoint
    of the last finished epoch, and ``resume=True`` continues from there, on the CPU with exactly
    the numbers of an uninterrupted run. Videos that cannot be read are named and left out.

    Args:
        data: folder of videos, see :meth:`usucl.data.VideoCatalog.scan`. With ``resume`` it may
            be left out, or name the folder to which the same videos have moved.
        out: the run folder.
        preset: ``"dense"``, ``"paper"``, ``"paper-code"`` or the path of a YAML file.
        overwrite: replace an earlier run in ``out`` as soon as the new one has a checkpoint: if it
            ends before, the earlier one is back. Files that do not belong to a run stay.
        resume: continue the run in ``out``, whose config replaces ``preset``, ``held_out`` and
            ``seed``: giving another value than it has is an error, but more ``epochs`` are added,
            also to a run that has finished (see ``extended`` in :class:`TrainingConfig`). The
            videos and their numbers of frames must be the same; labels and patients may have been
            corrected, which does not change what is held out. A run that ended in its first epoch
            begins again.
        held_out: folds of patients that are not trained on; ``()`` trains on all. By default those
            of the preset or, if it gives none, the smallest fold (0 unless ``labels.csv`` gives
            others); a single patient is then not held out.
        seed: seed of the first weights, the folds and every random draw; by default the preset's.
        progress: say what the run is about to do, and show how far it is: a bar in a terminal,
            lines in a pipe or a file, on standard error.
        **overrides: fields of :class:`TrainingConfig`, by plain name where only one section has
            such a field (``epochs=20``, ``cross_k=64``), or dotted
            (``**{"key.momentum": 0.99}``).

    Returns:
        ``out``.

    Raises:
        ValueError, TypeError: ``data``, ``preset`` or an override is wrong; nothing is created.
        FileExistsError: ``out`` is not empty, and neither ``overwrite`` nor ``resume`` is given,
            or it holds no run. A run that ended in its first epoch is replaced unasked.
        FileNotFoundError: ``resume`` is given, and ``out`` has no checkpoint.
        NothingLearnedError: no step could change the encoder, for example because no frame had a
            negative; says what to change. The files of the run are written.
        RuntimeError: this is one of several processes, as of torchrun.
        KeyboardInterrupt: the run was interrupted, after everything was closed.
        SystemExit: the run was ended by SIGTERM; the code is 143.
        DamagedFileError: with ``resume``, the checkpoint was changed or cut.
        OSError: a file cannot be written; the files of the last finished epoch stay.

    Warns:
        UserWarning: nothing can be held out, the folds given are all the same, the patients of
            videos are unknown, or training does nothing or not what it should, as ``warnings.csv``
            says too.
    """
    out = Path(out)
    run, moved = RunFolder(out), False
    check_one_process()
    if held_out is not None:
        overrides["held_out"] = held_out if isinstance(held_out, str) else list(held_out)
    if seed is not None:
        overrides["seed"] = seed
    if resume:
        if overwrite:
            raise ValueError("resume and overwrite exclude each other, got both")
        config = continued(run, overrides)
        if data is not None:
            moved, config = config.data != _absolute(data), replace(config, data=_absolute(data))
        if run.is_unfinished:
            say(f"{out} has no finished epoch: its run begins again", stderr=True)
            resume = False
        elif is_finished(run, config) and not moved:
            say(
                f"{out} is finished: all of its {config.epochs} epochs are done "
                f"(more: resume it with epochs={2 * config.epochs}, for example)",
                stderr=True,
            )
            return out
    else:
        if data is None:
            raise TypeError("data must be a folder of videos, got None")
        config = read_config(preset, overrides | {"data": _absolute(data)})
        if config.encoder.weights is not None:
            own = replace(config.encoder, weights=_absolute(config.encoder.weights))
            config = replace(config, encoder=own)
        run.check_free(overwrite=overwrite)
    catalog = VideoCatalog.scan(
        config.data, damaged=config.damaged, patient_pattern=config.patient_pattern
    )
    parts = run.stored_split(catalog) if resume else _split(catalog, config)
    datamodule = _datamodule(parts[0], config)
    rehearse(config, datamodule.batches)
    module = _module(config, restored=resume)
    _report_start(module)
    run_id = run.id if resume else new_id()
    module.run = {"id": run_id, "folder": str(out.absolute())}
    before = {file: file.read_bytes() for file in (run.config, run.split)} if resume else {}
    done = 0
    if resume:
        done = check_checkpoint(run, config, parts[0])
    else:
        run.set_aside()
    record, earlier = RunRecord(run, module.start), run.has_earlier
    try:
        run.write_config(config.to_yaml(), run_id)
        run.write_split(*parts)
        if not resume:
            run.write_skipped(catalog)
            MetricsTable(run.metrics).rewind(0)
            WarningsTable(run.warnings).rewind(0)
            save_encoder(module.encoder, run.initial)
            save_encoder(module.encoder, out)
        _report_skipped(catalog)
        _fit(module, datamodule, parts[1], run, done, record)
        run.forget_earlier()
    except BaseException:
        run.recover()
        if not record.started:
            for file, content in before.items():
                write_atomically(file, content)
            if not (resume or earlier):
                run.discard()
        raise
    return out


def _module(config: TrainingConfig, *, restored: bool) -> ContrastiveTraining:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            return ContrastiveTraining(config, restored=restored)
        except (ValueError, FileNotFoundError) as error:
            if not str(error).startswith("weights "):
                raise
            raise type(error)(f"encoder.{error}") from error


def _absolute(data: str | Path) -> str:
    return str(Path(data).absolute())


def _split(catalog: VideoCatalog, config: TrainingConfig) -> tuple[VideoCatalog, VideoCatalog]:
    """Returns (trained on, held out), by patient."""
    training, held_out = catalog.hold_out(config.held_out, config.seed)
    if len(held_out) and catalog.patient_doubt:
        warnings.warn(
            f"{catalog.patient_doubt}; name the patients in {LABELS}, or by --patient-pattern, for "
            "which usucl data check makes suggestions",
            stacklevel=3,
        )
    return training, held_out


def _datamodule(catalog: VideoCatalog, config: TrainingConfig) -> VideoDataModule:
    sampling = config.sampling
    return VideoDataModule(
        catalog,
        config.make_method().sampler(),
        image_size=config.encoder.image_size,
        curriculum=config.curriculum,
        augmentation=sampling.augmentation,
        time_unit=sampling.time_unit,
        cache_gb=sampling.cache_gb,
        num_workers=sampling.num_workers,
        seed=config.seed,
    )


def _report_start(module: ContrastiveTraining) -> None:
    start = module.start
    if start is not None:
        head = f"{start['head']} of its head" if start["head"] else "a new head"
        left = f"; left out: {', '.join(start['left_out'])}" if start["left_out"] else ""
        say(
            f"The encoder starts from {start['backbone']} tensors of the backbone in "
            f"{start['file']} and {head}{left}",
            stderr=True,
        )


def _report_skipped(catalog: VideoCatalog) -> None:
    if catalog.skipped:
        title = f"{len(catalog.skipped)} videos are left out"
        table(["path", "reason"], catalog.skipped, title=title, stderr=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's advice on what this package has already decided."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*The dirpath has changed.*")
            warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            yield
    finally:
        logger.setLevel(level)


@_quiet()
def _fit(
    module: ContrastiveTraining,
    datamodule: VideoDataModule,
    held_out: VideoCatalog,
    run: RunFolder,
    done: int,
    record: RunRecord,
) -> None:
    config = module.config
    monitor = Monitor(run.metrics, config.log_every)
    health = Health(run.warnings)
    callbacks: list[Callback] = [
        health,
        monitor,
        record,
        SaveAfterEpoch(run),
        ModelCheckpoint(run.checkpoints, run.checkpoint.stem, enable_version_counter=False),
    ]
    bar = stage("Training", unit="steps")
    if listening():
        callbacks.append(ProgressCallback(bar))
    trainer = Trainer(
        devices=1,
        max_epochs=config.epochs,
        precision=config.precision,
        callbacks=callbacks,
        plugins=[Checkpoints()],
        logger=TensorBoardLogger(run.path, name=run.tensorboard.name, version=""),
        default_root_dir=run.path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    interrupt = signal.getsignal(signal.SIGINT)
    if listening():
        rows = summary(module, datamodule.batches, held_out, trainer, done)
        table(["", ""], rows, title=str(run.path))
    datamodule.setup()  # its errors are of the videos, and later ones, until the start, of resuming
    try:
        checkpoint = run.checkpoint if done else None
        with bar:
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)
        if record.started:
            health.check(config)
    except SIGTERMException:  # an exit of the whole program, with the code of success
        say("usucl: terminated (SIGTERM)", stderr=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of the whole program, and ignores it afterwards.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(run.path)) from error
        raise
    except (MemoryError, DamagedFileError, NothingLearnedError):
        raise
    except Exception as error:
        if done and not monitor.started:
            reason = f"it does not fit the run: {' '.join(str(error).split())}"
            raise DamagedFileError(run.checkpoint, reason, ADVICE) from error
        raise
    finally:
        record.stop()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
