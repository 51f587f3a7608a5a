"""The evaluation of a run's encoder next to the same figures without pretraining."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from usucl._environment import Machine, version_of
from usucl._files import check_writable, write_json
from usucl._progress import job
from usucl._spread import MEASURES
from usucl.data import VideoCatalog
from usucl.data.catalog.patients import UNIT, Patients
from usucl.data.inspection.context import context_of
from usucl.data.phantom import is_synthetic
from usucl.embedding import Embeddings, embed_entries, numbered
from usucl.evaluation import probes
from usucl.evaluation.embed import image_size_of, load_encoders
from usucl.evaluation.metrics import group_mean
from usucl.evaluation.overlap import near_duplicates
from usucl.evaluation.probes.labels import probe_labels
from usucl.evaluation.retrieval import (
    FAR_FRACTION,
    HARD_FRACTION,
    NEAR_FRAMES,
    TASKS,
    temporal_retrieval,
)
from usucl.evaluation.schema import Count, Evaluation, Protocol
from usucl.evaluation.simultaneous import Family, family_level
from usucl.run_folder import RunFolder

INTERVALS: Mapping[Patients, str] = {
    "known": "95 % percentile bootstrap over patients",
    "partly": "95 % percentile bootstrap over patients, and videos whose patient is unknown",
    "unknown": "95 % percentile bootstrap over videos, whose patients are unknown",
}
PACKAGES = ("usucl", "torch", "torchvision", "scikit-learn", "numpy")


@job(
    "Evaluating",
    {
        "Reading videos": 3,
        "Embedding frames": 8,
        "Measuring retrieval": 7,
        "Measuring the spread": 1,
        "Fitting probes": 15,
    },
)
def evaluate(
    *,
    run: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    frames_per_video: int = 20,
    queries_per_video: int = 10,
    resamples: int = 2000,
    folds: int = 5,
    seed: int = 0,
    patient_pattern: str | None = None,
    label: str | None = None,
    sweep: str | None = None,
    min_frames: int = 2,
    progress: bool = False,
) -> Evaluation:
    """Measures a run's trained encoder against its random initialisation and raw pixels.

    It measures temporal retrieval and the spread of the embeddings on held-out videos, and kNN and
    linear probes of the labels, fitted on the videos of pretraining and tested on the held-out
    ones, and by cross-validation. A bootstrap over patients gives 95 % intervals and paired
    differences, these with adjusted intervals too, which hold for all differences at once.

    Args:
        run: run folder written by :func:`usucl.train`.
        data: folder of videos, with ``labels.csv`` for the probes. A video counts as held out
            unless pretraining saw it or its patient, by the patients of today or of that time. The
            run knows its videos by the end of their path, wherever the folder is now: ``a/0.mp4``
            has the part that ``split.csv`` gives to ``a/0.mp4`` or else to ``0``. So a new video
            with the name of a trained one counts as seen until it is renamed.
        out: folder for ``evaluation.json`` and ``embeddings/``; by default the run folder, or, for
            other data than the run's own, ``evaluations/<name of the data folder>`` in it.
        frames_per_video: greatest number of frames per video to embed and probe, evenly spaced; of
            a video in which only some frames have a label, these come first.
        queries_per_video: augmented queries per held-out video.
        resamples: bootstrap resamples of the patients.
        folds: folds of the cross-validation, by patient; folds given by ``labels.csv`` are kept.
        seed: seed of the augmentations, the folds and the resamples.
        patient_pattern: finds the patients in the videos' paths, see
            :meth:`usucl.data.VideoCatalog.with_patients`; by default that of the run.
        label: column of ``labels.csv`` that holds the labels; by default that of the run.
        sweep: makes one video of several clips, see :meth:`usucl.data.VideoCatalog.with_sweeps`; by
            default as in the run.
        min_frames: videos with fewer frames are left out; 1 takes single images too, which have a
            label to tell and no place in time.
        progress: show the progress on standard error.

    Returns:
        The content of ``evaluation.json`` as :class:`~usucl.evaluation.Evaluation`. Undefined
        numbers are None, and a ``note`` says why.

    Raises:
        FileNotFoundError: ``run`` is not a run folder.
        OSError: nothing can be written to ``out``.
        ValueError: ``data`` has no readable video, an encoder is not finite, a number is < 1 (of
            ``folds``, < 2), or ``out`` holds another run, or this one while the data are not its
            own.
    """
    for name, number, least in (
        ("frames_per_video", frames_per_video, 1),
        ("queries_per_video", queries_per_video, 1),
        ("resamples", resamples, 1),
        ("folds", folds, 2),
        ("min_frames", min_frames, 1),
    ):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    encoders = load_encoders(run)
    for folder in (RunFolder(run if out is None else out),):
        check_writable(folder.path)
        check_writable(folder.embeddings)
    image_size = image_size_of(run)
    catalog = RunFolder(run).scan(
        data, patient_pattern=patient_pattern, label=label, sweep=sweep, min_frames=min_frames
    )
    own_data = RunFolder(run).holds(catalog)
    target = _target(RunFolder(run), catalog, own_data, out)
    patients = _patients(RunFolder(run), catalog, own_data)
    unit = UNIT[catalog.patients]
    groups = len({entry.group for entry in catalog})
    if groups > 1:
        catalog = catalog.with_folds(n=min(folds, groups), seed=seed)
    held_out = RunFolder(run).held_out_videos(catalog)
    embeddings = embed_entries(
        catalog.entries,
        encoders,
        image_size=image_size,
        held_out=held_out,
        frames_per_video=frames_per_video,
        prefer_labelled=True,
    )
    for name, embedding in embeddings.items():
        embedding.save(target.embeddings, name)

    # A run on every video has nothing held out: it is measured on what it saw, and says so.
    measured = [e for e, kept in zip(catalog.entries, held_out, strict=True) if kept]
    any_held_out = bool(measured)
    patient_auroc = temporal_retrieval(
        measured or catalog.entries,
        encoders,
        image_size=image_size,
        frames_per_video=frames_per_video,
        queries_per_video=queries_per_video,
        seed=seed,
    )
    protocol = Protocol(
        measured_on="held-out videos" if any_held_out else "pretraining videos",
        frames_per_video=frames_per_video,
        queries_per_video=queries_per_video,
        near_frames=NEAR_FRAMES,
        far_fraction=FAR_FRACTION,
        hard_fraction=HARD_FRACTION,
        probes={name: probe.settings for name, probe in probes.PROBES.items()},
        interval=INTERVALS[catalog.patients],
        folds=folds,
        resamples=resamples,
        seed=seed,
        grids={name: probe.grid for name, probe in probes.PROBES.items()},
        inner_folds=probes.INNER_FOLDS,
        min_frames=min_frames,
    )
    retrieval = _retrieval(patient_auroc, protocol, unit)
    contexts = context_of(catalog, besides=catalog.label)
    probed = probe_labels(catalog.entries, embeddings, contexts, protocol, unit)
    families = [family for found in probed.values() if found for family in found.families()]
    level = family_level([*retrieval, *families])
    figures = {task: c for family in retrieval for task, c in family.adjusted(level).items()}
    every = embeddings["trained"]
    result = Evaluation(
        run=str(run),
        data=os.path.abspath(data),
        encoders=tuple(encoders),
        protocol=protocol,
        counts=_counts(every),
        skipped=catalog.skipped,
        retrieval={task: figures[task] for task in TASKS},
        geometry=_geometry(embeddings, any_held_out),
        probes={label: found.adjusted(level) if found else None for label, found in probed.items()},
        versions={
            "python": platform.python_version(),
            **{name: version_of(name) for name in PACKAGES},
        },
        machine=Machine.here(),
        patients=patients,
        own_data=own_data,
        held_out=tuple(i for i, kept in zip(every.video_id, every.held_out, strict=True) if kept),
        comparisons=0,
        synthetic=is_synthetic(data),
        patient_pattern=patient_pattern,
        label=catalog.label,
        sweep=sweep,
        duplicates=near_duplicates(catalog.entries, held_out),
    )
    result = replace(result, comparisons=sum(1 for _ in result.differences()))
    write_json(target.evaluation, result.to_json())
    return result


def _target(
    run: RunFolder, catalog: VideoCatalog, own_data: bool, out: str | Path | None
) -> RunFolder:
    """Returns the folder to write to, never the run's own for other data than its own."""
    if out is None:
        return run if own_data else run.evaluation_of(catalog.root)
    target = RunFolder(out)
    same = os.path.realpath(target.path) == os.path.realpath(run.path)
    if same and not own_data:
        raise ValueError(
            f"out must be another folder than the run's for data that are not its own, got {out}"
        )
    if target.is_run and not same:
        raise ValueError(f"out must not be the folder of another run, got {out}")
    return target


