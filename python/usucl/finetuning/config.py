"""The options of a fine-tuning, and its presets."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from usucl._ranges import check_range
from usucl._spelling import did_you_mean
from usucl.data import UltrasoundAugmentation
from usucl.data.augmentation import AugmentationName, check_augmentation
from usucl.data.catalog.tables.columns import LABEL
from usucl.training.presets import in_words, load_yaml, preset_file, read_yaml

MOST = 2**31
PRESETS = ("default", "gbcu", "pocus")

Start = Literal["trained", "random", "imagenet", "scratch"]
Level = Literal["auto", "video", "frame"]


@dataclass(frozen=True)
class FinetuningConfig:
    """The options of a fine-tuning.

    Attributes:
        run: run folder, or another folder of an encoder.
        data: folder of videos.
        label: column of ``labels.csv`` and ``frame_labels.csv`` that holds the classes.
        level: what has a class: ``"video"``, all frames of a video have the video's; ``"frame"``,
            only frames that ``frame_labels.csv`` names are used; ``"auto"``, the videos if they
            have at least two classes, otherwise the frames.
        classes: the class that each label stands for, where it is another: ``{normal: benign}``
            puts two labels together, ``{viral: null}`` leaves one out.
        patient_pattern: finds the patients in the videos' paths; null for that of the run.
        sweep: makes one video of several clips; null for as in the run.
        min_frames: videos with fewer frames are left out; 1 takes single images too.
        start: first weights: ``"trained"``, those of the folder; ``"random"``, those of the run
            before training; ``"imagenet"``, the same network with torchvision's ImageNet weights;
            ``"scratch"``, new random weights by ``seed``.
        trainable: which part of the backbone is trained beside the head: ``"all"``,
            ``"last-block"``, or none, ``"head"``. Batch normalisation in the other parts keeps its
            statistics.
        head: ``"linear"``, or ``"mlp"`` of two layers.
        hidden: width of the first layer of ``"mlp"``.
        dropout: share of the values before the last layer that are dropped in training.
        head_std: standard deviation of the head's first weights, with biases of 0; null for
            PyTorch's own.
        image_size: side of the square images in pixels; null for that of the encoder.
        augmentation: as in pretraining: ``"crop"``, ``"crop-flip-jitter"``, ``"global"``,
            ``"local"`` or options of :class:`usucl.data.UltrasoundAugmentation`; null for none, the
            centre square.
        frames_per_video: labelled frames per video and epoch, one from each of as many parts of
            equal length; null for all.
        test_frames_per_video: frames per video of which the probabilities are averaged in
            validation and test, evenly spaced; null for all.
        batch_size: greatest number of frames per step.
        epochs: greatest number of epochs.
        optimiser: ``"sgd"``, ``"adam"`` (whose weight decay is part of the gradient) or
            ``"adamw"``.
        lr: learning rate at the start.
        momentum: momentum of SGD.
        weight_decay: weight decay.
        schedule: ``"cosine"``, the learning rate falls along a half cosine, epoch by epoch; or
            ``"constant"``.
        cosine_epochs: epochs after which the cosine would be at its end; null for ``epochs``.
        least_lr: learning rate at that end.
        class_weights: ``"balanced"``, in the loss every class has the same sum of weights over the
            frames; or ``"none"``.
        label_smoothing: share of the target that is spread over all classes.
        folds: folds of the cross-validation, by patient, unless ``labels.csv`` gives them.
        validation: share of the patients of the training folds on which the best epoch is chosen,
            never those of the test fold; 0 keeps the last epoch.
        patience: epochs without a lower validation loss after which a fold ends; null for none.
        final: also train one classifier on all folds, for as many epochs as the folds' best had in
            the median; its figures are not measured, the folds' stand for it.
        save_folds: keep the classifier of each fold.
        resamples: bootstrap resamples of the patients.
        seed: seed of the head, of new weights, and of every random draw.
        cache_gb: greatest size of the stored decoded frames, in 10^9 bytes, for training and test
            each.
        num_workers: processes that make batches; 0 makes them in this one.
    """

    run: str = ""
    data: str = ""
    label: str = LABEL
    level: Level = "auto"
    classes: dict[str, str | None] | None = None
    patient_pattern: str | None = None
    sweep: str | None = None
    min_frames: int = 2
    start: Start = "trained"
    trainable: Literal["all", "last-block", "head"] = "all"
    head: Literal["linear", "mlp"] = "linear"
    hidden: int = 256
    dropout: float = 0.0
    head_std: float | None = None
    image_size: int | None = None
    augmentation: AugmentationName | dict[str, Any] | None = "crop-flip-jitter"
    frames_per_video: int | None = 8
    test_frames_per_video: int | None = 16
    batch_size: int = 32
    epochs: int = 30
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = 3e-4
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "constant"] = "cosine"
    cosine_epochs: int | None = None
    least_lr: float = 0.0
    class_weights: Literal["balanced", "none"] = "balanced"
    label_smoothing: float = 0.0
    folds: int = 5
    validation: float = 0.2
    patience: int | None = 8
    final: bool = False
    save_folds: bool = True
    resamples: int = 2000
    seed: int = 0
    cache_gb: float = 4.0
    num_workers: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.augmentation, UltrasoundAugmentation):
            object.__setattr__(self, "augmentation", self.augmentation.options())
        if self.augmentation is not None:
            check_augmentation(self.augmentation)
        for name, least in (
            ("min_frames", 1),
            ("hidden", 1),
            ("image_size", 32),
            ("frames_per_video", 1),
            ("test_frames_per_video", 1),
            ("batch_size", 2),
            ("epochs", 1),
            ("cosine_epochs", 1),
            ("folds", 2),
            ("patience", 1),
            ("resamples", 1),
            ("seed", 0),
            ("num_workers", 0),
        ):
            check_range(name, getattr(self, name), least, MOST)
        for name in ("lr", "weight_decay", "least_lr", "cache_gb"):
            check_range(name, getattr(self, name), 0)
        check_range("head_std", self.head_std, 0, above=True)
        check_range("momentum", self.momentum, 0, 1)
        for name, most in (("dropout", 0.95), ("label_smoothing", 0.95), ("validation", 0.5)):
            check_range(name, getattr(self, name), 0, most)
        if self.least_lr > self.lr:
            raise ValueError(f"least_lr must be at most lr {self.lr:g}, got {self.least_lr:g}")
        if not self.label:
            raise ValueError("label must be the name of a column, got an empty text")

    def to_yaml(self) -> str:
        """Returns the text that :func:`read_config` reads."""
        return str(yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True))


def presets() -> list[str]:
    """Returns the names of the presets."""
    return list(PRESETS)


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> FinetuningConfig:
    """Reads the options of a preset or a YAML file, with some values overridden.

    What a file leaves out is as in the preset that it names by ``preset``, a name or another file
    (relative to the first), or else as in ``default``.

    Args:
        source: one of :func:`presets`, or the path of a YAML file with fields of
            :class:`FinetuningConfig`.
        overrides: options by name.

    Raises:
        ValueError, TypeError: the preset or an option is unknown, or a value is of the wrong type
            or range; the message names it.
    """
    layers = [*_layers(source, ()), ("", dict(overrides))]
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for place, options in layers:
        for name, value in options.items():
            if name not in _NAMES:
                hint = did_you_mean(str(name), _NAMES)
                raise ValueError(f"{place}{name} is no option of a fine-tuning{hint}")
            values[name], origin[name] = value, place
    try:
        return _parsed(values)
    except (ValueError, TypeError) as error:
        named = str(error).split(" ", 1)[0].split(".")[0]
        raise type(error)(f"{origin.get(named, '')}{error}") from error


def _layers(source: str | Path, within: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a place for messages and options, those of the presets that a file changes first."""
    if str(source) in PRESETS:
        text = resources.files("usucl.finetuning").joinpath(f"{source}.yaml").read_text("utf-8")
        yield "", load_yaml(source, text)
        return
    path = preset_file(source, PRESETS, within)
    content = load_yaml(path, read_yaml(path))
    base = content.pop("preset", "default")
    if not isinstance(base, str):
        raise ValueError(f"{path}: preset must be a name or a file, got {base!r}")
    yield from _layers(base if base in PRESETS else path.parent / base, (*within, path.resolve()))
    yield f"{path}: ", content


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    types = get_type_hints(FinetuningConfig)
    for option in fields(FinetuningConfig):
        parser.add_argument(f"--{option.name}", type=types[option.name], default=option.default)
    return parser


