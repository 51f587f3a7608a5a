"""The files of a bank: a safetensors file, named by its content, and bank.json, which names it."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from usucl._files import write_atomically

_FORMAT = "usucl-bank-2"
_READABLE = ("usucl-bank-1", _FORMAT)  # the first had no ages
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
}
_ALIGNMENT = 64  # bytes; aligned tensors can be used in the mapped file
_CHUNK = 16 << 20  # bytes written, or copied from another device, at once


def write(folder: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Writes both files; see :meth:`NegativeBank.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".bank*.tmp"):  # by a process that was killed while it saved
        left.unlink(missing_ok=True)
    # The name is known only after the content has been written, and no second copy is made.
    temporary = folder / f".bank.{os.getpid()}.tmp"
    digest = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for part in _safetensors(state):
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        tensors = _tensor_file(folder, digest.hexdigest())
        os.replace(temporary, tensors)
    finally:
        temporary.unlink(missing_ok=True)
    about = {"format": _FORMAT, **description, "sha256": digest.hexdigest()}
    write_atomically(folder / "bank.json", json.dumps(about, indent=2).encode())
    for earlier in set(folder.glob("bank-*.safetensors")) - {tensors}:
        earlier.unlink()


def _safetensors(state: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yields the file piece by piece: length of the header, header, tensors (documented layout).

    The library's own writer turns every tensor into bytes first, which doubles the memory.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in state.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in state.values():
        flat = tensor.contiguous().reshape(-1)
        count = _CHUNK // tensor.element_size()
        for begin in range(0, flat.numel(), count):
            part = flat[begin : begin + count].cpu()
            yield part.view(torch.uint8).numpy().data


def read(folder: Path, *, mmap: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the description and the state.

    Args:
        folder: folder that :func:`write` wrote.
        mmap: leave the embeddings in the file; see :meth:`NegativeBank.open`.

    Raises:
        FileNotFoundError: ``folder`` holds no bank.
        ValueError: the files are damaged.
    """
    path = folder / "bank.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no bank: bank.json is missing")
    try:
        description = json.loads(path.read_bytes())
        if description["format"] not in _READABLE:
            raise ValueError(f"format must be {_FORMAT!r}, got {description['format']!r}")
        digest = bytes.fromhex(description["sha256"]).hex()  # hexadecimal, so it cannot be a path
        tensors = _tensor_file(folder, digest)
        if not mmap and _digest_of(tensors) != digest:
            raise ValueError("the tensors are not those that were saved (SHA-256 differs)")
        with safetensors.safe_open(str(tensors), "pt") as file:
            names = set(file.keys()) - ({"embedding"} if mmap else set())
            state = {name: file.get_tensor(name) for name in names}
        if mmap:
            state["embedding"] = _mapped(tensors)
        return description, state
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"the bank in {folder} is damaged: {error}") from error


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _mapped(path: Path) -> Tensor:
    """Maps the embeddings in the file, which never changes: writing copies the page.

    The library has checked their place.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))["embedding"]
    dtype = next(dtype for dtype, name in _DTYPES.items() if name == about["dtype"])
    begin, end = about["data_offsets"]
    if math.prod(about["shape"]) * dtype.itemsize != end - begin:
        raise ValueError("the place of the embeddings is not of their size")
    content = np.memmap(path, np.uint8, mode="c", offset=8 + length + begin, shape=(end - begin,))
    return torch.from_numpy(content).view(dtype).reshape(about["shape"])


def _tensor_file(folder: Path, digest: str) -> Path:
    # The name depends on the content, so bank.json never refers to a file of another version.
    return folder / f"bank-{digest[:16]}.safetensors"
