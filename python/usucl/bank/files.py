"""The files of a bank: a safetensors file, named by its content, and bank.json, which names it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from usucl._files import DamagedFileError, read_json, write_json
from usucl._safetensors import DTYPES, pieces
from usucl.bank.versions import publishing, remove_unused, share, temporary

_FORMAT = "usucl-bank-2"
_READABLE = ("usucl-bank-1", _FORMAT)  # the first had no ages
_NAMES = {name: dtype for dtype, name in DTYPES.items()}


def write(folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Writes both files; see :meth:`NegativeBank.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(folder)
    with publishing(folder):
        remove_unused(folder, folder.glob(".bank*.tmp"))  # of processes that were killed
        file = unfinished.open("xb")
        share(file.fileno())
    # The name is known only after the content has been written, and no second copy is made.
    digest = hashlib.sha256()
    try:
        with file:
            for part in pieces(state):
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            tensors = _tensor_file(folder, digest.hexdigest())
            about = {"format": _FORMAT, **description, "sha256": digest.hexdigest()}
            with publishing(folder):
                os.replace(unfinished, tensors)
                write_json(folder / "bank.json", about)
                remove_unused(folder, set(folder.glob("bank-*.safetensors")) - {tensors})
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read(folder: Path, *, mmap: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the description and the state, whose tensors are mapped from the file.

    If another process replaces and removes the version meanwhile, the next one is read.

    Args:
        folder: folder that :func:`write` wrote.
        mmap: do not check the content of the tensors; see :meth:`NegativeBank.open`.

    Raises:
        FileNotFoundError: ``folder`` holds no bank.
        DamagedFileError: a file is damaged; the message names it.
        OSError: a file cannot be read.
    """
    path, earlier = folder / "bank.json", None
    while True:
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no bank: bank.json is missing")
        description = read_json(path)
        tensors = _tensor_file(folder, _checked(path, description))
        try:
            with tensors.open("rb") as file:
                share(file.fileno())
                return description, _read_tensors(file, tensors, description, not mmap)
        except FileNotFoundError as error:
            if description == earlier:
                raise DamagedFileError(tensors, "it is missing") from error
            earlier = description


def _checked(path: Path, description: Mapping[str, Any]) -> str:
    """Returns the digest of the tensors, if a description has what every version's has."""
    known, digest = description.get("format"), description.get("sha256")
    if known not in _READABLE:
        raise DamagedFileError(path, f"format must be {_FORMAT!r}, got {known!r}")
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):  # part of a path
        raise DamagedFileError(path, f"sha256 must be 64 hexadecimal digits, got {digest!r}")
    return digest


def _read_tensors(
    file: BinaryIO, path: Path, description: Mapping[str, Any], check: bool
) -> dict[str, Tensor]:
    """Maps the tensors of an open file, which never changes: writing copies the page."""
    if not os.fstat(file.fileno()).st_size:
        raise DamagedFileError(path, "it is empty")
    content = np.memmap(file, np.uint8, mode="c")
    if check and hashlib.sha256(content.data).hexdigest() != description["sha256"]:
        raise DamagedFileError(path, "its SHA-256 is not that in bank.json")
    try:
        length = int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        data = content[8 + length :]
        state = {name: _tensor(data, **about) for name, about in header.items()}
        shape, dtype = list(state["embedding"].shape), _NAMES[header["embedding"]["dtype"]]
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise DamagedFileError(path, f"not a bank's tensors: {error}") from error
    told = [description.get("capacity"), description.get("dim")], description.get("dtype")
    if told != (shape, str(dtype).removeprefix("torch.")):
        raise DamagedFileError(path, f"its embeddings are {dtype} {shape}, bank.json says {told}")
    return state


def _tensor(data: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """Returns one tensor of the mapped data, if its place fits its size."""
    begin, end = data_offsets
    if not all(type(number) is int and number >= 0 for number in (begin, *shape)):
        raise ValueError(f"a tensor must have a shape and a place, got {shape}, {data_offsets}")
    if begin + math.prod(shape) * _NAMES[dtype].itemsize != end or end > len(data):
        raise ValueError(f"a tensor must be as long as its place, got {shape}, {data_offsets}")
    part = np.asarray(data[begin:end])
    return torch.from_numpy(part).view(_NAMES[dtype]).reshape(shape)


def _tensor_file(folder: Path, digest: str) -> Path:
    # The name depends on the content, so bank.json never refers to a file of another version.
    return folder / f"bank-{digest[:16]}.safetensors"
