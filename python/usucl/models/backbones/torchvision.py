"""The classification networks of torchvision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

RESNET10 = "resnet10"
_CLASSIFIERS = ("fc", "classifier", "head", "heads")  # attributes, whichever a network has
_UNFIT = {
    "googlenet": "it has further outputs in training",
    "inception_v3": "it has further outputs in training",
    "squeezenet1_0": "it has no linear classifier whose input would be the features",
    "squeezenet1_1": "it has no linear classifier whose input would be the features",
}
SHRINK_STEM = (  # what :func:`shrink_stem` does, as code
    "backbone.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)",
    "backbone.maxpool = torch.nn.Identity()",
)


def names() -> list[str]:
    """Returns the networks that can be backbones; ``resnet10`` is this package's."""
    return [RESNET10, *(n for n in models.list_models(module=models) if n not in _UNFIT)]


def unfit(name: str) -> str:
    """Returns why a network of torchvision cannot be a backbone; empty if it can, or is unknown."""
    return _UNFIT.get(name, "")


def is_resnet(name: str) -> bool:
    """Returns whether a network, of any name, is a ResNet, whose stem can be made smaller."""
    if name == RESNET10:
        return True
    if name not in models.list_models(module=models):
        return False
    return bool(models.get_model_builder(name).__module__ == ResNet.__module__)


def build(name: str, image_size: int, *, pretrained: bool = False) -> nn.Module:
    """Returns a network with its classifier, for square images of ``image_size`` pixels."""
    weights = _weights(name) if pretrained else None
    if name == RESNET10:
        return ResNet(BasicBlock, [1, 1, 1, 1])
    builder: Any = models.get_model_builder(name)
    size = _size(name, image_size)
    if name.startswith("regnet_"):  # it computes with tensors while it is made: not without numbers
        with torch.device("cpu"):
            made: nn.Module = builder(weights=weights)
        return made.to(torch.get_default_device())
    if weights is None or not name.startswith("vit_"):
        network: nn.Module = builder(weights=weights, **size)
        return network
    vit: VisionTransformer = builder(**size)
    state = weights.get_state_dict(progress=True, check_hash=True)
    vit.load_state_dict(interpolate_embeddings(image_size, vit.patch_size, state))
    return vit


def width_of_resnet(network: Any) -> int:
    """Returns the number of features of a ResNet that has its classifier."""
    return int(network.fc.in_features)


def drop_classifier(network: nn.Module) -> tuple[str, ...]:
    """Replaces the last linear layer of the classifier by nothing, and returns its name.

    Features are what this layer takes. Dropout before it, which is meant for it, goes as well.
    """
    attribute = next(name for name in _CLASSIFIERS if hasattr(network, name))
    classifier = network.get_submodule(attribute)
    inner = [name for name, m in classifier.named_modules() if isinstance(m, nn.Linear)][-1]
    name = f"{attribute}.{inner}".removesuffix(".")
    network.set_submodule(name, nn.Identity())
    for module in network.get_submodule(attribute).modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return (name,)


def shrink_stem(network: Any) -> None:
    """Gives a ResNet, in place, the stem for small images."""
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def lines(name: str, image_size: int) -> list[str]:
    """Returns the lines of Python that make the network without its classifier."""
    size = ", ".join(f"{key}={value!r}" for key, value in _size(name, image_size).items())
    made = f"torchvision.models.{name}({size})"
    if name == RESNET10:
        made = "torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])"
    with torch.device("meta"):
        (classifier,) = drop_classifier(build(name, image_size))
    return [
        f"backbone = {made}",
        f'backbone.set_submodule("{classifier}", torch.nn.Identity())'
        if "." in classifier
        else f"backbone.{classifier} = torch.nn.Identity()",
    ]


def _size(name: str, image_size: int) -> dict[str, Any]:
    """Returns the argument of networks that are made for images of one size."""
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _weights(name: str) -> models.WeightsEnum:
    """Returns the first weights that were trained on ImageNet alone, where there are such."""
    known: Any = models.get_model_weights(name)
    return getattr(known, "IMAGENET1K_V1", known.DEFAULT)
