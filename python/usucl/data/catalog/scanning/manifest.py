"""What scans of a folder have found out by reading its files, kept for the next scan.

A manifest is a file of JSON lines in the user's cache, one per folder of data. Its first line says
what reads videos: other versions start anew. Every further line is what was found out of one file
or folder of images under one set of conditions, with a checksum; a line that does not match it, or
what lies there now, counts for nothing.

Who writes a file twice within a tick of the file system's clock leaves its time as it was. So files
that were new, or are of the future, are compared by their contents until they are old enough.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usucl._environment import cache_folder, version_of
from usucl._files import write_atomically
from usucl.data.catalog.scanning.stamp import Stamp, contents_of

FORMAT = "usucl manifest 1"
PACKAGES = (
    "av",
    "numpy",
    "pillow",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "usucl",
)
YOUNG = 2 * 10**9  # ns: the coarsest clock of a file system in use (FAT)

_KEY, _SUM = slice(8, 24), slice(33, 49)  # where the digits are in {"key":"...","sum":"...",...}
_REST = 50
_saving = threading.Lock()
logger = logging.getLogger(__name__)


class Manifest:
    """What is known of the files under ``root``, by path, stamp and conditions.

    Args:
        root: the folder.
        file: where it is kept, None for nowhere.
    """

    def __init__(self, root: Path, file: Path | None) -> None:
        self.root = root
        self.file = file
        self._began = time.time_ns()
        self._header = _header(root)
        self._state, self._lines = self._read()
        self._now: dict[str, Stamp] = {}  # what lies there, by name
        self._kept: set[bytes] = set()
        self._new: dict[bytes, bytes] = {}
        self._contents: dict[str, str | None] = {}

    @classmethod
    def of(cls, root: Path) -> Manifest:
        """Returns the manifest of a folder, however its path is spelled."""
        real = Path(os.path.realpath(root))
        cache = cache_folder()
        if cache is None or _is_visible_in(Path(os.path.realpath(cache)), real):
            return cls(real, None)
        name = hashlib.blake2b(os.fsencode(real), digest_size=16).hexdigest()
        return cls(real, cache / "catalogs" / f"{name}.jsonl")

    def get(self, name: str, stamp: Stamp | None, conditions: str) -> dict[str, Any] | None:
        """Returns what was found out of a file or folder, None if that is not known any more.

        Args:
            name: path relative to the root, with slashes.
            stamp: of what lies there now.
            conditions: what else it depends on.
        """
        if stamp is None:
            return None
        self._now[name] = stamp
        key = _key(name, conditions)
        line = self._new.get(key) or self._lines.get(key)
        record = None if line is None else _parsed(line)
        if record is None or not _fits(record, name, stamp):
            return None
        if record["contents"] is not None:
            if record["contents"] != self.contents(name, stamp, always=True):
                return None
            if not self._is_young(stamp):
                self.put(name, stamp, conditions, record["found"], None)
        self._kept.add(key)
        found: dict[str, Any] = record["found"]
        return found

    def contents(self, name: str, stamp: Stamp | None, *, always: bool = False) -> str | None:
        """Returns a hash of all bytes, for :meth:`put`; to be asked for before they are read.

        It is None where the stamp alone is enough, unless it is ``always`` wanted.
        """
        if stamp is None or self.file is None or not (always or self._is_young(stamp)):
            return None
        if name not in self._contents:
            self._contents[name] = contents_of(self.root / name)
        return self._contents[name]

    def put(
        self,
        name: str,
        stamp: Stamp | None,
        conditions: str,
        found: Mapping[str, Any],
        contents: str | None,
    ) -> None:
        """Adds what was found out, as JSON; see :meth:`get` and :meth:`contents`."""
        if stamp is None or self.file is None or (contents is None and self._is_young(stamp)):
            return
        self._now[name] = stamp
        key = _key(name, conditions)
        record = {
            "name": name,
            "stamp": stamp.key,
            "changed": stamp.changed,
            "contents": contents,
            "found": found,
        }
        self._new[key] = _line(key, record)

    def save(self, *, whole: bool) -> None:
        """Writes what is new, with what other processes have added in the meantime.

        Args:
            whole: whether everything under the root was asked for, so that other lines are of
                files that are gone.
        """
        if self.file is None or not self._new:
            return
        with _saving:
            lines = self._lines if self._state_now() == self._state else self._read()[1]
            if whole:
                lines = {key: line for key, line in lines.items() if self._is_here(key, line)}
            lines |= self._new
            try:
                self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(self.file, b"\n".join((self._header, *lines.values(), b"")))
            except OSError as error:
                logger.warning("videos will be read again next time: %s", error)
                self.file = None
                return
            self._state, self._lines = self._state_now(), lines
            self._kept.update(self._new)
            self._new = {}

    def _is_here(self, key: bytes, line: bytes) -> bool:
        """Returns whether a line is of what lies there now, perhaps under other conditions."""
        if key in self._kept:
            return True
        record = _parsed(line)
        stamp = None if record is None else self._now.get(str(record.get("name")))
        return record is not None and stamp is not None and _fits(record, record["name"], stamp)

    def _is_young(self, stamp: Stamp) -> bool:
        return stamp.newest > self._began - YOUNG

    def _state_now(self) -> object:
        """Returns what changes whenever somebody writes the file."""
        try:
            status = os.stat(self.file or "")
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> tuple[object, dict[bytes, bytes]]:
        """Returns the file's state and the lines that are whole, by their keys."""
        state = self._state_now()
        if self.file is None or state is None:
            return state, {}
        try:
            if not stat.S_ISREG(self.file.stat().st_mode):
                raise OSError(f"not a file: {self.file}")
            header, *lines = self.file.read_bytes().split(b"\n")
        except OSError as error:
            logger.warning("videos are read again: %s", error)
            return state, {}
        if header != self._header:
            return state, {}
        return state, {line[_KEY]: line for line in lines if line[_SUM] == _sum(line)}


def _header(root: Path) -> bytes:
    about = {
        "format": FORMAT,
        "root": str(root),
        "code": _code(),
        "versions": {name: version_of(name) for name in PACKAGES},
    }
    return json.dumps(about).encode()


def _code() -> str:
    """Returns a hash of the code that reads videos, which may change without the version."""
    digest = hashlib.blake2b(digest_size=16)
    for package in ("catalog", "video"):
        for file in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _is_visible_in(cache: Path, root: Path) -> bool:
    """Returns whether a scan of ``root`` would find the cache among the data."""
    inside = cache == root or root in cache.parents
    return inside and not any(p.startswith(".") for p in cache.relative_to(root).parts)


def _key(name: str, conditions: str) -> bytes:
    text = f"{name}\0{conditions}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode()


def _line(key: bytes, record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":"), default=lambda number: number.item())
    body = text[1:].encode()
    line = b'{"key":"%s","sum":"%s",%s' % (key, b"0" * 16, body)
    return line[: _SUM.start] + _sum(line) + line[_SUM.stop :]


def _sum(line: bytes) -> bytes:
    """Returns the checksum of a line, without its own digits."""
    digest = hashlib.blake2b(line[: _SUM.start], digest_size=8)
    digest.update(line[_SUM.stop :])
    return digest.hexdigest().encode()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Returns the record of a line, None if it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = {"name", "stamp", "changed", "contents", "found"}
    whole = isinstance(record, dict) and fields <= record.keys()
    return record if whole and isinstance(record["found"], dict) else None


def _fits(record: Mapping[str, Any], name: str, stamp: Stamp) -> bool:
    return (record["name"], record["stamp"], record["changed"]) == (name, stamp.key, stamp.changed)
