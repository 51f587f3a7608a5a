"""Files that are whole: written in one piece, and sealed with a checksum of all their bytes.

A sealed file holds the text ``sealed by usucl, sha256`` and the SHA-256 of itself, computed while
its own 64 digits are zeros. The text is a member of a JSON object, of a safetensors file's metadata
or the comment of a zip archive, so every reader of those formats still opens the file. Files from
before there were seals hold neither part of the text, and are read as they are.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import mmap
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from torch import Tensor

from usucl._environment import check_writable as check_writable
from usucl._safetensors import pieces

UNSEALED = "0" * 64
SEAL = f"sealed by usucl, sha256 {UNSEALED}"
_WHOLE = re.compile(rb"sealed by usucl, sha256 ([0-9a-f]{64})")
# Damage in several places must not make a sealed file look like one from before there were seals.
_FRAGMENT = re.compile(rb"sealed by |by usucl, |usucl, sha256|, sha256 |sha256 [0-9a-f]{16}")
_KEY = "seal"  # of the text, in JSON and in the metadata of safetensors
_LONG = 200  # bytes of a name; most file systems take 255
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
"""Name of this machine in the names of temporary files, which others may see over a network."""
_WRITER = re.compile(r"\.(\d+)(?:@([A-Za-z0-9-]*))?\.(?:tmp|unfinished)$")
_TAIL = 1 << 16  # bytes: a seal that is not in the header of safetensors stands at the end


class DamagedFileError(ValueError):
    """A file of this package was changed or cut after it was written; holds its ``path``."""

    def __init__(
        self, path: Path, reason: str, advice: str = "restore it from a copy or make it anew"
    ) -> None:
        super().__init__(path, reason, advice)
        self.path = path
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path} is damaged ({self.reason}): {self.advice}"


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a path beside ``path`` to write to; at the end the file there becomes ``path``.

    The earlier version stays until the new one is on disk, also if the body fails. If it need not
    be ``durable``, a machine that goes down may leave a file that is not whole. What processes
    that were killed have left of the same file is removed. What another call has yielded, as
    ``path``, is written to as it is.

    Raises:
        OSError: the file cannot be written; names ``path``, and the earlier version is untouched.
    """
    if _writer_of(path) == os.getpid():
        yield path
        return
    temporary = temporary_of(path)
    try:
        try:
            remove_left_over(path.parent, path)
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def short_name(path: Path) -> str:
    """Returns the name of a path or, if a file system may not take a longer one, a short form."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= _LONG else hashlib.sha256(name).hexdigest()


def temporary_of(path: Path, suffix: str = "tmp") -> Path:
    """Returns the path beside ``path`` at which this process writes what will be ``path``."""
    return path.with_name(f".{short_name(path)}.{os.getpid()}@{HOST}.{suffix}")


def is_left_over(temporary: Path) -> bool:
    """Returns whether the process that wrote a temporary file, by its name, has ended."""
    writer = _writer_of(temporary)
    if writer is None:
        return False
    try:
        os.kill(writer, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _writer_of(path: Path) -> int | None:
    """Returns the process of this machine that writes a temporary file; None if it is none."""
    writer = _WRITER.search(path.name)
    return None if writer is None or writer[2] not in (None, HOST) else int(writer[1])


def remove_left_over(folder: Path, path: Path | None = None) -> None:
    """Removes what ended processes left half-written in a folder, or of one path in it."""
    name = "" if path is None else f"{glob.escape(short_name(path))}."
    for suffix in ("tmp", "unfinished"):
        for left in filter(is_left_over, folder.glob(f".{name}*.{suffix}")):
            with contextlib.suppress(OSError):  # another process may remove it too
                remove(left)


def is_empty(folder: Path) -> bool:
    """Returns whether a folder holds nothing but what ended processes left half-written."""
    return all(is_left_over(path) for path in folder.iterdir())


def size_in_words(size: float) -> str:
    """Returns a number of bytes in GB, or in MB where it is less than one GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``; an earlier version stays until the new one is on disk.

    Raises:
        OSError: the file cannot be written; the earlier version is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a JSON object in one piece, sealed.

    Raises:
        OSError: see :func:`replacing`.
    """
    with replacing(path) as temporary:
        text = json.dumps({**table, _KEY: SEAL}, indent=1, ensure_ascii=False, allow_nan=False)
        # Bytes of a file's name that are not UTF-8 become escapes, which JSON has for them too.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        seal(temporary)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, without its seal.

    Raises:
        DamagedFileError: the file is no JSON object, or its seal is broken.
        OSError: the file cannot be read.
    """
    check_seal(path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"not JSON: {error}") from error
    if not isinstance(table, dict):
        raise DamagedFileError(path, "not a JSON object")
    table.pop(_KEY, None)
    return table


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file in one piece, sealed.

    Raises:
        TypeError: a tensor has a dtype that the format does not have.
        OSError: see :func:`replacing`.
    """
    # Larger elements first: in a mapped file each tensor begins at a multiple of its element.
    content = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            file.writelines(pieces(content, {**(metadata or {}), _KEY: SEAL}))
        seal(temporary)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the metadata of a safetensors file, without its seal.

    Raises:
        DamagedFileError: the file is not in this format, or its seal is broken.
        OSError: the file cannot be read.
    """
    check_seal(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedFileError(path, f"not safetensors: {error}") from error
    metadata.pop(_KEY, None)
    return tensors, metadata


def seal(path: Path) -> None:
    """Replaces the zeros of ``SEAL`` in a file by the SHA-256 of the file with its zeros.

    Raises:
        ValueError: the file does not hold ``SEAL``.
        OSError: the file cannot be read or written.
    """
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start, digits = _find_seal(content)
            if start is None or digits != UNSEALED:
                raise ValueError(f"path must be a file that holds {SEAL!r}, got {path}")
            digest = _digest(content, start)
        file.seek(start)  # not through the map: a full disk would end the process with SIGBUS
        file.write(digest.encode())


def check_seal(path: Path) -> bool:
    """Returns whether the file is sealed: True if it is and is whole, False if it never was.

    Raises:
        DamagedFileError: the file is empty, or a byte of it has changed since it was sealed.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise DamagedFileError(path, "it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if _cut_archive(content):
                raise DamagedFileError(path, "its end is missing")
            start, digits = _find_seal(content)
            if start is None and digits is None:
                return False
            if start is None or digits != _digest(content, start):
                raise DamagedFileError(path, "its checksum does not match")
            return True


def _find_seal(content: mmap.mmap) -> tuple[int | None, str | None]:
    """Returns where the 64 digits are, and the digits; (None, "") if the seal is torn."""
    header = int.from_bytes(content[:8], "little")  # bytes of a safetensors header
    inside = 8 < header <= len(content) - 8
    for begin, end in ((8, 8 + header) if inside else (0, 0), (max(0, len(content) - _TAIL), None)):
        part = content[begin:end]
        seals = list(_WHOLE.finditer(part))
        if seals:
            return begin + seals[-1].start(1), seals[-1][1].decode()
        if _FRAGMENT.search(part):
            return None, ""
    return None, None


def _cut_archive(content: mmap.mmap) -> bool:
    """Returns whether a zip archive ends within its comment, which readers of zip overlook."""
    end = content.rfind(b"PK\5\6") if content[:4] == b"PK\3\4" else -1
    return end >= 0 and len(content) - end - 22 < int.from_bytes(
        content[end + 20 : end + 22], "little"
    )


def _digest(content: mmap.mmap, start: int) -> str:
    """Returns the SHA-256 of a file whose 64 digits at ``start`` are taken as zeros."""
    with memoryview(content) as view:
        digest = hashlib.sha256(view[:start])
        digest.update(UNSEALED.encode())
        digest.update(view[start + 64 :])
    return digest.hexdigest()
