"""From videos that were read to a trained encoder, by Lightning."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch.loggers import Logger

from usucl._files import DamagedFileError, write_atomically
from usucl._progress import listening, stage
from usucl._terminal import say, table
from usucl.data import VideoCatalog, VideoDataModule
from usucl.data.video import VideoError
from usucl.models import save_encoder
from usucl.models.weights import left_out_in_words
from usucl.run_folder import RunFolder
from usucl.training.callbacks.health import WarningsTable
from usucl.training.callbacks.monitor import MetricsTable
from usucl.training.callbacks.progress import run_rows
from usucl.training.callbacks.record import RunRecord
from usucl.training.callbacks.saving import random_states, restore_random
from usucl.training.callbacks.stopping import Stopped
from usucl.training.checkpoint import ADVICE
from usucl.training.computing import settings
from usucl.training.config import NothingLearnedError, TrainingConfig
from usucl.training.explained import RUN_HEAD, explain
from usucl.training.loggers import close_loggers, make_loggers
from usucl.training.module import ContrastiveTraining
from usucl.training.processes.together import LostRankError, Together
from usucl.training.processes.world import World
from usucl.training.provenance import data_facts
from usucl.training.rehearsal import rehearse
from usucl.training.resumption import Position, check_checkpoint, new_id
from usucl.training.summary import show_summary
from usucl.training.trainer import Callbacks, make_trainer, progress_callbacks


def fit(
    run: RunFolder,
    config: TrainingConfig,
    catalog: VideoCatalog,
    parts: tuple[VideoCatalog, VideoCatalog],
    *,
    resume: bool,
    together: Together | None = None,
) -> None:
    """Trains an encoder and writes the run folder.

    Args:
        run: the run folder.
        config: the options.
        catalog: all videos, of which the skipped are reported.
        parts: the videos to train on, and those held out.
        resume: go on from the run's checkpoint.
        together: the processes that train together, of which rank 0 alone writes; None for one.

    Raises:
        See :func:`usucl.train`.
    """
    if together is not None and not together.world.is_first:
        _fit_besides(run, config, parts, resume, together)
        return
    datamodule = make_datamodule(parts[0], config)
    rehearse(config, datamodule.batches)
    module = _module(config, restored=resume)
    _report_start(module)
    run_id = run.id if resume else new_id()
    module.run = {"id": run_id, "folder": str(run.path.absolute())}
    before = {file: file.read_bytes() for file in (run.config, run.split)} if resume else {}
    done = None
    if resume:
        run.recover()
        done = check_checkpoint(run, config, parts[0])
        run.recover()  # a process that was killed may have left half a checkpoint
        datamodule.first = (done.epochs, done.batches or 0)
        if done.batches is not None:
            say(
                f"The run goes on after step {done.steps}, within epoch {done.epochs + 1}",
                stderr=True,
            )
    else:
        run.set_aside()
    record, earlier = RunRecord(run, module.start, data_facts(catalog)), run.has_earlier
    try:
        run.write_config(explain(config, RUN_HEAD), run_id)
        run.write_split(*parts)
        if not resume:
            run.write_skipped(catalog)
            MetricsTable(run.metrics).rewind(0)
            WarningsTable(run.warnings).rewind(0)
            save_encoder(module.encoder, run.initial)
            save_encoder(module.encoder, run.path)
        _report_skipped(catalog)
        _fit(module, datamodule, parts[1], run, done, record, together)
        run.forget_earlier()
    except BaseException:
        run.recover()
        if not record.started:
            for file, content in before.items():
                write_atomically(file, content)
            if not (resume or earlier):
                run.discard()
        raise


def _fit_besides(
    run: RunFolder,
    config: TrainingConfig,
    parts: tuple[VideoCatalog, VideoCatalog],
    resume: bool,
    together: Together,
) -> None:
    """Trains in a process that writes nothing."""
    datamodule = make_datamodule(parts[0], config)
    module = _module(config, restored=resume)
    done = check_checkpoint(run, config, parts[0]) if resume else None
    if done is not None:
        datamodule.first = (done.epochs, done.batches or 0)
    record = RunRecord(run, module.start)
    _fit(module, datamodule, parts[1], run, done, record, together)


def _module(config: TrainingConfig, *, restored: bool) -> ContrastiveTraining:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            return ContrastiveTraining(config, restored=restored)
        except (ValueError, FileNotFoundError) as error:
            if not str(error).startswith("weights "):
                raise
            raise type(error)(f"encoder.{error}") from error


def make_datamodule(catalog: VideoCatalog, config: TrainingConfig) -> VideoDataModule:
    """Returns the batches of a run; the videos are not decoded yet."""
    sampling = config.sampling
    return VideoDataModule(
        catalog,
        config.make_method().sampler(),
        image_size=config.encoder.image_size,
        channels=config.encoder.channels,
        curriculum=config.curriculum,
        augmentation=sampling.augmentation,
        time_unit=sampling.time_unit,
        min_gap=sampling.min_gap,
        guard=sampling.guard,
        cache_gb=sampling.cache_gb,
        num_workers=sampling.num_workers,
        multiprocessing_context=sampling.multiprocessing_context,
        seed=config.seed,
        split=True,
    )


def _report_start(module: ContrastiveTraining) -> None:
    start = module.start
    if start is not None:
        head = f"{start['head']} of its head" if start["head"] else "a new head"
        left = f"; left out: {words}" if (words := left_out_in_words(start)) else ""
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
def quiet() -> Iterator[None]:
    """Silences Lightning's advice on what this package has already decided."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*The dirpath has changed.*")
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # it is
            warnings.filterwarnings("ignore", ".*Please add the following callbacks.*ModelCheck.*")
            warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", ".*AMP with fp16 is not supported on CPU.*")
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            yield
    finally:
        logger.setLevel(level)


