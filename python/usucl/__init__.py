"""USUCL: contrastive pretraining of image encoders from ultrasound videos.

The public names are imported when they are first used: ``import usucl`` alone loads neither
PyTorch nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from usucl._environment import drop_missing_backend, name_user

if TYPE_CHECKING:
    from usucl.bank import NegativeBank
    from usucl.data import VideoCatalog, open_video
    from usucl.evaluation import embed, evaluate
    from usucl.gallery import Gallery
    from usucl.report import write_report
    from usucl.training import train
    from usucl_ext import __version__

name_user()
drop_missing_backend()

_HOME = {
    "Gallery": "usucl.gallery",
    "NegativeBank": "usucl.bank",
    "VideoCatalog": "usucl.data",
    "__version__": "usucl_ext",
    "embed": "usucl.evaluation",
    "evaluate": "usucl.evaluation",
    "open_video": "usucl.data",
    "train": "usucl.training",
    "write_report": "usucl.report",
}

__all__ = [
    "Gallery",
    "NegativeBank",
    "VideoCatalog",
    "__version__",
    "embed",
    "evaluate",
    "open_video",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
