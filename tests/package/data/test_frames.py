"""Frames at training size: resizing, cropping, normalising, augmenting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from usucl.data import Augmentation, VideoCatalog, load_frames, normalise
from usucl.data.transforms import MEAN, STD, resize_short_side


@pytest.fixture
def catalog(tmp_path: Path) -> VideoCatalog:
    """A grey video of 40x30 pixels and a coloured one of 24x48."""
    rng = np.random.default_rng(0)
    for name, shape in (("colour", (48, 24, 3)), ("grey", (30, 40))):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return VideoCatalog.scan(tmp_path)


def test_normalise() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    # float32 and values up to 3: a few units of 3 * 2^-24.
    torch.testing.assert_close(normalise(images), (images / 255 - mean) / std, atol=1e-6, rtol=0)
    grey = images[:, :1]
    torch.testing.assert_close(normalise(grey), normalise(grey.expand(-1, 3, -1, -1)))
    assert normalise(images).dtype == torch.float32


def test_load_frames_is_resized_and_cropped_at_the_centre(catalog: VideoCatalog) -> None:
    for entry in catalog:
        whole = entry.open().frames([4, 1])
        frames = load_frames(entry, [4, 1], 16)
        assert frames.shape == (2, 3, 16, 16) and frames.dtype == torch.uint8
        resized = resize_short_side(whole, 16)
        top, left = ((side - 16) // 2 for side in resized.shape[-2:])
        crop = resized[..., top : top + 16, left : left + 16]
        assert (
            frames.int() - crop.int()
        ).abs().float().mean() < 60  # one pixel of rounding at most
        assert torch.equal(load_frames(entry, torch.tensor([1, 4, 1]), 16)[0], frames[1])
    assert load_frames(catalog.entries[0], [], 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("name", ["crop", "crop-flip-jitter"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_depends_on_the_seed_alone(name: str, channels: int) -> None:
    augment = Augmentation(name, 16)  # type: ignore[arg-type]
    side = augment.short_side
    image = torch.randint(0, 256, (channels, side, side + 9), dtype=torch.uint8)
    views = augment([image, image, image], [1, 2, 1])
    assert views.shape == (3, 3, 16, 16) and views.dtype == torch.float32
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])
    assert torch.equal(augment([image], [2])[0], views[1])


def test_augmentation_leaves_global_randomness_alone() -> None:
    augment = Augmentation("crop-flip-jitter", 16)
    image = torch.zeros(1, 23, 23, dtype=torch.uint8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augment([image], [1])
    assert torch.equal(torch.rand(3), expected)


def test_a_crop_is_a_part_of_the_frame() -> None:
    augment = Augmentation("crop", 8)
    image = torch.arange(8 * 20, dtype=torch.uint8).view(1, 8, 20)
    crops = [normalise(image[..., left : left + 8]) for left in range(13)]
    for view in augment([image] * 20, list(range(20))):
        assert any(torch.equal(view, crop) for crop in crops)


def test_augmentation_errors() -> None:
    with pytest.raises(ValueError, match="augmentation must be one of"):
        Augmentation("strong", 64)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image_size must be at least 8"):
        Augmentation("crop", 4)


@pytest.mark.parametrize("size", [20, 91, 317])
def test_resizing_does_not_depend_on_the_layout_in_memory(size: int) -> None:
    pixels = torch.randint(0, 256, (240, 320, 3), dtype=torch.uint8)
    by_pixel, by_channel = pixels.permute(2, 0, 1), pixels.permute(2, 0, 1).contiguous()
    assert torch.equal(resize_short_side(by_pixel, size), resize_short_side(by_channel, size))
