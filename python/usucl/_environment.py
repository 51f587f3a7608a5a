"""The machine and the installed versions, on which a figure depends besides the code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import torch


def version_of(package: str) -> str | None:
    """Returns the version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
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
        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu_cores=os.cpu_count(),
            threads=torch.get_num_threads(),
            accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )
