"""Ways to damage a file: what disks, networks and editors do to bytes, and extreme headers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**64 - 1)
_HEADER = 512  # bytes in which an extreme value is most likely read as a size or a count


def damaged(content: bytes, random: Random) -> bytes:
    """Returns other bytes than ``content``, damaged in one to three ways."""
    changed = content
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        changed = random.choice(_WAYS)(changed, random) or b"\0"
    return changed if changed != content else _flip(content, random)


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _span(content: bytes, random: Random) -> tuple[int, int]:
    begin = random.randrange(len(content))
    return begin, min(len(content), begin + random.randint(1, max(1, len(content) // 8)))


def _zero(content: bytes, random: Random) -> bytes:
    begin, end = _span(content, random)
    return content[:begin] + bytes(end - begin) + content[end:]


def _overwrite(content: bytes, random: Random) -> bytes:
    begin, end = _span(content, random)
    return content[:begin] + random.randbytes(end - begin) + content[end:]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _drop(content: bytes, random: Random) -> bytes:
    begin, end = _span(content, random)
    return content[:begin] + content[end:]


def _duplicate(content: bytes, random: Random) -> bytes:
    begin, end = _span(content, random)
    return content[:end] + content[begin:]


def _swap(content: bytes, random: Random) -> bytes:
    (a, b), (c, d) = sorted((_span(content, random), _span(content, random)))
    return (
        content if c < b else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]
    )


def _extreme(content: bytes, random: Random) -> bytes:
    width = random.choice((1, 2, 4, 8))
    value = random.choice(_EXTREMES) & ((1 << 8 * width) - 1)
    at = random.randrange(min(len(content), _HEADER))
    number = value.to_bytes(width, random.choice(("little", "big")))  # type: ignore[arg-type]
    return content[:at] + number + content[at + width :]


_WAYS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip, _flip, _zero, _overwrite, _cut, _drop, _duplicate, _swap, _extreme, _extreme,
)  # fmt: skip
