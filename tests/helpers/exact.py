"""Exact arithmetic for the oracle: a fused multiply-add rounded once, and a chain of them."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns total and error, a + b = total + error exactly (Knuth), in float64."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns product and error, a * b = product + error exactly (Veltkamp, Dekker), in float64."""

    def halves(x: Array) -> tuple[Array, Array]:
        scaled = 134217729.0 * x  # 2^27 + 1
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _sum_to_odd(a: Array, b: Array) -> Array:
    """Returns a + b rounded to odd: rounding that to fewer bits is as good as rounding once."""
    total, error = _two_sum(a, b)
    even = (total.view(np.int64) & 1) == 0
    nudge = np.isfinite(total) & np.isfinite(error) & (error != 0) & even
    return np.where(nudge, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """Returns a * b + c with one rounding, elementwise, in the common dtype of a, b, c.

    float32: the float64 product is exact, so one sum rounded to odd and a cast remain. float64:
    Boldo and Melquiond (2008), exact while nothing overflows or gets near the subnormals.
    """
    a, b, c = np.broadcast_arrays(a, b, c)
    if c.dtype == np.float32:
        product = a.astype(np.float64) * b.astype(np.float64)
        return _sum_to_odd(product, c.astype(np.float64)).astype(np.float32)
    high, low = _two_product(a, b)
    carried, carried_error = _two_sum(c, low)
    total, total_error = _two_sum(high, carried)
    exact = total + _sum_to_odd(carried_error, total_error)
    return np.where(np.isfinite(exact), exact, a * b + c)


def chain(query: Array, keys: Array) -> Array:
    """Returns similarities ``[M]`` of embedding ``[D]`` with ``[M, D]``: the canonical chain."""
    accumulator = np.zeros(len(keys), dtype=query.dtype)
    with np.errstate(all="ignore"):
        for d in range(len(query)):
            accumulator = fused_multiply_add(query[d], keys[:, d], accumulator)
    return accumulator


def plain(query: Array, keys: Array) -> Array:
    """Returns the same in plain float64, for margins and for the truth of a matmul."""
    with np.errstate(all="ignore"):
        return (keys.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
