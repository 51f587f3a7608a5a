"""The files of an encoder."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from usucl._files import (
    DamagedFileError,
    check_seal,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from usucl.models.encoder import EncoderConfig, FrameEncoder, untrained
from usucl.run_folder import RunFolder

_YOUNGER = {"weights"}  # options than the seals


def save_encoder(encoder: FrameEncoder, folder: str | Path) -> None:
    """Writes ``encoder.safetensors`` and ``encoder.json`` (its config), each atomically, sealed.

    Raises:
        OSError: the folder cannot be written; an earlier version of a file stays.
    """
    files = RunFolder(folder)
    files.path.mkdir(parents=True, exist_ok=True)
    write_tensors(files.encoder_weights, encoder.state_dict())
    write_json(files.encoder_config, asdict(encoder.config))


def load_encoder(folder: str | Path) -> FrameEncoder:
    """Reads what :func:`save_encoder` wrote; the encoder is in eval mode, on the CPU.

    Raises:
        FileNotFoundError: ``folder`` lacks one of the two files.
        ValueError: the files are damaged or do not fit each other.
    """
    files = RunFolder(folder)
    for file in (files.encoder_config, files.encoder_weights):
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no encoder: {file.name} is missing")
    try:
        config = _read_config(files.encoder_config)
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


def _read_config(path: Path) -> EncoderConfig:
    table = read_json(path)
    known = {field.name for field in fields(EncoderConfig)}
    # Files from before they were sealed may lack the options that are younger than they.
    missing = known - set(table) - _YOUNGER if check_seal(path) else set()
    if missing or set(table) - known:
        reason = "it lacks" if missing else "no encoder has"
        names = ", ".join(sorted(missing or set(table) - known))
        raise DamagedFileError(path, f"{reason} {names}")
    return EncoderConfig(**table)
