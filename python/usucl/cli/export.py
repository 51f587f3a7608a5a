"""``usucl export`` and ``import``: an encoder for other programs, and one from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from usucl.cli.console import hint, say
from usucl.cli.parameters import NewFolder, Run, at_least


def export(
    run: Run,
    *,
    out: Path | None = None,
    format: Literal["torchvision", "timm", "pt2", "onnx"] | None = None,
    data_licence: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the encoder of a run as a file for other libraries, and show how to load it.

    torchvision and timm are the weights of the backbone with these libraries' names, as safetensors
    or, where --out ends with .pth, for torch.load. pt2 (torch.export) and onnx are the whole
    network. The file is read back and compared with the encoder; a model card goes beside it.

    Args:
        run: run folder, or its initial/ for the weights before training.
        out: file, or folder for it (default: exported/ of the run).
        format: kind of file (default: that of the ending of --out, or the backbone's library).
        data_licence: licence of the data, for the model card (default: not stated).
        overwrite: replace an earlier file.
    """
    from usucl import models

    file = models.export(
        run, out=out, format=format, data_licence=data_licence, overwrite=overwrite
    )
    say(f"Exported: {file}")
    hint(f"# Model card: {models.card_path(file)}")
    for line in models.export_usage(run, file, format).splitlines():
        hint(line)


def import_(
    file: Path,
    *,
    out: NewFolder,
    backbone: str | None = None,
    image_size: Annotated[int, at_least(32, " pixels")] = 224,
    grey: bool = False,
    overwrite: bool = False,
) -> None:
    """Make an encoder folder of a checkpoint of another program, such as an official US_UCL one.

    The names of its weights are those of the backbone in torchvision or timm, behind any prefix
    (module.encoder_q. of US_UCL and MoCo). embed, bank build and export take the folder as a run;
    to train from the file, use train --set encoder.weights=FILE.

    Args:
        file: checkpoint: .pth, .pth.tar, .safetensors; no code in it is run.
        out: folder for the encoder.
        backbone: network, such as resnet50 or timm:convnext_tiny (default: what the file says).
        image_size: side of the square images that it was trained on, in pixels.
        grey: take grey images: the first convolution is summed over the colours.
        overwrite: replace an earlier import.
    """
    from usucl import models
    from usucl.models.weights import left_out_in_words

    encoder = models.import_checkpoint(
        file,
        out,
        backbone=backbone,
        image_size=image_size,
        channels=1 if grey else 3,
        overwrite=overwrite,
    )
    start = encoder.start
    assert start is not None
    head = f"{start['head']} of its head" if start["head"] else "a new head"
    say(f"Encoder: {out} ({encoder.config.backbone}: {start['backbone']} tensors and {head})")
    if left := left_out_in_words(start):
        hint(f"Left out: {left}")
    hint(f"Next: usucl embed {out} DATA, usucl bank build {out} DATA --out BANK")
