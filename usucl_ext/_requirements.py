"""Checks on the import of this package that PyTorch is here and not too old.

It comes before every other import, whose errors would name a symbol or an attribute.
"""

from __future__ import annotations

import re

# The LibTorch stable ABI of this release is what setup.py builds for; pyproject.toml repeats it.
OLDEST_TORCH = (2, 11)


def check_torch(version: str) -> None:
    """Raises ImportError if a version of PyTorch is older than the oldest that is supported."""
    release = re.match(r"(\d+)\.(\d+)", version)
    if release and (int(release[1]), int(release[2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ImportError(
            f"usucl needs torch {oldest} or newer, got {version}: pip install 'torch>={oldest}'"
        )


try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    message = "usucl needs torch, which is not installed: pip install torch"
    raise ModuleNotFoundError(message, name="torch") from None
check_torch(torch.__version__)
