"""The frame encoder, a torchvision ResNet and a projection head, and its momentum copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock, ResNet

from usucl.models.weights import load_weights


def _shrink_resnet_stem(network: ResNet) -> None:
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


class _Builder(NamedTuple):
    """How a backbone is made. Its defaults are those of a ResNet."""

    build: Callable[..., nn.Module]  # takes ``weights``, as torchvision's models do
    pretrained: models.WeightsEnum | None  # on ImageNet, where such weights exist
    shrink_stem: Callable[[Any], None] = _shrink_resnet_stem  # in place, for small images
    classifier: str = "fc"  # the attribute to drop; its first linear layer takes the features


_BACKBONES = {
    "resnet10": _Builder(lambda weights: ResNet(BasicBlock, [1, 1, 1, 1]), None),
    "resnet18": _Builder(models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": _Builder(models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": _Builder(models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1),
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
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, images: Tensor) -> Tensor:
        """Returns backbone features ``[B, F]`` of normalised images ``[B, 3, S, S]``."""
        features: Tensor = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings ``[B, dim]``, at least float32, of normalised images ``[B, 3, S, S]``.

        Under autocast the embedding is still normalised in float32: the loss compares
        similarities that differ by less than bfloat16 resolves.
        """
        embedding = self.head(self.features(images))
        return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)


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


class MomentumEncoder(nn.Module):
    """An encoder whose parameters follow another's: ``own = m own + (1 - m) other``.

    Buffers, that is the running statistics of batch normalisation, do not follow: they belong to
    the activations of these averaged weights, so this encoder's own forward passes gather them. It
    therefore follows ``train()`` and ``eval()`` like any module: in training the keys are
    normalised by their own batch. Source: He et al., CVPR 2020 (momentum contrast).

    Args:
        encoder: encoder to copy, with its buffers; the copy needs no gradient.
        momentum: m, in [0, 1].
    """

    def __init__(self, encoder: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Moves the parameters one step towards those of ``encoder``."""
        for own, other in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            own.lerp_(other, 1.0 - self.momentum)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings without gradient; see :meth:`FrameEncoder.forward`."""
        embedding: Tensor = self.encoder(images)
        return embedding
