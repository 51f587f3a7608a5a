"""Whether something besides the kernels sees a call: compilers, tracers, modes, transforms."""

from __future__ import annotations

import torch

_TRANSFORMS = (
    torch._C._functorch.TransformType.Grad,
    torch._C._functorch.TransformType.Jvp,
    torch._C._functorch.TransformType.Vmap,
)


def is_intercepted() -> bool:
    """Returns whether a compiler, a tracer, a dispatch mode or a function transform is at work."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    )


def refuse_transforms() -> None:
    """Raises NotImplementedError inside a function that torch.func differentiates or maps."""
    if torch.compiler.is_compiling():
        return
    interpreter = torch._C._functorch.peek_interpreter_stack()
    if interpreter is not None and interpreter.key() in _TRANSFORMS:
        raise NotImplementedError(
            "usucl_ext does not work inside torch.func transforms (grad, vjp, jacrev, jvp, vmap): "
            "call it outside of them, with loss.backward() or torch.autograd.grad for gradients "
            "and a loop in place of vmap"
        )
