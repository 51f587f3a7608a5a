"""The configuration of a training run, and its reading from a preset or a file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader

from usucl.data import Curriculum
from usucl.methods import METHODS, Dense, KeyConfig, Method, SamplingConfig
from usucl.models import EncoderConfig

MOST = 2**31  # epochs or steps
LONGEST_TEXT = 2**16  # bytes of a YAML file; that of a run has 2,000
MOST_VALUES = 10_000  # in a YAML file
_OLD_AUGMENTATIONS = {"dense": "crop-flip-jitter", "paper": "crop"}


@dataclass(frozen=True)
class LossConfig:
    """Options of :func:`usucl.losses.hard_negative_nce`; see there.

    Attributes:
        intra_k: number of hardest negatives from the anchor's own video.
        cross_k: number of hardest negatives from other videos.
        intra_skip, cross_skip: number of still harder negatives that are left out.
        temperature: what the similarities are divided by.
        soft_nn_temperature: if given, the negatives from other videos count as one, their soft
            nearest neighbour at this temperature.
        max_similarity: negatives that are more similar than this are left out.
        margin: so are those more similar than the anchor's positive by more than this.
    """

    intra_k: int = 3
    cross_k: int = 32
    intra_skip: int = 0
    cross_skip: int = 0
    temperature: float = 0.1
    soft_nn_temperature: float | None = None
    max_similarity: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser, whose learning rate falls from ``lr`` to 0 along a half cosine over all steps.

    Attributes:
        kind: ``"sgd"`` or ``"adamw"``.
        lr: learning rate at the start.
        momentum: momentum of SGD.
        weight_decay: weight decay.
    """

    kind: Literal["sgd", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name, greatest in (("lr", math.inf), ("momentum", 1.0), ("weight_decay", math.inf)):
            value = getattr(self, name)
            if not (0 <= value <= greatest and value < math.inf):
                bound = "finite and >= 0" if greatest == math.inf else "in [0, 1]"
                raise ValueError(f"optimiser.{name} must be {bound}, got {value}")


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a whole run, which its :class:`usucl.run_folder.RunFolder` keeps.

    Attributes:
        data: folder of videos.
        damaged: whether videos of which something is missing or broken are left out or taken, see
            :meth:`usucl.data.VideoCatalog.scan`.
        held_out: folds of patients that are not trained on; empty to train on all; None for the
            smallest fold, which is 0 unless ``labels.csv`` gives others.
        seed: seed of the encoder's first weights, the folds and every random draw.
        method: a name in :data:`usucl.methods.METHODS`.
        epochs: number of epochs, which replaces that of the curriculum.
        precision: precision of the encoder: float32, or mixed with bfloat16 or float16 by autocast.
        log_every: steps between two rows of ``metrics.csv``.
        encoder: the network.
        sampling: the choice of a batch's frames, of the type that the method needs.
        curriculum: the temporal windows of the negatives from the anchor's own video.
        loss: the loss.
        key: the negative bank and the momentum encoder, of the type that the method needs.
        optimiser: the optimiser.
    """

    data: str = ""
    damaged: Literal["skip", "keep"] = "skip"
    held_out: tuple[int, ...] | None = None
    seed: int = 0
    method: str = Dense.name
    epochs: int = 50
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    log_every: int = 10
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    sampling: SamplingConfig = field(default_factory=Dense.sampling_options)
    curriculum: Curriculum = field(default_factory=Curriculum)
    loss: LossConfig = field(default_factory=LossConfig)
    key: KeyConfig = field(default_factory=Dense.key_options)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __post_init__(self) -> None:
        for name, least, most in (("epochs", 1, MOST), ("log_every", 1, MOST), ("seed", 0, 2**63)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
            if value >= most:
                raise ValueError(f"{name} must be < {most}, got {value}")
        key, margin = self.key, self.loss.margin
        if margin is not None and key.bank > 0 and (key.search != "exact" or key.sharded):
            raise ValueError(
                "loss.margin must be None unless key.search is 'exact' and key.sharded is False, "
                f"because another bank hands over its hardest keys before the margin is known, "
                f"got {margin}"
            )
        method = _method(self.method)
        for name, options in (("sampling", method.sampling_options), ("key", method.key_options)):
            if not isinstance(getattr(self, name), options):
                raise TypeError(
                    f"{name} must be {options.__name__} for method {self.method!r}, "
                    f"got {type(getattr(self, name)).__name__}"
                )
        object.__setattr__(self, "curriculum", replace(self.curriculum, epochs=self.epochs))

    @classmethod
    def of(cls, method: str) -> TrainingConfig:
        """Returns the defaults of a method, which its preset may change."""
        options = _method(method)
        return cls(method=method, sampling=options.sampling_options(), key=options.key_options())

    def make_method(self) -> Method[Any, Any]:
        """Returns the method with the options of this run."""
        return METHODS[self.method](self.sampling, self.key)

    def to_yaml(self) -> str:
        """Returns the text that :func:`read_config` reads."""
        parser = _parser(self.method)
        return str(parser.dump(parser.parse_object(asdict(self))))


def presets() -> list[str]:
    """Returns the names of the presets that come with the package, one per method."""
    return sorted(METHODS)


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Reads the config of a preset or a YAML file, with some values overridden.

    Options in the file that only other methods have are ignored: a file may have been written for
    several methods.

    Args:
        source: one of :func:`presets`, or the path of a YAML file with fields of
            :class:`TrainingConfig`.
        overrides: dotted names such as ``loss.cross_k``, or plain ones such as ``cross_k`` where
            only one section has such a field.

    Raises:
        ValueError: the preset is unknown, or an override has an unknown or ambiguous name, a value
            of the wrong type or range, or is for another method; the message names it.
    """
    if str(source) in METHODS:
        text = METHODS[str(source)].preset
    elif Path(source).is_file():
        text = _read(Path(source))
    else:
        raise ValueError(
            f"preset must be one of {', '.join(presets())}, or a YAML file, got {str(source)!r}"
        )
    known = _methods_by_option()
    changes = {_dotted(name, known): value for name, value in overrides.items()}
    stored = _load(source, text)
    method = str(changes.get("method", stored.get("method", TrainingConfig.method)))
    parser = _parser(method)
    for option, value in changes.items():
        if method not in known[option]:
            raise ValueError(
                f"{option} is for method {' or '.join(map(repr, known[option]))} only: "
                f"{method!r} has no such option, got {value!r}"
            )
    _drop_others(stored, method, known)
    parts = [
        _renamed(_check_sections(source, content, method)) for content in (stored, _nested(changes))
    ]
    try:
        config = parser.parse_object(parts[1], parser.parse_object(parts[0]))
        values: Namespace = parser.instantiate(config)
    except ArgumentError as error:
        raise ValueError(f"{source}: {error}") from error
    return TrainingConfig(**vars(values))


def _read(source: Path) -> str:
    if source.stat().st_size > LONGEST_TEXT:
        raise ValueError(f"{source} must be a YAML file of at most {LONGEST_TEXT} bytes")
    try:
        return source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} must be a YAML file in UTF-8: {error}") from error


