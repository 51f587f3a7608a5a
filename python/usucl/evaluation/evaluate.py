"""The evaluation of a run's encoder next to the same figures without pretraining."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from usucl._environment import Machine, version_of
from usucl._files import check_writable, write_json
from usucl._progress import Stage, job, stage
from usucl._spread import MEASURES
from usucl.data import VideoEntry
from usucl.data.phantom import is_synthetic
from usucl.embedding import Embeddings, embed_entries, numbered
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
from usucl.evaluation.schema import (
    Comparison,
    Count,
    Evaluation,
    LabelProbes,
    ProbeResult,
    Protocol,
)
from usucl.run_folder import RunFolder

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
    progress: bool = False,
) -> Evaluation:
    """Measures a run's trained encoder against its random initialisation and raw pixels.

    It measures temporal retrieval and the spread of the embeddings on held-out videos, and kNN and
    linear probes of the labels, fitted on the videos of pretraining and tested on the held-out
    ones, and by cross-validation. A bootstrap over patients gives 95 % intervals and paired
    differences.

    Args:
        run: run folder written by :func:`usucl.train`.
        data: folder of videos, with ``labels.csv`` for the probes. A video counts as held out
            unless pretraining saw it or its patient, by the patients of today or of that time. The
            run knows its videos by the end of their path, wherever the folder is now: ``a/0.mp4``
            has the part that ``split.csv`` gives to ``a/0.mp4`` or else to ``0``. So a new video
            with the name of a trained one counts as seen until it is renamed.
        out: folder for ``evaluation.json`` and ``embeddings/``; by default the run folder.
        frames_per_video: greatest number of frames per video to embed and probe, evenly spaced.
        queries_per_video: augmented queries per held-out video.
        resamples: bootstrap resamples of the patients.
        folds: folds of the cross-validation, by patient; folds given by ``labels.csv`` are kept.
        seed: seed of the augmentations, the folds and the resamples.
        progress: show the progress on standard error.

    Returns:
        The content of ``evaluation.json`` as :class:`~usucl.evaluation.Evaluation`. Undefined
        numbers are None, and a ``note`` says why.

    Raises:
        FileNotFoundError: ``run`` is not a run folder.
        OSError: nothing can be written to ``out``.
        ValueError: ``data`` has no readable video, an encoder is not finite, or a number is < 1.
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
    for folder in (target.path, target.embeddings):
        check_writable(folder)
    image_size = image_size_of(run)
    catalog = RunFolder(run).scan(data)
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
        interval="95 % percentile bootstrap over patients",
        folds=folds,
        resamples=resamples,
        seed=seed,
    )
    result = Evaluation(
        run=str(run),
        data=str(data),
        encoders=tuple(encoders),
        protocol=protocol,
        counts=_counts(embeddings["trained"]),
        skipped=catalog.skipped,
        retrieval={
            task: _compare(
                {name: group_mean(list(by[task].values())) for name, by in patient_auroc.items()},
                len(patient_auroc["trained"][task]),
                protocol,
            )
            for task in TASKS
        },
        geometry=_geometry(embeddings, any_held_out),
        probes=_probe_labels(catalog.entries, embeddings, protocol),
        versions={
            "python": platform.python_version(),
            **{name: version_of(name) for name in PACKAGES},
        },
        machine=Machine.here(),
        patients=catalog.patients,
        own_data=True,
        held_out=tuple(entry.id for entry in measured),
        comparisons=0,
        synthetic=is_synthetic(data),
    )
    result = replace(result, comparisons=sum(1 for _ in result.differences()))
    write_json(target.evaluation, result.to_json())
    return result


def _compare(
    statistics: Mapping[str, Statistic],
    groups: int,
    protocol: Protocol,
    smallest_class: int | None = None,
) -> Comparison:
    pairs = {
        f"trained - {name}": difference(statistics["trained"], statistics[name])
        for name in statistics
        if name != "trained"
    }
    return {
        name: estimate(
            statistic,
            groups,
            resamples=protocol.resamples,
            seed=protocol.seed,
            smallest_class=smallest_class,
        )
        for name, statistic in {**statistics, **pairs}.items()
    }


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


@dataclass(frozen=True)
class _Labelled:
    """The labelled frames, as every encoder sees them.

    Attributes:
        embeddings: embeddings of the n frames by encoder.
        truth: index of the class of each frame, ``[n]``.
        video, group: numbers of each frame's video and patient, ``[n]``.
        classes: names of the C classes.
        source: source of every video, by its number; None where the sources are not known or the
            labels belong to frames.
        levels: levels at which classes are predicted.
    """

    embeddings: Mapping[str, Embeddings]
    truth: probes.IntArray
    video: probes.IntArray
    group: probes.IntArray
    classes: tuple[str, ...]
    source: Sequence[str] | None
    levels: tuple[probes.Level, ...]

    def predict(
        self, predictor: probes.Predictor, features: probes.Features, splits: Sequence[probes.Split]
    ) -> dict[probes.Level, probes.Predictions]:
        """Returns predictions at every level from the features ``[n, F]`` of the frames."""
        frames, order = probes.predict(
            predictor, features, self.truth, self.group, splits, len(self.classes)
        )
        found: dict[probes.Level, probes.Predictions] = {"frame": frames}
        if "video" in self.levels:
            found["video"] = probes.per_video(frames, self.video[order])
        return found


