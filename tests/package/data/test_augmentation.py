"""Views depend on frame and seed alone; what each option does."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sector_image import sector_image
from torch import Tensor
from torchvision.transforms import v2

from usucl.data import Augmentation, UltrasoundAugmentation, normalise
from usucl.data.augmentation import RECIPES
from usucl.data.augmentation.beams import find_sectors
from usucl.data.augmentation.draws import Draws, draw_geometry, draw_tones
from usucl.data.augmentation.speckle import speckle_field
from usucl.data.transforms import MEAN, STD, centre_view

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = settings(max_examples=25, deadline=None)
GREATEST = UltrasoundAugmentation(
    crop=(0.2, 0.9),
    crop_aspect=(0.7, 1.4),
    flip=0.5,
    rotation=(-20, 20),
    zoom=(0.7, 1.4),
    gain=(0.5, 1.5),
    time_gain=(0.5, 1.5),
    contrast=(0.5, 1.5),
    gamma=(0.5, 2),
    speckle=(0.1, 0.4),
    shadow=(0.3, 0.8),
    shadow_probability=0.5,
)


def random_images(seed: int, shapes: list[tuple[int, int, int]]) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=random) for shape in shapes]


def levels(views: Tensor) -> Tensor:
    """The 8-bit grey levels that views were made of: float [n, 3, S, S]."""
    std, mean = (torch.tensor(v).view(3, 1, 1) for v in (STD, MEAN))
    exact = (views * std + mean) * 255
    assert (exact - exact.round()).abs().max() < 1e-3
    return exact.round()


def one(image: Tensor, size: int, seed: int = 0, **options: Any) -> Tensor:
    """The grey levels of one view."""
    return levels(Augmentation(UltrasoundAugmentation(**options), size)([image], [seed]))[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 40])
def test_the_views_of_torchvision_are_what_they_were(channels: int, size: int) -> None:
    transforms = {
        "crop": v2.RandomCrop(size),
        "crop-flip-jitter": v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.4, contrast=0.4),
            ]
        ),
    }
    for name, transform in transforms.items():
        augment = Augmentation(name, size)  # type: ignore[arg-type]
        side = augment.short_side
        assert side == (size if name == "crop" else -(-size * 2**0.5 // 1))
        images = random_images(size, [(channels, side, side + 5 * (i % 2)) for i in range(6)])
        views = augment(images, list(range(6)))
        for image, seed, view in zip(images, range(6), views, strict=True):
            torch.manual_seed(seed)
            expected = transform(image).float()
            scale = torch.tensor(STD).mul(255).reciprocal().view(3, 1, 1)
            shift = torch.tensor(MEAN).div(torch.tensor(STD)).view(3, 1, 1)
            assert torch.equal(view, expected * scale - shift)


def test_a_crop_of_torchvision_is_this_one() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    corners = levels(Augmentation("crop", 8)([image] * 3, [0, 1, 2]))[:, 0, 0, 0]
    assert corners.tolist() == [128, 69, 6]


shapes = st.lists(
    st.sampled_from([(1, 24, 24), (3, 24, 24), (1, 24, 31), (1, 33, 24), (3, 70, 90)]),
    min_size=1,
    max_size=9,
)


@FEW
@given(shapes, st.sampled_from([*RECIPES, GREATEST]), st.integers(0, 2**63 - 1), st.randoms())
def test_a_view_depends_on_its_image_and_seed_alone(
    sizes: list[tuple[int, int, int]], options: Any, seed: int, order: Any
) -> None:
    augment = Augmentation(options, 17)
    images = random_images(seed % 1000, sizes)
    seeds = [(seed + number) % 2**63 for number in range(len(images))]
    views = augment(images, seeds)
    assert views.shape == (len(images), 3, 17, 17) and views.dtype == torch.float32
    within = levels(views)
    assert within.min() >= 0 and within.max() <= 255
    some = order.sample(range(len(images)), order.randint(1, len(images)))
    again = augment([images[i] for i in some], [seeds[i] for i in some])
    assert torch.equal(again, views[some])


@pytest.mark.parametrize("size", [16, 64])
def test_long_batches_are_made_in_parts_that_do_not_show(size: int) -> None:
    augment = Augmentation(GREATEST, size)
    images = random_images(1, [(1, 91, 91)] * 70)
    views = augment(images, list(range(70)))
    assert len({view.numpy().tobytes() for view in views}) == 70
    for number in (0, 15, 16, 69):
        assert torch.equal(augment([images[number]], [number])[0], views[number])


def test_seeds_of_any_sign_and_size() -> None:
    image = sector_image()
    seeds = [0, 1, -1, 2**63 - 1, 2**64 - 2]
    views = Augmentation("local", 32)([image] * 5, seeds)
    assert len({view.numpy().tobytes() for view in views}) == 5
    with pytest.raises(ValueError, match="seeds must be one per image, 2, got 1"):
        Augmentation("local", 32)([image, image], [1])


def test_nothing_is_made_of_nothing() -> None:
    assert Augmentation("global", 32)([], []).shape == (0, 3, 32, 32)


def test_other_processes_and_threads_make_the_same_views() -> None:
    code = (
        "import hashlib, torch; torch.set_num_threads(2); from usucl.data import Augmentation\n"
        "image = (torch.arange(90 * 90) * 7 % 256).to(torch.uint8).view(1, 90, 90)\n"
        "views = Augmentation('local', 64)([image] * 20, list(range(20)))\n"
        "print(hashlib.sha256(views.numpy().tobytes()).hexdigest())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    image = (torch.arange(90 * 90) * 7 % 256).to(torch.uint8).view(1, 90, 90)
    views = pickle.loads(pickle.dumps(Augmentation("local", 64)))([image] * 20, list(range(20)))
    assert ran.stdout.strip() == hashlib.sha256(views.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(24, 24), (24, 33), (40, 24), (24, 25)])
def test_without_strength_a_view_is_what_an_encoder_sees(
    channels: int, shape: tuple[int, int]
) -> None:
    image = random_images(5, [(channels, *shape)])[0]
    silent = dataclasses.replace(
        GREATEST,
        **{f.name: 0.0 for f in dataclasses.fields(GREATEST) if "probability" in f.name},
        flip=0.0,
    )
    for options in (UltrasoundAugmentation(), silent, {}, {"shadow_width": [0.2, 0.3]}):
        augment = Augmentation(options, 24)
        assert augment.short_side == 24
        assert torch.equal(augment([image], [3])[0], normalise(centre_view(image, 24)))


def test_what_one_option_does_is_independent_of_the_others() -> None:
    options = {"zoom": (0.7, 1.4), "gain": (0.5, 1.5), "speckle": (0.1, 0.4)}
    sectors = find_sectors(sector_image()[None].expand(9, -1, -1, -1))
    draws = Draws(list(range(9)))
    alone = draw_geometry(UltrasoundAugmentation(zoom=(0.7, 1.4)), draws, sectors)
    together = draw_geometry(UltrasoundAugmentation(**options), draws, sectors)
    assert np.array_equal(alone, together)
    brighter = one(sector_image(), 120, seed=4, gain=(0.5, 1.5)).max()
    assert one(sector_image(), 120, seed=4, gain=(0.5, 1.5), flip=1.0).max() == brighter


def test_the_sector_is_found() -> None:
    found = find_sectors(sector_image(160)[None])
    assert found.probe[0] == pytest.approx([80, 16], abs=5)
    assert found.depth[0] == pytest.approx(128, abs=8)
    assert found.face[0] == pytest.approx(48, abs=8)
    assert found.divergence[0] * found.depth[0] == pytest.approx(1.2, abs=0.4)
    straight = find_sectors(sector_image(160, divergence=0.0)[None])
    assert straight.divergence[0] == 0
    dark = find_sectors(torch.zeros(1, 1, 50, 40, dtype=torch.uint8))
    assert dark.depth[0] == 50 and dark.face[0] == 40


def test_text_and_holes_do_not_move_the_sector() -> None:
    image = sector_image(160)
    expected = find_sectors(image[None])
    marked = image.clone()
    marked[:, 2:7, 4:40] = 255  # a line of text in the corner
    marked[:, 70:90, 70:90] = 0  # a vessel
    found = find_sectors(marked[None])
    assert found.probe[0] == pytest.approx(expected.probe[0], abs=1)
    assert found.share(np.array([[[72, 72, 88, 88]]])).item() == pytest.approx(1)
    beside = marked.clone()
    beside[:, 20:140, 145:158] = 200  # a colour bar, as high as the sector
    assert find_sectors(beside[None]).probe[0, 0] > 85
    boxed = find_sectors(beside[None], (0.0, 0.0, 0.9, 1.0))
    assert boxed.probe[0] == pytest.approx(expected.probe[0], abs=1)


@FEW
@given(st.integers(0, 10**6), st.floats(0.3, 0.7))
def test_crops_hold_their_share_of_the_sector(seed: int, least: float) -> None:
    image = sector_image(96)
    view = one(image, 48, seed, crop=(0.1, 0.3), min_sector=least)
    # Places are looked at in cells of 3 pixels, so their shares are known to a few per cent.
    assert (view[0] > 50).float().mean() >= least - 0.1


def test_small_crops_of_wide_frames_lie_in_the_sector() -> None:
    wide = torch.zeros(1, 60, 200, dtype=torch.uint8)
    wide[:, :, 20:70] = 90
    views = Augmentation({"crop": [0.1, 0.3]}, 32)([wide] * 40, list(range(40)))
    share = (levels(views)[:, 0] > 50).float().mean((1, 2))
    assert (share > 0.6).float().mean() > 0.9 and share.std() < 0.2


@pytest.mark.parametrize("zoom", [0.7, 1.4])
def test_zoom_keeps_the_probe_in_place(zoom: float) -> None:
    image = sector_image()
    rows = [one(image, 120, zoom=(z, z))[0].gt(50).any(1).nonzero() for z in (1.0, zoom)]
    assert rows[0][0] == 12 and abs(int(rows[1][0]) - 12) <= 2
    last = min(12 + 96 * zoom, 119)
    assert int(rows[1][-1]) == pytest.approx(last, abs=3)


def test_rotation_is_clockwise_about_the_probe() -> None:
    image = sector_image()
    probe = find_sectors(image[None]).probe[0]
    turned = one(image, 120, rotation=(20, 20))[0] > 50
    assert turned[int(probe[1]) + 4, int(probe[0])]
    rows, columns = turned.nonzero().float().mean(0).tolist()
    straight = (image[0] > 50).nonzero().float().mean(0).tolist()
    assert columns < straight[1] - 10 and rows < straight[0]  # the depth swings to the left


def test_flip_mirrors() -> None:
    image = random_images(2, [(1, 32, 32)])[0]
    assert torch.equal(one(image, 32, flip=1.0)[0], image[0].flip(1).float())
    flipped = Augmentation({"flip": 0.3}, 32)([image] * 400, list(range(400)))
    plain = normalise(image)
    assert 0.2 < 1 - (flipped == plain).all(dim=(1, 2, 3)).float().mean() < 0.4


def test_gain_multiplies_and_saturates() -> None:
    image = sector_image(grey=100)
    assert torch.equal(one(image, 120, gain=(1.3, 1.3))[0], image[0] * 1.3)
    assert one(image, 120, gain=(3, 3)).max() == 255
    assert one(image, 120, gain=(0, 0)).max() == 0
    drawn = [one(image, 120, seed, gain=(0.5, 1.5)).max().item() for seed in range(40)]
    assert 50 <= min(drawn) < 70 and 130 < max(drawn) <= 150


def test_time_gain_is_a_smooth_curve_of_the_depth() -> None:
    image = torch.full((1, 64, 64), 100, dtype=torch.uint8)
    for seed in range(10):
        view = one(image, 64, seed, time_gain=(0.6, 1.4))[0]
        assert (view == view[:, :1]).all()  # parallel beams: rows are alike
        column = view[:, 0]
        assert column.min() >= 60 and column.max() <= 140
        assert column.diff().abs().max() <= 6
    assert column.max() - column.min() > 5


@given(st.floats(0, 1.5), st.floats(0.25, 4))
@FEW
def test_tone_curves_rise_from_black_to_white(contrast: float, gamma: float) -> None:
    options = UltrasoundAugmentation(contrast=(contrast, contrast), gamma=(gamma, gamma))
    curve = draw_tones(options, Draws([1]))[0].astype(int)
    assert curve[0] == 0 and curve[255] == 255 and (np.diff(curve) >= 0).all()


def test_gamma_and_contrast_do_what_they_say() -> None:
    image = torch.tensor([0, 64, 128, 191, 255], dtype=torch.uint8).repeat(8, 2)[None, :, :8]
    darker, brighter = (one(image, 8, gamma=(g, g))[0, 0] for g in (2.0, 0.5))
    assert darker[1] == round(255 * (64 / 255) ** 2) and brighter[1] == round(
        255 * (64 / 255) ** 0.5
    )
    steep, flat = (one(image, 8, contrast=(c, c))[0, 0] for c in (1.5, 0.5))
    assert steep[3] - steep[1] > 191 - 64 > flat[3] - flat[1]
    assert abs(steep[2] - 128) <= 1 and abs(flat[2] - 128) <= 1


@pytest.mark.parametrize("size", [64, 224])
def test_speckle_is_that_of_a_log_compressed_envelope(size: int) -> None:
    field = speckle_field(size)[0, 0].double()
    assert field.mean().abs() < 1e-5 and abs(field.std() - 1) < 1e-3
    assert (field**3).mean() < -0.5  # log-Rayleigh has a tail of dark points: -1.14
    along, across = ((field * field.roll(1, axis)).mean() for axis in (0, 1))
    assert 0.1 < along < across < 0.97


def test_speckle_keeps_black_and_mean() -> None:
    image = sector_image(grey=100)
    inside = image[0] > 0
    view = one(image, 120, speckle=(0.2, 0.2))[0]
    assert (view[~inside] == 0).all()
    assert view[inside].mean() == pytest.approx(100, abs=2)
    assert view[inside].std() == pytest.approx(20, abs=5)


def test_a_shadow_darkens_the_beams_below_its_start() -> None:
    image = torch.full((1, 96, 96), 100, dtype=torch.uint8)
    options = {"shadow": (0.8, 0.8), "shadow_width": (0.3, 0.3), "shadow_start": (0.5, 0.5)}
    for seed in range(8):
        view = one(image, 96, seed, **options)[0]
        assert (view[:46] == 100).all() and view.max() == 100
        darkened = (view[-1] < 99).nonzero()
        assert view[-1].min() <= 24
        assert int(darkened[-1] - darkened[0] + 1) <= 30
        assert torch.equal(view[-1], view[60])  # parallel beams


def test_shadows_follow_diverging_beams() -> None:
    image = sector_image(160)
    width = {}
    for row in (40, 130):
        views = Augmentation({"shadow": [0.7, 0.7]}, 160)([image] * 30, list(range(30)))
        dark = (levels(views)[:, 0, row] < 90) & (image[0, row] > 0)
        width[row] = dark.float().sum(1).mean()
    assert width[130] > 1.4 * width[40]


@FEW
@given(st.integers(0, 10**6))
def test_colours_keep_their_hue(seed: int) -> None:
    image = sector_image(96).repeat(3, 1, 1)
    image[:, 50:70, 40:56] = torch.tensor([200, 100, 20], dtype=torch.uint8).view(3, 1, 1)
    geometry = ("crop", "rotation", "zoom", "flip")
    options = dataclasses.replace(
        GREATEST, **{name: getattr(UltrasoundAugmentation(), name) for name in geometry}
    )
    view = levels(Augmentation(options, 96)([image], [seed]))[0]
    red, green, blue = view[:, 54:66, 44:52]
    assert ((green - red / 2).abs() <= 1).all() and ((blue - red / 10).abs() <= 1).all()


def test_large_frames_are_reduced_before() -> None:
    stripes = (torch.arange(400) % 2 * 200).to(torch.uint8).expand(1, 400, 400)
    view = one(stripes, 40)
    assert view.std() < 5 and view.mean() == pytest.approx(100, abs=5)


@pytest.mark.parametrize("name", ["crop", "crop-flip-jitter", "global", "local"])
def test_images_smaller_than_a_view_are_enlarged(name: str) -> None:
    images = [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in ((1, 8, 8), (3, 9, 70))]
    views = Augmentation(name, 32)(images, [1, 2])  # type: ignore[arg-type]
    assert views.shape == (2, 3, 32, 32) and bool(torch.isfinite(views).all())
