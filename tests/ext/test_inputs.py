"""What callers hand over besides strided tensors: arrays, sparse and meta tensors, transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from strategies import plain_problem

import usucl_ext
from usucl_ext import hard_negative_nce, select_negatives


def arguments(impl: str = "native") -> dict[str, Any]:
    problem = plain_problem()
    return {
        "anchors": problem.anchors,
        "positives": problem.positives,
        "negatives": list(problem.blocks),
        "impl": impl,
        **problem.options,
    }


NOT_DENSE = {
    "numpy": (lambda x: x.numpy(), r"must be a torch\.Tensor.*, got numpy\.ndarray"),
    "sparse": (lambda x: x.to_sparse(), r"must be dense, got torch\.sparse_coo: call \.to_dense"),
    "rows": (lambda x: x.to_sparse_csr(), r"must be dense, got torch\.sparse_csr"),
    "nested": (lambda x: torch.nested.as_nested_tensor([*x]), r"must not be nested: call "),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        r"must not be quantised, got torch\.qint8: call \.dequantize\(\)",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("kind", NOT_DENSE)
def test_what_is_no_dense_tensor_is_refused_by_name(kind: str, impl: str) -> None:
    """Also where a call that looks alike came before, whose checks would not be made again."""
    made, message = NOT_DENSE[kind]
    call = arguments(impl)
    hard_negative_nce(**call)
    embedding = call["anchors"].embedding
    frames = call["anchors"]._replace(embedding=made(embedding))
    for change, name in (
        ({"anchors": frames}, r"anchors\.embedding"),
        ({"negatives": [call["negatives"][0], frames]}, r"negatives\[1\]\.embedding"),
        ({"positives": made(embedding)}, "positives"),
    ):
        with pytest.raises(TypeError, match=f"^{name} {message}"):
            hard_negative_nce(**{**call, **change})


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_a_number_of_negatives_is_any_integer(kind: Any, impl: str) -> None:
    call = arguments(impl)
    expected = hard_negative_nce(**call)
    changed = {name: kind(call[name]) for name in ("intra_k", "cross_k", "intra_skip")}
    assert torch.equal(hard_negative_nce(**{**call, **changed}), expected)


TRANSFORMS = {
    "grad": lambda f, x: torch.func.grad(f)(x),
    "vjp": torch.func.vjp,
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "hessian": lambda f, x: torch.func.hessian(f)(x),
    "vmap": lambda f, x: torch.vmap(f)(x[None]),
}


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_function_transforms_are_refused(transform: str, impl: str) -> None:
    call = arguments(impl)
    selecting = {name: call[name] for name in ("negatives", "window", "intra_k", "cross_k", "impl")}
    index = torch.zeros(5, 2, dtype=torch.int64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return hard_negative_nce(**{**call, "anchors": call["anchors"]._replace(embedding=x)})

    def selection(x: torch.Tensor) -> torch.Tensor:
        anchors = call["anchors"]._replace(embedding=x)
        return select_negatives(anchors, **selecting).cross_similarity.sum()

    def pairs(x: torch.Tensor) -> torch.Tensor:
        return usucl_ext.similarities(x, x, index, impl=impl).sum()

    for function in (loss, selection, pairs):
        with pytest.raises(NotImplementedError, match=r"does not work inside torch\.func"):
            TRANSFORMS[transform](function, call["anchors"].embedding)


@pytest.mark.parametrize("impl", ["auto", "native", "reference"])
def test_meta_tensors_give_meta_results(impl: str, caplog: pytest.LogCaptureFixture) -> None:
    problem = plain_problem(soft_nn_temperature=0.1, margin=-0.1)
    on_meta = problem.to(torch.device("meta"))
    expected = hard_negative_nce(
        problem.anchors, problem.positives, problem.blocks, return_selection=True, **problem.options
    )
    outcome = on_meta.run(impl)
    results = (outcome.loss, *outcome.selection, *on_meta.select(impl))
    for ours, theirs in zip(results, (expected[0], *expected[1], *expected[1]), strict=True):
        assert ours.is_meta and ours.shape == theirs.shape and ours.dtype == theirs.dtype
    for gradient in (outcome.anchors, outcome.positives, *outcome.blocks):
        assert gradient is not None and gradient.is_meta
    index = torch.zeros(5, 2, dtype=torch.int64, device="meta")
    anchors = on_meta.anchors.embedding
    assert usucl_ext.similarities(anchors, anchors, index, impl=impl).shape == (5, 2)
    assert not caplog.records


@pytest.mark.parametrize("name", ["temperature", "soft_nn_temperature", "margin", "window"])
def test_meta_tensors_do_not_mix_with_others(name: str) -> None:
    value = torch.zeros(2 if name == "window" else (), device="meta")
    with pytest.raises(ValueError, match=f"^{name} must be on cpu, got meta"):
        hard_negative_nce(**{**arguments(), name: value})
    on_meta = plain_problem().to(torch.device("meta"))
    with pytest.raises(ValueError, match=r"^positives must be on meta, got cpu"):
        hard_negative_nce(
            **{**arguments(), "anchors": on_meta.anchors, "negatives": on_meta.blocks}
        )
