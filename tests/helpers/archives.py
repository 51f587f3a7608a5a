"""A small archive with one of everything, and what a scan reads of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_videos import write

from usucl.data.catalog import entry
from usucl.data.catalog.scanning import scan, search


def moving(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """uint8 [H, W, 3]: coarse noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 6), dtype=np.uint8)
    size = (width, height)
    pictures = (Image.fromarray(c).resize(size, Image.Resampling.BICUBIC) for c in coarse)
    return [np.asarray(picture.convert("RGB")) for picture in pictures]


def stills(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(moving(count, 16, 24, seed=seed)):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def stack(path: Path, count: int) -> Path:
    first, *others = (Image.fromarray(picture) for picture in moving(count, 16, 24))
    first.save(path, save_all=True, append_images=others)
    return path


def small_archive(root: Path) -> Path:
    """Writes an archive of 5 videos, one of them of one frame, a broken and an unknown file."""
    stills(root / "site" / "frames", 3)
    write(root / "clip.avi", moving(4, 16, 24))
    stack(root / "loop.tif", 5)
    stack(root / "loop.gif", 3)
    write(root / "short.avi", moving(1, 16, 24))
    (root / "broken.mp4").write_text("no video")
    (root / "odd.xyz").write_text("something")
    (root / "labels.csv").write_text("video_id,label,patient\nclip,ill,p\nframes,well,q\n")
    return root


def told_what_is_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is read from now on, whether to decode it or to see what it is."""
    names: list[str] = []

    def telling(function: Callable[..., object]) -> Callable[..., object]:
        def told(path: str | Path, **options: object) -> object:
            names.append(Path(path).name)
            return function(path, **options)

        return told

    for module, name in (
        (scan, "open_video"),
        (entry, "open_video"),
        (search, "is_stack"),
        (search, "is_video_file"),
    ):
        monkeypatch.setattr(module, name, telling(getattr(module, name)))
    return names


def lines_of_manifest(cache: Path) -> tuple[Path, list[bytes]]:
    """The one manifest in a cache folder, and its lines."""
    (file,) = (cache / "catalogs").iterdir()
    return file, file.read_bytes().splitlines(keepends=True)
