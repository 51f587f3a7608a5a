"""Checks of the numbers among a user's options; every message names the option by its full name."""

from __future__ import annotations

import math
from typing import Any


def check_range(
    name: str, value: Any, least: float, most: float = math.inf, *, above: bool = False
) -> None:
    """Checks that a number is in ``least .. most`` and finite.

    Args:
        name: name in the message.
        value: a number; None is not checked.
        least, most: bounds, which belong to the range.
        above: whether ``least`` itself is outside of the range.

    Raises:
        ValueError: it is outside.
    """
    if value is None:
        return
    inside = least < value <= most if above else least <= value <= most  # NaN is not
    if not inside or (isinstance(value, float) and not math.isfinite(value)):
        if most < math.inf:
            bound = f"in {'(' if above else '['}{least}, {most}]"
        else:
            finite = "finite and " if isinstance(value, float) else ""
            bound = f"{finite}{'>' if above else '>='} {least}"
        raise ValueError(f"{name} must be {bound}, got {value}")
