"""Strings of FAISS's index factory, read here first: what FAISS is never asked, and what it costs.

FAISS trusts these strings: some numbers end the process, others take all memory. So a string is
parsed here, every number in it has a range, and the memory of the index is estimated, before FAISS
sees it. The families that a bank supports are vectors in a list, in an inverted file or in a graph,
as they are or as codes, behind linear transforms, with or without refinement.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

LIMIT = "USUCL_INDEX_GIB"
"""Environment variable: memory in GiB that an index may take besides the bank."""
_GIB = 4.0  # by default, besides 4 times the embeddings of the bank
_LONGEST = 128  # characters
_WIDEST = 8192  # numbers of a transformed vector
_CODE = (
    r"(?P<flat>Flat(?:Dedup)?)|(?P<scalar>SQ(?:8_direct_signed|8_direct|8|6|4|fp16|bf16))|"
    r"(?P<product>PQ(?P<m>\d{1,9})(?:x(?P<bits>\d{1,9}))?(?P<fast>fsr|fs)?(?:np)?)|"
    r"(?P<binary>RaBitQ(?:fs)?)"
)
_TRANSFORM = re.compile(
    r"(?P<name>PCAWR|PCAW|PCAR|PCA|OPQ|RR|ITQ|Pad|L2norm|L2Norm)(?P<n>\d{1,9})?(?:_(?P<out>\d{1,9}))?"
)
_CODE_ONLY = re.compile(_CODE)
_CELLS = re.compile(r"IVF(?P<cells>\d{1,9})(?P<unit>[kM])?(?:_HNSW(?P<links>\d{1,9})?)?")
_GRAPH = re.compile(rf"HNSW(?P<links>\d{{1,9}})?(?:[_,](?P<code>{_CODE}))?")
_REFINE = re.compile(r"RFlat|Refine\((?P<code>[A-Za-z0-9_]+)\)")
_SCALAR = {"SQ4": 0.5, "SQ6": 0.75, "SQfp16": 2.0, "SQbf16": 2.0}  # bytes per number; others 1
_LINKS = (2, 512)  # of a graph: FAISS ends the process below, and takes long above


@dataclass
class _Size:
    """The index of a string as far as it has been read."""

    dim: int  # numbers of a vector after the transforms
    per_frame: float = 0.0  # bytes
    fixed: float = 0.0  # bytes

    @property
    def vector(self) -> int:
        return 4 * self.dim


def checked_size(search: str, dim: int, capacity: int) -> int:
    """Returns the bytes that an index takes while it is built, about, if it may be built.

    Args:
        search: string of the index factory.
        dim: length of an embedding.
        capacity: frames in the index.

    Raises:
        ValueError: the string is not one of a supported family, a number in it is out of range, or
            the index would take more memory than it may.
    """
    size = _read(search, dim, capacity)
    total = int(capacity * size.per_frame + size.fixed)
    gib = _told_limit()
    most = gib * 2**30 if gib is not None else _GIB * 2**30 + 16.0 * dim * capacity
    if total > most:
        raise ValueError(
            f"search {search!r} would take about {total / 2**30:.1f} GiB for {capacity} frames of "
            f"{dim} numbers, more than {most / 2**30:.1f} GiB: choose a smaller index, or set "
            f"{LIMIT} to the GiB that it may take"
        )
    return total


def _told_limit() -> float | None:
    told = os.environ.get(LIMIT)
    if told is None:
        return None
    try:
        limit = float(told)
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise ValueError(f"{LIMIT} must be a number of GiB > 0, got {told!r}")
    return limit


def _read(search: str, dim: int, capacity: int) -> _Size:
    shown = search if len(search) <= _LONGEST else search[:40] + "..."
    unknown = f'search must be "exact" or a FAISS factory string for dim {dim}, got {shown!r}'
    if len(search) > _LONGEST or not search.isascii():
        raise ValueError(f"{unknown}: it must have at most {_LONGEST} characters, all ASCII")
    size = _Size(dim)
    words = search.split(",")
    while len(words) > 1 and (transform := _TRANSFORM.fullmatch(words[0])):
        _transform(search, size, transform, capacity)
        words.pop(0)
    size.per_frame += 3 * size.vector  # copies of what is trained on and added
    if words[0].startswith("IDMap"):
        raise ValueError(f"search must leave the ids to the bank, got {shown!r}")
    if len(words) > 1 and (refine := _REFINE.fullmatch(words[-1])):
        words.pop()
        code = _CODE_ONLY.fullmatch(refine["code"] or "Flat")
        if code is None or not _measures(code):
            raise ValueError(f"{unknown}: what refines must be Flat, SQ or PQ")
        _code(search, size, code, capacity)
    if len(words) == 2 and (cells := _CELLS.fullmatch(words[0])):
        _cells(search, size, cells, capacity)
        words.pop(0)
        size.per_frame += 100  # ids, the map from slots to places, and room to grow
    body = ",".join(words)
    if code := _CODE_ONLY.fullmatch(body):
        _code(search, size, code, capacity)
    elif len(words) <= 2 and not _CELLS.match(search) and (graph := _GRAPH.fullmatch(body)):
        _graph(search, size, graph, capacity)
    else:
        raise ValueError(
            f"{unknown}: banks take Flat, SQ, PQ and RaBitQ codes, in an IVF or HNSW index or "
            "alone, behind PCA, OPQ, RR, ITQ, Pad and L2norm, with RFlat or Refine"
        )
    return size


def _within(search: str, what: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise ValueError(f"{what} must be in {least} .. {most} in search {search!r}, got {value}")
    return value


def _transform(search: str, size: _Size, found: re.Match[str], capacity: int) -> None:
    name, n, out = found["name"], found["n"], found["out"]
    if name.startswith("L2"):
        if n or out:
            raise ValueError(f"L2norm must have no number in search {search!r}, got {n or out}")
        return
    dim = size.dim
    if name == "OPQ":
        size.dim = _within(search, "numbers behind OPQ", int(out or dim), 1, dim)
        _divides(search, size.dim, int(n or 0))
        _holds(search, capacity, 256, "one frame per code word")
    elif n or name not in ("RR", "ITQ"):  # which keep the numbers that there are
        most = _WIDEST if name in ("RR", "Pad") else dim
        size.dim = _within(search, f"numbers behind {name}", int(n or 0), 1, most)
    if name.startswith(("PCA", "ITQ")):
        _holds(search, capacity, size.dim, "one frame per number")
    if out and name != "OPQ":
        raise ValueError(f"{name} must have one number in search {search!r}, got two")
    size.fixed += 24.0 * max(dim, size.dim) ** 2 if name != "Pad" else 0
    size.per_frame += 2 * size.vector


def _divides(search: str, dim: int, parts: int) -> None:
    if parts < 1 or dim % parts:
        raise ValueError(
            f"the parts of PQ and OPQ must divide {dim} numbers in search {search!r}, got {parts}"
        )


def _holds(search: str, capacity: int, least: int, what: str) -> None:
    if least > capacity:
        raise ValueError(
            f"capacity must be at least {least} for search {search!r}, {what}, got {capacity}"
        )


def _measures(code: re.Match[str]) -> bool:
    """Returns whether codes give single distances; FAISS ends the process where others must."""
    return not (code["binary"] or code["fast"] or code["flat"] == "FlatDedup")


def _code(
    search: str, size: _Size, found: re.Match[str], capacity: int, most_bits: int = 16
) -> None:
    if found["scalar"]:
        size.per_frame += _SCALAR.get(found["scalar"], 1.0) * size.dim + 1
    elif found["binary"]:
        size.per_frame += size.dim / 8 + 32
    elif found["product"]:
        parts, bits = int(found["m"]), int(found["bits"] or 8)
        _divides(search, size.dim, parts)
        least, most = 4, 4 if found["fast"] else most_bits
        _within(search, "bits of PQ", bits, least, most)
        _holds(search, capacity, 1 << bits, "one frame per code word")
        size.per_frame += parts * bits / 8 + 2
        size.fixed += 3 * 2.0**bits * size.vector + 2.0**bits * 1024
    else:
        size.per_frame += size.vector


def _cells(search: str, size: _Size, found: re.Match[str], capacity: int) -> None:
    cells = int(found["cells"]) * {"k": 1 << 10, "M": 1 << 20}.get(found["unit"] or "", 1)
    if cells < 1:
        raise ValueError(f"search must have at least one cell, got {search!r}")
    _holds(search, capacity, cells, "one frame per cell")
    links = int(found["links"] or 32) if "_HNSW" in found[0] else 0
    if "_HNSW" in found[0]:
        _within(search, "links of HNSW", links, *_LINKS)
    size.fixed += cells * (3.0 * size.vector + 200 + 10 * links)


def _graph(search: str, size: _Size, found: re.Match[str], capacity: int) -> None:
    links = _within(search, "links of HNSW", int(found["links"] or 32), *_LINKS)
    size.per_frame += 10 * links + 64
    if found["code"]:
        if not _measures(found):
            raise ValueError(f"search must have Flat, SQ or PQ in a graph, got {search!r}")
        _code(search, size, found, capacity, most_bits=8)
        size.fixed += int(found["m"] or 0) * 4.0 * 65_536  # distances between code words
    else:
        size.per_frame += size.vector
