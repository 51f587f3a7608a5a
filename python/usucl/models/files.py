"""The files of an encoder."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from usucl._files import (
    DamagedFileError,
    check_seal,
    read_json,
    read_tensors,
    replacing,
    write_json,
    write_tensors,
)
from usucl.data.transforms import GREY_MEAN, GREY_STD, MEAN, STD
from usucl.models.encoder import EncoderConfig, FrameEncoder, untrained
from usucl.run_folder import RunFolder

_YOUNGER = {"weights", "channels", "norm"}  # options than the seals
_COLOURS = {
    3: {"mean": list(MEAN), "std": list(STD)},
    1: {"mean": list(GREY_MEAN), "std": list(GREY_STD)},
}


def save_encoder(encoder: FrameEncoder, folder: str | Path) -> None:
    """Writes the files of an encoder, each atomically, sealed.

    ``encoder.safetensors`` holds all weights, ``encoder.json`` the config with the mean and the
    standard deviation of the colours, and ``backbone.safetensors`` the network without its head
    and with the names of its library, for use without this package: see :func:`usage`.

    Raises:
        OSError: the folder cannot be written; an earlier version of a file stays.
    """
    files = RunFolder(folder)
    files.path.mkdir(parents=True, exist_ok=True)
    with replacing(files.encoder_weights) as weights, replacing(files.backbone_weights) as backbone:
        write_tensors(weights, encoder.state_dict())
        write_backbone(encoder, backbone)
    write_json(files.encoder_config, asdict(encoder.config) | _COLOURS[encoder.config.channels])


def write_backbone(encoder: FrameEncoder, path: Path) -> None:
    """Writes the weights without the head; their metadata say what images the network takes.

    Raises:
        OSError: see :func:`usucl._files.replacing`.
    """
    about = {name: str(value) for name, value in encoder.description(bare=True).items()}
    write_tensors(path, encoder.backbone.state_dict(), {"format": "pt", **about})


def load_encoder(folder: str | Path) -> FrameEncoder:
    """Reads the encoder of a run; it is in eval mode, on the CPU.

    Example::

        encoder = usucl.load_encoder("runs/first")
        features = encoder.features(encoder.preprocess("frame.png"))  # [1, F]

    Args:
        folder: run folder, or another one that :func:`save_encoder` wrote, such as its
            ``initial``, which holds the weights before training.

    Raises:
        FileNotFoundError: ``folder`` lacks one of the two files.
        ValueError: the files are damaged or do not fit each other.
        ImportError: the network is of timm, which is not installed.
    """
    files = RunFolder(folder)
    for file in (files.encoder_config, files.encoder_weights):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no encoder: {file.name} is missing")
    try:
        config = read_config(files)
        tensors, _ = read_tensors(files.encoder_weights)
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise DamagedFileError(
                    files.encoder_weights, f"{name} has values that are no numbers"
                )
        encoder = FrameEncoder(untrained(config))  # the weights are here
        encoder.load_state_dict(tensors)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"the encoder in {folder} cannot be loaded: {error}") from error
    encoder.config = config
    return encoder.eval()


def read_config(files: RunFolder) -> EncoderConfig:
    """Reads ``encoder.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = files.encoder_config
    table = read_json(path)
    colours = _COLOURS[1 if table.get("channels") == 1 else 3]
    for name, values in colours.items():  # files from before they were written have none
        if table.pop(name, values) != values:
            raise ValueError(f"{path}: {name} must be {values}, as in all encoders of usucl")
    known = {field.name for field in fields(EncoderConfig)}
    # Files from before they were sealed may lack the options that are younger than they.
    missing = known - set(table) - _YOUNGER if check_seal(path) else set()
    if missing or set(table) - known:
        reason = "it lacks" if missing else "no encoder has"
        names = ", ".join(sorted(missing or set(table) - known))
        raise DamagedFileError(path, f"{reason} {names}")
    return EncoderConfig(**table)
