"""Loss and derivatives of one anchor with one positive, for the oracle: plain float64 sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class RowLoss:
    """Loss of one anchor with one positive, and its derivatives by every similarity.

    ``*_size`` are the same sums without cancellation, to which rounding errors are relative.
    """

    loss: float
    positive: float = 0.0
    intra: list[float] = field(default_factory=list)
    cross: list[float] = field(default_factory=list)
    temperature: float = 0.0
    soft_nn_temperature: float = 0.0
    positive_size: float = 0.0
    cross_size: list[float] = field(default_factory=list)
    temperature_size: float = 0.0
    soft_nn_temperature_size: float = 0.0
    condition: float = 0.0
    similarity_condition: float = 0.0  # further condition per unit of error in the similarities


def _softmax(logits: list[float]) -> tuple[list[float], float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = math.fsum(weights)
    return [w / total for w in weights], top + math.log(total)


def row_loss(
    s_p: float,
    s_intra: list[float],
    s_cross: list[float],
    temperature: float,
    soft_nn_temperature: float | None,
) -> RowLoss:
    """Returns loss = logsumexp(l) - l_0,  l = [s_p, s_intra..., c...] / T,  and its derivatives.

    With pi = softmax(l):      d loss / d x_m = (pi_m - [m = 0]) / T   for the scaled entry x_m
                               d loss / d T   = -1/T sum_m (pi_m - [m = 0]) l_m
    With w = softmax(s / U), c = sum_j w_j s_j:
                               d c / d s_j    = w_j (1 + (s_j - c) / U)
                               d c / d U      = -(sum_j w_j s_j^2 - c^2) / U^2
    """
    if not s_intra and not s_cross:
        return RowLoss(0.0)
    soft = soft_nn_temperature is not None and bool(s_cross)
    if soft:
        assert soft_nn_temperature is not None
        w, _ = _softmax([s / soft_nn_temperature for s in s_cross])
        c = math.fsum(a * b for a, b in zip(w, s_cross, strict=True))
        entries = [c]
    else:
        entries = list(s_cross)
    logits = [x / temperature for x in [s_p, *s_intra, *entries]]
    pi, log_total = _softmax(logits)
    others = math.fsum(pi[1:])
    residual = [-others, *pi[1:]]  # pi - [m = 0] without cancellation

    by_intra = [p / temperature for p in pi[1 : 1 + len(s_intra)]]
    by_entry = [p / temperature for p in pi[1 + len(s_intra) :]]
    largest = max(abs(x) for x in logits)
    row = RowLoss(
        loss=log_total - logits[0],
        positive=-others / temperature,
        intra=by_intra,
        cross=by_entry,
        temperature=-math.fsum(r * x for r, x in zip(residual, logits, strict=True)) / temperature,
        positive_size=1.0 / temperature,
        cross_size=by_entry,
        temperature_size=(math.fsum(p * abs(x) for p, x in zip(pi, logits, strict=True)) + largest)
        / temperature,
        condition=len(logits) + largest,
        similarity_condition=2.0 / temperature,
    )
    if soft:
        assert soft_nn_temperature is not None
        u = soft_nn_temperature
        by_c = by_entry[0]
        reach = max(abs(s) for s in s_cross)
        row.cross = [by_c * a * (1 + (s - c) / u) for a, s in zip(w, s_cross, strict=True)]
        row.cross_size = [
            by_c * a * (1 + (abs(s) + abs(c)) / u) for a, s in zip(w, s_cross, strict=True)
        ]
        spread = math.fsum(a * (s - c) ** 2 for a, s in zip(w, s_cross, strict=True))
        row.soft_nn_temperature = -by_c * spread / u**2
        row.soft_nn_temperature_size = by_c * 2 * reach**2 / u**2
        row.condition += (len(s_cross) + reach / u) * (1 + reach / temperature)
        row.similarity_condition += 2 * (1 + 2 * reach / temperature) / u
    return row
