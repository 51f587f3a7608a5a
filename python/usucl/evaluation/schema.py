"""The records of an evaluation, and their form in ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from usucl._environment import Machine
from usucl.data import Skipped
from usucl.data.catalog.patients import Patients
from usucl.data.catalog.tables.columns import LABEL
from usucl.evaluation.bootstrap import Estimate
from usucl.evaluation.classification import Figures
from usucl.evaluation.simultaneous import Comparison

ProbeFigures: TypeAlias = Mapping[str, Mapping[str, Comparison]]
"""The figures of one probe, by level ("frame", "video") and then by name."""


@dataclass(frozen=True)
class Protocol:
    """How the figures were measured.

    Attributes:
        measured_on: "held-out videos", or "pretraining videos" where none were held out.
        frames_per_video, queries_per_video, folds, resamples, seed, min_frames: arguments of
            :func:`usucl.evaluate`.
        near_frames, far_fraction, hard_fraction: see :mod:`usucl.evaluation.retrieval`.
        probes: settings of each probe, by its name; the one that is chosen has its fixed value.
        interval: description of the intervals, in words.
        grids: values that the setting of each probe is chosen from, by the name of the probe; empty
            for evaluations of earlier versions, which had the fixed values only.
        inner_folds: folds of the cross-validation by which it is chosen.
    """

    measured_on: str
    frames_per_video: int
    queries_per_video: int
    near_frames: int
    far_fraction: float
    hard_fraction: float
    probes: Mapping[str, Mapping[str, float]]
    interval: str
    folds: int
    resamples: int
    seed: int
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    inner_folds: int | None = None
    min_frames: int = 2

    def to_json(self) -> dict[str, Any]:
        """Returns the protocol as in ``evaluation.json``, where the probes are not nested."""
        content: dict[str, Any] = {}
        for name, value in vars(self).items():
            content |= _plain(value) if name == "probes" else {name: _plain(value)}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Protocol:
        """Reads what :meth:`to_json` returned."""
        grids = {name: tuple(grid) for name, grid in content.get("grids", {}).items()}
        probes = {
            name: value
            for name, value in content.items()
            if isinstance(value, Mapping) and name != "grids"
        }
        others = {name: value for name, value in content.items() if name not in probes}
        return cls(**{**others, "grids": grids}, probes=probes)


@dataclass(frozen=True)
class Count:
    """Size of one part of the data."""

    videos: int
    patients: int
    frames: int


@dataclass(frozen=True)
class Efficiency:
    """What a linear probe tells that was fitted on a share of the fit patients.

    Attributes:
        share: the share; 1 for all of them.
        patients: number of patients it was fitted on, the mean over the splits.
        by_class: whether the share was too small for a patient of every class, so that just as many
            were taken as that needs.
        draws: number of random draws of the patients, over which the figures are means.
        figures: of the trained encoder and the random one, by name. The intervals are over the
            tested patients; those of differences hold one by one.
    """

    share: float
    patients: float
    by_class: bool
    draws: int
    figures: Mapping[str, Comparison]


@dataclass(frozen=True)
class NearDuplicate:
    """Two videos that look the same, on both sides of a split.

    Attributes:
        video, other: their ids.
        bits: of 64, by which their perceptual hashes differ on average.
        equal: whether their frames are equal.
        apart: what they are on both sides of: "pretraining" and held out, or "folds".
    """

    video: str
    other: str
    bits: float
    equal: bool
    apart: Literal["pretraining", "folds"]


@dataclass(frozen=True)
class ProbeResult:
    """Results of the probes of one label under one protocol.

    Attributes:
        probes: figures by the name of the probe.
        patients_per_class: number of tested patients in each class that was tested.
        not_tested: classes without a tested sample.
        not_fitted: classes that are missing from a fit set.
        chance: balanced accuracy of guessing.
        context: figures, by name, of baselines that see one thing that is known of a video and no
            frame, such as its source, by the name of that.
        chosen: by probe and encoder, the setting chosen for each split; None for one with too few
            patients to choose by, which has the fixed setting.
        details: further figures, by probe, level and encoder.
        efficiency: by share, of the linear probe at the highest level.
    """

    probes: Mapping[str, ProbeFigures]
    patients_per_class: Mapping[str, int]
    not_tested: tuple[str, ...]
    not_fitted: tuple[str, ...]
    chance: float
    context: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    chosen: Mapping[str, Mapping[str, tuple[float | None, ...]]] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Mapping[str, Figures]]] = field(default_factory=dict)
    efficiency: tuple[Efficiency, ...] = ()

    @property
    def source(self) -> Mapping[str, Estimate] | None:
        """Figures of the baseline that sees only the source; None where sources are not known."""
        return self.context.get("source")

    def to_json(self) -> dict[str, Any]:
        """Returns the result as in ``evaluation.json``, where the probes are not nested."""
        own = {name: _plain(value) for name, value in vars(self).items()}
        probes, context = own.pop("probes"), dict(own.pop("context"))
        first = next(iter(probes))
        last = {"source": context.pop("source")} if "source" in context else {}
        last |= {name: own.pop(name) for name in ("chosen", "details", "efficiency")}
        last["context"] = context
        return {first: probes[first], **own, **probes, **last}  # the order of earlier files

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ProbeResult:
        """Reads what :meth:`to_json` returned."""
        own = {field.name for field in fields(cls)} | {"source"}
        context = content.get("context", {})
        if "source" in content:
            context = {"source": content["source"], **context}
        return cls(
            probes={name: _read(value) for name, value in content.items() if name not in own},
            patients_per_class=content["patients_per_class"],
            not_tested=tuple(content["not_tested"]),
            not_fitted=tuple(content["not_fitted"]),
            chance=content["chance"],
            context=_read(context),
            chosen={
                probe: {encoder: tuple(values) for encoder, values in of.items()}
                for probe, of in content.get("chosen", {}).items()
            },
            details={
                probe: {
                    level: {encoder: Figures.from_json(f) for encoder, f in of_level.items()}
                    for level, of_level in of.items()
                }
                for probe, of in content.get("details", {}).items()
            },
            efficiency=tuple(
                Efficiency(**{**point, "figures": _read(point["figures"])})
                for point in content.get("efficiency", ())
            ),
        )


@dataclass(frozen=True)
class LabelProbes:
    """Results of the probes of one label.

    Attributes:
        classes: names, in order.
        protocols: results by protocol; None where there was nothing to fit on or to test.
    """

    classes: tuple[str, ...]
    protocols: Mapping[str, ProbeResult | None]

    def to_json(self) -> dict[str, Any]:
        """Returns the results as in ``evaluation.json``, where the protocols are not nested."""
        return {"classes": list(self.classes), **_plain(self.protocols)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelProbes:
        """Reads what :meth:`to_json` returned."""
        results = {
            name: None if result is None else ProbeResult.from_json(result)
            for name, result in content.items()
            if name != "classes"
        }
        return cls(tuple(content["classes"]), results)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured about the encoders of a run. Undefined numbers are None.

    Attributes:
        run, data: folders.
        encoders: names of the encoders compared.
        protocol: how the figures were measured.
        counts: sizes of the parts "pretraining" and "held_out".
        skipped: videos that could not be read.
        retrieval: AUROC, by the name of the task.
        geometry: spread of the embeddings, by the name of the measure and then by encoder.
        probes: results for "label" (of the video) and "frame_label"; None with fewer than two
            classes.
        versions: versions of the packages that matter; None for one that is not installed.
        machine: the machine that it was measured on.
        patients: whether the patients of the videos are known. Unless all of them are, a patient
            may be both among the videos trained on and among those held out.
        own_data: whether the data are those that the run was trained on.
        held_out: ids of the videos measured as held out.
        comparisons: number of differences between encoders in the record, over all of which the
            adjusted intervals hold at once.
        synthetic: whether the videos are made up, by :func:`usucl.data.write_phantom`.
        patient_pattern, sweep: patterns given for these videos in place of the run's own.
        label: column of ``labels.csv`` that the labels are from.
        duplicates: videos that look the same on both sides of a split, which makes figures too
            good; None for an evaluation of an earlier version, which did not look for them.
    """

    run: str
    data: str
    encoders: tuple[str, ...]
    protocol: Protocol
    counts: Mapping[str, Count]
    skipped: tuple[Skipped, ...]
    retrieval: Mapping[str, Comparison]
    geometry: Mapping[str, Mapping[str, float | None]]
    probes: Mapping[str, LabelProbes | None]
    versions: Mapping[str, str | None]
    machine: Machine
    patients: Patients
    own_data: bool
    held_out: tuple[str, ...]
    comparisons: int
    synthetic: bool
    patient_pattern: str | None = None
    label: str = LABEL
    sweep: str | None = None
    duplicates: tuple[NearDuplicate, ...] | None = None

    def __repr__(self) -> str:
        held_out = self.counts.get("held_out")
        measured = f", {held_out.videos} videos held out" if held_out else ""
        return f"Evaluation({self.run!r} on {self.data!r}{measured}, {', '.join(self.encoders)})"

    def __getitem__(self, name: str) -> Any:
        """An entry of ``evaluation.json``, for callers that read it as such."""
        return self.to_json()[name]

    def differences(self) -> Iterator[Estimate]:
        """Yields all differences between two encoders that are defined."""
        comparisons = [
            *self.retrieval.values(),
            *(
                comparison
                for label in self.probes.values()
                for result in (label.protocols.values() if label else ())
                for levels in (result.probes.values() if result else ())
                for figures in levels.values()
                for comparison in figures.values()
            ),
        ]
        for comparison in comparisons:
            for name, estimate in comparison.items():
                if " - " in name and estimate.value is not None:
                    yield estimate

    def to_json(self) -> dict[str, Any]:
        """Returns the content of ``evaluation.json``."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """Reads what :meth:`to_json` returned.

        Earlier versions did not write ``patients`` and the fields after it. Their patients count as
        known where one of them has several videos; their data count as the run's own.

        Raises:
            ValueError: something is missing or malformed.
        """
        try:
            counts = {part: Count(**count) for part, count in content["counts"].items()}
            duplicates = content.get("duplicates")
            if duplicates is not None:
                duplicates = tuple(NearDuplicate(**pair) for pair in duplicates)
            grouped = any(count.patients < count.videos for count in counts.values())
            result = cls(
                run=content["run"],
                data=content["data"],
                encoders=tuple(content["encoders"]),
                protocol=Protocol.from_json(content["protocol"]),
                counts=counts,
                skipped=tuple(Skipped(Path(s["path"]), s["reason"]) for s in content["skipped"]),
                retrieval=_read(content["retrieval"]),
                geometry=content["geometry"],
                probes={
                    name: None if reached is None else LabelProbes.from_json(reached)
                    for name, reached in (content.get("probes") or {}).items()
                },
                versions=content["versions"],
                machine=Machine(**content["machine"]),
                patients=content.get("patients", "known" if grouped else "unknown"),
                own_data=content.get("own_data", True),
                held_out=tuple(content.get("held_out", ())),
                comparisons=content.get("comparisons", 0),
                synthetic=content.get("synthetic", False),
                patient_pattern=content.get("patient_pattern"),
                label=content.get("label", LABEL),
                sweep=content.get("sweep"),
                duplicates=duplicates,
            )
            if "comparisons" not in content:
                result = replace(result, comparisons=sum(1 for _ in result.differences()))
            check_types(result, cls, "it")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"content must be that of an evaluation, got {error!r}") from error
        return result


def _plain(value: Any) -> Any:
    """Returns a value for JSON: records as dicts, paths as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Skipped):
        return {"path": str(value.path), "reason": value.reason}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    return value


