"""Where this package keeps what it can make again: never in a folder of data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns ``$USUCL_CACHE``, ``$XDG_CACHE_HOME/usucl`` or ``~/.cache/usucl``; it may not exist.

    Raises:
        OSError: the user has no home folder.
    """
    if own := os.environ.get("USUCL_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "usucl"
    try:
        return Path.home() / ".cache" / "usucl"
    except RuntimeError as error:
        raise OSError(f"there is no home folder for a cache: set USUCL_CACHE ({error})") from error