def _load(source: str | Path, text: str) -> dict[str, Any]:
    try:
        # In Python, for a text that is nested too deeply ends the process in C.
        if _values(yaml.compose(text, yaml.SafeLoader), {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")
        content = get_loader("yaml")(text)
    except RecursionError as error:
        raise ValueError(f"{source}: its lists are nested too deeply") from error
    except Exception as error:  # the YAML library's errors have no common base
        raise ValueError(f"{source}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold options by name, got {content!r}")
    return content


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Returns the number of values in a node once its aliases are written out.

    Raises:
        ValueError: a name is given twice.
    """
    if id(node) not in known:
        known[id(node)] = math.inf  # to an alias of the node within itself
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            names = [str(name.value) for name, _ in node.value]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is given twice")
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _check_sections(source: str | Path, content: dict[str, Any], method: str) -> dict[str, Any]:
    """Reads sections that are written as one text, which could else be the name of a file."""
    for name, default in vars(TrainingConfig.of(method)).items():
        if is_dataclass(default) and name in content:
            value = content[name]
            if isinstance(value, str):
                content[name] = value = _load(f"{name} of {source}", value)
            if not isinstance(value, dict):
                raise ValueError(f"{source}: {name} must hold options by name, got {value!r}")
    return content


def _method(name: str) -> type[Method[Any, Any]]:
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def _parser(method: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    types = get_type_hints(TrainingConfig)
    for name, default in vars(TrainingConfig.of(method)).items():
        if is_dataclass(default):
            parser.add_class_arguments(type(default), name)
        else:
            parser.add_argument(f"--{name}", type=types[name], default=default)
    return parser


def _methods_by_option() -> dict[str, list[str]]:
    """Returns the names of the methods that have each option, by its dotted name."""
    methods: dict[str, list[str]] = {}
    for method in METHODS:
        for name, value in vars(TrainingConfig.of(method)).items():
            options = [f"{name}.{o.name}" for o in fields(value)] if is_dataclass(value) else []
            for option in (name, *options):
                methods.setdefault(option, []).append(method)
    return methods


def _dotted(name: str, known: Mapping[str, Any]) -> str:
    """Returns ``section.option``, or ``option`` for options of the run itself."""
    if name in known:
        return name
    found = sorted(option for option in known if option.endswith(f".{name}"))
    if len(found) > 1:
        raise ValueError(f"{name} is ambiguous: give {' or '.join(found)}")
    if not found:
        plain = {option.rpartition(".")[2] for option in known}
        near = difflib.get_close_matches(name, sorted({*known, *plain}), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{name} is no option of a training run{hint}")
    return found[0]


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        section, _, option = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[option] = value
    return nested


def _drop_others(stored: dict[str, Any], method: str, known: Mapping[str, list[str]]) -> None:
    """Removes the options that only methods other than ``method`` have."""
    for name, methods in known.items():
        section, _, option = name.rpartition(".")
        if method not in methods and isinstance(stored.get(section), dict):
            stored[section].pop(option, None)


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Replaces the augmentations' earlier names, which were those of methods."""
    sampling = content.get("sampling")
    if isinstance(sampling, dict) and "augmentation" in sampling:
        name = sampling["augmentation"]
        sampling["augmentation"] = _OLD_AUGMENTATIONS.get(str(name), name)
    return content
