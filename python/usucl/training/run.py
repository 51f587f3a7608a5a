"""Training in one call, from a folder of videos to a run folder.

Lightning takes a second to import: it is needed once the videos have been read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from usucl._progress import job
from usucl._terminal import say
from usucl._warnings import outside
from usucl.data import VideoCatalog
from usucl.data.catalog.tables.columns import LABELS
from usucl.run_folder import RunFolder
from usucl.training.config import TrainingConfig
from usucl.training.presets import read_config

if TYPE_CHECKING:
    from usucl.training.processes.world import World


class Job(NamedTuple):
    """A run that has been checked and is ready to start.

    Attributes:
        run: its folder.
        config: its options.
        catalog: all videos.
        parts: the videos to train on, and those held out.
        resume: whether it goes on from its checkpoint.
    """

    run: RunFolder
    config: TrainingConfig
    catalog: VideoCatalog
    parts: tuple[VideoCatalog, VideoCatalog]
    resume: bool


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

    The run folder is complete at any moment: it has the encoder and the bank of the last finished
    epoch, and a checkpoint, from which ``resume=True`` continues, on the CPU with exactly the
    numbers of an uninterrupted run. Checkpoints are written after every epoch, as often in between
    as ``saving.checkpoint_every`` says, and when Ctrl-C, SIGTERM or SIGUSR1 ends the run: it stops
    after the step that is being done, and at once if the signal comes again. Videos that cannot be
    read are named and left out.

    Args:
        data: folder of videos, see :meth:`usucl.data.VideoCatalog.scan`. With ``resume`` it may
            be left out, or name the folder to which the same videos have moved.
        out: the run folder.
        preset: ``"dense"``, ``"paper"``, ``"paper-code"`` or the path of a YAML file.
        overwrite: replace an earlier run in ``out`` as soon as the new one has a checkpoint: if it
            ends before, the earlier one is back. Files that do not belong to a run stay.
        resume: continue the run in ``out``, whose config replaces ``preset``, ``held_out`` and
            ``seed``: giving another value than it has is an error, but more ``epochs`` are added,
            also to a run that has finished (see ``extended`` in :class:`TrainingConfig`), and the
            sections ``running``, ``saving``, ``watching`` and ``computing`` may change. The
            videos and their numbers of frames must be the same; labels and patients may have been
            corrected, which does not change what is held out. Where ``out`` is missing or empty, a
            new run starts, and one that ended before its first checkpoint begins again: the same
            call starts a run and continues it.
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
        ValueError, TypeError: ``data``, ``preset`` or an override is wrong; nothing is created. Or
            the loss was not finite: the batch is in ``failed_batch.safetensors``.
        FileExistsError: ``out`` is not empty, and neither ``overwrite`` nor ``resume`` is given,
            or it holds no run. A run that ended before its first checkpoint is replaced unasked.
        FileNotFoundError: ``resume`` is given, and ``out`` has a trained encoder but no checkpoint,
            or other files and no run.
        VideoError: a video can no longer be read; the last checkpoint is kept.
        NothingLearnedError: no step could change the encoder, for example because no frame had a
            negative; says what to change. The files of the run are written.
        RuntimeError: a process was lost, of several that train together; says which. The others
            have ended, and the last checkpoint is whole.
        KeyboardInterrupt: the run was interrupted, after everything was closed.
        SystemExit: the run was ended by SIGTERM or SIGUSR1, and saved; the code is 143.
        DamagedFileError: with ``resume``, the checkpoint was changed or cut.
        OSError: a file cannot be written; the last checkpoint and the files of the last finished
            epoch stay.

    Warns:
        UserWarning: nothing can be held out, the folds given are all the same, the patients of
            videos are unknown, or training does nothing or not what it should, as ``warnings.csv``
            says too.
    """
    out = Path(out)
    overrides = with_flags(overrides, held_out, seed)

    def prepare(world: World) -> Job | None:
        return _prepared(data, out, preset, overwrite, resume, overrides, world)

    from usucl.training.processes.world import World

    world = World.here()
    if world.size > 1:
        do_together(world, lambda: prepare(world))
        return out
    job = prepare(world)
    if job is None:
        return out
    from usucl.training.fitting import fit

    if (size := job.config.running.devices) > 1:
        from usucl.training.processes.launch import launch

        launch(job, size, partial(_advice, job.run))
    else:
        fit(*job[:4], resume=job.resume)
    return out


