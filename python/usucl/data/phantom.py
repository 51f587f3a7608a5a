"""Synthetic ultrasound sweeps: a labelled data set to try the whole path without real data.

A probe slides along an organ (coordinate x, 0 to 1) and sees one slice after another. Lesions
are ellipsoids that come and go along the sweep. Every slice is imaged by a simple convolution
model of B-mode imaging: random scatterers weighted by the tissue's echo strength, blurred by the
point-spread function, attenuated along the beam, demodulated to the envelope (which makes Rayleigh
speckle), log-compressed, and scan-converted from beams to the sector of a convex probe. The
scatterers are fixed in the organ, so the speckle moves with the probe and decorrelates along the
sweep.

Lengths in the image plane are in units of the nominal imaging depth.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from usucl._progress import track

CLASSES = ("cyst", "nodule", "stone")  # the class of a video is the kind of lesion in the organ
MARK = "SYNTHETIC.txt"  # a file in a folder of synthetic videos
KINDS = (*CLASSES, "vessel")  # structures that a frame can show; every organ has vessels
FRAME_COLUMNS = ("video_id", "frame", "label", "lesion", "vessel")

SAMPLES, BEAMS, SPARE_BEAMS = 152, 104, 16  # the beam grid; rocking brings spare beams into view
PROBE_RADIUS, HALF_ANGLE = 0.30, math.radians(31)
SPECKLE_LENGTH = 0.055  # along the sweep, in x: neighbouring frames share most of their speckle
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
class _Organ:
    structures: tuple[_Structure, ...]
    texture: Tensor  # [1, 1, x, depth, lateral], slow variation of the tissue's echo strength
    wall: float  # depth of the body wall
    floor: float  # depth of the bright interface below the organ
    tilt: float
    bend: float

    def in_view(self, x: float) -> tuple[str, str, str]:
        """Returns a frame's label, such as "cyst+vessel" or "none", its lesion and its vessel."""
        seen = {s.kind for s in self.structures if s.in_view(x)}
        lesion = next((kind for kind in CLASSES if kind in seen), "none")
        label = "+".join(kind for kind in KINDS if kind in seen) or "none"
        return label, lesion, "vessel" if "vessel" in seen else "none"


@dataclass(frozen=True)
class _Sweep:
    """One recording of an organ: what differs between the videos of a patient."""

    x: np.ndarray  # [T] probe position
    rock: np.ndarray  # [T] rotation of the probe, radians
    gain: float  # dB
    dynamic_range: float  # dB
    zoom: float  # ratio of the imaging depth to the nominal one
    gain_slope: float  # dB over the depth: how well the gain makes up for attenuation


