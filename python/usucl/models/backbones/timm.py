"""The networks of timm, which is imported only where one of them is named."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from torch import nn

from usucl._spelling import did_you_mean

PREFIX = "timm:"


def is_installed() -> bool:
    """Returns whether there is timm."""
    return importlib.util.find_spec("timm") is not None


def check(name: str, *, pretrained: bool) -> None:
    """Checks a name without its prefix, as far as can be without timm.

    Raises:
        ValueError: timm has no such network, or none with pretrained weights.
    """
    if not is_installed():
        return  # whoever makes the network is told
    timm = _timm(name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models(), form=lambda n: f"{PREFIX}{n}")
        raise ValueError(
            f"backbone must be {PREFIX} and the name of a network of timm, got "
            f"{PREFIX + name!r}{near}"
        )
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise ValueError(
            f"backbone must name weights that timm has of {architecture}, got {PREFIX + name!r}: "
            f"one of {', '.join(known) or 'none'}"
        )
    if pretrained and not timm.is_model_pretrained(name):
        raise ValueError(f"pretrained must be False for {PREFIX}{name}, of which timm has none")


def build(name: str, image_size: int, *, pretrained: bool = False) -> nn.Module:
    """Returns a network whose features are pooled, without a classifier.

    Raises:
        ImportError: timm is not installed.
    """
    options = _size(name, image_size)
    made: nn.Module = _timm(name).create_model(
        name, pretrained=pretrained, num_classes=0, **options
    )
    return made


def resnet10() -> nn.Module:
    """Returns ResNet-18 with one block per stage, without a classifier.

    Raises:
        ImportError: timm is not installed.
    """
    resnet = _timm("resnet10").models.resnet
    made: nn.Module = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), num_classes=0)
    return made


def classifiers(name: str) -> tuple[str, ...]:
    """Returns the names of the layers that are left out."""
    given = _config(name).classifier
    return (given,) if isinstance(given, str) else tuple(given or ())


def colours(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the standard deviation of the images that a network is meant for."""
    config = _config(name)
    return tuple(config.mean), tuple(config.std)


def has_fixed_size(name: str) -> bool:
    """Returns whether a network is made for images of one size."""
    return bool(_config(name).fixed_input_size)


def is_known(name: str) -> bool:
    """Returns whether timm has a network of this name."""
    return bool(_timm(name).is_model(name))


def lines(name: str, image_size: int) -> list[str]:
    """Returns the line of Python that makes the network without its classifier."""
    size = "".join(f", {key}={value}" for key, value in _size(name, image_size).items())
    return [f'backbone = timm.create_model("{name}", num_classes=0{size})']


def _size(name: str, image_size: int) -> dict[str, Any]:
    return {"img_size": image_size} if has_fixed_size(name) else {}


def _config(name: str) -> Any:
    found = _timm(name).get_pretrained_cfg(name)
    if found is None:  # a network without weights, whose makers say nothing of its images
        found = importlib.import_module("timm.models").PretrainedCfg()
    return found


def _timm(name: str) -> Any:
    if not is_installed():
        raise ImportError(
            f"encoder.backbone {PREFIX + name!r} needs timm, which is not installed: "
            "pip install timm"
        )
    return importlib.import_module("timm")
