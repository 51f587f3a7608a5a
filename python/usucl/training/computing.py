"""Settings of PyTorch for a run, and the compilation of its encoders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from usucl.training.config import TrainingConfig
from usucl.training.options import ComputingConfig

BACKEND = "inductor"


@contextlib.contextmanager
def settings(config: ComputingConfig) -> Iterator[None]:
    """Has PyTorch's settings as configured inside the block, and as they were after it."""
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision(config.matmul_precision)
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark


def compile_encoder(encoder: nn.Module) -> None:
    """Has an encoder compiled when it is called first.

    It stays the same module: the names of its weights, and so all files, do not change.
    """
    encoder.compile(backend=BACKEND)


def check_device(config: TrainingConfig, device: torch.device) -> None:
    """Checks what a run asks of its device, so that a machine that cannot is known at once.

    Raises:
        ValueError: it has no such precision, or the smallest function cannot be compiled.
    """
    if config.precision == "16-mixed" and device.type == "cpu":
        raise ValueError(
            "precision must be '32-true' or 'bf16-mixed' on the CPU, where mixed precision with "
            "float16 does not exist, got '16-mixed'"
        )
    if config.computing.compile:
        _try_compiling(device)


def _try_compiling(device: torch.device) -> None:
    values = torch.ones(2, 2, device=device, requires_grad=True)
    try:
        torch.compile(_double, backend=BACKEND)(values).sum().backward()
    except Exception as error:  # of any kind, as it is made by other programs
        needs = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise ValueError(
            f"computing.compile must be False on this machine, because torch.compile fails on "
            f"{device} ({_reason(error)}): install {needs}, or leave it out"
        ) from error


def _double(values: Tensor) -> Tensor:
    return (values + values).relu()


def _reason(error: BaseException) -> str:
    """Returns the first line of what an error was caused by."""
    while inner := getattr(error, "inner_exception", None) or error.__cause__:
        error = inner
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
