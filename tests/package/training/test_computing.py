"""Compilation, the layout of memory, precision: the same training, faster, and the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import make_data

from usucl.models import load_encoder
from usucl.training import computing, train
from usucl.training.checkpoint import read_checkpoint
from usucl.training.options import ComputingConfig

SMALL: dict[str, Any] = {
    "preset": "paper-code",
    "epochs": 1,
    "backbone": "resnet10",
    "image_size": 32,
    "dim": 8,
    "pretrained": False,
    "held_out": (),
    "videos": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=4, frames=8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_compiled_run_has_the_files_of_any_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(computing, "BACKEND", backend)
    plain = train(data=data, out=tmp_path / "plain", **SMALL)
    assert not compiled
    out = train(data=data, out=tmp_path / "compiled", compile=True, **SMALL)
    # What tries the compiler, and the two encoders.
    assert len(compiled) >= 3
    state = read_checkpoint(out / "checkpoints" / "last.ckpt")["state_dict"]
    expected = read_checkpoint(plain / "checkpoints" / "last.ckpt")["state_dict"]
    assert list(state) == list(expected)
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    load_encoder(out)
    before = len(compiled)
    train(out=out, resume=True, epochs=2, compile=False, channels_last=False, progress=False)
    assert len(compiled) == before
    torch._dynamo.reset()  # which would find the same network compiled before
    train(out=plain, resume=True, epochs=2, compile=True, progress=False)
    assert len(compiled) > before


def test_a_machine_that_cannot_is_told_before_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(graph: Any, inputs: Any) -> Any:
        raise FileNotFoundError("no C++ compiler found")

    monkeypatch.setattr(computing, "BACKEND", no_compiler)
    with pytest.raises(ValueError, match=r"compile must be False .*\(.*no C\+\+ compiler found"):
        train(data=data, out=tmp_path / "run", compile=True, **SMALL)
    with pytest.raises(ValueError, match=r"precision must be .* on the CPU.* got '16-mixed'"):
        train(data=data, out=tmp_path / "run", precision="16-mixed", **SMALL)
    assert not (tmp_path / "run").exists()


def test_bfloat16_in_another_layout_trains(data: Path, tmp_path: Path) -> None:
    out = train(
        data=data, out=tmp_path / "run", precision="bf16-mixed", channels_last=False, **SMALL
    )
    weight = load_encoder(out).backbone.layer1[0].conv1.weight
    assert weight.dtype == torch.float32 and weight.isfinite().all()


def test_settings_of_pytorch_are_as_before_afterwards() -> None:
    config = ComputingConfig(cudnn_benchmark=True, matmul_precision="medium")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), computing.settings(config):
        assert torch.get_float32_matmul_precision() == "medium" and torch.backends.cudnn.benchmark
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