@quiet()
def _fit(
    module: ContrastiveTraining,
    datamodule: VideoDataModule,
    held_out: VideoCatalog,
    run: RunFolder,
    done: Position | None,
    record: RunRecord,
    together: Together | None,
) -> None:
    config = module.config
    world = World() if together is None else together.world
    callbacks = Callbacks(run, config, datamodule.batches, record, world)
    bar = stage("Training", unit="steps")
    run_id = None if module.run is None else module.run["id"]
    loggers: list[Logger] = []
    if world.is_first:
        steps = 0 if done is None else done.steps
        loggers = make_loggers(run, config.watching, run_id, done=steps)
    shown = progress_callbacks(bar, callbacks)
    trainer = make_trainer(run, config, [*callbacks, *shown], loggers, world)
    if listening():
        epochs = 0 if done is None else done.epochs
        rows = run_rows(module, datamodule.batches, held_out, trainer, epochs)
        table(["", ""], rows, title=str(run.path))
    datamodule.setup()  # its errors are of the videos, and later ones, until the start, of resuming
    try:
        checkpoint = run.checkpoint if done is not None else None
        if together is not None:
            together.wait_for_all("decoded")
        watched = contextlib.nullcontext() if together is None else together.naming("a step")
        seed = config.seed + world.rank
        with bar, _seeded(seed), settings(config.computing), watched:
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)
        if record.started:
            if listening() and trainer.is_global_zero:
                show_summary(run)
            callbacks.health.check(config)
        callbacks.stopping.check()  # a signal that came during the last step
    except Stopped as stop:
        _end(stop.signum, callbacks.stopping.handlers[stop.signum])
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of the whole program, and ignores it afterwards.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except VideoError as error:
        raise _vanished(error, run) from error
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(run.path)) from error
        raise
    except (MemoryError, DamagedFileError, NothingLearnedError, LostRankError):
        raise
    except Exception as error:
        if done is not None and world.is_first and not callbacks.monitor.started:
            reason = f"it does not fit the run: {' '.join(str(error).split())}"
            raise DamagedFileError(run.checkpoint, reason, ADVICE) from error
        raise
    finally:
        record.stop()
        close_loggers(loggers)
        callbacks.stopping.restore()


def _end(signum: int, handler: Any) -> NoReturn:
    """Ends a run that has been saved, as the signal asks for."""
    if signum == signal.SIGINT:
        raise KeyboardInterrupt from None
    if callable(handler):  # of a command, which says how to go on
        handler(signum, None)
    say(f"usucl: terminated ({signal.Signals(signum).name})", stderr=True)
    raise SystemExit(128 + signal.SIGTERM) from None


def _vanished(error: VideoError, run: RunFolder) -> VideoError:
    """Returns an error of a video that cannot be read any more, with what is kept."""
    kept = "no checkpoint was written yet"
    if run.checkpoint.is_file():
        kept = f"the last checkpoint is kept in {run.checkpoint}: resume once the video is back"
    return VideoError(error.path, f"{error.reason}; {kept}")


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds what draws from global random generators, such as dropout, and restores them.

    Views, batches and first weights have generators of their own.
    """
    before = random_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random(before)
