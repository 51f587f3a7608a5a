"""The lines of Python that use an encoder elsewhere, to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from usucl.data.transforms import LUMA
from usucl.models.backbones import Library, library_of, make_in, network_lines
from usucl.models.encoder import EncoderConfig, FrameEncoder
from usucl.models.files import read_config
from usucl.models.normalisation import MOST_GROUPS, has_activation, use_groups
from usucl.models.preprocessing import description
from usucl.run_folder import RunFolder

_GROUPS = (
    "for name, norm in list(backbone.named_modules()):",
    "    if isinstance(norm, torch.nn.BatchNorm2d):",
    "        n = norm.num_features",
    f"        groups = max(g for g in range(1, {MOST_GROUPS + 1}) if n % g == 0 and g < n)",
    "        backbone.set_submodule(name, torch.nn.GroupNorm(groups, n, norm.eps))",
)
"""What :func:`usucl.models.normalisation.use_groups` does, as code."""


def usage(run: str | Path) -> str:
    """Returns the lines that embed an image with a run's encoder: in its library, and in usucl.

    They run as they are where ``frame.png`` is an image. Runs of earlier versions have no
    ``backbone.safetensors``; theirs take the backbone from ``encoder.safetensors``.

    Raises:
        FileNotFoundError: ``run`` holds no encoder.
        ValueError: its config is damaged.
    """
    files = RunFolder(run)
    config = read_config(files)
    library = library_of(config.backbone)
    weights = f"load_file({str(files.backbone_weights)!r})"
    if not files.backbone_weights.is_file():
        weights = (
            '{name.removeprefix("backbone."): tensor for name, tensor in '
            f"load_file({str(files.encoder_weights)!r}).items() "
            'if name.startswith("backbone.")}'
        )
    about = description(config.image_size)
    if library == "timm":  # whose networks may have other colours
        from usucl.models.files import load_encoder

        about = load_encoder(run).description(bare=True)
    try:
        network = backbone_lines(config, library, weights)
    except ValueError as error:
        network = [f"# {error}"]
    lines = [
        f"# In plain {library}",
        *image_lines(about, from_grey=config.channels == 1),
        "",
        *network,
        "",
        "# The same with usucl",
        "import usucl",
        "",
        f"encoder = usucl.load_encoder({str(files.path)!r})",
        'images = encoder.preprocess("frame.png")  # also PIL images, arrays, tensors, videos',
        "features = encoder.features(images)  # for classifiers and fine-tuning",
        "embedding = encoder(images)  # of length 1, for search",
    ]
    return "\n".join(lines)


def image_lines(about: Mapping[str, Any], *, from_grey: bool = False) -> Sequence[str]:
    """Returns the lines that make ``images`` of a file.

    Args:
        about: see :meth:`usucl.models.FrameEncoder.description`.
        from_grey: whether the images, also RGB ones, are the grey of a file's colours.
    """
    size, channels = about["image_size"], about["channels"]
    grey = (
        "    v2.Lambda(lambda rgb: torch.einsum("
        f'"c,chw->hw", torch.tensor({list(LUMA)}), rgb).expand({channels}, -1, -1)),'
    )
    return (
        "import torch",
        "from PIL import Image",
        "from torchvision.transforms import v2",
        "",
        "preprocess = v2.Compose([",
        f"    v2.ToImage(), v2.RGB(), v2.Resize({size}), v2.CenterCrop({size}),",
        "    v2.ToDtype(torch.float32, scale=True),",
        *([grey] if from_grey else []),
        f"    v2.Normalize({about['mean']}, {about['std']}),",
        "])",
        f'images = preprocess(Image.open("frame.png"))[None]  # [1, {channels}, {size}, {size}]',
    )


def backbone_lines(config: EncoderConfig, library: Library, weights: str) -> Sequence[str]:
    """Returns the lines that load the backbone in torchvision or timm, and apply it.

    Raises:
        ValueError: the library has no such network.
        ImportError: it is not installed.
    """
    network = network_lines(library, config.backbone, config.image_size, config.small_stem)
    if config.norm == "group":
        _check_groups(make_in(library, config.backbone, config.image_size, config.small_stem))
        network += _GROUPS
    return (
        f"import {library}",
        *(["from safetensors.torch import load_file"] if "load_file" in weights else []),
        "",
        *network,
        f"backbone.load_state_dict({weights})",
        "features = backbone.eval()(images)",
    )


def plain_network(encoder: FrameEncoder, library: Library) -> nn.Module:
    """Returns what :func:`backbone_lines` make, with random weights.

    Raises:
        ValueError, ImportError: see there.
    """
    config = encoder.config
    network = make_in(library, config.backbone, config.image_size, config.small_stem)
    if config.norm == "group":
        _check_groups(network)
        use_groups(network)
    return network


def _check_groups(network: nn.Module) -> None:
    if any(has_activation(layer) for layer in network.modules()):
        raise ValueError(
            "format must be pt2 or onnx with encoder.norm 'group', because batch normalisation "
            "and activation are one layer in this network, which GroupNorm alone cannot replace"
        )