def _probe_labels(
    entries: Sequence[VideoEntry], embeddings: Mapping[str, Embeddings], protocol: Protocol
) -> dict[str, LabelProbes | None]:
    """Probes the labels of videos and of frames; None for one without two classes."""
    every = embeddings["trained"]
    names = {
        "label": [every.label[v] for v in every.video.tolist()],
        "frame_label": list(every.frame_label),
    }
    work = {
        label: _labelled(label, names[label], entries, embeddings)
        for label in names
        if len(set(filter(None, names[label]))) > 1
    }
    fits = sum(len(splits) for _, protocols in work.values() for splits in protocols.values())
    found: dict[str, LabelProbes | None] = dict.fromkeys(names)
    with stage("Fitting probes", fits * len(embeddings), unit="fits") as bar:
        for label, (labelled, protocols) in work.items():
            by_protocol = {n: _probe(labelled, s, protocol, bar) for n, s in protocols.items()}
            found[label] = LabelProbes(labelled.classes, by_protocol)
    return found


def _labelled(
    label: str,
    names: Sequence[str | None],
    entries: Sequence[VideoEntry],
    embeddings: Mapping[str, Embeddings],
) -> tuple[_Labelled, dict[str, list[probes.Split]]]:
    """Returns the frames whose label has a name, and how both protocols split them."""
    every = embeddings["trained"]
    video = every.video.numpy()
    is_labelled = np.array([bool(name) for name in names])
    classes, truth = numbered(name for name in names if name)
    kept = {name: e.select(is_labelled) for name, e in embeddings.items()}
    video = video[is_labelled]
    fold_of = {entry.id: entry.fold for entry in entries}
    fold = np.array([fold_of[i] if fold_of[i] is not None else -1 for i in every.video_id])[video]
    _, group_of_video = numbered(every.group)
    source_of = {entry.id: entry.source or "" for entry in entries}
    knows_source = label == "label" and any(source_of.values())
    labelled = _Labelled(
        embeddings=kept,
        truth=truth,
        video=video,
        group=group_of_video[video],
        classes=tuple(classes),
        source=[source_of[i] for i in every.video_id] if knows_source else None,
        levels=("frame", "video") if label == "label" else ("frame",),
    )
    splits = {
        "held_out": probes.held_out_split(kept["trained"].frame_held_out),
        "cross_validation": probes.fold_splits(fold),
    }
    return labelled, splits


def _probe(
    labelled: _Labelled, splits: Sequence[probes.Split], protocol: Protocol, bar: Stage
) -> ProbeResult | None:
    """Runs all probes under one protocol; None where there is nothing to fit on or to test."""
    if not any(s.fit.size and s.test.size for s in splits):
        return None
    predictions: dict[str, dict[str, dict[probes.Level, probes.Predictions]]]
    predictions = {name: {} for name in probes.PROBES}
    for encoder, e in labelled.embeddings.items():
        for name, probe in probes.PROBES.items():
            features = e.features.numpy()
            predictions[name][encoder] = labelled.predict(probe.predictor, features, splits)
        bar.advance(len(splits))
    reference = next(iter(predictions.values()))["trained"]["frame"]
    tested = probes.patients_per_class(reference)
    classes = labelled.classes
    source = None
    if labelled.source is not None:
        baseline = probes.source_baseline(labelled.source, len(classes))
        number = labelled.video[:, None].astype(np.float64)
        found = labelled.predict(baseline, number, splits)["video"]
        figures = _figures({"trained": found}, protocol)
        source = {name: comparison["trained"] for name, comparison in figures.items()}
    return ProbeResult(
        probes={
            name: {
                level: _figures({n: found[level] for n, found in by_encoder.items()}, protocol)
                for level in labelled.levels
            }
            for name, by_encoder in predictions.items()
        },
        patients_per_class={classes[c]: n for c, n in tested.items()},
        not_tested=tuple(name for c, name in enumerate(classes) if c not in tested),
        not_fitted=tuple(name for c, name in enumerate(classes) if not reference.fitted[c]),
        chance=1 / len(tested),
        source=source,
    )


def _figures(
    predictions: Mapping[str, probes.Predictions], protocol: Protocol
) -> dict[str, Comparison]:
    reference = predictions["trained"]
    groups = len(np.unique(reference.group))
    smallest = min(probes.patients_per_class(reference).values())
    by_encoder = {name: probes.statistics(p) for name, p in predictions.items()}
    return {
        figure: _compare(
            {name: s[figure] for name, s in by_encoder.items()}, groups, protocol, smallest
        )
        for figure in probes.FIGURES
    }
