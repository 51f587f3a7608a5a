"""The probes of the labels, under each protocol, with figures and differences between encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from usucl._progress import Stage, stage
from usucl.data import VideoEntry
from usucl.embedding import Embeddings, numbered
from usucl.evaluation import probes
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.classification import Figures, measure
from usucl.evaluation.probes.context import context_baseline
from usucl.evaluation.probes.efficiency import (
    DRAWS,
    SHARES,
    Drawn,
    averaged,
    drawn,
    same_fits,
)
from usucl.evaluation.schema import (
    Comparison,
    Efficiency,
    LabelProbes,
    ProbeFigures,
    ProbeResult,
    Protocol,
)
from usucl.evaluation.simultaneous import Family

Figure = tuple[str, probes.Level, str]  # probe, level and name
ByEncoder: TypeAlias = Mapping[str, Mapping[probes.Level, probes.Predictions]]

DETAILS = ("auroc", "sensitivity", "specificity")
"""Figures of each class in the details of a probe."""


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
        contexts: what is known of every video besides its frames, by name and the video's number.
        levels: levels at which classes are predicted, the highest last.
    """

    embeddings: Mapping[str, Embeddings]
    truth: probes.IntArray
    video: probes.IntArray
    group: probes.IntArray
    classes: tuple[str, ...]
    contexts: Mapping[str, Sequence[str]]
    levels: tuple[probes.Level, ...]

    def predict(
        self,
        predictor: probes.Predictor | Sequence[probes.Predictor],
        features: probes.Features,
        splits: Sequence[probes.Split],
    ) -> dict[probes.Level, probes.Predictions]:
        """Returns predictions at every level from the features ``[n, F]`` of the frames."""
        frames, order = probes.predict(
            predictor, features, self.truth, self.group, splits, len(self.classes)
        )
        found: dict[probes.Level, probes.Predictions] = {"frame": frames}
        if "video" in self.levels:
            found["video"] = probes.per_video(frames, self.video[order])
        return found

    def chosen(
        self, probe: probes.Probe, features: probes.Features, splits: Sequence[probes.Split]
    ) -> list[float | None]:
        """Returns the setting of a probe that is chosen for each split."""
        return probes.choose_each(
            probe, features, self.truth, self.group, splits, len(self.classes)
        )


