"""Where a run comes from: the software, the machine, the user's own sources, and the data.

The name of the machine is left out on purpose: a run folder is made to be given away, and such
names often are those of people or hospitals. A cluster's job number finds it for its owner.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from usucl._environment import Machine, git_state, version_of
from usucl.data import VideoCatalog, VideoEntry
from usucl.losses import build_info

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "numpy",
    "faiss-cpu",
    "faiss-gpu",
    "av",
    "pillow",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "safetensors",
    "scikit-learn",
    "jsonargparse",
    "tensorboard",
)
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def versions() -> dict[str, str]:
    """Returns the versions of Python, of the packages that are installed, and of what is below."""
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    found = {name: version_of(name) for name in PACKAGES}
    below = {
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "driver": _found(_DRIVER, r"Kernel Module.*?\s(\d+(?:\.\d+)+)"),
        "system": platform.platform(),
    }
    known = {name: text for name, text in {**found, **below}.items() if text is not None}
    return {"python": platform.python_version(), **known}


def machine() -> dict[str, Any]:
    """Returns what the machine is, as far as it explains figures of speed."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        **asdict(Machine.here()),
        "cpu": _found(_CPUINFO, r"model name\s*:\s*(.+)") or platform.processor() or None,
        "cpu_capability": build_info()["cpu_capability"],
        "cores_usable": len(usable),
        "memory_gb": round(memory / 1e9, 1),
        "accelerators": [torch.cuda.get_device_name(number) for number in gpus],
    }


def _found(file: Path, pattern: str) -> str | None:
    with contextlib.suppress(OSError):
        if match := re.search(pattern, file.read_text(errors="replace")):
            return match[1].strip()
    return None


def working_directory() -> dict[str, Any] | None:
    """Returns the folder that this program runs in, with the state of the git checkout there.

    Scripts that call this package are in it as a rule. None if the folder is gone.
    """
    try:
        folder = Path.cwd()
    except OSError:
        return None
    return {"folder": str(folder), **(git_state(folder) or {"commit": None, "changes": None})}


def data_facts(catalog: VideoCatalog) -> dict[str, Any]:
    """Returns what two runs on the same data agree in, wherever the folder is.

    Returns:
        The number of ``videos`` and ``frames``; a hash of the ``contents``, which are ids, numbers
        of frames and the digests of the frames from the scan; one of the ``labels``, with patients,
        folds and sources; and one ``digest`` of both. The scan's digests are those of all frames at
        32 x 32 pixels, so a change that is not seen at that size does not show.
    """
    entries = sorted(catalog, key=lambda entry: entry.id)
    contents = _hash([e.id, e.num_frames, _frames(e)] for e in entries)
    labels = _hash(
        [e.id, e.label, e.group, e.patient_known, e.fold, e.source, e.frame_labels] for e in entries
    )
    return {
        "videos": len(entries),
        "frames": sum(entry.num_frames for entry in entries),
        "digest": _hash([contents, labels]),
        "contents": contents,
        "labels": labels,
    }


def difference(before: Any, now: dict[str, Any]) -> str:
    """Returns what has changed about the data of a run, in words; empty if nothing is known to."""
    if not isinstance(before, dict):
        return ""
    words = {"contents": "frames of the videos", "labels": "labels, patients or folds"}
    return " and ".join(
        text for name, text in words.items() if before.get(name, now[name]) != now[name]
    )


def _frames(entry: VideoEntry) -> Any:
    """Returns the digest of a video's frames, or those of the clips that it is made of."""
    if entry.parts:
        return [[part.name, _frames(part.video)] for part in entry.parts]
    return None if entry.summary is None else entry.summary.digest


def _hash(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
