"""Versions of the files in one folder, which several processes write, read and clean up at once.

A small file, replaced last, names the version that counts. Locks keep processes apart, all of them
``flock``, which ends with its process: who publishes a version locks the folder; who writes or
reads one shares a lock on it, which lasts as long as a mapping of the file; and a version is
removed only by who has locked the folder and can lock the version alone. Some network file systems
and Windows have no such locks: there, what may be in use stays for an hour.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from usucl._files import HOST

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_KEPT = 3600  # seconds since it was changed that a file stays if locks do not tell
_OWNER = re.compile(r"\.(\d+)(@[A-Za-z0-9-]*)?\.tmp$")


class _Publishing:
    """The folders that a thread of this process publishes in, and whether they could be locked."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all: a forked child has no other threads, which would never unlock."""
        self.thread = threading.RLock()  # flock does not tell the threads of a process apart
        self.folders: dict[str, bool] = {}


_publishing = _Publishing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_publishing.reset)


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[None]:
    """Waits until no other process publishes in ``folder``; may be nested."""
    key = os.path.realpath(folder)
    with _publishing.thread:
        if key in _publishing.folders:
            yield
            return
        with _opened(folder) as file, _held(file) as locked:
            _publishing.folders[key] = bool(locked)
            try:
                yield
            finally:
                del _publishing.folders[key]


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Protects a version, which is a folder, from being removed."""
    with _opened(folder) as file, _held(file, shared=True):
        yield


def share(file: int) -> None:
    """Protects the version in an open file until it and every mapping of it are closed."""
    _lock(file, shared=True)


def temporary(folder: Path) -> Path:
    """Returns a new path in ``folder``, whose name tells the process that writes it.

    Make and :func:`share` the file within :func:`publishing`.
    """
    return folder / f".bank-{uuid.uuid4().hex[:8]}.{os.getpid()}@{HOST}.tmp"


def remove_unused(folder: Path, paths: Iterable[Path]) -> None:
    """Removes versions and temporary files in ``folder`` that no process reads or writes.

    Call it within :func:`publishing`, which must cover the writing of all small files too.
    """
    known = _publishing.folders[os.path.realpath(folder)]
    for path in paths:
        with contextlib.suppress(OSError), _opened(path) as file, _held(file, wait=False) as alone:
            old = time.time() - path.stat().st_mtime > _KEPT
            unused = _owner_is_gone(path) if path.suffix == ".tmp" else True
            if alone is not False and (old or (known and alone and unused)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _owner_is_gone(path: Path) -> bool:
    """Returns whether the process that wrote a temporary file, which nobody locks, has ended."""
    owner = _OWNER.search(path.name)
    if owner is None or (owner[2] and owner[2] != f"@{HOST}"):
        return False
    if owner[2]:
        return True  # of this host, and it would be locked
    try:
        os.kill(int(owner[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # of another user
        pass
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # NFS locks as it opens
    except OSError:  # Windows opens no folders
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _held(file: int | None, *, shared: bool = False, wait: bool = True) -> Iterator[bool | None]:
    """Locks an open file; see :func:`_lock`."""
    given = None if file is None else _lock(file, shared=shared, wait=wait)
    try:
        yield given
    finally:
        if given and file is not None:  # closing is not enough: a forked child shares the lock
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: int, *, shared: bool = False, wait: bool = True) -> bool | None:
    """Returns whether the lock was given, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
