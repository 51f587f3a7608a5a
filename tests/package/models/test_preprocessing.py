"""What an encoder sees of an image: of any kind, and bit for bit what evaluation embeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from usucl.data import VideoCatalog, load_frames, normalise
from usucl.models import EncoderConfig, FrameEncoder


@pytest.fixture(scope="module")
def encoder() -> FrameEncoder:
    return FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=8)).eval()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)


def test_images_of_every_kind_are_one(
    encoder: FrameEncoder, rgb: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(rgb).save(tmp_path / "frame.png")
    last = torch.from_numpy(rgb)
    first = last.permute(2, 0, 1)
    kinds = [
        tmp_path / "frame.png",
        str(tmp_path / "frame.png"),
        Image.fromarray(rgb),
        rgb,
        rgb[None],
        rgb.transpose(2, 0, 1),
        rgb[::-1][::-1],
        np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]),
        last,
        first,
        first[None],
        first.to(memory_format=torch.contiguous_format),
        rgb / 255,
        last / 255,
        (first / 255).double(),
        [rgb],
        (tmp_path / "frame.png",),
    ]
    expected = encoder.preprocess(kinds[0])
    assert expected.shape == (1, 3, 32, 32) and expected.dtype == torch.float32
    for kind in kinds:
        assert torch.equal(encoder.preprocess(kind), expected), type(kind)
    assert encoder.features(expected).shape == (1, 512)


def test_grey_images_and_batches(encoder: FrameEncoder, rgb: np.ndarray) -> None:
    grey = rgb[..., 0]
    expected = encoder.preprocess(np.stack([grey] * 3, axis=2))
    for one in (grey, grey[..., None], grey[None], Image.fromarray(grey), torch.from_numpy(grey)):
        assert torch.equal(encoder.preprocess(one), expected)
    five = encoder.preprocess(np.stack([grey] * 5))
    assert torch.equal(five, expected.expand(5, 3, 32, 32))
    sizes = encoder.preprocess([grey, rgb[:40], Image.fromarray(rgb)])
    assert torch.equal(sizes[:1], expected) and len(sizes) == 3


def test_images_are_seen_as_evaluation_sees_them(encoder: FrameEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "video"
    folder.mkdir(parents=True)
    frames = np.random.default_rng(1).integers(0, 256, (3, 45, 90, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    (entry,) = VideoCatalog.scan(tmp_path / "data")
    expected = normalise(load_frames(entry, range(3), 32))
    for kind in (folder, entry.open(), frames, sorted(folder.iterdir())):
        assert torch.equal(encoder.preprocess(kind), expected)


def test_the_input_follows_the_weights(rgb: np.ndarray) -> None:
    encoder = FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=8))
    encoder.eval().bfloat16()
    assert encoder.preprocess(rgb).dtype == torch.bfloat16
    assert encoder(encoder.preprocess(rgb)).isfinite().all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (3, "image must be a PIL image, a path, .* got int"),
        ([], "image must hold at least one image, got none"),
        (np.zeros((40, 40, 3), np.int64), r"must be uint8, or floats in \[0, 1\], got torch.int64"),
        (np.zeros((4, 4), object), "got an array of object"),
        (np.full((40, 40), 255.0), "got floats from 255 to 255"),
        (np.full((40, 40), np.nan), "got floats from nan to nan"),
        (np.zeros((2, 5, 40, 40), np.uint8), r"got the shape \[2, 5, 40, 40\]"),
        (np.zeros((0, 40, 40, 3), np.uint8), r"got the shape \[0, 40, 40, 3\]"),
        (np.zeros((1000, 3), np.uint8), "at most 16 times as long as wide, got 3x1000"),
        (Image.new("I;16", (40, 40)), "8 bits per channel, got a PIL image I;16"),
        ("no-such-file.png", "no-such-file.png: no such file or folder"),
    ],
)
def test_other_things_are_refused(encoder: FrameEncoder, image: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        encoder.preprocess(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), "got ndarray"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "got torch.float64"),
        (torch.zeros(3, 32, 32), r"got the shape \[3, 32, 32\]"),
        (torch.zeros(1, 1, 32, 32), r"got the shape \[1, 1, 32, 32\]"),
        (torch.zeros(1, 32, 32, 3), r"got the shape \[1, 32, 32, 3\]"),
    ],
)
def test_raw_images_are_refused_with_the_way_to_prepare_them(
    encoder: FrameEncoder, images: object, message: str
) -> None:
    expected = rf"images must be a torch.float32 tensor \[B, 3, 32, 32\], {message}: .*preprocess\("
    for call in (encoder, encoder.features):
        with pytest.raises((TypeError, ValueError), match=expected):
            call(images)


def test_shapes_can_be_tried_without_memory() -> None:
    with torch.device("meta"):
        encoder = FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=8))
        assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 8)
        with pytest.raises(TypeError, match=r"got torch\.float64"):
            encoder(torch.zeros(2, 3, 32, 32, dtype=torch.float64))


def test_images_of_another_size_are_warned_of(encoder: FrameEncoder) -> None:
    with pytest.warns(UserWarning, match=r"50x40, .* trained on 32x32: encoder\.preprocess\("):
        assert encoder(torch.zeros(1, 3, 40, 50)).shape == (1, 8)
