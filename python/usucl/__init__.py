"""USUCL: contrastive pretraining of image encoders from ultrasound videos.

The public names are imported when they are first used: ``import usucl`` alone loads neither
PyTorch nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from usucl._environment import advice, drop_missing_backend, name_user

if TYPE_CHECKING:
    from usucl.bank import NegativeBank
    from usucl.comparison import compare
    from usucl.data import VideoCatalog, open_video
    from usucl.evaluation import embed, evaluate
    from usucl.finetuning import finetune, load_classifier
    from usucl.gallery import Gallery
    from usucl.models import export, load_encoder
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
    "compare": "usucl.comparison",
    "embed": "usucl.evaluation",
    "evaluate": "usucl.evaluation",
    "export": "usucl.models",
    "finetune": "usucl.finetuning",
    "load_classifier": "usucl.finetuning",
    "load_encoder": "usucl.models",
    "open_video": "usucl.data",
    "train": "usucl.training",
    "write_report": "usucl.report",
}

__all__ = [
    "Gallery",
    "NegativeBank",
    "VideoCatalog",
    "__version__",
    "compare",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "load_classifier",
    "load_encoder",
    "open_video",
    "train",
    "write_report",
]


_MODULES = (
    "bank",
    "comparison",
    "data",
    "embedding",
    "evaluation",
    "finetuning",
    "gallery",
    "losses",
    "methods",
    "models",
    "report",
    "run_folder",
    "training",
)


def __getattr__(name: str) -> Any:
    """Imports a public name from its module, or a module, once.

    Raises:
        ImportError: it needs a package that is not installed; says how to install it.
    """
    if name not in _HOME and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_HOME.get(name, f"usucl.{name}"))
        value = getattr(module, name) if name in _HOME else module
    except ImportError as error:
        if (told := advice(error)) is None:
            raise
        raise ImportError(f"usucl.{name} needs {told}", name=error.name) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
