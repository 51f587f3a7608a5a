"""The organ: what lies where along the sweep, and how its tissue answers sound.

Lengths in the image plane are in units of the nominal imaging depth; x, along the sweep, is from 0
to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CLASSES = ("cyst", "nodule", "stone")  # the class of a video is the kind of lesion in the organ
KINDS = (*CLASSES, "vessel")  # structures that a frame can show; every organ has vessels

PROBE_RADIUS, HALF_ANGLE = 0.30, math.radians(31)
VISIBLE = 0.5  # a structure is in view where its slice has this share of its greatest radius


@dataclass(frozen=True)
class _Structure:
    kind: str
    lateral: float
    depth: float
    position: float  # centre along the sweep
    radii: tuple[float, float, float]  # lateral, depth, sweep
    drift: float  # change of ``lateral`` per x: an oblique vessel wanders through the image
    echo: float  # echo strength of a nodule relative to the tissue around it

    def in_view(self, x: float) -> bool:
        offset = (x - self.position) / self.radii[2]
        lateral = self.lateral + self.drift * (x - self.position)
        angle = math.atan2(lateral, PROBE_RADIUS + self.depth)
        return offset**2 < 1 - VISIBLE**2 and abs(angle) < HALF_ANGLE


@dataclass(frozen=True)
class Organ:
    """The organ of a patient."""

    structures: tuple[_Structure, ...]
    texture: Tensor  # [1, 1, x, depth, lateral], slow variation of the tissue's echo strength
    wall: float  # depth of the body wall
    floor: float  # depth of the bright interface below the organ
    tilt: float
    bend: float
    variation: float = 1.0  # how far tissue and walls change along the sweep, in [0, 1]

    def in_view(self, x: float) -> tuple[str, str, str]:
        """Returns a frame's label, such as "cyst+vessel" or "none", its lesion and its vessel."""
        seen = {s.kind for s in self.structures if s.in_view(x)}
        lesion = next((kind for kind in CLASSES if kind in seen), "none")
        label = "+".join(kind for kind in KINDS if kind in seen) or "none"
        return label, lesion, "vessel" if "vessel" in seen else "none"


def make_organ(rng: np.random.Generator, label: str, variation: float = 1.0) -> Organ:
    """Draws an organ with two or three lesions of a kind, and vessels."""
    wall = rng.uniform(0.10, 0.16)
    structures: list[_Structure] = []
    # Lesions lie in separate parts of the sweep, vessels anywhere.
    for part in rng.permutation(3)[: rng.integers(2, 4)]:
        structures.append(_place(rng, label, (part + rng.uniform(0.3, 0.7)) / 3, wall, structures))
    for _ in range(rng.integers(2, 4)):
        structures.append(_place(rng, "vessel", rng.uniform(0, 1), wall, structures))
    texture = torch.from_numpy(rng.standard_normal((1, 1, 9, 14, 14)).astype(np.float32))
    return Organ(
        structures=tuple(structures),
        texture=texture,
        wall=wall,
        floor=rng.uniform(0.84, 0.95),
        tilt=rng.uniform(-0.15, 0.15),
        bend=rng.uniform(-0.3, 0.1),
        variation=variation,
    )


def _place(
    rng: np.random.Generator, kind: str, position: float, wall: float, others: list[_Structure]
) -> _Structure:
    size = {"cyst": (0.09, 0.16), "nodule": (0.13, 0.2), "stone": (0.05, 0.08)}
    low, high = size.get(kind, (0.055, 0.085))
    radius = rng.uniform(low, high)
    drift = 0.0
    if kind == "vessel":
        radii = (radius, radius * rng.uniform(0.75, 1.0), rng.uniform(0.15, 0.3))
        drift = rng.uniform(-0.8, 0.8)
    else:
        radii = (radius, radius * rng.uniform(0.65, 0.95), rng.uniform(0.09, 0.15))
    for _ in range(50):
        depth = rng.uniform(wall + 0.12, 0.70)
        lateral = rng.uniform(-1, 1) * 0.8 * (PROBE_RADIUS + depth) * math.sin(HALF_ANGLE)
        apart = (
            math.hypot(lateral - other.lateral, depth - other.depth)
            > 1.3 * (radius + other.radii[0])
            or abs(position - other.position) > radii[2] + other.radii[2]
            for other in others
        )
        if all(apart):
            break
    echo = rng.choice([rng.uniform(0.05, 0.12), rng.uniform(6, 10)])
    return _Structure(kind, lateral, depth, position, radii, drift, float(echo))


def tissue_at(organ: Organ, x: Tensor, lateral: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Returns echo strength (power) and loss of amplitude per depth: [T, SAMPLES, BEAMS] each."""
    changed = x * organ.variation
    place = torch.stack([lateral / 0.9, down * 2 - 1, (changed * 2 - 1).expand_as(down)], dim=-1)
    slow = functional.grid_sample(
        organ.texture, place[None], padding_mode="border", align_corners=True
    )[0, 0]
    echo = 0.6 * torch.exp(1.0 * slow)
    loss = torch.full_like(down, 0.45)

    wavy = 0.012 * torch.sin(9 * lateral + 6 * changed) + 0.3 * lateral**2 * organ.bend
    wall = organ.wall + wavy
    layers = 0.35 + 0.9 * torch.sin(95 * down + 33 * wavy).clamp(min=0) ** 2
    inside_wall = torch.sigmoid((wall - down) / 0.006)
    echo = echo * (1 - inside_wall) + layers * inside_wall
    echo = echo + 5 * _bump((down - wall) / 0.008)
    floor = organ.floor + organ.tilt * lateral + organ.bend * lateral**2
    floor = floor + 0.03 * torch.sin(5 * changed)
    beyond = torch.sigmoid((down - floor) / 0.01)
    echo = echo * (1 - 0.85 * beyond) + 14 * _bump((down - floor) / 0.014)

    for s in organ.structures:
        offset = (x - s.position) / s.radii[2]
        across = (lateral - s.lateral - s.drift * (x - s.position)) / s.radii[0]
        along = (down - s.depth) / s.radii[1]
        wobble = 1 + 0.08 * torch.sin(3 * torch.atan2(along, across) + 7 * s.position)
        ratio = (across**2 + along**2 + offset**2).sqrt() / wobble
        body = torch.sigmoid((1 - ratio) / 0.06)
        rim = _bump((ratio - 1.08) / 0.09) * (offset.abs() < 1)
        if s.kind == "cyst":
            echo = echo * (1 - 0.995 * body) + 0.5 * rim
            loss = loss - 3.2 * body  # fluid passes sound: what lies behind is brighter
        elif s.kind == "vessel":
            echo = echo * (1 - 0.985 * body) + 1.6 * rim
        elif s.kind == "stone":
            front = torch.sigmoid(-along / 0.25)
            echo = echo * (1 - body) + 60 * body * front
            loss = loss + 45 * body
        else:
            grain = torch.sin(42 * lateral + 3 * slow) * torch.sin(46 * down + 2 * slow)
            echo = echo * (1 - body) + echo * body * s.echo * (1 + 0.75 * grain)
            echo = echo * (1 - 0.6 * rim)
    return echo, loss


def _bump(distance: Tensor) -> Tensor:
    # Without the limit most values would be denormal, and arithmetic with those is slow.
    return torch.exp(-(distance**2).clamp(max=60))
