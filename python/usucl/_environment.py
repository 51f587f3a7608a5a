"""What a figure depends on besides the code: the machine, and the versions installed there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import torch


def version_of(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Machine:
    """What a figure of speed depends on; ``accelerator`` is None without one."""

    system: str
    cpu_cores: int | None
    threads: int
    accelerator: str | None

    @classmethod
    def here(cls) -> Machine:
        """The machine that this runs on."""
        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu_cores=os.cpu_count(),
            threads=torch.get_num_threads(),
            accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )
