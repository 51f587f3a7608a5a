"""Whether something besides the kernels sees a call: compilers, tracers, modes, transforms."""

from __future__ import annotations

import torch


def is_intercepted() -> bool:
    """Returns whether a compiler, a tracer, a dispatch mode or a function transform is at work."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    )
