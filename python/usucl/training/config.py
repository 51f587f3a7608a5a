"""The configuration of a training run."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any, Literal, get_type_hints

from jsonargparse import ArgumentParser

from usucl._spelling import did_you_mean
from usucl.data import Curriculum
from usucl.data.catalog.tables.columns import LABEL
from usucl.methods import METHODS, Dense, KeyConfig, Method, SamplingConfig
from usucl.models import EncoderConfig
from usucl.training.options import (
    ComputingConfig,
    LossConfig,
    OptimiserConfig,
    RunningConfig,
    SavingConfig,
    WatchingConfig,
)

MOST = 2**31  # epochs or steps


class NothingLearnedError(RuntimeError):
    """A run ended in which no step could change the encoder; its files are written all the same."""


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a whole run, which its :class:`usucl.run_folder.RunFolder` keeps.

    Attributes:
        data: folder of videos.
        damaged: whether videos of which something is missing or broken are left out or taken, see
            :meth:`usucl.data.VideoCatalog.scan`.
        patient_pattern: regular expression with one group, ``( )``, around what names the patient
            in the path of a video within ``data``; None for the patients of ``labels.csv`` alone,
            see :meth:`usucl.data.VideoCatalog.with_patients`.
        label: column of ``labels.csv`` and ``frame_labels.csv`` that holds the labels, which only
            balance the folds here and are what the evaluation probes.
        sweep: regular expression with groups, ``( )``, around everything in which the clips of one
            examination agree, which are then one video; null for the sweeps of ``sweeps.csv``, if
            there is one; none for no sweeps, see :meth:`usucl.data.VideoCatalog.with_sweeps`.
        held_out: folds of patients that are not trained on; empty to train on all; None for the
            smallest fold, which is 0 unless ``labels.csv`` gives others.
        seed: seed of the encoder's first weights, the folds and every random draw.
        method: a name in :data:`usucl.methods.METHODS`.
        epochs: number of epochs, which replaces that of the curriculum.
        extended: numbers of epochs at which the run had ended before more were added to it. Until
            the first, learning rate and curriculum are those of a run of that length; from each
            on, the learning rate begins another half cosine, and the curriculum's last window
            stays.
        precision: precision of the encoder: float32, mixed with bfloat16 or float16 by autocast,
            or float64 on the CPU, which is slow and shows what is rounding.
        log_every: steps between two rows of ``metrics.csv``.
        encoder: the network.
        sampling: the choice of a batch's frames, of the type that the method needs.
        curriculum: the temporal windows of the negatives from the anchor's own video.
        loss: the loss.
        key: the negative bank and the momentum encoder, of the type that the method needs.
        optimiser: the optimiser.
        running: the processes that train together.
        computing: how the encoders are computed.
        saving: when the run is saved.
        watching: what is measured and shown meanwhile.
    """

    data: str = ""
    damaged: Literal["skip", "keep"] = "skip"
    patient_pattern: str | None = None
    label: str = LABEL
    sweep: str | None = None
    held_out: tuple[int, ...] | None = None
    seed: int = 0
    method: str = Dense.name
    epochs: int = 50
    extended: tuple[int, ...] = ()
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    log_every: int = 10
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    sampling: SamplingConfig = field(default_factory=Dense.sampling_options)
    curriculum: Curriculum = field(default_factory=Curriculum)
    loss: LossConfig = field(default_factory=LossConfig)
    key: KeyConfig = field(default_factory=Dense.key_options)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    running: RunningConfig = field(default_factory=RunningConfig)
    computing: ComputingConfig = field(default_factory=ComputingConfig)
    saving: SavingConfig = field(default_factory=SavingConfig)
    watching: WatchingConfig = field(default_factory=WatchingConfig)

    def __post_init__(self) -> None:
        for name, least, most in (("epochs", 1, MOST), ("log_every", 1, MOST), ("seed", 0, 2**63)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
            if value >= most:
                raise ValueError(f"{name} must be < {most}, got {value}")
        ends = [0, *self.extended, self.epochs]
        if any(end >= later for end, later in itertools.pairwise(ends)):
            raise ValueError(
                f"extended must be ascending numbers of epochs below epochs {self.epochs}, "
                f"got {list(self.extended)}"
            )
        if self.optimiser.warmup >= self.ends[0]:
            raise ValueError(
                f"optimiser.warmup must be less than the run's {self.ends[0]} epochs, so that the "
                f"learning rate has a time to fall, got {self.optimiser.warmup}"
            )
        key, margin = self.key, self.loss.margin
        if margin is not None and key.bank > 0 and (key.search != "exact" or key.sharded):
            raise ValueError(
                "loss.margin must be None unless key.search is 'exact' and key.sharded is False, "
                f"because another bank hands over its hardest keys before the margin is known, "
                f"got {margin}"
            )
        if self.loss.positive_decay is not None and self.sampling.positives == 1:
            raise ValueError(
                "loss.positive_decay must be None unless sampling.positives is 2 or more, because "
                f"it weights several positives, got {self.loss.positive_decay}"
            )
        method = method_of(self.method)
        for name, options in (("sampling", method.sampling_options), ("key", method.key_options)):
            if not isinstance(getattr(self, name), options):
                raise TypeError(
                    f"{name} must be {options.__name__} for method {self.method!r}, "
                    f"got {type(getattr(self, name)).__name__}"
                )
        object.__setattr__(self, "curriculum", replace(self.curriculum, epochs=self.ends[0]))

    @classmethod
    def of(cls, method: str) -> TrainingConfig:
        """Returns the defaults of a method, which its preset may change."""
        options = method_of(method)
        return cls(method=method, sampling=options.sampling_options(), key=options.key_options())

    @property
    def ends(self) -> tuple[int, ...]:
        """The numbers of epochs at which the learning rate reaches 0, ascending."""
        return (*self.extended, self.epochs)

    def make_method(self) -> Method[Any, Any]:
        """Returns the method with the options of this run."""
        return METHODS[self.method](self.sampling, self.key)

    def to_yaml(self) -> str:
        """Returns the text that :func:`read_config` reads."""
        parser = parser_of(self.method)
        return str(parser.dump(parser.parse_object(asdict(self))))


def method_of(name: str) -> type[Method[Any, Any]]:
    """Returns a method by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}{hint}")
    return METHODS[name]


def parser_of(method: str) -> ArgumentParser:
    """Returns a parser of the options of a method, with their types and defaults."""
    parser = ArgumentParser(exit_on_error=False)
    types = get_type_hints(TrainingConfig)
    for name, default in vars(TrainingConfig.of(method)).items():
        if is_dataclass(default):
            parser.add_class_arguments(type(default), name)
        else:
            parser.add_argument(f"--{name}", type=types[name], default=default)
    return parser
