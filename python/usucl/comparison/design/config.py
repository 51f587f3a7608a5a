"""The experiment of a comparison: what is trained, on what, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from usucl._ranges import check_range
from usucl._spelling import did_you_mean
from usucl.comparison.design.arms import Arm, read_arms
from usucl.comparison.design.primary import Primary, read_primary
from usucl.data.augmentation import AugmentationName, check_augmentation
from usucl.training.presets import in_words, load_yaml, preset_file, read_yaml

PRESETS = ("core", "full")
HoldOut = Literal["rotate", "all"]


@dataclass(frozen=True)
class ComparisonConfig:
    """The options of a comparison. All arms have them in common.

    Attributes:
        data: folder of videos.
        labels: columns of ``labels.csv`` or ``frame_labels.csv`` that the probes tell apart; empty
            for all that have two classes or more.
        patient_pattern, sweep: see :meth:`usucl.data.VideoCatalog.scan`.
        min_frames: videos with fewer frames are left out; 1 takes single images too, on which the
            methods of this package are not trained.
        seeds: number of seeds. Arms of the same seed start from the same weights of the backbone
            and are tested on the same patients.
        folds: number of parts of the patients, unless ``labels.csv`` gives folds.
        hold_out: ``"rotate"``, seed s is tested on the patients of fold s, counted round; or
            ``"all"``, every seed is trained once for every fold.
        steps: steps of the optimiser.
        frames: anchors per step; every arm sees two views of each.
        videos: videos per step of the arms that draw several frames of each.
        backbone: the network, as in :class:`usucl.models.EncoderConfig`.
        image_size: side of the images in pixels.
        dim: length of the embeddings of this package's arms.
        augmentation: of every arm, see :class:`usucl.data.FrameBatches`.
        lr, weight_decay: of AdamW, in every arm; the rate falls along half a cosine.
        precision: of the encoder, see :class:`usucl.training.TrainingConfig`.
        epochs: parts of the run in which the curriculum's windows stay.
        probe_frames: frames per video that the probes see, evenly spaced.
        probes: kinds of probes.
        shares: shares of the training patients whose labels the probes see; each is at least one
            patient.
        finetune: steps that the whole network of an arm is trained with the labels of each share,
            after its pretraining; 0 leaves this out. A supervised arm is not trained further.
        retrieval: whether to measure temporal retrieval too.
        pictures: whether the page shows frames; without, it can be shared where they must not be.
        resamples: bootstrap resamples.
        seed: first seed.
        cache_gb: greatest size of the stored decoded frames, in 10^9 bytes.
        num_workers: processes per run that make batches; 0 makes them in that of the run. Batches
            are the same.
        arms: what is compared, by name.
        primary: the differences that the experiment was made for. Their intervals hold together;
            those of all other differences, which are exploratory, do too.
    """

    data: str = ""
    labels: tuple[str, ...] = ()
    patient_pattern: str | None = None
    sweep: str | None = None
    min_frames: int = 2
    seeds: int = 5
    folds: int = 5
    hold_out: HoldOut = "rotate"
    steps: int = 240
    frames: int = 64
    videos: int = 8
    backbone: str = "resnet10"
    image_size: int = 48
    dim: int = 128
    augmentation: AugmentationName | dict[str, Any] = "crop-flip-jitter"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    epochs: int = 12
    probe_frames: int = 24
    probes: tuple[Literal["linear", "knn"], ...] = ("linear", "knn")
    shares: tuple[float, ...] = (1.0, 0.2, 0.05)
    finetune: int = 0
    retrieval: bool = True
    pictures: bool = True
    resamples: int = 2000
    seed: int = 0
    cache_gb: float = 4.0
    num_workers: int = 0
    arms: tuple[Arm, ...] = field(default=())
    primary: tuple[Primary, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (
            ("min_frames", 1),
            ("seeds", 1),
            ("folds", 2),
            ("steps", 1),
            ("frames", 2),
            ("videos", 1),
            ("image_size", 32),
            ("dim", 1),
            ("epochs", 1),
            ("probe_frames", 1),
            ("finetune", 0),
            ("resamples", 1),
            ("seed", 0),
            ("num_workers", 0),
        ):
            check_range(name, getattr(self, name), least, 2**31)
        for name in ("lr", "weight_decay", "cache_gb"):
            check_range(name, getattr(self, name), 0)
        check_augmentation(self.augmentation)
        if self.frames % self.videos:
            raise ValueError(
                f"frames must be a multiple of videos {self.videos}, got {self.frames}"
            )
        if self.steps % self.epochs:
            raise ValueError(f"steps must be a multiple of epochs {self.epochs}, got {self.steps}")
        if not self.probes:
            raise ValueError("probes must name at least one probe, got none")
        if 1.0 not in self.shares or not all(0 < share <= 1 for share in self.shares):
            raise ValueError(
                f"shares must lie in (0, 1] and hold 1, got {', '.join(map(str, self.shares))}"
            )
        names = [arm.name for arm in self.arms]
        for number, primary in enumerate(self.primary):
            for what in ("arm", "reference"):
                if (name := getattr(primary, what)) not in names:
                    raise ValueError(
                        f"primary.{number}.{what} must be one of the arms {', '.join(names)}, got "
                        f"{name!r}{did_you_mean(name, names)}"
                    )
            if primary.share not in self.shares:
                raise ValueError(
                    f"primary.{number}.share must be one of {', '.join(map(str, self.shares))}, "
                    f"got {primary.share}"
                )
            if primary.probe == "finetuned" and not self.finetune:
                raise ValueError(
                    f"finetune must be at least 1 with primary.{number}.probe finetuned, got 0"
                )

    def to_yaml(self) -> str:
        """Returns the text that :func:`read_config` reads."""
        content: dict[str, Any] = {"preset": None} | {
            f.name: getattr(self, f.name) for f in fields(self)
        }
        content["arms"] = {arm.name: arm.to_dict() for arm in self.arms}
        content["primary"] = [primary._asdict() for primary in self.primary]
        for name in ("labels", "shares", "probes"):
            content[name] = list(content[name])
        return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def only(self, names: tuple[str, ...]) -> ComparisonConfig:
        """Returns the comparison of some of the arms; primary differences of others fall away."""
        known = [arm.name for arm in self.arms]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"arms must be some of {', '.join(known)}, got {name!r}"
                    f"{did_you_mean(name, known)}"
                )
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arm.name in names),
            primary=tuple(p for p in self.primary if {p.arm, p.reference} <= set(names)),
        )


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> ComparisonConfig:
    """Reads the options of a preset or a YAML file, with some values overridden.

    What a file leaves out is as in the preset that it names by ``preset``, a name or another file
    (relative to the first), or else as in ``core``; with null, as by default. Its ``arms`` are
    added to those of the preset, of which ``null`` takes one out: ``simclr: null``.

    Raises:
        ValueError, TypeError: the preset or an option is unknown, or a value is of the wrong type
            or range; the message names it.
    """
    values: dict[str, Any] = {}
    for place, options in (*_layers(source, ()), ("", dict(overrides))):
        for name, value in options.items():
            if name not in _NAMES:
                hint = did_you_mean(str(name), _NAMES)
                raise ValueError(f"{place}{name} is no option of a comparison{hint}")
            if name == "arms" and isinstance(value, Mapping):
                values[name] = {**values.get(name, {}), **value}
            else:
                values[name] = value
    return _parsed(values)


def _layers(source: str | Path, within: tuple[Path, ...]) -> list[tuple[str, dict[str, Any]]]:
    if str(source) in PRESETS:
        file = resources.files("usucl.comparison.design").joinpath(f"{source}.yaml")
        text = file.read_text("utf-8")
        content, place, folder = load_yaml(source, text), "", None
    else:
        path = preset_file(source, PRESETS, within)
        content, place, folder = load_yaml(path, read_yaml(path)), f"{path}: ", path.parent
        within = (*within, path.resolve())
    base = content.pop("preset", None if str(source) in PRESETS else "core")
    if base is None:
        return [(place, content)]
    if not isinstance(base, str):
        raise ValueError(f"{place}preset must be a name or a file, got {base!r}")
    inner = base if base in PRESETS or folder is None else folder / base
    return [*_layers(inner, within), (place, content)]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in _PLAIN.items():
        parser.add_argument(f"--{name}", type=kind, default=getattr(_DEFAULTS, name))
    return parser


def _parsed(values: Mapping[str, Any]) -> ComparisonConfig:
    arms = read_arms(values.get("arms") or {})
    primary = read_primary(values.get("primary") or [])
    plain = {name: value for name, value in values.items() if name in _PLAIN}
    parser = _parser()
    for name, value in plain.items():
        try:
            parsed = parser.parse_object({name: _listed(value) if name in _LISTS else value})
        except ArgumentError as error:
            raise ValueError(f"{name} must be {in_words(_PLAIN[name])}, got {value!r}") from error
        plain[name] = parsed[name]
    return ComparisonConfig(**plain, arms=arms, primary=primary)


def _listed(value: Any) -> Any:
    """Returns a list for a text such as ``a,b``, as it is written in a shell."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    found = yaml.safe_load(value) if value.startswith("[") else re.split(r"\s*,\s*", value.strip())
    return found


_NAMES = tuple(f.name for f in fields(ComparisonConfig))
_KINDS = get_type_hints(ComparisonConfig)
_PLAIN = {name: _KINDS[name] for name in _NAMES if name not in ("arms", "primary")}
_LISTS = ("labels", "shares", "probes")
_DEFAULTS = ComparisonConfig()
