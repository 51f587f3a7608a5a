"""What surrounds this package: the machine, the installed versions and the user."""

from __future__ import annotations

import getpass
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def name_user() -> None:
    """Gives a user without a name the number as a name, for PyTorch asks for one on its import.

    Containers often run as a user id that no list of users holds.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"user-{os.getuid() if hasattr(os, 'getuid') else 0}"


def drop_missing_backend() -> None:
    """Removes the setting of a Matplotlib backend whose module is not installed.

    A notebook passes its own on to every process, and Matplotlib cannot be imported without it;
    some of the packages used here import Matplotlib. Pictures are drawn without any backend.
    """
    name = os.environ.get("MPLBACKEND", "").removeprefix("module://")
    try:
        found = "." not in name or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        del os.environ["MPLBACKEND"]


_command: ContextVar[str] = ContextVar("command", default="Python")


@contextmanager
def as_command(words: Sequence[str]) -> Iterator[None]:
    """Keeps the words that were typed in a shell, for :func:`typed_command`."""
    token = _command.set(shlex.join(words))
    try:
        yield
    finally:
        _command.reset(token)


def typed_command() -> str:
    """Returns the command that was typed in a shell; ``"Python"`` if this package was called."""
    return _command.get()


def commit_of(file: str) -> str | None:
    """Returns the commit of the checkout that a source file is in.

    Returns:
        The commit, with ``+changes`` if files of the checkout differ from it; None if the file is
        not in a checkout's history, as where the package is installed.
    """
    source = Path(file).resolve()
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    state = git_state(source.parent)
    return None if state is None else state["commit"] + ("+changes" if state["changes"] else "")


def git_state(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of the checkout that a folder is in, and whether files differ from it.

    Nothing is written, and no network is used.

    Returns:
        ``commit``, and ``changes``, which is None if that takes too long to find out; None where
        there is no git, no checkout, no commit yet, or a checkout of another user, which git
        refuses.
    """
    commit = _git(folder, "rev-parse", "--short=12", "--verify", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changes": None if changed is None else bool(changed)}


def _git(folder: Path, *words: str) -> str | None:
    """Returns what a git command prints; None if it fails or takes too long, or without git."""
    import subprocess

    # A file system monitor is a program of the checkout's choice; a lazy fetch uses the network.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        found = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


# The extra that brings a module. What the base installation brings is in all of them.
_EXTRAS = {
    "faiss": ("faiss",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "train": (
        "PIL",
        "av",
        "docstring_parser",
        "jsonargparse",
        "lightning",
        "matplotlib",
        "pydicom",
        "rich",
        "safetensors",
        "sklearn",
        "tensorboard",
        "torchvision",
        "yaml",
    ),
}


def advice(error: ImportError) -> str | None:
    """Returns what is not installed and how to install it; None if the cause is another."""
    found = re.search(r"^(?:No module named|import of) '?([\w.]+)", str(error))
    module = (error.name or (found[1] if found else "")).partition(".")[0]
    if module == "torch":
        return "torch, which is not installed: pip install torch"
    for extra, modules in _EXTRAS.items():
        if module in modules:
            return f"{module}, which is not installed: pip install 'usucl[{extra}]'"
    return None


def version_of(package: str) -> str | None:
    """Returns the version of a package, None if it is not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def existing(path: Path) -> Path:
    """Returns a path itself if something is there, or else the nearest folder around it."""
    return next(way for way in (path.absolute(), *path.absolute().parents) if way.exists())


def check_writable(folder: Path) -> None:
    """Checks that files can be written to a folder, or, before it is made, to the one around it.

    Raises:
        OSError: they cannot; names ``folder``.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error


def cache_folder() -> Path | None:
    """Returns the user's folder for what can be made again, which may not exist yet.

    It is ``$USUCL_CACHE``, ``$XDG_CACHE_HOME/usucl`` or ``~/.cache/usucl``; None if the first is
    empty or ``off``, or where the user has no home.
    """
    told = os.environ.get("USUCL_CACHE")
    if told is not None and told.strip().lower() in ("", "off"):
        return None
    try:
        if told is not None:
            return Path(told).expanduser().absolute()
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "usucl"
    except (RuntimeError, OSError):
        return None


@dataclass(frozen=True)
class Machine:
    """The machine behind a figure of speed; ``accelerator`` is None without one."""

    system: str
    cpu_cores: int | None
    threads: int
    accelerator: str | None

    @classmethod
    def here(cls) -> Machine:
        """Returns the machine that this runs on."""
        import platform

        import torch

        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu_cores=os.cpu_count(),
            threads=torch.get_num_threads(),
            accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )
