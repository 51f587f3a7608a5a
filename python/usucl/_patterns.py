"""Regular expressions that users give."""

from __future__ import annotations

import re


def one_group(pattern: str) -> re.Pattern[str]:
    """Returns a regular expression with one group, around what is wanted of a text.

    Raises:
        ValueError: it is none, or has another number of groups; the message begins with "must be".
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"must be a regular expression, got {pattern!r}: {error}") from error
    if compiled.groups != 1:
        raise ValueError(
            "must be a regular expression with one group, ( ), around what is wanted, got "
            f"{compiled.groups} in {pattern!r}"
        )
    return compiled
