"""Methods of training, one file each: which frames make a batch and how the loss compares them.

A new method is a subclass of :class:`Method` in its own file, and an entry in :data:`METHODS`.
"""

from typing import Any

from usucl.methods.dense import Dense
from usucl.methods.method import KeyConfig, Method, SamplingConfig
from usucl.methods.paper import Paper, PaperCode

METHODS: dict[str, type[Method[Any, Any]]] = {
    method.name: method for method in (Dense, Paper, PaperCode)
}

__all__ = ["METHODS", "Dense", "KeyConfig", "Method", "Paper", "PaperCode", "SamplingConfig"]