def _parsed(values: Mapping[str, Any]) -> FinetuningConfig:
    """Returns the config; the type and the range of every value are checked."""
    kinds = get_type_hints(FinetuningConfig)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, UltrasoundAugmentation):
            value = value.options()
        if name == "classes":
            value = _labels(value)
        given[name] = str(value) if isinstance(value, Path) else value
        if value is None and NoneType not in get_args(kinds[name]):
            raise ValueError(f"{name} must be {in_words(kinds[name])}, got null")
    parser = _parser()
    try:
        return FinetuningConfig(**vars(parser.parse_object(given)))
    except ArgumentError:
        for name, value in given.items():  # the parser's own words name no option for sure
            try:
                parser.parse_object({name: value})
            except ArgumentError as error:
                words = in_words(kinds[name])
                raise ValueError(f"{name} must be {words}, got {value!r}") from error
        raise


def _labels(classes: Any) -> Any:
    """Returns ``classes`` with labels as they are written, which YAML may take for numbers.

    What is no mapping of labels to labels or null stays as it is, for the parser to refuse.
    """
    if isinstance(classes, str):
        with contextlib.suppress(yaml.YAMLError):
            node = yaml.compose(classes, Loader=yaml.SafeLoader)
            if isinstance(node, yaml.MappingNode) and all(
                isinstance(part, yaml.ScalarNode) for pair in node.value for part in pair
            ):
                null = "tag:yaml.org,2002:null"
                return {k.value: None if v.tag == null else v.value for k, v in node.value}
    if isinstance(classes, Mapping):
        return {_label(k): _label(v) for k, v in classes.items()}
    return classes


def _label(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_NAMES = tuple(inspect.signature(FinetuningConfig).parameters)
