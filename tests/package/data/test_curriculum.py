"""The curriculum: golden windows of the paper's 60 epochs, other lengths, limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usucl.data import Curriculum

KINDS = ("step", "cosine", "linear", "paper-code", "constant", "hardness")


@pytest.fixture(scope="module")
def golden(golden_root: Path) -> list[dict]:
    return json.loads((golden_root / "official_sampling.json").read_text())["curriculum"]


def test_step_windows_of_the_paper(golden: list[dict]) -> None:
    curriculum = Curriculum("step")
    assert len(golden) == curriculum.epochs
    for row in golden:
        assert curriculum.window(row["epoch"]) == tuple(row["step_window"])
        assert curriculum.intra(row["epoch"]) is not row["cross_only"]


def test_compounding_cosine_of_the_official_code(golden: list[dict]) -> None:
    curriculum = Curriculum("paper-code")
    for row in golden:
        # 30 float64 products: a few 1e-15 relative. Near the end cos(pi j / 30) is close to -1 and
        # 1 + cos loses up to three digits, so 1e-11 is what float64 promises.
        expected = pytest.approx(row["cosine_window"], rel=1e-11)
        assert curriculum.window(row["epoch"]) == expected
        assert curriculum.intra(row["epoch"]) is not row["cross_only"]


@pytest.mark.parametrize("epochs", [6, 12, 30, 120, 600])
def test_a_run_of_another_length_has_the_same_stages(epochs: int) -> None:
    curriculum, paper = Curriculum("step", epochs), Curriculum("step")
    for epoch in range(epochs):
        same = 60 * epoch // epochs
        assert curriculum.window(epoch) == paper.window(same)
        assert curriculum.intra(epoch) == paper.intra(same)


def test_cosine_runs_from_the_first_window_to_the_last() -> None:
    curriculum = Curriculum("cosine", 60)
    assert curriculum.window(0) == curriculum.window(10) == pytest.approx((0.2, 0.4))
    assert curriculum.window(59) == pytest.approx((0.03, 0.07))
    middle = Curriculum("cosine", 61, cross_only=0).window(30)
    assert middle == pytest.approx(((0.2 + 0.03) / 2, (0.4 + 0.07) / 2))


def test_linear_runs_from_the_first_window_to_the_last() -> None:
    curriculum = Curriculum("linear", 61, windows=((0.4, 0.8), (0.1, 0.2)), cross_only=10 / 61)
    assert curriculum.window(0) == curriculum.window(10) == (0.4, 0.8)
    assert curriculum.window(60) == curriculum.window(99) == pytest.approx((0.1, 0.2))
    assert curriculum.window(25) == pytest.approx((0.31, 0.62))  # 15 of 50 epochs
    steps = [curriculum.window(e)[0] - curriculum.window(e + 1)[0] for e in range(10, 60)]
    assert steps == pytest.approx([0.3 / 50] * 50)


def test_hardness_narrows_when_negatives_are_easy() -> None:
    curriculum = Curriculum("hardness", 20, cross_only=0.1, narrow_below=0.3)
    assert curriculum.window(19) == curriculum.windows[0]
    assert [curriculum.window(e, (5, 9)) for e in (4, 5, 8, 9, 30)] == [
        curriculum.windows[i] for i in (0, 1, 1, 2, 2)
    ]
    assert curriculum.narrows(2, (), 0.29) and not curriculum.narrows(2, (), 0.3)
    assert not curriculum.narrows(1, (), 0.0)  # cross-video negatives only
    assert not curriculum.narrows(9, (), float("nan"))  # no intra-video negative was found
    assert curriculum.narrows(9, (5,), 0.0) and not curriculum.narrows(9, (5, 7), 0.0)
    assert not Curriculum("step").narrows(50, (), 0.0)


def test_constant() -> None:
    curriculum = Curriculum("constant", 5, windows=((0.1, 0.3),), cross_only=0)
    assert {curriculum.window(e) for e in range(9)} == {(0.1, 0.3)}
    assert all(curriculum.intra(e) for e in range(5))


@given(kind=st.sampled_from(KINDS), epochs=st.integers(1, 200), epoch=st.integers(0, 400))
def test_windows_only_narrow_and_stay_ordered(kind: str, epochs: int, epoch: int) -> None:
    curriculum = Curriculum(kind, epochs)  # type: ignore[arg-type]
    lo, hi = curriculum.window(epoch)
    next_lo, next_hi = curriculum.window(epoch + 1)
    assert 0 <= lo <= hi
    assert next_lo <= lo and next_hi <= hi
    assert curriculum.intra(epoch + 1) >= curriculum.intra(epoch)
    if epoch >= epochs:
        assert (lo, hi) == curriculum.window(epochs - 1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "exponential"}, "kind"),
        ({"epochs": 0}, "epochs"),
        ({"windows": ()}, "windows"),
        ({"windows": ((0.4, 0.2),), "starts": (0.0,)}, "windows"),
        ({"starts": (0.0, 0.5)}, "starts"),
        ({"starts": (0.0, 0.9, 0.5)}, "starts"),
        ({"cross_only": 1.5}, "cross_only"),
        ({"narrow_below": 1.5}, "narrow_below"),
        ({"narrow_below": float("nan")}, "narrow_below"),
    ],
)
def test_errors_name_the_argument(options: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Curriculum(**options)


def test_negative_epoch() -> None:
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        Curriculum().window(-1)