def probe_labels(
    entries: Sequence[VideoEntry],
    embeddings: Mapping[str, Embeddings],
    contexts: Mapping[str, Sequence[str]],
    protocol: Protocol,
    unit: str,
) -> dict[str, ProbedLabel | None]:
    """Probes the labels of videos and of frames; None for one without two classes.

    Args:
        entries: the videos.
        embeddings: embeddings of their frames, by encoder.
        contexts: what is known of each video, see :func:`usucl.data.inspection.context.context_of`.
        protocol: how they are measured.
        unit: what is never on both sides of a split, see :data:`usucl.data.catalog.patients.UNIT`.
    """
    every = embeddings["trained"]
    names = {
        "label": [every.label[v] for v in every.video.tolist()],
        "frame_label": list(every.frame_label),
    }
    work = {
        label: _labelled(label, names[label], entries, embeddings, contexts)
        for label in names
        if len(set(filter(None, names[label]))) > 1
    }
    rounds = len(embeddings) + len(SHARES) * DRAWS
    fits = sum(len(splits) for _, protocols in work.values() for splits in protocols.values())
    found: dict[str, ProbedLabel | None] = dict.fromkeys(names)
    with stage("Fitting probes", fits * rounds, unit="fits") as bar:
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
    contexts: Mapping[str, Sequence[str]],
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
    number = {entry.id: i for i, entry in enumerate(entries)}
    labelled = _Labelled(
        embeddings=kept,
        truth=truth,
        video=video,
        group=group_of_video[video],
        classes=tuple(classes),
        contexts={
            name: [values[number[i]] for i in every.video_id] for name, values in contexts.items()
        },
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
    predictions: dict[str, dict[str, dict[probes.Level, probes.Predictions]]] = {}
    chosen: dict[str, dict[str, tuple[float | None, ...]]] = {}
    for encoder, e in labelled.embeddings.items():
        features = e.features.numpy()
        for name, probe in probes.PROBES.items():
            settings = labelled.chosen(probe, features, splits)
            found = labelled.predict(probes.with_settings(probe, settings), features, splits)
            predictions.setdefault(name, {})[encoder] = found
            chosen.setdefault(name, {})[encoder] = tuple(settings)
        bar.advance(len(splits))
    reference = next(iter(predictions.values()))["trained"]["frame"]
    tested = probes.patients_per_class(reference)
    classes = labelled.classes
    result = ProbeResult(
        probes={},
        patients_per_class={classes[c]: n for c, n in tested.items()},
        not_tested=tuple(name for c, name in enumerate(classes) if c not in tested),
        not_fitted=tuple(name for c, name in enumerate(classes) if not reference.fitted[c]),
        chance=1 / len(tested),
        context=_context(labelled, splits, protocol, unit),
        chosen=chosen,
        details={
            name: _details(by_encoder, labelled, protocol, unit)
            for name, by_encoder in predictions.items()
        },
        efficiency=_efficiency(labelled, splits, predictions["linear"], protocol, unit, bar),
    )
    by_level = {
        (name, level): {encoder: found[level] for encoder, found in by_encoder.items()}
        for name, by_encoder in predictions.items()
        for level in labelled.levels
    }
    return result, _figures(by_level, protocol, unit)


def _context(
    labelled: _Labelled, splits: Sequence[probes.Split], protocol: Protocol, unit: str
) -> dict[str, dict[str, Estimate]]:
    """Returns the figures of the baselines that see no frame, at the highest level."""
    level = labelled.levels[-1]
    number = labelled.video[:, None].astype(np.float64)
    found = {}
    for name, values in labelled.contexts.items():
        baseline = context_baseline(values, len(labelled.classes))
        told = labelled.predict(baseline, number, splits)[level]
        figures = _figures({(name, level): {"trained": told}}, protocol, unit)
        found[name] = {figure: e["trained"] for (*_, figure), e in figures.comparisons.items()}
    return found


def _details(
    predictions: ByEncoder, labelled: _Labelled, protocol: Protocol, unit: str
) -> dict[str, dict[str, Figures]]:
    """Returns the further figures of a probe, by level and encoder."""
    return {
        level: {
            encoder: measure(
                found[level],
                None,
                labelled.classes,
                resamples=protocol.resamples,
                seed=protocol.seed,
                unit=unit,
                per_class=DETAILS,
            )
            for encoder, found in predictions.items()
        }
        for level in labelled.levels
    }


def _efficiency(
    labelled: _Labelled,
    splits: Sequence[probes.Split],
    linear: ByEncoder,
    protocol: Protocol,
    unit: str,
    bar: Stage,
) -> tuple[Efficiency, ...]:
    """Returns what linear probes tell that are fitted on few patients, and on all of them."""
    probe, level = probes.PROBES["linear"], labelled.levels[-1]
    used = [s for s in splits if s.fit.size and s.test.size]
    points: list[Efficiency] = []
    before: list[Drawn] = []
    for share in (*SHARES, 1.0):
        draws = [
            drawn(used, labelled.truth, labelled.group, share, (protocol.seed, draw))
            for draw in range(DRAWS if share < 1 else 1)
        ]
        if share < 1 and same_fits(draws, before):  # two shares may be too small for every class
            bar.advance(DRAWS * len(splits))
            continue
        before = draws
        statistics = {}
        for encoder in ("trained", "random"):
            features = labelled.embeddings[encoder].features.numpy()
            found = [linear[encoder][level]] if share == 1 else []
            for draw in draws if share < 1 else ():
                settings = labelled.chosen(probe, features, draw.splits)
                predictors = probes.with_settings(probe, settings)
                found.append(labelled.predict(predictors, features, draw.splits)[level])
            statistics[encoder] = averaged(found)
        if share < 1:
            bar.advance(DRAWS * len(splits))
        reference = linear["trained"][level]
        family = Family.compare(
            {name: {e: of[name] for e, of in statistics.items()} for name in probes.FIGURES},
            len(np.unique(reference.group)),
            resamples=protocol.resamples,
            seed=protocol.seed,
            smallest_class=min(probes.patients_per_class(reference).values()),
            unit=unit,
        )
        points.append(
            Efficiency(
                share=share,
                patients=float(np.mean([draw.patients for draw in draws])),
                by_class=any(draw.by_class for draw in draws),
                draws=len(draws),
                figures=family.comparisons,
            )
        )
    return tuple(points)


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
