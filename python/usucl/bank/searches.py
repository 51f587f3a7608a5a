"""The kinds of search, by name."""

from __future__ import annotations

from collections.abc import Mapping

from usucl.bank.faiss_index import FaissIndex, Flat
from usucl.bank.indexes import Index, SearchOptions
from usucl.bank.ring import Ring

KINDS: Mapping[str, type[Index] | None] = {"exact": None, "Flat": Flat}
"""The index of each search; None is the fused operator over all slots, without an index. Any other
name is a string of FAISS's index factory."""


def index_of(ring: Ring, options: SearchOptions) -> Index | None:
    """Returns the index that a bank with these options uses.

    Raises:
        ValueError: the search does not exist, does not fit the ring, or does not take an option.
        ImportError: the search needs FAISS, which is not installed.
    """
    kind = KINDS.get(options.search, FaissIndex)
    if not options.told.keys() <= (kind.understands if kind else set()):
        told_nothing = (name for name, k in KINDS.items() if not (k and k.understands))
        raise ValueError(
            "nprobe, ef_search and rebuild_after are for other searches than "
            f"{' and '.join(map(repr, told_nothing))}, got search {options.search!r}"
        )
    return None if kind is None else kind(ring, options)
