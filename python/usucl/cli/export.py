"""``usucl export``: an encoder for other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from usucl.cli.console import hint, say
from usucl.cli.parameters import Run


def export(
    run: Run,
    *,
    out: Path | None = None,
    format: Literal["torchvision", "timm", "pt2", "onnx"] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the encoder of a run as a file for other libraries, and show how to load it.

    torchvision and timm are the weights of the backbone with these libraries' names, as safetensors
    or, where --out ends with .pth, for torch.load. pt2 (torch.export) and onnx are the whole
    network. The file is read back and compared with the encoder.

    Args:
        run: run folder, or its initial/ for the weights before training.
        out: file, or folder for it (default: exported/ of the run).
        format: kind of file (default: that of the ending of --out, or torchvision).
        overwrite: replace an earlier file.
    """
    from usucl import models

    file = models.export(run, out=out, format=format, overwrite=overwrite)
    say(f"Exported: {file}")
    for line in models.export_usage(run, file, format).splitlines():
        hint(line)
