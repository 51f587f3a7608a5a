"""The checkpoint of a run: written beside the last good one, sealed, checked when it is read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from usucl._files import SEAL, DamagedFileError, check_seal, replacing, seal

ADVICE = (
    "restore it from a copy, or start again with overwrite=True; the encoder of the last finished "
    "epoch is in files of its own, which you may want to copy before"
)
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")


class Checkpoints(TorchCheckpointIO):
    """Lightning's checkpoints in whole files: an earlier one stays until the new one is on disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint beside ``path``, seals it and renames it.

        Raises:
            OSError: the file cannot be written; names it, and an earlier one is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:
                # PyTorch complains of what a failed write has left, and hides why it has failed: a
                # full disk, or a signal that ends the run.
                if error.__context__ is not None:
                    raise error.__context__ from None
                raise
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.comment = SEAL.encode()
            seal(temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint, see :func:`read_checkpoint`."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Reads a checkpoint on the CPU; no code in it is run.

    Raises:
        DamagedFileError: it was changed or cut, lacks one of ``parts``, or is no checkpoint.
        OSError: it cannot be read.
    """
    try:
        check_seal(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedFileError as error:
        raise DamagedFileError(path, error.reason, ADVICE) from error
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:  # with advice to switch the safety off
        raise DamagedFileError(path, "it holds what no checkpoint holds", ADVICE) from error
    except Exception as error:  # of any kind, as the bytes may be anything
        raise DamagedFileError(path, f"no checkpoint: {_first_line(error)}", ADVICE) from error
    if not isinstance(checkpoint, dict):
        raise DamagedFileError(path, "no checkpoint", ADVICE)
    if missing := [name for name in parts if name not in checkpoint]:
        raise DamagedFileError(path, f"it lacks {', '.join(missing)}", ADVICE)
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
