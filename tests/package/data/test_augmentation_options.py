"""How the options of ultrasound augmentation are given, in Python, files and the page on them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sector_image import sector_image
from torchvision.transforms import v2

from usucl.data import Augmentation, FrameBatches, UltrasoundAugmentation, VideoCatalog
from usucl.data.augmentation import RECIPES
from usucl.data.augmentation.options import _RANGES
from usucl.training.presets import read_config

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = settings(max_examples=25, deadline=None)


def test_recipes() -> None:
    assert RECIPES["global"].crop == (1.0, 1.0) and RECIPES["global"].shadow == (0.0, 0.0)
    assert RECIPES["local"].crop[0] < 0.5
    assert Augmentation("global", 64).short_side == 64
    assert Augmentation("local", 64).short_side == 91
    image = sector_image()
    local = Augmentation({"recipe": "local"}, 32)([image] * 4, [1, 2, 3, 4])
    assert torch.equal(local, Augmentation("local", 32)([image] * 4, [1, 2, 3, 4]))
    calm = Augmentation({"recipe": "local", "crop": [1, 1]}, 32)
    assert calm.options == dataclasses.replace(RECIPES["local"], crop=(1.0, 1.0))


@given(st.data())
@FEW
def test_options_survive_a_file(data: st.DataObject) -> None:
    values: dict[str, Any] = {}
    for name, (least, most) in _RANGES.items():
        if data.draw(st.booleans()):
            bounds = st.floats(least, most, allow_subnormal=False)
            values[name] = tuple(sorted((data.draw(bounds), data.draw(bounds))))
            if not name.startswith(("shadow_", "crop_")):
                values[f"{name}_probability"] = data.draw(st.floats(0, 1))
    options = UltrasoundAugmentation(**values)
    assert UltrasoundAugmentation.of(options.options()) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speckel": [0, 1]}, r"augmentation\.speckel is no option.*did you mean speckle\?"),
        ({"recipe": "lokal"}, r"augmentation\.recipe must be one of global, local, got 'lokal'"),
        ({"gain": [1.4, 0.7]}, r"augmentation\.gain must be a pair \(lo, hi\) with 0 <= lo <= hi"),
        ({"crop": [0, 1]}, r"crop must be a pair \(lo, hi\) with 0\.05 <= lo"),
        ({"zoom": 1.2}, r"zoom must be a pair \(lo, hi\) in \[0\.5, 2\], got 1\.2"),
        ({"zoom": [1, "x"]}, r"zoom must be a pair .* got \[1, 'x'\]"),
        ({"gamma": [float("nan"), 1]}, r"gamma must be a pair"),
        ({"flip": 2}, r"augmentation\.flip must be in \[0, 1\], got 2"),
        ({"flip": True}, r"flip must be a number in \[0, 1\], got True"),
        ({"sector": [0.5, 0, 0.2, 1]}, r"sector must be \(left, top, right, bottom\) with"),
        ({"sector": [0, 1]}, r"sector must be \(left, top, right, bottom\) in"),
        ("lokal", r"augmentation must be one of crop, .*did you mean local"),
        (3, r"augmentation must be one of crop"),
    ],
)
def test_wrong_options_are_named(options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Augmentation(options, 64)


def test_options_in_a_configuration(tmp_path: Path) -> None:
    wanted = {"recipe": "local", "speckle": [0.0, 0.3]}
    file = tmp_path / "my.yaml"
    file.write_text("sampling:\n  augmentation: {recipe: local, speckle: [0.0, 0.3]}\n")
    config = read_config(file, {})
    assert config.sampling.augmentation == wanted
    stored = tmp_path / "stored.yaml"
    stored.write_text(config.to_yaml())
    assert read_config(stored, {}) == config
    given = read_config("dense", {"augmentation": UltrasoundAugmentation(flip=0.5)})
    assert given.sampling.augmentation == {"flip": 0.5}
    assert read_config("paper", {"augmentation": "global"}).sampling.augmentation == "global"
    file.write_text("sampling:\n  augmentation: {speckel: [0, 0.3]}\n")
    with pytest.raises(ValueError, match=rf"{file}: sampling.augmentation.speckel .* speckle\?"):
        read_config(file, {})
    for wrong in ("lokal", None, 3):
        with pytest.raises(
            ValueError, match=r"sampling\.augmentation must be one of crop, .* or opt"
        ):
            read_config("dense", {"augmentation": wrong})
    with pytest.raises(TypeError, match=r"^sampling\.augmentation\.zoom must be a pair"):
        read_config("dense", {"augmentation": {"zoom": 2}})


def test_batches_take_options(tmp_path: Path) -> None:
    for video in range(2):
        (tmp_path / f"v{video}").mkdir()
        for i in range(5):
            frame = v2.functional.to_pil_image(sector_image(40, 60 + 20 * i))
            frame.save(tmp_path / f"v{video}" / f"{i}.png")
    catalog = VideoCatalog.scan(tmp_path)
    options = {"recipe": "local", "flip": 0}
    first, second = (
        FrameBatches(catalog, image_size=16, augmentation=a)[0, 0]
        for a in (options, UltrasoundAugmentation.of(options))
    )
    assert torch.equal(first.anchor_view, second.anchor_view)
    assert not torch.equal(first.anchor_view, first.positive_view)


PAGE = Path(__file__).resolve().parents[3] / "docs" / "augmentation.md"


def test_the_page_has_every_option_its_range_and_a_picture(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    described = {name for heading in headings for name in heading.split(", ")}
    options = {f.name for f in dataclasses.fields(UltrasoundAugmentation)}
    assert described == {name for name in options if "probability" not in name}
    for name, bounds in _RANGES.items():
        cells = rows[name].split(" | ")
        assert cells[0] == "{:g} to {:g}".format(*bounds), name
        for recipe, cell in zip(("global", "local"), cells[1:], strict=True):
            likely = getattr(RECIPES[recipe], f"{name}_probability", 1.0)
            applied = "{:g} to {:g}".format(*getattr(RECIPES[recipe], name))
            wanted = applied if likely == 1 else f"{applied}, {likely:.0%}".replace("%", " %")
            main = name.partition("_")[0] if name.startswith(("crop_", "shadow_")) else name
            off = getattr(RECIPES[recipe], main) == getattr(UltrasoundAugmentation(), main)
            assert cell == ("-" if off else wanted), (recipe, name)
    pictures = re.findall(r"\]\((images/[^)]+)\)", page)
    assert len(set(pictures)) == len(headings) + len(RECIPES)
    assert all((PAGE.parent / picture).is_file() for picture in pictures)


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "page.yaml").write_text(block)
        assert read_config(tmp_path / "page.yaml", {}).sampling.augmentation != "crop-flip-jitter"
