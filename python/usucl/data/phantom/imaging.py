"""The imaging: how a probe moves along an organ, and what a machine shows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from usucl.data.phantom.anatomy import HALF_ANGLE, PROBE_RADIUS, Organ, tissue_at
from usucl.data.phantom.machine import Machine

SAMPLES, BEAMS, SPARE_BEAMS = 152, 104, 16  # the beam grid; rocking brings spare beams into view
SPECKLE_LENGTH = 0.055  # along the sweep, in x: neighbouring frames share most of their speckle


@dataclass(frozen=True)
class Sweep:
    """One recording of an organ: what differs between the videos of a patient."""

    x: np.ndarray  # [T] probe position
    rock: np.ndarray  # [T] rotation of the probe, radians
    gain: float  # dB
    dynamic_range: float  # dB
    zoom: float  # ratio of the imaging depth to the nominal one
    gain_slope: float  # dB over the depth: how well the gain makes up for attenuation


def make_sweep(rng: np.random.Generator, frames: int) -> Sweep:
    """Draws a recording of about ``frames`` frames."""
    count = max(2, round(frames * rng.uniform(0.75, 1.25)))
    time = np.linspace(0, 1, count)
    # A hand does not move evenly: the speed swings by up to 40 % without ever turning back.
    pace = time + 0.4 / (2 * np.pi) * np.sin(2 * np.pi * (time + rng.uniform()))
    pace = (pace - pace[0]) / (pace[-1] - pace[0])
    begin, end = rng.uniform(0, 0.08), rng.uniform(0.92, 1)
    x = begin + (end - begin) * pace
    rock = sum(
        rng.normal(0, math.radians(1.2)) * np.sin(2 * np.pi * (k * time + rng.uniform()))
        for k in (0.5, 1.5, 3)
    )
    return Sweep(
        x=x if rng.uniform() < 0.5 else x[::-1].copy(),
        rock=np.asarray(rock) + rng.normal(0, math.radians(1.5)),
        gain=rng.uniform(-5, 5),
        dynamic_range=rng.uniform(46, 58),
        zoom=rng.uniform(0.9, 1.12),
        gain_slope=rng.uniform(-8, 2),
    )


def render(
    organ: Organ, sweep: Sweep, machine: Machine, rng: np.random.Generator, size: int
) -> np.ndarray:
    """Returns the frames of a sweep: uint8 [T, size, size]."""
    x = torch.from_numpy(sweep.x).float().view(-1, 1, 1)
    depth = torch.linspace(0, sweep.zoom, SAMPLES).view(1, -1, 1)
    angle = torch.linspace(-HALF_ANGLE, HALF_ANGLE, BEAMS).view(1, 1, -1)
    angle = angle + torch.from_numpy(sweep.rock).float().view(-1, 1, 1)
    lateral = (PROBE_RADIUS + depth) * angle.sin()  # [T, SAMPLES, BEAMS]
    down = (PROBE_RADIUS + depth) * angle.cos() - PROBE_RADIUS
    echo, loss = tissue_at(organ, x, lateral, down)
    step = sweep.zoom / SAMPLES
    transmitted = torch.exp(-torch.cumsum(loss, dim=1) * step)
    signal = machine.blur(_scatterers(sweep, rng) * (echo.sqrt() * transmitted).unsqueeze(1))
    floor = torch.from_numpy(rng.standard_normal(signal.shape).astype(np.float32))
    envelope = torch.hypot(*(signal + machine.noise * floor).unbind(1))
    level = 20 * torch.log10(envelope + 1e-6) + sweep.gain + sweep.gain_slope * depth
    grey = ((level + sweep.dynamic_range - 27) / sweep.dynamic_range).clamp(0, 1)
    images, sector = _scan_convert(machine.display(grey), size)
    return (machine.screen(images, sector) * 255).round().to(torch.uint8).numpy()


def _scatterers(sweep: Sweep, rng: np.random.Generator) -> Tensor:
    """Returns complex Gaussian scatterers on the beam grid: [T, 2, SAMPLES, BEAMS], unit variance.

    Slices are independent every SPECKLE_LENGTH along the sweep. In between they rotate from one to
    the next, which keeps the variance. Rocking shifts the beams over the scatterers.
    """
    depth = sweep.x / SPECKLE_LENGTH
    before = np.floor(depth).astype(np.int64)
    slices = rng.standard_normal(
        (int(before.max()) + 2, 2, SAMPLES, BEAMS + 2 * SPARE_BEAMS), dtype=np.float32
    )
    noise = torch.from_numpy(slices)
    turn = torch.from_numpy((depth - before) * np.pi / 2).float().view(-1, 1, 1, 1)
    field = turn.cos() * noise[before] + turn.sin() * noise[before + 1]
    shift = SPARE_BEAMS + sweep.rock * (BEAMS - 1) / (2 * HALF_ANGLE)
    shift = np.clip(shift, 0, 2 * SPARE_BEAMS - 1)
    first = torch.from_numpy(np.floor(shift).astype(np.int64)).view(-1, 1)
    columns = (first + torch.arange(BEAMS)).view(-1, 1, 1, BEAMS).expand(-1, 2, SAMPLES, -1)
    part = torch.from_numpy(shift % 1 * np.pi / 2).float().view(-1, 1, 1, 1)
    return part.cos() * field.gather(3, columns) + part.sin() * field.gather(3, columns + 1)


def _scan_convert(grey: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Maps [T, SAMPLES, BEAMS] to the sector on black, [T, size, size]; and which pixels it has."""
    reach = PROBE_RADIUS + 1
    top = PROBE_RADIUS * math.cos(HALF_ANGLE)
    extent = max(2 * reach * math.sin(HALF_ANGLE), reach - top) * 1.03
    centre = (torch.arange(size) + 0.5) / size - 0.5
    across = (centre * extent).view(1, -1)
    down = (centre * extent + (top + reach) / 2).view(-1, 1)
    radius = torch.hypot(across, down)
    angle = torch.atan2(across.expand_as(radius), down.expand_as(radius))
    place = torch.stack([angle / HALF_ANGLE, (radius - PROBE_RADIUS) * 2 - 1], dim=-1)
    image = functional.grid_sample(
        grey.unsqueeze(1), place.expand(len(grey), -1, -1, -1), align_corners=True
    )
    return image.squeeze(1), (place.abs() <= 1).all(dim=-1)
