"""A network by its name: what it is made of, and how it is made elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from usucl._spelling import did_you_mean
from usucl.data.transforms import MEAN, STD
from usucl.models.backbones import timm, torchvision

Library = Literal["torchvision", "timm"]
_RESNET10_OF_TIMM = (
    "backbone = timm.models.resnet.ResNet("
    "timm.models.resnet.BasicBlock, (1, 1, 1, 1), num_classes=0)"
)


class Network(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: maps normalised images ``[B, 3, S, S]`` to features ``[B, F]``.
        width: F.
        classifier: names of the layers that were left out.
        first: name of the convolution that takes the images; None if nothing of the kind does.
        mean, std: of the images that its pretrained weights are meant for.
    """

    module: nn.Module
    width: int
    classifier: tuple[str, ...]
    first: str | None
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


def library_of(backbone: str) -> Library:
    """Returns the library that a name is of."""
    return "timm" if backbone.startswith(timm.PREFIX) else "torchvision"


def check_backbone(backbone: str, *, pretrained: bool, small_stem: bool) -> None:
    """Checks a name, and what is asked of the network.

    Raises:
        ValueError: the network is unknown, or there are no pretrained weights or no small stem.
    """
    name = backbone.removeprefix(timm.PREFIX)
    if library_of(backbone) == "timm":
        timm.check(name, pretrained=pretrained)
    elif backbone not in (known := torchvision.names()):
        if reason := torchvision.unfit(backbone):
            raise ValueError(f"backbone must be another network, got {backbone!r}: {reason}")
        hint = did_you_mean(backbone, known)
        if not hint and timm.is_installed() and timm.is_known(backbone):
            hint = f"; did you mean {timm.PREFIX}{backbone}?"
        raise ValueError(
            f"backbone must be resnet10, a classification network of torchvision (such as "
            f"resnet18, resnet50, convnext_tiny, efficientnet_b0, vit_b_16, swin_t) or "
            f"{timm.PREFIX} and the name of one of timm, got {backbone!r}{hint}"
        )
    is_resnet = library_of(backbone) == "torchvision" and torchvision.is_resnet(backbone)
    if small_stem and not is_resnet:
        raise ValueError(
            f"small_stem must be False for {backbone}, because only torchvision's ResNets have "
            "one, got True"
        )
    if pretrained and (small_stem or backbone == torchvision.RESNET10):
        which = "a network with small_stem" if small_stem else backbone
        raise ValueError(
            f"pretrained must be False, because there are no ImageNet weights for {which}, got True"
        )


def make_network(
    backbone: str, image_size: int, *, pretrained: bool = False, small_stem: bool = False
) -> Network:
    """Returns a network, with random weights or those of ImageNet.

    Raises:
        ValueError: the network takes no images of this size.
        ImportError: the network is of timm, which is not installed.
        RuntimeError: the weights cannot be fetched.
    """
    name = backbone.removeprefix(timm.PREFIX)
    if library_of(backbone) == "timm":
        width, first = _trial(lambda: timm.build(name, image_size), backbone, image_size)
        module = _fetched(lambda: timm.build(name, image_size, pretrained=pretrained), backbone)
        return Network(module, width, timm.classifiers(name), first, *timm.colours(name))
    if not torchvision.is_resnet(name):
        width, first = _trial(lambda: _without_classifier(name, image_size), name, image_size)
    module = _fetched(lambda: torchvision.build(name, image_size, pretrained=pretrained), name)
    if torchvision.is_resnet(name):
        if small_stem:
            torchvision.shrink_stem(module)
        width, first = torchvision.width_of_resnet(module), "conv1"
    return Network(module, width, torchvision.drop_classifier(module), first)


def make_in(library: Library, backbone: str, image_size: int, small_stem: bool) -> nn.Module:
    """Returns what :func:`network_lines` make, with random weights.

    Raises:
        ValueError: the library has no network of this name.
        ImportError: the library is not installed.
    """
    name = _name_in(library, backbone)
    module: nn.Module
    if library == "timm":
        is_own = name == torchvision.RESNET10
        module = timm.resnet10() if is_own else timm.build(name, image_size)
    else:
        module = _without_classifier(name, image_size)
    if small_stem:
        torchvision.shrink_stem(module)
    return module


def network_lines(library: Library, backbone: str, image_size: int, small_stem: bool) -> list[str]:
    """Returns the lines of Python that make a network without its classifier in a library.

    Raises:
        ValueError: the library has no network of this name.
        ImportError: the library is not installed.
    """
    name = _name_in(library, backbone)
    if library == "torchvision":
        made = torchvision.lines(name, image_size)
    else:
        is_own = name == torchvision.RESNET10
        made = [_RESNET10_OF_TIMM] if is_own else timm.lines(name, image_size)
    return [*made, *torchvision.SHRINK_STEM] if small_stem else made


def _name_in(library: Library, backbone: str) -> str:
    """Returns what a network is called in a library, whose weights may still have other names."""
    name = backbone.removeprefix(timm.PREFIX)
    if library_of(backbone) == library or name == torchvision.RESNET10:
        return name
    known = timm.is_known(name) if library == "timm" else name in torchvision.names()
    if not known:
        raise ValueError(
            f"format must be {library_of(backbone)}, pt2 or onnx, because {library} has no "
            f"network {name}, got {library!r}"
        )
    return name


def _without_classifier(name: str, image_size: int) -> nn.Module:
    module = torchvision.build(name, image_size)
    torchvision.drop_classifier(module)
    return module


def _trial(
    build: Callable[[], nn.Module], backbone: str, image_size: int
) -> tuple[int, str | None]:
    """Returns the width of a network's features, and the name of its first convolution.

    The network has no numbers, only shapes.

    Raises:
        ValueError: it takes no images of this size, or gives no vectors.
    """
    taken: list[str] = []
    try:
        with torch.device("meta"):
            network = build().eval()
            images = torch.empty(1, 3, image_size, image_size)
            for name, module in network.named_modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_pre_hook(
                        lambda module, given, name=name: (
                            taken.append(name) if given[0] is images else None
                        )
                    )
            patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
            if isinstance(patch, tuple) and any(image_size % side for side in patch):
                raise ValueError(f"a multiple of its patches of {patch[0]} pixels, or they cut it")
            with torch.no_grad():
                features = network(images)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"image_size must be one that {backbone} takes, got {image_size}: {reason}"
        ) from error
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise ValueError(f"backbone must give one vector per image, which {backbone} does not")
    return features.shape[1], taken[0] if len(taken) == 1 else None


def _fetched(build: Callable[[], nn.Module], backbone: str) -> nn.Module:
    """Returns a network whose weights may come from the internet."""
    try:
        with _weights_only():
            return build()
    except ImportError:
        raise
    except Exception as error:  # no network, or a broken download, in the words of any library
        raise RuntimeError(
            f"the ImageNet weights of {backbone} could not be fetched "
            f"({' '.join(str(error).split())}); use pretrained=False, give a file of them as "
            "weights, or put the file where the library looks for it (torch.hub's checkpoint "
            "folder, or the cache of Hugging Face)"
        ) from error


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Lets no library run code in a file of weights: torch.hub would, unless it is told."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
