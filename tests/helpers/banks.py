"""Made-up frames for banks, and equality of selections."""

from __future__ import annotations

import torch

from usucl.losses import Frames, Selection


def frames(
    m: int, seed: int, *, dim: int = 6, videos: int = 7, kind: str = "normal", patient: bool = True
) -> Frames:
    """Returns frames; ``tied`` ones are small integers: similarities are exact and often equal."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "tied":
        embedding = torch.randint(-1, 2, (m, dim), generator=generator).float()
    elif kind == "equal":
        embedding = torch.ones(m, dim)
    else:
        embedding = torch.nn.functional.normalize(torch.randn(m, dim, generator=generator))
    video = torch.randint(0, videos, (m,), generator=generator)
    known = torch.randint(-1, 3, (m,), generator=generator) if patient else None
    return Frames(embedding, video, torch.rand(m, generator=generator), known)


def assert_equal(ours: Selection, theirs: Selection) -> None:
    for name, a, b in zip(Selection._fields, ours, theirs, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name
