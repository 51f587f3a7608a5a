"""An encoder from a checkpoint of another program, as a folder that every command takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from usucl._files import check_writable
from usucl.models.backbones import check_backbone
from usucl.models.encoder import EncoderConfig, FrameEncoder, Head
from usucl.models.files import save_encoder
from usucl.models.weights import is_average, read_checkpoint
from usucl.run_folder import RunFolder

_NEW_DIM = 128  # length of the embedding of a new head


def import_checkpoint(
    file: str | Path,
    out: str | Path | None = None,
    *,
    backbone: str | None = None,
    image_size: int = 224,
    channels: Literal[1, 3] = 3,
    overwrite: bool = False,
) -> FrameEncoder:
    """Returns the encoder of a checkpoint, such as an official one of US_UCL.

    The names of the weights are those of ``backbone`` in its library, behind any common prefix
    (``module.encoder_q.`` of US_UCL and MoCo). Where the checkpoint has their projection head
    (``fc``), it becomes the encoder's; otherwise the head is new and random, so that features, but
    not embeddings, mean something. Averages of the encoder (``encoder_k``), queues and the state of
    an optimiser are left out. No code in the file is run.

    Args:
        file: a file of safetensors or ``torch.save``, such as ``.pth.tar``.
        out: folder for the encoder, which ``usucl embed``, ``usucl bank build``, ``usucl export``
            and :func:`usucl.load_encoder` take as a run; None writes nothing.
        backbone: see :class:`EncoderConfig`; by default what the checkpoint says (``arch``).
        image_size: side of the square images that it was trained on, in pixels.
        channels: 1 to take grey images, for which the first convolution is summed over RGB.
        overwrite: replace the encoder of an earlier import in ``out``.

    Returns:
        The encoder, in eval mode; ``start`` says which tensors it has.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: ``out`` is not empty and ``overwrite`` is not given, or it holds a run.
        ValueError: it is no such file, does not say its network, or does not fit it.
        OSError: the folder cannot be written.

    Warns:
        UserWarning: the head is new.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        _check_free(RunFolder(folder), overwrite)
    tensors, architecture = read_checkpoint(Path(file))
    name = backbone or architecture
    if name is None:
        raise ValueError(
            f"backbone must be given, because {file} does not say of which network it is "
            "(for example resnet50, as in US_UCL), got None"
        )
    check_backbone(name, pretrained=False, small_stem=False)
    head, dim = _head_of(tensors)
    config = EncoderConfig(
        backbone=name,
        image_size=image_size,
        dim=dim or _NEW_DIM,
        head=head,
        weights=str(Path(file).absolute()),
        channels=channels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = FrameEncoder(config).eval()
    assert encoder.start is not None
    if not encoder.start["head"]:
        warnings.warn(
            f"{file} has no projection head that fits: the encoder has a new, random one. Use its "
            "features, not its embeddings, until it is trained",
            stacklevel=2,
        )
    if folder is not None:
        save_encoder(encoder, folder)
    return encoder


def _check_free(run: RunFolder, overwrite: bool) -> None:
    if run.path.exists() and not run.path.is_dir():
        raise FileExistsError(f"out must be a folder, got the file {run.path}")
    check_writable(run.path)
    if run.is_run:
        raise FileExistsError(f"out must not hold a run, got {run.path}: choose another folder")
    if run.path.is_dir() and any(run.path.iterdir()):
        earlier = run.encoder_config.is_file()
        if not (overwrite and earlier):
            advice = "; give overwrite=True to replace its encoder" if earlier else ""
            raise FileExistsError(f"out must be empty, got {run.path}{advice}")


def _head_of(tensors: Mapping[str, Tensor]) -> tuple[Head, int | None]:
    """Returns the kind of head that a checkpoint has, and the length of its embeddings."""
    own = {name: tensor for name, tensor in tensors.items() if not is_average(name)}
    for end, head in ((".fc.2.weight", "mlp"), (".head.2.weight", "mlp"), (".fc.weight", "linear")):
        for name, tensor in own.items():
            if name.endswith(end) and tensor.dim() == 2:
                return head, tensor.shape[0]  # type: ignore[return-value]
    return "mlp", None
