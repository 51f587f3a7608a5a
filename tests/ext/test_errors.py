"""Bad input raises TypeError or ValueError with the argument, what it must be and what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from strategies import plain_problem

import usucl_ext
from usucl_ext import Frames, HardNegativeNCE, hard_negative_nce, select_negatives

Change = Callable[[dict[str, Any]], None]


def arguments() -> dict[str, Any]:
    """Returns valid arguments: N = 5, D = 6, blocks of 9 and 12 keys."""
    problem = plain_problem()
    return {
        "anchors": problem.anchors,
        "positives": problem.positives,
        "negatives": list(problem.blocks),
        **problem.options,
        "return_selection": False,
        "impl": "reference",
    }


def put(name: str, value: Any) -> Change:
    return lambda call: call.update({name: value})


def anchors(**columns: Any) -> Change:
    return lambda call: call.update(anchors=call["anchors"]._replace(**columns))


def block(number: int, **columns: Any) -> Change:
    def change(call: dict[str, Any]) -> None:
        call["negatives"][number] = call["negatives"][number]._replace(**columns)

    return change


WRONG: dict[str, tuple[Change, type[Exception], str]] = {
    # frames
    "anchors no Frames": (
        put("anchors", torch.zeros(5, 6)),
        TypeError,
        r"anchors must be a usucl_ext\.Frames, got torch\.Tensor",
    ),
    "embedding no tensor": (
        anchors(embedding=[1.0]),
        TypeError,
        r"anchors\.embedding must be a torch\.Tensor \[M, D\], got list",
    ),
    "embedding dtype": (
        anchors(embedding=torch.zeros(5, 6, dtype=torch.int32)),
        TypeError,
        r"anchors\.embedding must be float32, bfloat16, float16 or float64, got torch\.int32",
    ),
    "embedding shape": (
        anchors(embedding=torch.zeros(5)),
        ValueError,
        r"anchors\.embedding must have shape \[M, D\], got \[5\]",
    ),
    "embedding without D": (
        anchors(embedding=torch.zeros(5, 0)),
        ValueError,
        r"anchors\.embedding must have D >= 1, got shape \[5, 0\]",
    ),
    "video no tensor": (
        anchors(video=[0] * 5),
        TypeError,
        r"anchors\.video must be a torch\.Tensor, got list",
    ),
    "video dtype": (
        anchors(video=torch.zeros(5)),
        TypeError,
        r"anchors\.video must be an int64 tensor, got torch\.float32",
    ),
    "video bool": (
        anchors(video=torch.zeros(5, dtype=torch.bool)),
        TypeError,
        r"anchors\.video must be an int64 tensor, got torch\.bool",
    ),
    "video length": (
        anchors(video=torch.zeros(4, dtype=torch.int64)),
        ValueError,
        r"anchors\.video must have one value per frame, shape \[5\], got \[4\]",
    ),
    "time dtype": (
        anchors(time=torch.zeros(5, dtype=torch.complex64)),
        TypeError,
        r"anchors\.time must be a float32 tensor, got torch\.complex64",
    ),
    "time shape": (
        anchors(time=torch.zeros(5, 1)),
        ValueError,
        r"anchors\.time must have one value per frame, shape \[5\], got \[5, 1\]",
    ),
    "patient dtype": (
        anchors(patient=torch.zeros(5)),
        TypeError,
        r"anchors\.patient must be an int64 tensor, got torch\.float32",
    ),
    "patient in anchors only": (
        anchors(patient=torch.zeros(5, dtype=torch.int64)),
        ValueError,
        r"patient must be given in all .* or in none: anchors has .* negatives\[0\] has none",
    ),
    "patient in one block only": (
        block(1, patient=torch.zeros(12, dtype=torch.int64)),
        ValueError,
        r"patient must be given in all .* or in none: negatives\[1\] has .* anchors has none",
    ),
    # negatives
    "negatives a tensor": (
        put("negatives", torch.zeros(3, 6)),
        TypeError,
        r"negatives must be a Frames or a sequence of them, got torch\.Tensor",
    ),
    "no blocks": (put("negatives", []), ValueError, r"negatives .* at least one .* empty"),
    "block no Frames": (
        lambda call: call["negatives"].append("bank"),
        TypeError,
        r"negatives\[2\] must be a usucl_ext\.Frames, got str",
    ),
    "block of another D": (
        block(1, embedding=torch.zeros(12, 7)),
        ValueError,
        r"negatives\[1\]\.embedding must have .* D = 6, .* got \[12, 7\]",
    ),
    "block video length": (
        block(0, video=torch.zeros(12, dtype=torch.int64)),
        ValueError,
        r"negatives\[0\]\.video must have one value per frame, shape \[9\], got \[12\]",
    ),
    # positives
    "positives no tensor": (
        put("positives", None),
        TypeError,
        r"positives must be a torch\.Tensor \[N, D\] or \[N, R, D\], got NoneType",
    ),
    "positives shape": (
        put("positives", torch.zeros(4, 6)),
        ValueError,
        r"positives must have shape .* N = 5, D = 6, R >= 1, got \[4, 6\]",
    ),
    "positives without R": (
        put("positives", torch.zeros(5, 0, 6)),
        ValueError,
        r"positives must have shape .* R >= 1, got \[5, 0, 6\]",
    ),
    "positives dtype": (
        put("positives", torch.zeros(5, 6, dtype=torch.int64)),
        TypeError,
        r"positives must be float32, .* got torch\.int64",
    ),
    # window
    "no window": (put("window", None), ValueError, r"window must be given .*intra_k = 2, got None"),
    "window of one": (put("window", (1.0,)), TypeError, r"window must be a pair .* got \(1\.0,\)"),
    "window a string": (put("window", "lo"), TypeError, r"window must be a pair .* got 'lo'"),
    "window of strings": (
        put("window", ("0", 1)),
        TypeError,
        r"window\[0\] must be a float.*str",
    ),
    "window NaN": (put("window", (0, float("nan"))), ValueError, r"window\[1\] must be .* got nan"),
    "window shape": (
        put("window", torch.zeros(4, 2)),
        ValueError,
        r"window must have shape \[2\], \[1, 2\] or \[5, 2\], got \[4, 2\]",
    ),
    "window dtype": (
        put("window", torch.zeros(2, dtype=torch.int64)),
        TypeError,
        r"window must be a float tensor, got torch\.int64",
    ),
    # numbers
    "intra_k negative": (put("intra_k", -1), ValueError, r"intra_k must be >= 0, got -1"),
    "cross_k a tensor of floats": (
        put("cross_k", torch.tensor(2.0)),
        TypeError,
        r"cross_k must be an int, got torch\.Tensor",
    ),
    "cross_k a bool of NumPy": (
        put("cross_k", np.True_),
        TypeError,
        r"cross_k must be an int, got numpy\.bool",
    ),
    "cross_k more than a selection may hold": (
        put("cross_k", 2**31 - 1),
        ValueError,
        r"cross_k must be at most 53687091 for N = 5 anchors and M = 21 keys, got 2147483647",
    ),
    "cross_k a float": (put("cross_k", 2.0), TypeError, r"cross_k must be an int, got float"),
    "cross_k a bool": (put("cross_k", True), TypeError, r"cross_k must be an int, got bool"),
    "cross_k huge": (put("cross_k", 2**63), ValueError, r"cross_k must be at most 2147483647"),
    "intra_skip negative": (put("intra_skip", -2), ValueError, r"intra_skip must be >= 0, got -2"),
    "cross_skip a string": (put("cross_skip", "1"), TypeError, r"cross_skip must be an int, .*str"),
    "temperature zero": (put("temperature", 0), ValueError, r"temperature must be positive.* 0"),
    "temperature infinite": (
        put("temperature", float("inf")),
        ValueError,
        r"temperature must be positive and finite in torch\.float32, got inf",
    ),
    "temperature a string": (
        put("temperature", "warm"),
        TypeError,
        r"temperature must be a float, got str",
    ),
    "temperature of shape [1]": (
        put("temperature", torch.ones(1)),
        ValueError,
        r"temperature must be .* 0-dim float tensor, got .* shape \[1\]",
    ),
    "temperature integral": (
        put("temperature", torch.tensor(1)),
        ValueError,
        r"temperature must be .* 0-dim float tensor, got a torch\.int64",
    ),
    "soft_nn_temperature negative": (
        put("soft_nn_temperature", -0.1),
        ValueError,
        r"soft_nn_temperature must be positive and finite in torch\.float32, got -0\.1",
    ),
    "max_similarity a string": (
        put("max_similarity", "0.9"),
        TypeError,
        r"max_similarity must be a float, got str",
    ),
    "max_similarity NaN": (
        put("max_similarity", float("nan")),
        ValueError,
        r"max_similarity must be a number, got nan",
    ),
    # choices
    "reduction": (
        put("reduction", "average"),
        ValueError,
        r"reduction must be one of 'none', 'mean', 'sum', got 'average'",
    ),
    "impl": (
        put("impl", "fast"),
        ValueError,
        r"impl must be one of 'auto', 'native', 'reference', got 'fast'",
    ),
}
LOSS_ONLY = (
    *("positives", "positive_weights", "margin", "temperature", "soft_nn_temperature"),
    *("reduction", "return_selection"),
)


@pytest.mark.parametrize("case", WRONG)
def test_hard_negative_nce(case: str) -> None:
    change, error, message = WRONG[case]
    call = arguments()
    change(call)
    with pytest.raises(error, match=message):
        hard_negative_nce(**call)
    hard_negative_nce(**arguments())


@pytest.mark.parametrize("case", [name for name in WRONG if not name.startswith(LOSS_ONLY)])
def test_select_negatives(case: str) -> None:
    change, error, message = WRONG[case]
    call = arguments()
    change(call)
    with pytest.raises(error, match=message):
        select_negatives(**{name: x for name, x in call.items() if name not in LOSS_ONLY})


@pytest.mark.parametrize("case", [name for name in WRONG if not name.startswith("impl")])
def test_reference(case: str) -> None:
    change, error, message = WRONG[case]
    call = arguments()
    change(call)
    del call["impl"]
    with pytest.raises(error, match=message):
        usucl_ext.reference.hard_negative_nce(**call)


@pytest.mark.parametrize(
    "name", ["anchors.video", "anchors.time", "positives", "window", r"negatives\[1\].embedding"]
)
def test_devices_must_agree(name: str) -> None:
    call = arguments()

    def elsewhere(x: torch.Tensor) -> torch.Tensor:
        return x.to("meta")

    if name == "positives":
        call["positives"] = elsewhere(call["positives"])
    elif name == "window":
        call["window"] = torch.zeros(2, device="meta")
    elif name.startswith("anchors"):
        column = name.split(".")[1]
        anchors(**{column: elsewhere(getattr(call["anchors"], column))})(call)
    else:
        call["negatives"][1] = Frames(
            *(None if x is None else elsewhere(x) for x in call["negatives"][1])
        )
    with pytest.raises(ValueError, match=rf"{name} must be on cpu, got meta"):
        hard_negative_nce(**call)


def test_module_without_window_for_intra_video_negatives() -> None:
    with pytest.raises(ValueError, match=r"window must be given with intra_k = 3, got None"):
        HardNegativeNCE(window=None, intra_k=3, cross_k=4)


def test_set_window_refuses_nan() -> None:
    module = HardNegativeNCE(window=(0.2, 0.4), intra_k=3, cross_k=4)
    with pytest.raises(ValueError, match=r"window\[0\] must be a number, got nan"):
        module.set_window(float("nan"), 1.0)
    assert module.window.tolist() == pytest.approx([0.2, 0.4], rel=1e-6)


def test_narrower_ids_and_wider_times_are_taken(impl: str) -> None:
    """int32 ids and float64 times are converted without loss."""
    expected = hard_negative_nce(**{**arguments(), "impl": impl})
    call = {**arguments(), "impl": impl}
    anchors(video=call["anchors"].video.int(), time=call["anchors"].time.double())(call)
    assert torch.equal(hard_negative_nce(**call), expected)