def do_together(world: World, prepare: Callable[[], Job | None]) -> None:
    """Does in each of several processes what rank 0 has prepared.

    Args:
        world: the place of this process.
        prepare: called by rank 0 alone; returns None if there is nothing to do.
    """
    from usucl.training.fitting import fit
    from usucl.training.options import RunningConfig
    from usucl.training.processes.together import joined

    with joined(world) as together:
        job = together.of_first(prepare, lambda job: job.config.running if job else RunningConfig())
        if job is not None:
            fit(*job[:4], resume=job.resume, together=together)


def _advice(run: RunFolder) -> str:
    if run.checkpoint.is_file() and not run.has_earlier:
        return "The last checkpoint is whole: resume=True goes on from there"
    return "There is no checkpoint: start again"


def _prepared(
    data: str | Path | None,
    out: Path,
    preset: str | Path,
    overwrite: bool,
    resume: bool,
    overrides: dict[str, Any],
    world: World,
) -> Job | None:
    """Returns what is to be done, or None if a resumed run is finished; nothing is written."""
    run, moved = RunFolder(out), False
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other, got both")
    if resume:
        from usucl.training.resumption import continued, is_finished, is_there

        if run.is_run and run.recover():
            say(f"{out} has its earlier run back, as the one to replace it was killed", stderr=True)
        resume = is_there(run)
    if resume:
        config = continued(run, overrides)
        if data is not None:
            moved, config = config.data != _absolute(data), replace(config, data=_absolute(data))
        if run.is_unfinished:
            say(f"{out} has no checkpoint yet: its run begins again", stderr=True)
            resume = False
        elif is_finished(run, config) and not moved:
            say(
                f"{out} is finished: all of its {config.epochs} epochs are done "
                f"(for more: --resume --set epochs={2 * config.epochs}, or resume=True in Python)",
                stderr=True,
            )
            return None
    else:
        config = configured(data, preset, overrides)
        run.check_free(overwrite=overwrite)
    world.check(config.running)
    if world.size == 1 and config.running.nodes > 1:
        raise ValueError(
            f"running.nodes must be 1 unless torchrun or srun starts the processes on every "
            f"machine, got {config.running.nodes}"
        )
    catalog = scanned(config)
    parts = run.stored_split(catalog) if resume else split(catalog, config)
    from usucl.training.fitting import make_datamodule
    from usucl.training.rehearsal import rehearse, rehearse_here

    processes = max(world.size, config.running.devices)
    batches = make_datamodule(parts[0], config).batches
    if processes > 1:
        rehearse(config, batches)
    rehearse_here(config, batches, processes)
    return Job(run, config, catalog, parts, resume)


def _absolute(data: str | Path) -> str:
    return str(Path(data).absolute())


def with_flags(
    overrides: dict[str, Any], held_out: Sequence[int] | None, seed: int | None
) -> dict[str, Any]:
    """Returns the overrides with two that have a parameter of their own."""
    if held_out is not None:
        overrides["held_out"] = held_out if isinstance(held_out, str) else list(held_out)
    if seed is not None:
        overrides["seed"] = seed
    return overrides


def configured(
    data: str | Path | None, preset: str | Path, overrides: dict[str, Any]
) -> TrainingConfig:
    """Returns the options of a new run, in which every path is absolute."""
    if data is None:
        raise TypeError("data must be a folder of videos, got None")
    from usucl.training.resumption import absolute

    return absolute(read_config(preset, overrides | {"data": _absolute(data)}))


def scanned(config: TrainingConfig) -> VideoCatalog:
    """Returns all videos of a run."""
    return VideoCatalog.scan(
        config.data,
        damaged=config.damaged,
        label=config.label,
        patient_pattern=config.patient_pattern,
        sweep=config.sweep,
    )


def split(catalog: VideoCatalog, config: TrainingConfig) -> tuple[VideoCatalog, VideoCatalog]:
    """Returns (trained on, held out), by patient."""
    training, held_out = catalog.hold_out(config.held_out, config.seed)
    if len(held_out) and catalog.patient_doubt:
        warnings.warn(
            f"{catalog.patient_doubt}; name the patients in {LABELS}, or by --patient-pattern, for "
            "which usucl data check makes suggestions",
            stacklevel=outside(),
        )
    return training, held_out
