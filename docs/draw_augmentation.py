"""Draws images/augmentation-*.png: what each option of ultrasound augmentation does to a frame.

The frames are those of synthetic videos, so that no patient is shown. Every picture begins with the
frame as an encoder sees it without augmentation.

    python docs/draw_augmentation.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from usucl.data import Augmentation, UltrasoundAugmentation, open_video, write_phantom
from usucl.data.transforms import MEAN, STD

IMAGES = Path(__file__).resolve().parent / "images"
SIDE, GAP, TITLE = 192, 6, 22  # pixels
VIDEO, FRAME = "patient01_b", 2

# Name of the picture -> option -> values, or recipe -> seeds.
OPTIONS: dict[str, list[tuple[str, dict[str, object], int]]] = {
    "crop": [
        (f"crop {area:g}", {"crop": (area, area)}, seed)
        for area, seed in ((0.6, 1), (0.4, 2), (0.2, 3), (0.2, 7))
    ],
    "rotation": [
        (f"rotation {angle:+g}", {"rotation": (angle, angle)}, 1) for angle in (-20, -8, 8, 20)
    ],
    "zoom": [(f"zoom {zoom:g}", {"zoom": (zoom, zoom)}, 1) for zoom in (0.7, 0.85, 1.2, 1.5)],
    "gain": [(f"gain {gain:g}", {"gain": (gain, gain)}, 1) for gain in (0.4, 0.7, 1.4, 2.0)],
    "time-gain": [
        (f"time_gain {lo:g} to {hi:g}", {"time_gain": (lo, hi)}, seed)
        for lo, hi, seed in ((0.7, 1.3, 281), (0.7, 1.3, 87), (0.3, 1.7, 281), (0.3, 1.7, 87))
    ],
    "contrast": [
        (f"contrast {slope:g}", {"contrast": (slope, slope)}, 1) for slope in (0.3, 0.6, 1.3, 1.5)
    ],
    "gamma": [(f"gamma {power:g}", {"gamma": (power, power)}, 1) for power in (0.5, 0.7, 1.4, 2.0)],
    "speckle": [
        (f"speckle {level:g}", {"speckle": (level, level)}, 1) for level in (0.1, 0.2, 0.35, 0.5)
    ],
    "shadow": [
        (
            f"shadow {dark:g}, width {width:g}",
            {
                "shadow": (dark, dark),
                "shadow_width": (width, width),
                "shadow_start": (start, start),
            },
            seed,
        )
        for dark, width, start, seed in (
            (0.4, 0.2, 0, 3),
            (0.8, 0.1, 0, 5),
            (0.8, 0.3, 0, 8),
            (0.8, 0.15, 0.4, 4),
        )
    ],
    "flip": [("flip", {"flip": 1.0}, 1)],
}
RECIPES = {"global": range(10), "local": range(10)}


def frame_of(folder: Path) -> Tensor:
    """Returns the frame that is shown: uint8 [1, H, W]."""
    write_phantom(folder, videos=4, frames=24, image_size=320, seed=1)
    return open_video(folder / VIDEO)[FRAME][:1]


def as_image(view: Tensor) -> Image.Image:
    grey = (view[0] * STD[0] + MEAN[0]).mul(255).round().clamp(0, 255)
    return Image.fromarray(grey.numpy().astype(np.uint8))


def sheet(tiles: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Returns pictures in rows, each under its title."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    page = Image.new(
        "L", (columns * (SIDE + GAP) - GAP, rows * (SIDE + TITLE + GAP) - GAP), color=255
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (title, tile) in enumerate(tiles):
        x, y = number % columns * (SIDE + GAP), number // columns * (SIDE + TITLE + GAP)
        draw.text((x + 2, y + 2), title, fill=0, font=font)
        page.paste(tile, (x, y + TITLE))
    return page


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        frame = frame_of(Path(folder) / "videos")
    plain = ("as it is", as_image(Augmentation(UltrasoundAugmentation(), SIDE)([frame], [0])[0]))
    pages = {
        name: sheet(
            [plain]
            + [
                (title, as_image(Augmentation(options, SIDE)([frame], [seed])[0]))
                for title, options, seed in tiles
            ],
            5,
        )
        for name, tiles in OPTIONS.items()
    }
    for name, seeds in RECIPES.items():
        views = Augmentation(name, SIDE)([frame] * len(seeds), list(seeds))  # type: ignore[arg-type]
        pages[name] = sheet(
            [(f"seed {s}", as_image(v)) for s, v in zip(seeds, views, strict=True)], 5
        )
    for name, page in pages.items():
        page.save(IMAGES / f"augmentation-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
