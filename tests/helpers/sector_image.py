"""A picture of an ultrasound sector, as plain as it can be."""

from __future__ import annotations

import torch
from torch import Tensor


def sector_image(side: int = 120, grey: int = 100, divergence: float = 1.2) -> Tensor:
    """A sector of one grey on black, from 10 % to 90 % of the height, its face 30 % wide."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    depth = (y / side - 0.1) / 0.8
    half = 0.15 * side * (1 + divergence * depth)
    inside = (depth >= 0) & (depth < 1) & ((x - side / 2).abs() < half)
    return (inside * grey).to(torch.uint8)[None]
