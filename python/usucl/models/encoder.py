"""The frame encoder, a torchvision ResNet and a projection head."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from usucl.models.preprocessing import Picture, description, preprocess
from usucl.models.weights import load_weights


def _shrink_resnet_stem(network: ResNet) -> None:
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


class _Builder(NamedTuple):
    """How a backbone is made. Its defaults are those of a ResNet."""

    build: Callable[..., nn.Module]  # takes ``weights``, as torchvision's models do
    code: Mapping[str, str]  # makes the network: in torchvision, and one without classes in timm
    pretrained: models.WeightsEnum | None  # on ImageNet, where such weights exist
    shrink_stem: Callable[[Any], None] = _shrink_resnet_stem  # in place, for small images
    classifier: str = "fc"  # the attribute to drop; its first linear layer takes the features


_SHRINK_STEM = (  # what ``_shrink_resnet_stem`` does, as code
    "backbone.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)",
    "backbone.maxpool = torch.nn.Identity()",
)


def _code(name: str) -> Mapping[str, str]:
    return {
        "torchvision": f"torchvision.models.{name}()",
        "timm": f'timm.create_model("{name}", num_classes=0)',
    }


_RESNET10 = {
    "torchvision": (
        "torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])"
    ),
    "timm": (
        "timm.models.resnet.ResNet(timm.models.resnet.BasicBlock, (1, 1, 1, 1), num_classes=0)"
    ),
}
_BACKBONES = {
    "resnet10": _Builder(lambda weights: ResNet(BasicBlock, [1, 1, 1, 1]), _RESNET10, None),
    "resnet18": _Builder(models.resnet18, _code("resnet18"), models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": _Builder(models.resnet34, _code("resnet34"), models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": _Builder(models.resnet50, _code("resnet50"), models.ResNet50_Weights.IMAGENET1K_V1),
}
Backbone: TypeAlias = Literal[tuple(_BACKBONES)]  # type: ignore[valid-type]
Head = Literal["mlp", "mlp-bn", "linear"]


@dataclass(frozen=True)
class EncoderConfig:
    """Options of an encoder.

    Attributes:
        backbone: a torchvision ResNet; ``resnet10`` is ResNet-18 with one block per stage.
        image_size: side S of the square images the encoder is trained on, in pixels.
        dim: length of the embedding.
        head: ``"mlp"``, two layers with the width of the features (the paper's); ``"mlp-bn"``,
            the same with batch normalisation after each, which keeps a network that starts from
            random weights from collapsing to one point; or ``"linear"``.
        pretrained: start from torchvision's ImageNet weights.
        small_stem: use a 3x3 convolution of stride 1 without pooling instead of 7x7 of stride 2
            with pooling, which keeps detail in images up to 96 px at 16 times the arithmetic.
        weights: start from one's own weights: the folder of a run, or a file of safetensors or
            ``torch.save`` with the names of this package or of torchvision.
    """

    backbone: Backbone = "resnet18"
    image_size: int = 64
    dim: int = 128
    head: Head = "mlp"
    pretrained: bool = False
    small_stem: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise ValueError(f"image_size must be >= 32 pixels, got {self.image_size}")
        if self.dim < 1:
            raise ValueError(f"dim must be >= 1, got {self.dim}")
        if self.small_stem and self.image_size > 96:
            raise ValueError(f"image_size must be <= 96 with small_stem, got {self.image_size}")
        known = [name for name, builder in _BACKBONES.items() if builder.pretrained is not None]
        if self.pretrained and (self.small_stem or self.backbone not in known):
            raise ValueError(
                "pretrained must be False, because pretrained weights exist only for "
                f"{', '.join(known)} without small_stem, got True"
            )
        if self.pretrained and self.weights is not None:
            raise ValueError(
                f"pretrained must be False with weights, got True and weights {self.weights!r}"
            )


def untrained(config: EncoderConfig) -> EncoderConfig:
    """Returns the config of the same network with random weights, which others will replace."""
    return replace(config, pretrained=False, weights=None)


class FrameEncoder(nn.Module):
    """Embeds frames: ``z / |z|`` with ``z = head(features(x))``.

    ``encoder(encoder.preprocess(image))`` embeds images of any kind.

    Attributes:
        config: the options.
        start: which of one's own weights it starts from; None without ``config.weights``.

    Raises:
        ValueError: ``config.backbone`` or ``config.head`` is unknown, or ``config.weights`` do not
            fit.
        FileNotFoundError: ``config.weights`` is not there.
        RuntimeError: the pretrained weights cannot be fetched.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, width = _backbone(config)
        self.head = _head(config.head, width, config.dim)
        self.start = None if config.weights is None else load_weights(self, config.weights)
        # Convolutions are fastest in this layout, also on the CPU; the results stay the same.
        self.use_layout(torch.channels_last)

    def use_layout(self, layout: torch.memory_format) -> None:
        """Keeps weights and images in this layout of their memory from now on."""
        self._layout = layout
        self.to(memory_format=layout)  # type: ignore[call-overload]

    def preprocess(self, image: Picture) -> Tensor:
        """Returns what the encoder sees of an image or of several, as in training and evaluation.

        The short side is resized to S = ``config.image_size``, antialiased, the centre is cropped,
        and pixels become ``(RGB / 255 - mean) / std`` with ImageNet's mean and standard deviation.

        Args:
            image: a PIL image; a path of an image, or of a video, which gives all its frames; an
                opened video; an array or a tensor ``[H, W]``, ``[H, W, C]``, ``[C, H, W]`` or
                ``[B, ...]`` with C = 1, 3 or 4 (grey, RGB, RGB over black where transparent) of
                uint8, or of floats in [0, 1], which are rounded to multiples of 1 / 255; or a list
                of these, of any sizes.

        Returns:
            Float ``[B, 3, S, S]``, of the weights' dtype and on their device; B is 1 for one image.

        Raises:
            TypeError: ``image`` is something else, or of another dtype.
            ValueError: ``image`` has another shape or range, is empty or much longer than wide, or
                cannot be read.
        """
        return preprocess(image, self.config.image_size).to(self._weight)

    def features(self, images: Tensor) -> Tensor:
        """Returns backbone features ``[B, F]`` of normalised images ``[B, 3, S, S]``.

        :meth:`preprocess` makes them.

        Raises:
            TypeError: ``images`` is no tensor of the weights' dtype (under autocast, of floats).
            ValueError: ``images`` has another shape.

        Warns:
            UserWarning: the images are of another size than those of the training.
        """
        self._check(images)
        features: Tensor = self.backbone(images.contiguous(memory_format=self._layout))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings ``[B, dim]``, at least float32, of normalised images ``[B, 3, S, S]``.

        :meth:`preprocess` makes them; errors and warnings are those of :meth:`features`.

        Under autocast the embedding is still normalised in float32: the loss compares
        similarities that differ by less than bfloat16 resolves.
        """
        embedding = self.head(self.features(images))
        return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)

    def description(self) -> dict[str, Any]:
        """Returns the network's name, and what has to be done to an image before it."""
        network = {"architecture": self.config.backbone, "small_stem": self.config.small_stem}
        return network | description(self.config.image_size)

    @property
    def _weight(self) -> Tensor:
        return next(self.backbone.parameters())

    def _check(self, images: Tensor) -> None:
        """Refuses what is no batch of normalised images, in words that say what makes one."""
        dtype, size = self._weight.dtype, self.config.image_size
        wanted = f"images must be a {dtype} tensor [B, 3, {size}, {size}]"
        advice = "encoder.preprocess(image) makes it of any image"
        if not isinstance(images, Tensor):
            raise TypeError(f"{wanted}, got {type(images).__name__}: {advice}")
        if images.dtype != dtype and not _is_cast(images):
            raise TypeError(f"{wanted}, got {images.dtype}: {advice}")
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{wanted}, got the shape {list(images.shape)}: {advice}")
        height, width = images.shape[2:]
        if (height, width) != (size, size) and not torch.compiler.is_compiling():
            warnings.warn(
                f"images are {width}x{height}, the encoder was trained on {size}x{size}: {advice}",
                stacklevel=3,
            )


def _is_cast(images: Tensor) -> bool:
    """Returns whether autocast brings images to the dtype of the weights."""
    device = images.device.type
    knows = images.is_floating_point() and torch.amp.is_autocast_available(device)
    return knows and torch.is_autocast_enabled(device)


def _backbone(config: EncoderConfig) -> tuple[nn.Module, int]:
    name = config.backbone
    if name not in _BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(_BACKBONES)}, got {name!r}")
    builder = _BACKBONES[name]
    try:
        network = builder.build(weights=builder.pretrained if config.pretrained else None)
    except (OSError, RuntimeError) as error:  # no network, or a broken download
        raise RuntimeError(
            f"the ImageNet weights of {name} could not be fetched ({error}); "
            "use pretrained=False, or put the file into torch.hub's checkpoint folder"
        ) from error
    if config.small_stem:
        builder.shrink_stem(network)
    classifier = network.get_submodule(builder.classifier)
    width = next(m.in_features for m in classifier.modules() if isinstance(m, nn.Linear))
    setattr(network, builder.classifier, nn.Identity())
    return network, width


def plain_network(config: EncoderConfig) -> nn.Module:
    """Returns the network of a config without a head, with random weights."""
    return _backbone(untrained(config))[0]


def network_lines(config: EncoderConfig, library: str) -> list[str]:
    """Returns the lines of Python that make :func:`plain_network` in torchvision or timm."""
    builder = _BACKBONES[config.backbone]
    lines = [f"backbone = {builder.code[library]}"]
    if library == "torchvision":
        lines.append(f"backbone.{builder.classifier} = torch.nn.Identity()")
    return [*lines, *_SHRINK_STEM] if config.small_stem else lines


def _head(kind: str, width: int, dim: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, dim)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))
    if kind == "mlp-bn":
        return nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, dim, bias=False),
            nn.BatchNorm1d(dim, affine=False),
        )
    raise ValueError(f"head must be one of {', '.join(get_args(Head))}, got {kind!r}")
