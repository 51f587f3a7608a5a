"""What a training run is made of, and the presets it starts from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from usucl.data import Curriculum
from usucl.models import EncoderConfig


@dataclass(frozen=True)
class SamplingConfig:
    """Which frames make a batch, and where they are kept.

    Attributes:
        videos: videos per batch.
        frames: anchors per video; only ``dense``.
        negatives: sampled intra-video negatives per anchor; only ``paper`` and ``paper-code``.
        positive_radius: greatest distance of a positive from its anchor, in frames.
        steps_per_epoch: by default as many as show every frame once; only ``dense``.
        augmentation: ``"paper"`` (random crop) or ``"dense"`` (crop, flip, brightness, contrast).
        time_unit: of times and windows.
        cache_gb: memory for decoded frames, in 10^9 bytes.
        num_workers: processes that make batches; 0 makes them in the training process.
    """

    videos: int = 8
    frames: int = 8
    negatives: int = 3
    positive_radius: int = 3
    steps_per_epoch: int | None = None
    augmentation: Literal["paper", "dense"] = "dense"
    time_unit: Literal["fraction", "frames", "seconds"] = "fraction"
    cache_gb: float = 4.0
    num_workers: int = 0


@dataclass(frozen=True)
class LossConfig:
    """Options of :func:`usucl.losses.hard_negative_nce`; see there."""

    intra_k: int = 3
    cross_k: int = 32
    intra_skip: int = 0
    cross_skip: int = 0
    temperature: float = 0.1
    soft_nn_temperature: float | None = None
    max_similarity: float | None = None


@dataclass(frozen=True)
class KeyConfig:
    """Where keys come from besides the query encoder and the batch.

    Attributes:
        bank: frames the negative bank holds, in each process; 0 for none; not for ``paper-code``.
            With ``dense`` its keys are stale and without gradient: in short runs embeddings
            contract to a point.
        search: of the bank: ``"exact"``, ``"Flat"`` or a string of FAISS's index factory, as in
            :class:`usucl.bank.NegativeBank`, as are the next four. With another than ``"exact"``
            the loss gets the bank's hardest candidates in place of the bank.
        max_age: frames of the bank older than this, in frames that came since, are not used.
        nprobe: cells of an inverted file looked through.
        ef_search: candidates that a graph search keeps.
        rebuild_after: frames that change until an index is built anew.
        sharded: the banks of all processes are searched as one.
        momentum: m of the momentum encoder, which embeds the positives; not for ``dense``.
        negatives: encoder of the sampled intra-video negatives, ``"query"`` with gradient (the
            paper's code) or ``"momentum"`` without (the paper's figure); not for ``dense``.
    """

    bank: int = 0
    search: str = "exact"
    max_age: int | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    rebuild_after: int | None = None
    sharded: bool = False
    momentum: float = 0.999
    negatives: Literal["query", "momentum"] = "query"


_OF_THE_BANK = ("search", "max_age", "nprobe", "ef_search", "rebuild_after", "sharded")


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser; the learning rate falls from ``lr`` to 0 along a half cosine over all steps.

    Attributes:
        kind: ``"sgd"`` or ``"adamw"``.
        momentum: of SGD.
    """

    kind: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run; ``config.yaml`` in the run folder.

    Attributes:
        data: folder of videos.
        held_out: folds of patients that are not trained on; empty to train on all; None for the
            smallest fold there is, which is 0 unless ``labels.csv`` gives others.
        seed: of the encoder's first weights, the folds and every random draw.
        method: ``"dense"``, every frame of a batch is anchor, positive and, through the mask,
            negative of the others; ``"paper"``, Basu et al., MICCAI 2022 (arXiv 2207.13148), with
            cross-video negatives masked by video; ``"paper-code"``, the released code's numbers.
        epochs: also those of the curriculum, whatever stands there.
        precision: of the encoder: float32, or mixed with bfloat16 or float16 by autocast.
        log_every: steps between two rows of ``metrics.csv``.
    """

    data: str = ""
    held_out: tuple[int, ...] | None = None
    seed: int = 0
    method: Literal["dense", "paper", "paper-code"] = "dense"
    epochs: int = 50
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    log_every: int = 10
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    curriculum: Curriculum = field(default_factory=Curriculum)
    loss: LossConfig = field(default_factory=LossConfig)
    key: KeyConfig = field(default_factory=KeyConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.method != "dense" and self.sampling.steps_per_epoch is not None:
            raise ValueError(
                f"sampling.steps_per_epoch is for method 'dense' only: {self.method!r} shows every "
                f"video once an epoch, got {self.sampling.steps_per_epoch}"
            )
        for option in fields(KeyConfig):
            value = getattr(self.key, option.name)
            if self.key.bank == 0 and option.name in _OF_THE_BANK and value != option.default:
                raise ValueError(f"key.{option.name} is for a bank, got {value!r} and key.bank 0")
        object.__setattr__(self, "curriculum", replace(self.curriculum, epochs=self.epochs))

    def to_yaml(self) -> str:
        """The text :func:`read_config` reads."""
        parser = _parser()
        return str(parser.dump(parser.parse_object(asdict(self))))


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("usucl.training") / "presets"
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> TrainingConfig:
    """The config of a preset's name or a YAML file, with some values overridden.

    Args:
        source: one of :func:`presets`, or the path of a YAML file with fields of
            :class:`TrainingConfig`.
        overrides: dotted names such as ``loss.cross_k``, or plain ones such as ``cross_k`` where
            only one section has such a field.

    Raises:
        ValueError: an unknown preset, an unknown or ambiguous name, a value of another type or
            outside its range; the message names it.
    """
    if str(source) in presets():
        text = (resources.files("usucl.training") / "presets" / f"{source}.yaml").read_text()
    elif Path(source).is_file():
        text = Path(source).read_text()
    else:
        raise ValueError(
            f"preset must be one of {', '.join(presets())}, or a YAML file, got {str(source)!r}"
        )
    parser = _parser()
    try:
        config = parser.parse_object(_nested(overrides), parser.parse_string(text))
        parts: Namespace = parser.instantiate(config)
    except ArgumentError as error:
        raise ValueError(f"{source}: {error}") from error
    return TrainingConfig(**vars(parts))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainingConfig)
    return parser


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in overrides.items():
        section, _, option = _dotted(name).rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[option] = value
    return nested


def _dotted(name: str) -> str:
    """``section.option`` or, of the run itself, ``option``."""
    known = {option.name: [option.name] for option in fields(TrainingConfig)}
    for section in fields(TrainingConfig):
        if is_dataclass(section.default_factory):
            for option in fields(section.default_factory):
                dotted = f"{section.name}.{option.name}"
                known.setdefault(option.name, []).append(dotted)
                known[dotted] = [dotted]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{name} is no option of a training run{hint}")
    if known[name][0] != name and len(known[name]) > 1:
        raise ValueError(f"{name} is ambiguous: give {' or '.join(known[name])}")
    return known[name][0]
