"""The frame encoder: a network of torchvision or timm, and a projection head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usucl.data.transforms import MEAN, STD
from usucl.models.backbones import check_backbone, make_network
from usucl.models.colours import Colours, as_grey, is_imagenet, take_grey
from usucl.models.normalisation import freeze_statistics, use_groups
from usucl.models.preprocessing import Picture, description, preprocess
from usucl.models.weights import load_weights

Backbone: TypeAlias = str
"""The name of a network of torchvision, such as ``resnet18``, or of timm, behind ``timm:``."""
Norm = Literal["batch", "group", "frozen", "sync"]
Head = Literal["mlp", "mlp-bn", "linear"]


@dataclass(frozen=True)
class EncoderConfig:
    """Options of an encoder.

    Attributes:
        backbone: a classification network of torchvision, such as ``resnet10`` (this package's:
            ResNet-18 with one block per stage), ``resnet18``, ``resnet34``, ``resnet50``,
            ``convnext_tiny``, ``efficientnet_b0``, ``vit_b_16`` or ``swin_t``; or one of timm
            behind ``timm:``, such as ``timm:convnext_tiny`` or ``timm:vit_tiny_patch16_224``.
            Transformers are made for ``image_size``. Features are what the last linear layer of
            the classifier takes.
        image_size: side S of the square images the encoder is trained on, in pixels.
        dim: length of the embedding.
        head: ``"mlp"``, two layers with the width of the features (the paper's); ``"mlp-bn"``,
            the same with batch normalisation after each, which keeps a network that starts from
            random weights from collapsing to one point; or ``"linear"``.
        pretrained: start from ImageNet weights, which torchvision or timm keeps or fetches.
        small_stem: of torchvision's ResNets: use a 3x3 convolution of stride 1 without pooling
            instead of 7x7 of stride 2 with pooling, which keeps detail in images up to 96 px at 16
            times the arithmetic.
        weights: start from one's own weights: the folder of a run, or a file of safetensors or
            ``torch.save`` with the names of this package, of the backbone's library, or of a
            checkpoint that has these behind a prefix (US_UCL, MoCo, SimCLR, lightly).
        channels: 3 for RGB images, or 1 for grey ones, which makes batches a third as large and
            the first convolution three times as fast: it is summed over the colours, so grey
            images give the same features, to rounding, and colour images become grey first.
        norm: normalisation layers. ``batch``: batch normalisation as the network has it;
            ``group``: group normalisation in place of it (32 groups, and one group in the head),
            which is the same for any number of processes and for small batches, but does not fit
            pretrained weights as well; ``frozen``: batch normalisation with running statistics
            that stay, for pretrained weights and small batches; ``sync``: batch normalisation over
            the batches of all GPUs, for training on several. Networks without batch normalisation,
            such as transformers, stay as they are.
    """

    backbone: Backbone = "resnet18"
    image_size: int = 64
    dim: int = 128
    head: Head = "mlp"
    pretrained: bool = False
    small_stem: bool = False
    weights: str | None = None
    channels: Literal[1, 3] = 3
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise ValueError(f"image_size must be >= 32 pixels, got {self.image_size}")
        if self.dim < 1:
            raise ValueError(f"dim must be >= 1, got {self.dim}")
        if self.small_stem and self.image_size > 96:
            raise ValueError(f"image_size must be <= 96 with small_stem, got {self.image_size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {self.norm!r}")
        if self.norm == "frozen" and self.head == "mlp-bn":
            raise ValueError(
                "head must be 'mlp' or 'linear' with norm 'frozen', because the batch "
                "normalisation of a new head has no statistics to keep, got 'mlp-bn'"
            )
        check_backbone(self.backbone, pretrained=self.pretrained, small_stem=self.small_stem)
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
        width: number F of the features.
        start: which of one's own weights it starts from; None without ``config.weights``.

    Raises:
        ValueError: ``config.head`` is unknown, the backbone takes no images of this size, or
            ``config.weights`` do not fit.
        ImportError: the backbone is of timm, which is not installed.
        FileNotFoundError: ``config.weights`` is not there.
        RuntimeError: the pretrained weights cannot be fetched.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        made = make_network(
            config.backbone,
            config.image_size,
            pretrained=config.pretrained,
            small_stem=config.small_stem,
        )
        self.backbone = made.module
        self.width = made.width
        self.head = _head(config.head, made.width, config.dim)
        if config.norm == "group":
            use_groups(self)
        self.colours: Colours | None = None  # of networks that were made for others than ours
        if not is_imagenet(made.mean, made.std):
            self.colours = Colours(config.channels, made.mean, made.std)
        elif config.channels == 1 and not take_grey(self.backbone, made.first):
            self.colours = Colours(config.channels)
        self.start = None
        if config.weights is not None:
            self.start = load_weights(self, config.weights, left_out=made.classifier)
        # Convolutions are fastest in this layout, also on the CPU; the results stay the same.
        self.use_layout(torch.channels_last)

    def use_layout(self, layout: torch.memory_format) -> None:
        """Keeps weights and images in this layout of their memory from now on."""
        self._layout = layout
        self.to(memory_format=layout)  # type: ignore[call-overload]

    def preprocess(self, image: Picture) -> Tensor:
        """Returns what the encoder sees of an image or of several, as in training and evaluation.

        The short side is resized to S = ``config.image_size``, antialiased, the centre is cropped,
        and pixels become ``(RGB / 255 - mean) / std`` with ImageNet's mean and standard deviation
        or, with one channel, ``(grey / 255 - 0.449) / 0.226``. A network that was made for other
        colours gets them from these.

        Args:
            image: a PIL image; a path of an image, or of a video, which gives all its frames; an
                opened video; an array or a tensor ``[H, W]``, ``[H, W, C]``, ``[C, H, W]`` or
                ``[B, ...]`` with C = 1, 3 or 4 (grey, RGB, RGB over black where transparent) of
                uint8, or of floats in [0, 1], which are rounded to multiples of 1 / 255; or a list
                of these, of any sizes.

        Returns:
            Float ``[B, channels, S, S]``, of the weights' dtype and on their device; B is 1 for
            one image.

        Raises:
            TypeError: ``image`` is something else, or of another dtype.
            ValueError: ``image`` has another shape or range, is empty or much longer than wide, or
                cannot be read.
        """
        images = preprocess(image, self.config.image_size)
        return (as_grey(images) if self.config.channels == 1 else images).to(self._weight)

    def train(self, mode: bool = True) -> FrameEncoder:
        """Trains or evaluates, as any module does; frozen statistics stay frozen."""
        super().train(mode)
        if self.config.norm == "frozen":
            freeze_statistics(self)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Returns backbone features ``[B, F]`` of normalised images ``[B, channels, S, S]``.

        :meth:`preprocess` makes them. With one channel, normalised RGB images become grey.

        Raises:
            TypeError: ``images`` is no tensor of the weights' dtype (under autocast, of floats).
            ValueError: ``images`` has another shape.

        Warns:
            UserWarning: the images are of another size than those of the training.
        """
        self._check(images)
        if self.config.channels == 1 and images.shape[1] == 3:
            images = as_grey(images)
        return self.network_features(images)

    def network_features(self, images: Tensor) -> Tensor:
        """Returns :meth:`features` of what is known to be images, without a check."""
        if self.colours is not None:
            images = self.colours(images)
        features: Tensor = self.backbone(images.contiguous(memory_format=self._layout))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Returns embeddings ``[B, dim]``, at least float32, of normalised images.

        :meth:`preprocess` makes these, ``[B, channels, S, S]``; errors and warnings are those of
        :meth:`features`.

        Under autocast the embedding is still normalised in float32: the loss compares
        similarities that differ by less than bfloat16 resolves.
        """
        embedding = self.head(self.features(images))
        return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)

    def description(self, *, bare: bool = False) -> dict[str, Any]:
        """Returns the network's name, and what has to be done to an image before it.

        Args:
            bare: before the network alone, in its library: always RGB, in the network's colours.
        """
        config, colours = self.config, self.colours
        network = {
            "architecture": config.backbone,
            "small_stem": config.small_stem,
            "norm": config.norm,
        }
        if not bare:
            return network | description(config.image_size, config.channels)
        mean, std = (MEAN, STD) if colours is None else colours.statistics()
        return network | description(config.image_size, 3, mean, std)

    @property
    def _weight(self) -> Tensor:
        return next(self.backbone.parameters())

    def _check(self, images: Tensor) -> None:
        """Refuses what is no batch of normalised images, in words that say what makes one."""
        dtype, size = self._weight.dtype, self.config.image_size
        channels = {3, self.config.channels}
        wanted = f"images must be a {dtype} tensor [B, {min(channels)}, {size}, {size}]"
        advice = "encoder.preprocess(image) makes it of any image"
        if not isinstance(images, Tensor):
            raise TypeError(f"{wanted}, got {type(images).__name__}: {advice}")
        if images.dtype != dtype and not _is_cast(images):
            raise TypeError(f"{wanted}, got {images.dtype}: {advice}")
        if images.dim() != 4 or images.shape[1] not in channels:
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
