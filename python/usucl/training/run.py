"""One call from a folder of videos to a run folder."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from usucl._files import write_atomically
from usucl.data import VideoCatalog, VideoDataModule
from usucl.models import save_encoder
from usucl.training.config import TrainingConfig, read_config
from usucl.training.module import ContrastiveTraining
from usucl.training.monitor import MetricsTable, Monitor, RunFolder

# What a run, its evaluation and its report write: overwrite=True replaces these and nothing else.
# config.yaml, by its first line, marks the folder as a run. It is not here, for it is replaced in
# place: a folder half cleared is still a run.
RUN_MARK = "# usucl run: overwrite replaces the results beside this file\n"
RUN_ENTRIES = (
    "encoder.safetensors",
    "encoder.json",
    "initial",
    "metrics.csv",
    "split.csv",
    "skipped.csv",
    "checkpoints",
    "bank",
    "tensorboard",
    "embeddings",
    "embedded",
    "figures",
    "evaluation.json",
    "report.html",
)


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

    The run folder is whole at any moment: Ctrl-C leaves the encoder, the bank and the checkpoint
    of the last finished epoch, and ``resume=True`` goes on from there, on the CPU with the very
    numbers of an uninterrupted run. Videos that cannot be read are named and left out.

    Args:
        data: folder of videos, see :meth:`usucl.data.VideoCatalog.scan`. With ``resume`` it may
            be left out, or name the folder to which the same videos have moved.
        out: the run folder.
        preset: ``"dense"``, ``"paper"``, ``"paper-code"`` or the path of a YAML file.
        overwrite: replace an earlier run in ``out``; files that are not of a run stay.
        resume: go on with the run in ``out``, whose config stands in place of ``preset``,
            ``held_out`` and ``seed``: giving another value than it has is an error.
        held_out: folds of patients that are not trained on; ``()`` trains on all. By default as
            the preset says, which if it says nothing is the smallest fold (0 unless ``labels.csv``
            gives others); of a single patient nothing is held out then.
        seed: of the first weights, the folds and every random draw; by default as the preset says.
        progress: show a progress bar.
        **overrides: fields of :class:`TrainingConfig`, by plain name where only one section has
            such a field (``epochs=20``, ``cross_k=64``), or dotted
            (``**{"key.momentum": 0.99}``).

    Returns:
        ``out``.

    Raises:
        ValueError, TypeError: ``data``, ``preset`` or an override is wrong; nothing is created.
        FileExistsError: ``out`` is not empty, and neither ``overwrite`` nor ``resume`` is given,
            or it holds no run.
        FileNotFoundError: ``resume`` without a checkpoint in ``out``.
        KeyboardInterrupt: the run was interrupted, after everything was closed.

    Warns:
        UserWarning: nothing can be held out, or the folds given are all the same.
    """
    out = Path(out)
    checkpoint = out / "checkpoints" / "last.ckpt"
    if held_out is not None:
        overrides["held_out"] = list(held_out)
    if seed is not None:
        overrides["seed"] = seed
    if resume:
        if overwrite:
            raise ValueError("resume and overwrite exclude each other, got both")
        if not checkpoint.is_file():
            raise FileNotFoundError(
                f"nothing to resume: {checkpoint} is missing; it is written after the first epoch"
            )
        config = _unchanged(out / "config.yaml", overrides)
        if data is not None:
            config = replace(config, data=_absolute(data))
    else:
        if data is None:
            raise TypeError("data must be a folder of videos, got None")
        config = read_config(preset, overrides | {"data": _absolute(data)})
        _check_free(out, overwrite)
    catalog = VideoCatalog.scan(config.data)
    training, held_out_part = _split(catalog, config)
    datamodule = _datamodule(training, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = ContrastiveTraining(config)

    split = _split_table(training, held_out_part)
    if resume:
        if split != (out / "split.csv").read_text():
            raise ValueError(f"data must hold the videos of the run in {out}, got others")
    else:
        _clear(out)
    write_atomically(out / "config.yaml", (RUN_MARK + config.to_yaml()).encode())
    if not resume:
        write_atomically(out / "split.csv", split.encode())
        skipped = _csv_text(("path", "reason"), catalog.skipped)
        write_atomically(out / "skipped.csv", skipped.encode())
        MetricsTable(out / "metrics.csv").rewind(0)
        save_encoder(module.encoder, out / "initial")
        save_encoder(module.encoder, out)
    _report_skipped(catalog)
    _fit(module, datamodule, out, checkpoint if resume else None, progress)
    return out


def _absolute(data: str | Path) -> str:
    return str(Path(data).absolute())


def _unchanged(stored: Path, overrides: Mapping[str, Any]) -> TrainingConfig:
    """The stored config. With other options the run would be neither the old one nor a new one:
    with more epochs, say, its learning rate would climb again."""
    config = read_config(stored, {})
    for name, value in overrides.items():
        if read_config(stored, {name: value}) != config:
            raise ValueError(
                f"{name} cannot change when a run is resumed, got {value}: leave it out, or start "
                "another run"
            )
    return config


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out must be a folder, {out} is a file")
    if not out.exists() or not any(out.iterdir()):
        return
    config = out / "config.yaml"
    if not (config.is_file() and config.read_bytes().startswith(RUN_MARK.encode())):
        raise FileExistsError(f"{out} is not empty and holds no run: choose another folder")
    if not overwrite:
        raise FileExistsError(
            f"{out} holds a run: give overwrite=True to replace it, or resume=True to go on with it"
        )


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in RUN_ENTRIES:
        entry = out / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _split(catalog: VideoCatalog, config: TrainingConfig) -> tuple[VideoCatalog, VideoCatalog]:
    """(trained on, held out), by patient."""
    held_out = config.held_out
    groups = len({entry.group for entry in catalog})
    if held_out is None and groups < 2:
        warnings.warn("one patient or source only: nothing is held out", stacklevel=3)
        held_out = ()
    if held_out == ():
        return catalog, VideoCatalog(catalog.root, ())
    if groups < 2:
        raise ValueError(
            "held_out must be () for a folder with one patient or source (--held-out without a "
            f"number), got {held_out}"
        )
    catalog = catalog.with_folds(min(5, groups), config.seed)
    if held_out is None:
        held_out = (min(entry.fold for entry in catalog if entry.fold is not None),)
    return catalog.split(held_out)


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


def _report_skipped(catalog: VideoCatalog) -> None:
    if catalog.skipped:
        table = Table("path", "reason", title=f"{len(catalog.skipped)} videos are left out")
        for path, reason in catalog.skipped:
            table.add_row(str(path), reason)
        Console(stderr=True).print(table)


def _split_table(training: VideoCatalog, held_out: VideoCatalog) -> str:
    parts = (("train", training), ("held_out", held_out))
    rows = [(e.id, e.group, e.label or "", part) for part, catalog in parts for e in catalog]
    return _csv_text(("video_id", "group", "label", "part"), rows)


def _csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on what this package has decided already."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
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
    out: Path,
    checkpoint: Path | None,
    progress: bool,
) -> None:
    config = module.config
    callbacks: list[Callback] = [
        Monitor(out, config.log_every),
        RunFolder(out),
        ModelCheckpoint(out / "checkpoints", "last", enable_version_counter=False),
    ]
    if progress:
        callbacks.append(RichProgressBar())
    trainer = Trainer(
        devices=1,
        max_epochs=config.epochs,
        precision=config.precision,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name="tensorboard", version=""),
        default_root_dir=out,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of the whole program, and ignores it from then on.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