def _patients(run: RunFolder, catalog: VideoCatalog, own_data: bool) -> Patients:
    """Returns whether the patients of the videos are known, and of those trained on."""
    trained = catalog.patients if own_data else run.patients(only_trained=True)
    is_open = catalog.patients == "known" and trained != "known"
    return "partly" if is_open else catalog.patients


def _retrieval(
    patient_auroc: Mapping[str, Mapping[str, Mapping[str, float]]], protocol: Protocol, unit: str
) -> list[Family[str]]:
    """Returns the figures of the tasks, those of the same patients together."""
    tasks: dict[tuple[str, ...], list[str]] = {}
    for task in TASKS:
        tasks.setdefault(tuple(patient_auroc["trained"][task]), []).append(task)
    return [
        Family.compare(
            {
                task: {n: group_mean(list(by[task].values())) for n, by in patient_auroc.items()}
                for task in together
            },
            len(patients),
            resamples=protocol.resamples,
            seed=protocol.seed,
            unit=unit,
        )
        for patients, together in tasks.items()
    ]


def _counts(embeddings: Embeddings) -> dict[str, Count]:
    frame_part = embeddings.frame_held_out
    held_out = np.array(embeddings.held_out, dtype=bool)
    _, group = numbered(embeddings.group)
    return {
        part: Count(int(videos.sum()), len(np.unique(group[videos])), int(frames.sum()))
        for part, videos, frames in (
            ("pretraining", ~held_out, ~frame_part),
            ("held_out", held_out, frame_part),
        )
    }


@job("Measuring the spread")
def _geometry(
    embeddings: Mapping[str, Embeddings], only_held_out: bool
) -> dict[str, dict[str, float | None]]:
    kept = {
        name: (e.select(e.frame_held_out) if only_held_out else e).embedding
        for name, e in embeddings.items()
    }
    figures = {m: {n: measure(e) for n, e in kept.items()} for m, measure in MEASURES.items()}
    return {
        measure: {name: value if math.isfinite(value) else None for name, value in by.items()}
        for measure, by in figures.items()
    }
