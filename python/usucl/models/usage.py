"""The lines of Python that use an encoder elsewhere, to paste."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from usucl.data.transforms import MEAN, STD
from usucl.models.encoder import EncoderConfig, network_lines
from usucl.models.files import read_config
from usucl.run_folder import RunFolder


def usage(run: str | Path) -> str:
    """Returns the lines that embed an image with a run's encoder: in torchvision, and in usucl.

    They run as they are where ``frame.png`` is an image. Runs of earlier versions have no
    ``backbone.safetensors``; theirs take the backbone from ``encoder.safetensors``.

    Raises:
        FileNotFoundError: ``run`` holds no encoder.
        ValueError: its config is damaged.
    """
    files = RunFolder(run)
    config = read_config(files)
    weights = f"load_file({str(files.backbone_weights)!r})"
    if not files.backbone_weights.is_file():
        weights = (
            '{name.removeprefix("backbone."): tensor for name, tensor in '
            f"load_file({str(files.encoder_weights)!r}).items() "
            'if name.startswith("backbone.")}'
        )
    lines = [
        "# In plain torchvision",
        *image_lines(config.image_size),
        "",
        *backbone_lines(config, "torchvision", weights),
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


def image_lines(size: int) -> Sequence[str]:
    """Returns the lines that make ``images`` of a file."""
    return (
        "import torch",
        "from PIL import Image",
        "from torchvision.transforms import v2",
        "",
        "preprocess = v2.Compose([",
        f"    v2.ToImage(), v2.RGB(), v2.Resize({size}), v2.CenterCrop({size}),",
        "    v2.ToDtype(torch.float32, scale=True),",
        f"    v2.Normalize({list(MEAN)}, {list(STD)}),",
        "])",
        f'images = preprocess(Image.open("frame.png"))[None]  # [1, 3, {size}, {size}]',
    )


def backbone_lines(config: EncoderConfig, library: str, weights: str) -> Sequence[str]:
    """Returns the lines that load the backbone in torchvision or timm, and apply it."""
    return (
        f"import {library}",
        *(["from safetensors.torch import load_file"] if "load_file" in weights else []),
        "",
        *network_lines(config, library),
        f"backbone.load_state_dict({weights})",
        "features = backbone.eval()(images)",
    )
