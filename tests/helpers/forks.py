"""Processes of a test where it is not the start of a process that is tested."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest
import torch.multiprocessing as mp

# What takes seconds to import.
PRELOADED = ["torchvision.models", "usucl.bank", "usucl.gallery", "usucl.training"]


def forking() -> ForkServerContext:
    """Returns the context of a server that has imported everything, and forks processes fast.

    It has no threads, and neither has a process of it, as it computes with one.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def run_ranks(function: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Runs a function in as many processes, with the rank as its first argument."""
    forking()
    mp.start_processes(function, arguments, ranks, start_method="forkserver")
