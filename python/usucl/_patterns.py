"""Regular expressions that users give."""

from __future__ import annotations

import re

PART = "part"
"""The group of a sweep's pattern that names a clip within its sweep."""


def one_group(pattern: str) -> re.Pattern[str]:
    """Returns a regular expression with one group, around what is wanted of a text.

    Raises:
        ValueError: it is none, or has another number of groups; the message begins with "must be".
    """
    compiled = _compiled(pattern)
    if compiled.groups != 1:
        raise ValueError(
            "must be a regular expression with one group, ( ), around what is wanted, got "
            f"{compiled.groups} in {pattern!r}"
        )
    return compiled


def sweep_groups(pattern: str) -> re.Pattern[str]:
    """Returns a regular expression with groups around what the clips of a sweep have in common.

    Raises:
        ValueError: it is none, or has no group but perhaps one that is called part; the message
            begins with "must be".
    """
    compiled = _compiled(pattern)
    if compiled.groups - (PART in compiled.groupindex) < 1:
        raise ValueError(
            "must be a regular expression with a group, ( ), around each thing in which the clips "
            f"of one examination agree, such as the patient, got {pattern!r}"
        )
    return compiled


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"must be a regular expression, got {pattern!r}: {error}") from error
