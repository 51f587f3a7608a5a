"""Everything measured about a run's encoder, beside the same figures without pretraining."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from usucl._environment import machine, version_of
from usucl._spread import effective_rank, uniformity
from usucl.data import VideoCatalog, VideoEntry
from usucl.embedding import Embeddings, embed_entries
from usucl.evaluation import probes
from usucl.evaluation.bootstrap import difference, estimate
from usucl.evaluation.embed import image_size_of, load_encoders
from usucl.evaluation.metrics import Statistic, group_mean
from usucl.evaluation.retrieval import (
    FAR_FRACTION,
    HARD_FRACTION,
    NEAR_FRAMES,
    TASKS,
    temporal_retrieval,
)
from usucl.run_folder import RunFolder

PACKAGES = ("usucl", "torch", "torchvision", "scikit-learn", "numpy")

Figure = dict[str, Any]
"""Estimates of one figure by encoder, and of the paired differences "trained - ..."."""


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
) -> dict[str, Any]:
    """Measure a run's trained encoder beside its random initialisation and raw pixels.

    Temporal retrieval and the spread of the embeddings on held-out videos; kNN and linear probes
    of the labels, fitted on the videos of pretraining and tested on the held-out ones, and by
    cross-validation; 95 % intervals and paired differences by bootstrap over patients.

    Args:
        run: run folder written by :func:`usucl.train`.
        data: folder of videos, with ``labels.csv`` for the probes. A video counts as held out
            unless pretraining saw it or its patient, by today's patients or by those of then. The
            run knows its videos by the end of their path, wherever the folder is now: of
            ``a/0.mp4``, the part given by ``split.csv`` to ``a/0.mp4`` or else to ``0``. So a new
            video with a trained video's name counts as seen until it is renamed.
        out: folder for ``evaluation.json`` and ``embeddings/``; by default the run folder.
        frames_per_video: at most so many evenly spaced frames per video are embedded and probed.
        queries_per_video: augmented queries per held-out video.
        resamples: bootstrap resamples of the patients.
        folds: folds of the cross-validation, by patient; folds given by ``labels.csv`` are kept.
        seed: of the augmentations, the folds and the resamples.

    Returns:
        The content of ``evaluation.json``. Undefined numbers are None, with a ``note`` why.

    Raises:
        FileNotFoundError: if ``run`` is not a run folder.
        ValueError: if ``data`` has no readable video, or an encoder is not finite.
    """
    for name, number in (
        ("frames_per_video", frames_per_video),
        ("queries_per_video", queries_per_video),
        ("resamples", resamples),
    ):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    target = RunFolder(run if out is None else out)
    encoders = load_encoders(run)
    image_size = image_size_of(run)
    catalog = VideoCatalog.scan(data)
    patients = len({entry.group for entry in catalog})
    if patients > 1:
        catalog = catalog.with_folds(n=min(folds, patients), seed=seed)
    held_out = RunFolder(run).held_out_videos(catalog)
    embeddings = embed_entries(
        catalog.entries,
        encoders,
        image_size=image_size,
        held_out=held_out,
        frames_per_video=frames_per_video,
    )
    for name, embedding in embeddings.items():
        embedding.save(target.embeddings, name)

    # a run on every video has nothing held out: measured on what it saw, and said so
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
    bootstrap = {"resamples": resamples, "seed": seed}
    result = {
        "run": str(run),
        "data": str(data),
        "encoders": list(encoders),
        "protocol": {
            "measured_on": "held-out videos" if any_held_out else "pretraining videos",
            "frames_per_video": frames_per_video,
            "queries_per_video": queries_per_video,
            "near_frames": NEAR_FRAMES,
            "far_fraction": FAR_FRACTION,
            "hard_fraction": HARD_FRACTION,
            "knn": {"neighbours": probes.NEIGHBOURS, "temperature": probes.KNN_TEMPERATURE},
            "linear": {"C": probes.LINEAR_C},
            "interval": "95 % percentile bootstrap over patients",
            "folds": folds,
            **bootstrap,
        },
        "counts": _counts(embeddings["trained"]),
        "skipped": [{"path": str(s.path), "reason": s.reason} for s in catalog.skipped],
        "retrieval": {
            task: _compare(
                {name: group_mean(list(by[task].values())) for name, by in patient_auroc.items()},
                len(patient_auroc["trained"][task]),
                bootstrap,
            )
            for task in TASKS
        },
        "geometry": _geometry(embeddings, any_held_out),
        "probes": {
            task: _probe_task(task, catalog.entries, embeddings, bootstrap)
            for task in ("label", "frame_label")
        },
        "versions": {
            "python": platform.python_version(),
            **{
                n: version_of(n) for n in ("usucl", "torch", "torchvision", "scikit-learn", "numpy")
            },
        },
        "machine": machine(),
    }
    result = _jsonable(result)
    target.path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, allow_nan=False)
    target.evaluation.write_text(text + "\n", encoding="utf-8")
    return result


def _compare(
    statistics: Mapping[str, Statistic],
    groups: int,
    bootstrap: Mapping[str, int],
    smallest_class: int | None = None,
) -> Figure:
    pairs = {
        f"trained - {name}": difference(statistics["trained"], statistics[name])
        for name in statistics
        if name != "trained"
    }
    return {
        name: estimate(statistic, groups, smallest_class=smallest_class, **bootstrap)
        for name, statistic in {**statistics, **pairs}.items()
    }


def _counts(embeddings: Embeddings) -> dict[str, dict[str, int]]:
    frame_part = embeddings.frame_held_out
    held_out = np.array(embeddings.held_out, dtype=bool)
    group = np.array(embeddings.group)
    return {
        part: {
            "videos": int(videos.sum()),
            "patients": len(np.unique(group[videos])),
            "frames": int(frames.sum()),
        }
        for part, videos, frames in (
            ("pretraining", ~held_out, ~frame_part),
            ("held_out", held_out, frame_part),
        )
    }


def _geometry(
    embeddings: Mapping[str, Embeddings], only_held_out: bool
) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {"uniformity": {}, "effective_rank": {}}
    for name, e in embeddings.items():
        kept = e.select(e.frame_held_out) if only_held_out else e
        result["uniformity"][name] = uniformity(kept.embedding)
        result["effective_rank"][name] = effective_rank(kept.embedding)
    return result


def _probe_task(
    task: str,
    entries: Sequence[VideoEntry],
    embeddings: Mapping[str, Embeddings],
    bootstrap: Mapping[str, int],
) -> dict[str, Any] | None:
    """Both protocols for the label of the video or of the frame; None without two classes."""
    every = embeddings["trained"]
    video = every.video.numpy()
    of_video = np.array([label or "" for label in every.label], dtype=object)[video]
    of_frame = np.array([label or "" for label in every.frame_label], dtype=object)
    label = of_video if task == "label" else of_frame
    labelled = label != ""
    classes, truth = np.unique(label[labelled].astype(str), return_inverse=True)
    if len(classes) < 2:
        return None
    kept = {name: e.select(labelled) for name, e in embeddings.items()}
    video = video[labelled]
    fold_of = {entry.id: entry.fold for entry in entries}
    fold = np.array([fold_of[i] if fold_of[i] is not None else -1 for i in every.video_id])[video]
    _, group_of_video = np.unique(np.array(every.group), return_inverse=True)
    source_of = {entry.id: entry.source or "" for entry in entries}
    source = [source_of[i] for i in every.video_id] if any(source_of.values()) else None
    protocols = {
        "held_out": probes.held_out_split(kept["trained"].frame_held_out),
        "cross_validation": probes.fold_splits(fold),
    }
    return {
        "classes": classes.tolist(),
        **{
            protocol: _protocol(
                splits,
                kept,
                truth,
                video,
                group_of_video[video],
                classes.tolist(),
                source if task == "label" else None,
                ("frame", "video") if task == "label" else ("frame",),
                bootstrap,
            )
            for protocol, splits in protocols.items()
        },
    }


def _protocol(
    splits: Sequence[probes.Split],
    embeddings: Mapping[str, Embeddings],
    truth: probes.IntArray,
    video: probes.IntArray,
    group: probes.IntArray,
    classes: list[str],
    source: Sequence[str] | None,
    levels: Sequence[probes.Level],
    bootstrap: Mapping[str, int],
) -> dict[str, Any] | None:
    if not any(s.fit.size and s.test.size for s in splits):
        return None
    result: dict[str, Any] = {}
    for probe_name, probe in probes.PROBES.items():
        predictions: dict[str, dict[str, probes.Predictions]] = {level: {} for level in levels}
        for name, e in embeddings.items():
            features = e.features.numpy()
            frames, order = probes.predict(probe, features, truth, group, splits, len(classes))
            predictions["frame"][name] = frames
            if "video" in levels:
                predictions["video"][name] = probes.per_video(frames, video[order])
        result[probe_name] = {
            level: _figures(by_encoder, bootstrap) for level, by_encoder in predictions.items()
        }
        reference = predictions["frame"]["trained"]
        tested = probes.patients_per_class(reference)
        result["patients_per_class"] = {classes[c]: n for c, n in tested.items()}
        result["not_tested"] = [name for c, name in enumerate(classes) if c not in tested]
        result["not_fitted"] = [name for c, name in enumerate(classes) if not reference.fitted[c]]
        result["chance"] = 1 / len(tested)
    if source is not None:
        baseline = probes.source_baseline(source, len(classes))
        frames, order = probes.predict(
            baseline, video[:, None].astype(np.float64), truth, group, splits, len(classes)
        )
        figures = _figures({"trained": probes.per_video(frames, video[order])}, bootstrap)
        result["source"] = {name: figure["trained"] for name, figure in figures.items()}
    return result


def _figures(
    predictions: Mapping[str, probes.Predictions], bootstrap: Mapping[str, int]
) -> dict[str, Figure]:
    reference = predictions["trained"]
    groups = len(np.unique(reference.group))
    smallest = min(probes.patients_per_class(reference).values())
    by_encoder = {name: probes.statistics(p) for name, p in predictions.items()}
    return {
        figure: _compare(
            {name: s[figure] for name, s in by_encoder.items()}, groups, bootstrap, smallest
        )
        for figure in ("balanced_accuracy", "macro_auroc")
    }


def _jsonable(value: Any) -> Any:
    """Dataclasses to dicts and numbers that are not finite to None: JSON has no NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
