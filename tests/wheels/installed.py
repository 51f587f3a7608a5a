"""Runs where only the wheel is installed: golden values, the operators, a short training.

The last line of the output is JSON: how long each took, and with which torch.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Runs everything, or ends with the first error."""
    present = [name for name in ("c++", "g++", "gcc", "cc", "clang", "nvcc") if shutil.which(name)]
    assert not present, f"a compiler is on PATH: {present}"
    times = {
        "import": _seconds(_import),
        "golden": _seconds(lambda: _golden_values(Path(sys.argv[1]))),
        "operators": _seconds(_operators),
        "training": _seconds(_training),
    }
    import torch

    print(json.dumps({**times, "torch": torch.__version__, "cuda": torch.version.cuda}))


def _import() -> None:
    import usucl_ext

    assert Path(usucl_ext.__file__).is_relative_to(sys.prefix), usucl_ext.__file__
    info = usucl_ext.build_info()
    assert info["native"], info["native_reason"]


def _golden_values(folder: Path) -> None:
    """The official implementation's loss and gradients, as tests/ext judges them."""
    import torch

    test = HERE.parent / "ext" / "test_golden.py"
    spec = importlib.util.spec_from_file_location("test_golden", test)
    assert spec is not None and spec.loader is not None
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    for impl in ("native", "reference"):
        for case in range(6):
            golden.test_official_loss(case, folder, impl, torch.device("cpu"))


def _operators() -> None:
    """The stable ABI: the loss by way of PyTorch's dispatcher, and compiled, to the bit."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from usucl_ext import Frames, hard_negative_nce

    called: set[str] = set()

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            called.add(str(func))
            return func(*args, **(kwargs or {}))

    torch.manual_seed(0)
    network = torch.nn.Linear(16, 8)
    images, others = torch.randn(24, 16), torch.randn(256, 8)
    video, time_ = torch.arange(256) % 12, torch.rand(256)
    keys = Frames(torch.nn.functional.normalize(others, dim=1), video, time_)

    def loss(images: torch.Tensor) -> torch.Tensor:
        embedding = torch.nn.functional.normalize(network(images), dim=1)
        anchors = Frames(embedding, video[:24], time_[:24])
        options = {"window": torch.tensor([0.1, 0.6]), "intra_k": 3, "cross_k": 8}
        return hard_negative_nce(anchors, embedding.detach().roll(1, 0), keys, **options)

    def step(of: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        network.zero_grad()
        value = of(images)
        value.backward()
        return [value.detach(), *(p.grad.clone() for p in network.parameters())]

    direct = step(loss)
    with Listen():
        dispatched = step(loss)
    names = {name.partition(".default")[0] for name in called}
    assert {"usucl.hard_negative_nce", "usucl.hard_negative_nce_backward"} <= names, names
    compiled = step(torch.compile(loss, backend="aot_eager", fullgraph=True))
    for one in (dispatched, compiled):
        for ours, theirs in zip(direct, one, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def _training() -> None:
    """Two epochs on synthetic videos, from decoding to the saved encoder."""
    import usucl
    from usucl.data import write_phantom

    data = write_phantom("videos", videos=16, frames=12, image_size=48)
    small = {"backbone": "resnet10", "image_size": 32, "dim": 8, "videos": 8, "frames": 4}
    few = {"epochs": 2, "steps_per_epoch": 2, "num_workers": 0}
    run = usucl.train(data=data, out="run", progress=False, **small, **few)
    encoder = usucl.load_encoder(run)
    assert encoder(encoder.preprocess(next(data.rglob("*.png")))).shape == (1, 8)


def _seconds(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return round(time.monotonic() - start, 1)


if __name__ == "__main__":
    main()
