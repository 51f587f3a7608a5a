"""How far a result may be from the float64 truth, argued from its dtype.

    |result - truth| <= ROUNDINGS eps(arithmetic) condition  +  eps(result) |truth|  +  floor

The oracle gives each value's *condition*: by how many eps one rounding error can move it (largest
logit, number of logits, reach of the soft nearest neighbour; for a matmul also D sum_d |q_d k_d|).
A computation makes a handful of such errors in a row: exp, log, a division, a product by the
upstream gradient, and the sum over anchors. The second term is the single rounding to the result's
own dtype; the floor is what its smallest numbers cannot tell apart.
"""

from __future__ import annotations

import numpy as np
import torch
from oracle import Value

ROUNDINGS = 8


def allowed(value: Value, arithmetic: torch.dtype, result: torch.dtype) -> np.ndarray:
    """Returns the allowed absolute error of a result of a dtype, computed in ``arithmetic``."""
    return (
        ROUNDINGS * torch.finfo(arithmetic).eps * value.condition
        + torch.finfo(result).eps * np.abs(value.truth)
        # exp() of a very unlikely logit may underflow on the way
        + torch.finfo(arithmetic).tiny * value.condition * 1e4
        + torch.finfo(result).smallest_normal * torch.finfo(result).eps
    )


def assert_close(
    result: torch.Tensor, value: Value, arithmetic: torch.dtype, what: str = "result"
) -> None:
    """Asserts that errors are allowed ones, and NaN is exactly where the truth is NaN."""
    assert tuple(result.shape) == value.truth.shape, (what, result.shape, value.truth.shape)
    ours = result.detach().cpu().double().numpy()
    error = np.abs(ours - value.truth)
    bound = allowed(value, arithmetic, result.dtype)
    wrong = np.asarray((np.isnan(ours) != np.isnan(value.truth)) | (error > bound))
    if wrong.any():
        where = tuple(int(x) for x in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        raise AssertionError(
            f"{what}{list(where)}: got {ours[where]!r}, truth {value.truth[where]!r}, "
            f"error {error[where]:.3g}, allowed {bound[where]:.3g}; "
            f"{int(wrong.sum())} of {wrong.size} wrong"
        )