def write_phantom(
    out: str | Path, *, videos: int = 24, frames: int = 48, image_size: int = 128, seed: int = 0
) -> Path:
    """Writes synthetic ultrasound videos as folders of PNG frames with their labels.

    Two videos show the same patient, with different gain, depth, speed and direction. The class of
    a video (cyst, nodule or stone) is the kind of lesion in the organ. The label of a frame is what
    is in view, and its columns ``lesion`` and ``vessel`` say the same one by one. Only the content
    tells either: the recording settings are drawn independently.

    Args:
        out: folder to make, with a folder per video, labels.csv, frame_labels.csv, README.txt and
            SYNTHETIC.txt, by which :func:`is_synthetic` knows the videos.
        videos: number of videos.
        frames: mean number of frames per video; each has 0.75 to 1.25 times as many, at least 2.
        image_size: side of the square frames in pixels.
        seed: the same seed gives the same files.

    Returns:
        The folder.

    Raises:
        ValueError: ``out`` already holds something, or an argument is too small.
    """
    out = Path(out)
    for name, value, least in (
        ("videos", videos, 1),
        ("frames", frames, 2),
        ("image_size", image_size, 32),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out must be a new or empty folder, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    video_rows, frame_rows = [], []
    for number in track(range(videos), "Making videos", unit="videos"):
        patient, take = divmod(number, 2)
        label = CLASSES[patient % len(CLASSES)]
        organ = _make_organ(np.random.default_rng([seed, patient]), label)
        rng = np.random.default_rng([seed, patient, 1 + take])
        sweep = _make_sweep(rng, frames)
        name = f"patient{patient:02d}_{'ab'[take]}"
        (out / name).mkdir()
        for index, image in enumerate(_render(organ, sweep, rng, image_size)):
            Image.fromarray(image).save(out / name / f"{index:05d}.png", compress_level=1)
        fold = patient // len(CLASSES) % 4
        video_rows.append((name, label, f"patient{patient:02d}", fold))
        frame_rows += [(name, i, *organ.in_view(float(x))) for i, x in enumerate(sweep.x)]
    _write_table(out / "labels.csv", ("video_id", "label", "patient", "fold"), video_rows)
    _write_table(out / "frame_labels.csv", FRAME_COLUMNS, frame_rows)
    (out / "README.txt").write_text(
        f"Synthetic ultrasound: {videos} videos of {-(-videos // 2)} patients, seed {seed}.\n"
        "Made by usucl.data.write_phantom; not images of a patient.\n"
        "labels.csv: class of the lesion, patient and fold of every video.\n"
        "frame_labels.csv: the structures in view in every frame, joined by +, or none; and by\n"
        "themselves the lesion and the vessel in view.\n",
        encoding="utf-8",
    )
    mark_synthetic(out)
    return out


def mark_synthetic(folder: Path) -> None:
    """Marks the videos of a folder as synthetic, for :func:`is_synthetic`."""
    text = "The videos in this folder are synthetic: they show no patient.\n"
    (folder / MARK).write_text(text, encoding="utf-8")


def is_synthetic(folder: str | Path) -> bool:
    """Returns whether :func:`write_phantom` made the videos of a folder."""
    folder = Path(folder)
    if (folder / MARK).is_file():
        return True
    about = folder / "README.txt"  # earlier versions wrote this file only
    if not about.is_file():
        return False
    with about.open("rb") as file:
        return b"Made by usucl.data.write_phantom" in file.read(500)


def _make_organ(rng: np.random.Generator, label: str) -> _Organ:
    wall = rng.uniform(0.10, 0.16)
    structures: list[_Structure] = []
    # Lesions lie in separate parts of the sweep, vessels anywhere.
    for part in rng.permutation(3)[: rng.integers(2, 4)]:
        structures.append(_place(rng, label, (part + rng.uniform(0.3, 0.7)) / 3, wall, structures))
    for _ in range(rng.integers(2, 4)):
        structures.append(_place(rng, "vessel", rng.uniform(0, 1), wall, structures))
    texture = torch.from_numpy(rng.standard_normal((1, 1, 9, 14, 14)).astype(np.float32))
    return _Organ(
        structures=tuple(structures),
        texture=texture,
        wall=wall,
        floor=rng.uniform(0.84, 0.95),
        tilt=rng.uniform(-0.15, 0.15),
        bend=rng.uniform(-0.3, 0.1),
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


def _make_sweep(rng: np.random.Generator, frames: int) -> _Sweep:
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
    return _Sweep(
        x=x if rng.uniform() < 0.5 else x[::-1].copy(),
        rock=np.asarray(rock) + rng.normal(0, math.radians(1.5)),
        gain=rng.uniform(-5, 5),
        dynamic_range=rng.uniform(46, 58),
        zoom=rng.uniform(0.9, 1.12),
        gain_slope=rng.uniform(-8, 2),
    )


def _render(organ: _Organ, sweep: _Sweep, rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns the frames of a sweep: uint8 [T, size, size]."""
    x = torch.from_numpy(sweep.x).float().view(-1, 1, 1)
    depth = torch.linspace(0, sweep.zoom, SAMPLES).view(1, -1, 1)
    angle = torch.linspace(-HALF_ANGLE, HALF_ANGLE, BEAMS).view(1, 1, -1)
    angle = angle + torch.from_numpy(sweep.rock).float().view(-1, 1, 1)
    lateral = (PROBE_RADIUS + depth) * angle.sin()  # [T, SAMPLES, BEAMS]
    down = (PROBE_RADIUS + depth) * angle.cos() - PROBE_RADIUS
    echo, loss = _tissue(organ, x, lateral, down)
    step = sweep.zoom / SAMPLES
    transmitted = torch.exp(-torch.cumsum(loss, dim=1) * step)
    signal = _blur(_scatterers(sweep, rng) * (echo.sqrt() * transmitted).unsqueeze(1))
    floor = torch.from_numpy(rng.standard_normal(signal.shape).astype(np.float32))
    envelope = torch.hypot(*(signal + 0.01 * floor).unbind(1))
    level = 20 * torch.log10(envelope + 1e-6) + sweep.gain + sweep.gain_slope * depth
    grey = ((level + sweep.dynamic_range - 27) / sweep.dynamic_range).clamp(0, 1)
    return _scan_convert(grey, size)


def _tissue(organ: _Organ, x: Tensor, lateral: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Returns echo strength (power) and loss of amplitude per depth: [T, SAMPLES, BEAMS] each."""
    place = torch.stack([lateral / 0.9, down * 2 - 1, (x * 2 - 1).expand_as(down)], dim=-1)
    slow = functional.grid_sample(
        organ.texture, place[None], padding_mode="border", align_corners=True
    )[0, 0]
    echo = 0.6 * torch.exp(1.0 * slow)
    loss = torch.full_like(down, 0.45)

    wavy = 0.012 * torch.sin(9 * lateral + 6 * x) + 0.3 * lateral**2 * organ.bend
    wall = organ.wall + wavy
    layers = 0.35 + 0.9 * torch.sin(95 * down + 33 * wavy).clamp(min=0) ** 2
    inside_wall = torch.sigmoid((wall - down) / 0.006)
    echo = echo * (1 - inside_wall) + layers * inside_wall
    echo = echo + 5 * _bump((down - wall) / 0.008)
    floor = organ.floor + organ.tilt * lateral + organ.bend * lateral**2 + 0.03 * torch.sin(5 * x)
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


def _scatterers(sweep: _Sweep, rng: np.random.Generator) -> Tensor:
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


def _blur(signal: Tensor) -> Tensor:
    """Applies the point-spread function, narrow along the beam and wider across; keeps variance."""
    kernels = []
    for width in (1.0, 1.7):
        offsets = torch.arange(-5.0, 6.0)
        kernel = torch.exp(-0.5 * (offsets / width) ** 2)
        kernels.append(kernel / kernel.norm())
    flat = signal.reshape(-1, 1, *signal.shape[2:])
    flat = functional.conv2d(flat, kernels[0].view(1, 1, -1, 1), padding=(5, 0))
    flat = functional.conv2d(flat, kernels[1].view(1, 1, 1, -1), padding=(0, 5))
    return flat.view_as(signal)


def _scan_convert(grey: Tensor, size: int) -> np.ndarray:
    """Maps [T, SAMPLES, BEAMS] in [0, 1] to the sector on black: uint8 [T, size, size]."""
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
    return (image.squeeze(1) * 255).round().to(torch.uint8).numpy()


def _write_table(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
