"""The sector of made-up videos whose sector is known, with what devices draw around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from usucl.data import open_video
from usucl.data.inspection import Sector, find_sector, sector_of

HEIGHT, WIDTH = 240, 320


def linear(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The mask of a linear probe's sector, a rectangle."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 10 : -height // 8, width // 4 : -width // 5] = True
    return mask


def fan(inner: float, angle: float, *, hull: bool = False) -> np.ndarray:
    """The mask of a convex or phased probe's sector, beams from a point above, or its convex hull.

    The hull adds what lies between the curved face of the probe and its chord.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    apex = 0.05 * HEIGHT - inner * HEIGHT
    radius = np.hypot(y - apex, x - WIDTH / 2) / HEIGHT
    beam = np.abs(np.arctan2(x - WIDTH / 2, y - apex))
    chord = apex + inner * HEIGHT * np.cos(np.radians(angle))
    below = y >= chord if hull else radius >= inner
    return (beam <= np.radians(angle)) & below & (radius <= inner + 0.82)


def clip(
    mask: np.ndarray, *, moves: float = 1.0, seed: int = 0, frames: int = 5, noise: float = 0.0
) -> np.ndarray:
    """Frames uint8 [n, H, W, 3] of speckle within a mask, of which a share is new in each frame."""
    rng = np.random.default_rng(seed)
    height, width = mask.shape

    def speckle() -> np.ndarray:
        return np.hypot(*rng.normal(0, 1, (2, height, width)))

    still, fade = speckle(), np.linspace(1.2, 0.5, height)[:, None]
    pictures = []
    for _ in range(frames):
        echo = (1 - moves) * still + moves * speckle()
        soft = Image.fromarray((np.clip(45 * echo * fade, 0, 255) * mask).astype(np.uint8))
        grey = np.asarray(soft.filter(ImageFilter.GaussianBlur(0.7))) * mask
        pictures.append(np.clip(grey + rng.normal(0, noise, grey.shape), 0, 255))
    return np.repeat(np.stack(pictures).astype(np.uint8)[..., None], 3, -1)


def surrounded(
    frames: np.ndarray, draw: Callable[[ImageDraw.ImageDraw, int], None]
) -> list[Tensor]:
    """The frames with what is drawn on each, uint8 [3, H, W]."""
    made = []
    for number, frame in enumerate(frames):
        image = Image.fromarray(frame)
        draw(ImageDraw.Draw(image), number)
        made.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return made


def nothing(pen: ImageDraw.ImageDraw, number: int) -> None:
    """Draws nothing."""


def console(pen: ImageDraw.ImageDraw, number: int) -> None:
    """Names, settings, a depth scale, a bar of greys and a clock, as around a real sector."""
    for line, text in enumerate(("DOE, JANE", "ID 4711", "MI 0.8", "TIS 0.2", "Gn 52", "C5-1")):
        pen.text((3, 30 + 14 * line), text, fill=(230, 230, 230))
    pen.text((200, 2), f"12:03:{number:02d}", fill=(255, 255, 0))
    for tick in range(10, HEIGHT - 10, 10):
        pen.line(
            (WIDTH - 12, tick, WIDTH - (4 if tick % 50 == 0 else 8), tick), fill=(200, 200, 200)
        )
    for level in range(64):
        pen.line((WIDTH - 26, 60 + level, WIDTH - 20, 60 + level), fill=(4 * (63 - level),) * 3)
    pen.text((3, HEIGHT - 13), "General Hospital", fill=(180, 180, 180))


def panels(pen: ImageDraw.ImageDraw, number: int) -> None:
    """Grey panels with letters to the left and below, as on the screen of a portable device."""
    pen.rectangle((0, 0, 30, HEIGHT), fill=(60, 62, 66))
    pen.rectangle((0, HEIGHT - 24, WIDTH, HEIGHT), fill=(40, 40, 44))
    for line in range(8):
        pen.text((4, 6 + 25 * line), "G 50", fill=(240, 240, 240))
    pen.text((100, HEIGHT - 18), "Freeze  Save  Measure", fill=(255, 255, 255))


def overlap(sector: Sector | None, mask: np.ndarray) -> float:
    """Intersection over union of what was found and what is there."""
    assert sector is not None
    found = sector.mask()
    return float((found & mask).sum() / (found | mask).sum())


