"""Tests of the oracle: exact arithmetic by fractions, derivatives by complex steps."""

from __future__ import annotations

import cmath
import math
from fractions import Fraction

import numpy as np
import pytest
from exact import fused_multiply_add
from hypothesis import given
from hypothesis import strategies as st
from row_loss import row_loss


def _round(exact: Fraction, dtype: type) -> float:
    """Returns the nearest value of a dtype, ties to even, searching the neighbours of a guess."""
    guess = dtype(float(exact))
    candidates = [np.nextafter(guess, dtype(-np.inf)), guess, np.nextafter(guess, dtype(np.inf))]
    return min(
        candidates,
        key=lambda x: (
            abs(Fraction(float(x)) - exact),
            x.view(np.int32 if dtype is np.float32 else np.int64) & 1,
        ),
    )


def _floats(width: int) -> st.SearchStrategy[float]:
    limit = 2.0**40
    return st.floats(-limit, limit, width=width).filter(lambda x: x == 0 or abs(x) > 2.0**-40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_fused_multiply_add_rounds_once(dtype: type, data: st.DataObject) -> None:
    width = 32 if dtype is np.float32 else 64
    a, b, c = (np.asarray(data.draw(_floats(width)), dtype) for _ in range(3))
    if data.draw(st.booleans()):  # cancellation, where two roundings would show
        c = -(a * b)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    assert float(fused_multiply_add(a, b, c)) == float(_round(exact, dtype))


def test_fused_multiply_add_float32_is_not_rounded_twice() -> None:
    """A product just above half an ulp: rounding to double first would make it a tie, to even."""
    a = np.asarray(2.0**-24 * (1 + 2.0**-20), np.float32)
    b = np.asarray(1 + 2.0**-20, np.float32)
    c = np.asarray(1.0, np.float32)
    assert fused_multiply_add(a, b, c) == np.nextafter(np.float32(1), np.float32(2))
    tiny = np.asarray(2.0**-100, np.float32)
    tie = np.asarray(1 + 2.0**-23, np.float32)  # odd: a bare tie would go up
    below = fused_multiply_add(-tiny, tiny, tie)
    assert below == tie


def _complex_loss(
    s_p: complex, intra: list[complex], cross: list[complex], t: complex, u: complex | None
) -> complex:
    if u is not None and cross:
        weights = [cmath.exp(s / u) for s in cross]
        cross = [sum(w * s for w, s in zip(weights, cross, strict=True)) / sum(weights)]
    logits = [x / t for x in [s_p, *intra, *cross]]
    return cmath.log(sum(cmath.exp(x - logits[0]) for x in logits))


@given(
    s_p=st.floats(-1, 1),
    intra=st.lists(st.floats(-1, 1), max_size=3),
    cross=st.lists(st.floats(-1, 1), max_size=3),
    t=st.floats(0.05, 2),
    u=st.none() | st.floats(0.05, 2),
)
def test_row_loss_derivatives(
    s_p: float, intra: list[float], cross: list[float], t: float, u: float | None
) -> None:
    row = row_loss(s_p, intra, cross, t, u)
    step = 1e-30j

    def derivative(index: int) -> float:
        values: list[complex] = [s_p, *intra, *cross, t, u if u is not None else 1.0]
        values[index] += step
        a, b = 1 + len(intra), 1 + len(intra) + len(cross)
        soft = values[-1] if u is not None else None
        return _complex_loss(values[0], values[1:a], values[a:b], values[b], soft).imag / 1e-30

    if not intra and not cross:
        assert row.loss == 0 and row.positive == 0
        return
    scale = 1e-12 / t / (u or 1) / min(t, u or t)
    assert math.isclose(
        row.loss, _complex_loss(s_p, intra, cross, t, u).real, rel_tol=1e-12, abs_tol=1e-13 / t
    )
    ours = [row.positive, *row.intra, *row.cross, row.temperature, row.soft_nn_temperature]
    for index, value in enumerate(ours):
        expected = 0.0 if u is None and index == len(ours) - 1 else derivative(index)
        assert math.isclose(value, expected, rel_tol=1e-10, abs_tol=scale), index
