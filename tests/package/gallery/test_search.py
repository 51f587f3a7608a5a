"""``Gallery.search``: exactly what its filters leave, by slot and by a frame of a DICOM file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from usucl.data import VideoError
from usucl.data.dicom import dicom_frame
from usucl.gallery import Gallery

NAMES = {"video": "abcde", "patient": ["p1", "p2", "p3"], "label": ["cyst", "stone"]}


@st.composite
def _filters(draw: st.DrawFn) -> dict[str, list[Any]]:
    kinds = ("video", "patient", "label", "exclude_video", "exclude_patient")
    chosen: dict[str, list[Any]] = {
        kind: draw(st.lists(st.sampled_from(NAMES[kind.split("_")[-1]]), max_size=2))
        for kind in draw(st.sets(st.sampled_from(kinds), max_size=3))
    }
    if draw(st.booleans()):
        lo, hi = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        chosen["time"] = [lo, hi]
    return chosen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(_filters(), st.integers(0, 18), st.integers(1, 19), st.booleans())
def test_filters_leave_out_what_they_say_and_nothing_else(
    bank: Path, filters: dict[str, list[Any]], slot: int, k: int, one_per_video: bool
) -> None:
    gallery = Gallery.open(bank)

    def passes(s: int) -> bool:
        row = vars(gallery.describe(s))
        for kind, values in filters.items():
            name = kind.split("_")[-1]
            if kind == "time":
                ok = values[0] <= row["time"] <= values[1]
            else:
                ok = not values or (row[name] in values) != kind.startswith("exclude")
            if not ok:
                return False
        return s != slot

    embedding = gallery.bank.frames().embedding
    similarity = (embedding @ embedding[slot]).tolist()
    wanted = sorted(filter(passes, range(19)), key=lambda s: -similarity[s])
    if one_per_video:
        first: dict[int, int] = {}
        for s in wanted:
            first.setdefault(int(gallery.contents.video[s]), s)
        wanted = list(first.values())
    if not wanted:
        with pytest.raises(ValueError, match="nothing is left to search"):
            gallery.search(slot, k=k, one_per_video=one_per_video, **filters)
        return
    found = gallery.search(slot, k=k, one_per_video=one_per_video, **filters).matches
    assert len(found) == min(k, len(wanted))
    # the frames of b and e may tie within rounding: similarities, not slots, are compared
    expected = [similarity[s] for s in wanted[:k]]
    assert [match.similarity for match in found] == pytest.approx(expected, abs=1e-6)
    assert {match.slot for match in found} <= set(filter(passes, range(19)))


def _write_dicom(path: Path, pixels: np.ndarray, kind: str, **more: Any) -> None:
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID = "1.2.3"
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape[:3]
    data.SamplesPerPixel = pixels.shape[3] if pixels.ndim == 4 else 1
    data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
    for name, value in more.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


def test_dicom_frames_look_as_they_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "loop.dcm"
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    _write_dicom(path, rgb, "RGB")
    image, number = dicom_frame(path)
    assert number == 1 and np.array_equal(image.permute(1, 2, 0).numpy(), rgb[1])
    grey = rgb[..., 0].copy()
    _write_dicom(path, grey, "MONOCHROME2")
    assert np.array_equal(dicom_frame(path, 2)[0].numpy(), np.stack([grey[2]] * 3))
    _write_dicom(path, grey, "MONOCHROME1")
    assert np.array_equal(dicom_frame(path, 2)[0][1].numpy(), 255 - grey[2])
    _write_dicom(path, grey.astype(np.uint16) * 16, "MONOCHROME2", BitsStored=12, HighBit=11)
    deep = dicom_frame(path, 0)[0].float()
    assert deep.min() == 0 and deep.max() == 255
    with pytest.raises(IndexError, match="has 3 frames"):
        dicom_frame(path, 3)
    path.write_bytes(b"x" * 400)
    with pytest.raises(VideoError, match="not a DICOM file"):
        dicom_frame(path)


def test_search_with_a_dicom_frame(bank: Path, videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "loop.dcm"
    pixels = np.stack([np.array(Image.open(videos / "c" / f"{n}.png")) for n in range(4)])
    _write_dicom(path, pixels, "MONOCHROME2")
    gallery = Gallery.open(bank)
    query, searched, matches = gallery.search(f"{path}@3", k=1)
    assert query.name == "loop.dcm @3" and query.slot is None and searched == 19
    nearest = gallery.describe(matches[0].slot)
    assert (nearest.video, nearest.frame) == ("c", 3)
    with pytest.raises(ValueError, match="has 4 frames"):
        gallery.search(f"{path}@4")