SECTORS = {"linear": linear(), "convex": fan(0.5, 30), "phased": fan(0.02, 42)}
HULLS = {**SECTORS, "convex": fan(0.5, 30, hull=True)}


@pytest.mark.parametrize("around", [nothing, console, panels])
@pytest.mark.parametrize("name", SECTORS)
def test_moving_sectors(name: str, around: Callable[[ImageDraw.ImageDraw, int], None]) -> None:
    mask = SECTORS[name]
    assert overlap(sector_of(surrounded(clip(mask), around)), HULLS[name]) > 0.93


@pytest.mark.parametrize("moves", [0.0, 0.02])
@pytest.mark.parametrize("name", SECTORS)
def test_sectors_of_which_nothing_or_little_moves(name: str, moves: float) -> None:
    mask = SECTORS[name]
    # A bar that touches the sector cannot be told from it without motion, and is taken with it.
    assert overlap(sector_of(surrounded(clip(mask, moves=moves), console)), HULLS[name]) > 0.9


def test_noise_of_a_codec_is_no_motion() -> None:
    mask = SECTORS["convex"]
    assert overlap(sector_of(surrounded(clip(mask, noise=0.8), console)), HULLS["convex"]) > 0.92


def test_shadows_and_black_depths_belong_to_the_sector() -> None:
    mask = SECTORS["convex"]
    frames = clip(mask)
    frames[:, 60:, 130:170] = 0
    frames[:, 120:200] = frames[:, 120:200] // 20  # 0 to 6 grey levels
    assert overlap(sector_of(surrounded(frames, console)), HULLS["convex"]) > 0.92


def test_a_video_without_a_border_is_all_sector() -> None:
    sector = sector_of(surrounded(clip(np.ones((120, 160), dtype=bool)), nothing))
    assert sector is not None
    assert sector.is_frame
    assert sector.box == (0, 0, 160, 120)
    assert sector.mask().all()


def test_black_bars_are_no_sector() -> None:
    mask = np.zeros((120, 160), dtype=bool)
    mask[20:100] = True
    sector = sector_of(surrounded(clip(mask), nothing))
    assert sector is not None
    left, top, right, bottom = sector.box
    assert (left, right) == (0, 160)
    assert abs(top - 20) <= 1
    assert abs(bottom - 100) <= 1
    assert not sector.is_frame


@pytest.mark.parametrize("grey", [0, 70])
def test_plain_pictures_have_no_sector(grey: int) -> None:
    assert sector_of([torch.full((3, 60, 80), grey, dtype=torch.uint8)] * 4) is None
    assert sector_of([]) is None


@pytest.mark.parametrize(("height", "width"), [(20, 16), (33, 500), (1200, 900)])
def test_any_size_of_frames(height: int, width: int) -> None:
    frames = clip(np.ones((height, width), dtype=bool), frames=2)
    sector = sector_of(surrounded(frames, nothing))
    assert sector is not None
    assert sector.is_frame
    assert (sector.height, sector.width) == (height, width)


def test_masks_of_resized_frames() -> None:
    sector = Sector(100, 200, ((20.0, 10.0), (180.0, 10.0), (180.0, 90.0), (20.0, 90.0)))
    assert sector.box == (20, 10, 180, 90)
    assert sector.share == pytest.approx(0.64)
    assert sector.mask().sum() == 160 * 80
    small = sector.mask(50, 100)
    assert small.shape == (50, 100)
    assert small.sum() == 80 * 40
    assert small[5:45, 10:90].all()


def test_the_sector_of_a_video_in_a_folder(tmp_path: Path) -> None:
    mask = SECTORS["phased"]
    for number, frame in enumerate(clip(mask, frames=3)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    assert overlap(find_sector(open_video(tmp_path)), mask) > 0.93


@pytest.mark.parametrize(
    ("name", "share"),
    [("Pneu_Avi_Video_001", 0.66), ("Reg_pat2Image_134348", 0.85), ("Reg_Image_181432_crop", 0.85)],
)
def test_sectors_of_real_videos(data_root: Path, name: str, share: float) -> None:
    """The shares were checked by eye, on a sheet of all videos."""
    sector = find_sector(open_video(data_root / "pocus" / "frames" / name))
    assert sector is not None
    assert sector.share == pytest.approx(share, abs=0.03)
