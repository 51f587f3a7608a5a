"""The probes of the labels, under each protocol, with figures and differences between encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from usucl._progress import Stage, stage
from usucl.data import VideoEntry
from usucl.embedding import Embeddings, numbered
from usucl.evaluation import probes
from usucl.evaluation.schema import Comparison, LabelProbes, ProbeFigures, ProbeResult, Protocol
from usucl.evaluation.simultaneous import Family

Figure = tuple[str, probes.Level, str]  # probe, level and name


@dataclass(frozen=True)
class ProbedLabel:
    """The probes of one label, before the intervals of their differences are adjusted.

    Attributes:
        classes: names, in order.
        protocols: the results without their figures, and these, by protocol; None where there was
            nothing to fit on or to test.
    """

    classes: tuple[str, ...]
    protocols: Mapping[str, tuple[ProbeResult, Family[Figure]] | None]

    def families(self) -> list[Family[Figure]]:
        """Returns the figures of every protocol."""
        return [found[1] for found in self.protocols.values() if found]

    def adjusted(self, level: float) -> LabelProbes:
        """Returns the results, with intervals adjusted at the level of a family."""
        return LabelProbes(
            self.classes,
            {
                name: replace(found[0], probes=_nested(found[1].adjusted(level))) if found else None
                for name, found in self.protocols.items()
            },
        )


def _nested(figures: Mapping[Figure, Comparison]) -> Mapping[str, ProbeFigures]:
    nested: dict[str, dict[str, dict[str, Comparison]]] = {}
    for (probe, level, name), comparison in figures.items():
        nested.setdefault(probe, {}).setdefault(level, {})[name] = comparison
    return nested


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


def probe_labels(
    entries: Sequence[VideoEntry],
    embeddings: Mapping[str, Embeddings],
    protocol: Protocol,
    unit: str,
) -> dict[str, ProbedLabel | None]:
    """Probes the labels of videos and of frames; None for one without two classes.

    Args:
        entries: the videos.
        embeddings: embeddings of their frames, by encoder.
        protocol: how they are measured.
        unit: what is never on both sides of a split, see :data:`usucl.data.catalog.patients.UNIT`.
    """
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
    found: dict[str, ProbedLabel | None] = dict.fromkeys(names)
    with stage("Fitting probes", fits * len(embeddings), unit="fits") as bar:
        for label, (labelled, protocols) in work.items():
            by_protocol = {
                n: _probe(labelled, s, protocol, unit, bar) for n, s in protocols.items()
            }
            found[label] = ProbedLabel(labelled.classes, by_protocol)
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
    labelled: _Labelled,
    splits: Sequence[probes.Split],
    protocol: Protocol,
    unit: str,
    bar: Stage,
) -> tuple[ProbeResult, Family[Figure]] | None:
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
        figures = _figures({("source", "video"): {"trained": found}}, protocol, unit)
        source = {name: f["trained"] for (*_, name), f in figures.comparisons.items()}
    result = ProbeResult(
        probes={},
        patients_per_class={classes[c]: n for c, n in tested.items()},
        not_tested=tuple(name for c, name in enumerate(classes) if c not in tested),
        not_fitted=tuple(name for c, name in enumerate(classes) if not reference.fitted[c]),
        chance=1 / len(tested),
        source=source,
    )
    by_level = {
        (name, level): {encoder: found[level] for encoder, found in by_encoder.items()}
        for name, by_encoder in predictions.items()
        for level in labelled.levels
    }
    return result, _figures(by_level, protocol, unit)


def _figures(
    predictions: Mapping[tuple[str, probes.Level], Mapping[str, probes.Predictions]],
    protocol: Protocol,
    unit: str,
) -> Family[Figure]:
    """Returns the figures of all probes and levels, which test the same patients."""
    reference = next(iter(predictions.values()))["trained"]
    statistics = {
        (probe, level): {encoder: probes.statistics(p) for encoder, p in by_encoder.items()}
        for (probe, level), by_encoder in predictions.items()
    }
    return Family.compare(
        {
            (*key, figure): {encoder: found[figure] for encoder, found in by_encoder.items()}
            for key, by_encoder in statistics.items()
            for figure in probes.FIGURES
        },
        len(np.unique(reference.group)),
        resamples=protocol.resamples,
        seed=protocol.seed,
        smallest_class=min(probes.patients_per_class(reference).values()),
        unit=unit,
    )
