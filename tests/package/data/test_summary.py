"""What a video's frames look like: digests, perceptual hashes, and whether they move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from usucl.data import Note, Summary, VideoCatalog, open_video
from usucl.data.catalog.summary import find_notes, summarise


def scene(seed: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A smooth picture, uint8 [H, W]."""
    coarse = np.random.default_rng(seed).integers(0, 200, (6, 8), dtype=np.uint8)
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def clip(folder: Path, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def summary_of(folder: Path) -> Summary:
    summary = summarise(open_video(folder))
    assert summary is not None
    return summary


def test_digests_are_equal_where_frames_are(tmp_path: Path) -> None:
    pictures = [scene(i) for i in range(4)]
    first = summary_of(clip(tmp_path / "a", pictures))
    assert summary_of(clip(tmp_path / "b", pictures)) == first
    for name, others in (
        ("short", pictures[:3]),
        ("order", pictures[::-1]),
        ("frame", [*pictures[:3], scene(9)]),
        ("size", [scene(i, (96, 128)) for i in range(4)]),
    ):
        assert summary_of(clip(tmp_path / name, others)).digest != first.digest, name


def test_change_is_that_of_the_frame_furthest_from_the_first(tmp_path: Path) -> None:
    levels = [10, 10, 35, 12]
    stills = [np.full((16, 16), level, np.uint8) for level in levels]
    assert summary_of(clip(tmp_path / "moving", stills)).change == 25
    frozen = summary_of(clip(tmp_path / "frozen", [scene(0)] * 5))
    assert frozen.change == 0 and frozen.is_static
    assert summary_of(clip(tmp_path / "one", [scene(0)])).change == 0


def test_long_videos_are_looked_at_in_parts(tmp_path: Path) -> None:
    video = open_video(clip(tmp_path / "v", [scene(0), scene(0)]))
    for place in (1, 255, 256, 599):
        video.thumbnails = np.full((600, 32, 32), 7, np.uint8)
        video.thumbnails[place] += 5
        found = summarise(video)
        assert found is not None and found.change == 5


def test_fingerprints_survive_brightness_and_size_and_tell_scenes_apart(tmp_path: Path) -> None:
    def bits(a: Summary, b: Summary) -> list[int]:
        return [(x ^ y).bit_count() for x, y in zip(a.fingerprint, b.fingerprint, strict=True)]

    pictures = [scene(i) for i in range(9)]
    first = summary_of(clip(tmp_path / "a", pictures))
    assert len(first.fingerprint) == 5 and all(0 <= f < 2**64 for f in first.fingerprint)
    dim = summary_of(clip(tmp_path / "dim", [(p * 0.8 + 9).astype(np.uint8) for p in pictures]))
    large = summary_of(clip(tmp_path / "large", [scene(i, (96, 128)) for i in range(9)]))
    other = summary_of(clip(tmp_path / "other", [scene(i + 50) for i in range(9)]))
    assert max(bits(first, dim)) <= 6 and max(bits(first, large)) <= 6
    assert min(bits(first, other)) >= 12
    black = summary_of(clip(tmp_path / "black", [np.zeros((16, 16), np.uint8)] * 2))
    assert black.fingerprint == (0, 0)


def test_a_summary_is_json_and_back(tmp_path: Path) -> None:
    summary = summary_of(clip(tmp_path / "a", [scene(i) for i in range(3)]))
    assert Summary.from_json(summary.as_json()) == summary
    with pytest.raises(KeyError):
        Summary.from_json({"digest": ""})


def test_static_and_duplicate_videos_are_noted_and_stay(tmp_path: Path) -> None:
    moving = [scene(i) for i in range(3)]
    clip(tmp_path / "a", moving)
    clip(tmp_path / "copies" / "b", moving)
    clip(tmp_path / "still", [scene(7)] * 4)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    catalog = VideoCatalog.scan(tmp_path)
    assert [e.id for e in catalog] == ["a", "b", "still"] and catalog.skipped == ()
    assert catalog.notes == (
        Note("b", "duplicate", "the same frames as a"),
        Note("still", "static", "all 4 frames show the same"),
    )
    assert repr(catalog).endswith("patients unknown, 0 skipped, 1 duplicate, 1 static)")
    assert all(entry.open().thumbnails is None for entry in catalog)


def test_videos_that_nobody_has_looked_at_have_no_notes() -> None:
    still = Summary("d", (), 0.0)
    assert find_notes([("a", 3, None), ("b", 3, None), ("one", 1, still)]) == ()
