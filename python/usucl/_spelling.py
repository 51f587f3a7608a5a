"""What may have been meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(
    name: str, known: Iterable[str], *, form: Callable[[str], str] = str, most: int = 3
) -> str:
    """Returns ``"; did you mean x or y?"``, or an empty text if no known name is near.

    Args:
        name: what was given.
        known: the names that there are.
        form: how a name is written in the answer.
        most: most names in the answer.
    """
    folded = {other.casefold(): other for other in sorted(known)}
    near = difflib.get_close_matches(name.casefold(), folded, n=most)
    return f"; did you mean {' or '.join(form(folded[n]) for n in near)}?" if near else ""
