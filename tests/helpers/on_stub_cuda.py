"""Calls on CUDA tensors in a process that runs on benchmarks/stub_cuda.py; prints what happened."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from benchmarks.stub_cuda import Stub
from usucl_ext import Frames, _constants, hard_negative_nce, select_negatives

OPTIONS: dict[str, Any] = {"window": (0.1, 0.5), "intra_k": 3, "cross_k": 32, "impl": "native"}


def frames(rows: int, device: str = "cuda:0", dtype: torch.dtype = torch.bfloat16) -> Frames:
    """Returns frames whose values nobody reads."""
    return Frames(
        torch.empty(rows, 128, dtype=dtype, device=device),
        torch.empty(rows, dtype=torch.int64, device=device),
        torch.empty(rows, device=device),
    )


class Problem:
    """Anchors, positives and keys, and calls on them."""

    def __init__(self, device: str = "cuda:0", rows: int = 512, keys: int = 65536) -> None:
        self.anchors, self.keys = frames(rows, device), frames(keys, device)
        self.positives = torch.empty_like(self.anchors.embedding)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.anchors.embedding, self.positives, self.keys.embedding)

    def loss(self, **options: Any) -> Tensor:
        given = {**OPTIONS, **options}
        loss = hard_negative_nce(self.anchors, self.positives, self.keys, **given)
        assert isinstance(loss, Tensor)
        return loss

    def by_operator(self, **changed: Tensor) -> Tensor:
        """Calls the registered operator with some of its tensors replaced."""
        tensors = {
            "anchors": self.anchors.embedding,
            "video": self.anchors.video,
            "time": self.anchors.time,
            "patient": self.anchors.time.new_empty(0),
            "window": torch.empty(2, device=self.anchors.embedding.device),
            "positives": self.positives,
            "positive_weights": self.anchors.time.new_empty(0),
            "margin": self.anchors.time.new_empty(0),
            "temperature": torch.empty((), device=self.anchors.embedding.device),
            "soft_nn_temperature": self.anchors.time.new_empty(0),
            "keys": self.keys.embedding,
            "key_video": self.keys.video,
            "key_time": self.keys.time,
            "key_patient": self.anchors.time.new_empty(0),
            **changed,
        }
        outputs = torch.ops.usucl.hard_negative_nce(
            [*tensors.values()], [3, 0, 32, 0], math.inf, 1, False
        )
        loss = outputs[0]
        assert isinstance(loss, Tensor)
        return loss


def counted(stub: Stub, call: Any) -> dict[str, Any]:
    """Returns what one call asked of the runtime and of PyTorch's allocator."""
    stub.take(), stub.take_kernels()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    call()
    allocations = torch.cuda.memory_stats()["allocation.all.allocated"] - before
    return {**stub.take()._asdict(), "allocations": allocations, "kernels": stub.take_kernels()}


def refused(call: Any) -> str:
    """Returns the message with which a call is refused."""
    try:
        call()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return "not refused"


def run(stub: Stub) -> dict[str, Any]:
    problem, small = Problem(), Problem(rows=32, keys=96)
    results: dict[str, Any] = {}
    for name, one in (("forward", problem), ("forward of a small problem", small)):
        one.loss()
        results[name] = counted(stub, one.loss)
    results["by operator"] = counted(stub, problem.by_operator)
    options = {name: OPTIONS[name] for name in ("window", "intra_k", "cross_k", "impl")}
    results["selection"] = counted(
        stub, lambda: select_negatives(problem.anchors, problem.keys, **options)
    )
    held = torch.cuda.memory_allocated()
    problem.loss()
    results["held"] = torch.cuda.memory_allocated() - held

    for leaf in problem.leaves:
        leaf.requires_grad_()
    gradients = torch.autograd.grad(problem.loss(), problem.leaves)
    loss = problem.loss()
    results["backward"] = counted(stub, lambda: torch.autograd.grad(loss, problem.leaves))
    results["gradients"] = [[*grad.shape, str(grad.dtype)] for grad in gradients]
    for leaf in problem.leaves:
        leaf.requires_grad_(False)

    stub.set_busy(True)
    results["new temperature"] = counted(stub, lambda: problem.loss(temperature=0.3))
    with torch.cuda.stream(torch.cuda.Stream()):
        results["not written yet"] = counted(stub, lambda: problem.loss(temperature=0.3))
    stub.set_capturing(True)
    results["captured, not written yet"] = counted(stub, lambda: problem.loss(temperature=0.3))
    stub.set_capturing(False)
    stub.set_busy(False)
    results["written"] = counted(stub, lambda: problem.loss(temperature=0.3))
    results["new window"] = counted(stub, lambda: problem.loss(window=(0.2, 0.5)))
    kept = len(_constants._on_cuda)
    stub.set_capturing(True)
    results["captured"] = counted(stub, lambda: problem.loss(temperature=0.3))
    results["captured, new"] = counted(stub, lambda: problem.loss(temperature=0.4))
    stub.set_capturing(False)
    results["kept in capture"] = len(_constants._on_cuda) - kept
    results["after capture"] = counted(stub, lambda: problem.loss(temperature=0.4))
    for i in range(_constants.MOST_ON_CUDA + 10):
        small.loss(temperature=1.0 + i)
    results["most kept"] = len(_constants._on_cuda) - _constants.MOST_ON_CUDA

    other = Problem("cuda:1", rows=32, keys=96)
    results["other device"] = [str(other.loss().device), torch.cuda.current_device()]
    results["refused"] = {
        "temperature": refused(lambda: problem.by_operator(temperature=torch.ones(()))),
        "window": refused(lambda: problem.by_operator(window=torch.ones(2))),
        "video": refused(
            lambda: problem.by_operator(video=problem.anchors.video.new_empty(512, device="cpu"))
        ),
        "keys": refused(lambda: problem.by_operator(keys=torch.empty(65536, 128, device="cuda:1"))),
    }
    return results


if __name__ == "__main__":
    print(json.dumps(run(Stub())))