def _read(content: Any) -> Any:
    """Returns nested dicts with an :class:`Estimate` for each innermost one."""
    if "value" in content:
        return Estimate(**content)
    return {name: _read(item) for name, item in content.items()}


def check_types(value: Any, kind: Any, where: str) -> None:
    """Raises TypeError unless a value is what the hints of its record say, all the way down."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is float:
        fits = type(value) in (int, float) and -1e308 < value < 1e308
    elif origin in (Union, UnionType):
        one = next((k for k in inner if (k is NoneType) == (value is None)), None)
        return check_types(value, one, where)
    elif origin is Literal:
        fits = value in inner
    elif origin is tuple:
        fits = isinstance(value, tuple)
        for i, item in enumerate(value if fits else ()):
            check_types(item, inner[0], f"{where}[{i}]")
    elif origin is not None:
        fits = isinstance(value, Mapping)
        for name, item in value.items() if fits else ():
            check_types(name, inner[0], where)
            check_types(item, inner[1], f"{where}.{name}")
    else:
        fits = type(value) is kind if kind in (str, int) else isinstance(value, kind)
        for name, hint in get_type_hints(kind).items() if fits and is_dataclass(kind) else ():
            check_types(getattr(value, name), hint, f"{where}.{name}")
    if not fits:
        raise TypeError(f"{where} is {str(value)[:40]!r}")
