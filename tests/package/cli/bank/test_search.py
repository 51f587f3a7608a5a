"""``usucl bank search``: by frame, image, slot and DICOM file, exactly what its filters leave."""

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
from shell import bank_json, stderr_line, write_run

from usucl.cli import main
from usucl.cli.bank.stored import StoredBank
from usucl.data import VideoError
from usucl.data.dicom import dicom_frame


def test_search_by_frame_image_and_slot(
    bank: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    query = f"{videos / 'b'}@1"
    answer = bank_json(capsys, "search", str(bank), query, "--k", "3", "--out", str(sheet))
    found = answer["neighbours"]
    assert [n["rank"] for n in found] == [1, 2, 3]
    assert (found[0]["video"], found[0]["frame"]) == ("b", 1)
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert Image.open(sheet).width > 500
    image = bank_json(capsys, "search", str(bank), str(videos / "b" / "1.png"), "--k", "3")
    assert image["neighbours"] == found
    slot = bank_json(capsys, "search", str(bank), "--slot", "5", "--k", "30")
    assert slot["query"] == "b @1" and slot["searched"] == 18
    assert sorted(n["slot"] for n in slot["neighbours"]) == [s for s in range(19) if s != 5]
    assert main(["bank", "search", str(bank), "--slot", "5", "--one-per-video"]) == 0
    assert "Nearest to b @1 of 18 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{b}@4"], "has 4 frames"),
        (["{b}/1.png@0"], "is one image"),
        (["{b}/9.png"], "no such file"),
        (["--slot", "19"], "slot must be 0 to 18"),
        (["--slot", "0", "--video", "aa"], "no video 'aa'; near it: a"),
        (["--slot", "0", "--exclude-video", "zz"], "it has a, b, c, d, e"),
        (["--slot", "0", "--label", "Stones"], "no label 'Stones'; near it: stone"),
        (["--slot", "0", "--patient", "p9"], "no patient 'p9'; it has p1, p2, p3"),
        (["--slot", "0", "--time", "0.5"], "LO HI"),
        (["--slot", "0", "--time", "0.5", "0.4"], "LO <= HI"),
        (
            ["--slot", "0", "--video", "a", "--label", "stone"],
            "nothing is left to search: 19 frames, 4 after --video, 0 after --label",
        ),
        (["--slot", "0", "--video", "a", "--time", "0", "0.1"], "the slot itself alone"),
    ],
)
def test_a_search_that_cannot_be(
    words: list[str], said: str, bank: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [word.format(b=videos / "b") for word in words]
    assert main(["bank", "search", str(bank), *named]) == 2
    assert said in stderr_line(capsys)


NAMES = {"video": "abcde", "patient": ["p1", "p2", "p3"], "label": ["cyst", "stone"]}


@st.composite
def _filters(draw: st.DrawFn) -> dict[str, list[str]]:
    kinds = ("video", "patient", "label", "exclude_video", "exclude_patient")
    chosen = {
        kind: draw(st.lists(st.sampled_from(NAMES[kind.split("_")[-1]]), max_size=2))
        for kind in draw(st.sets(st.sampled_from(kinds), max_size=3))
    }
    if draw(st.booleans()):
        lo, hi = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        chosen["time"] = [repr(lo), repr(hi)]
    return chosen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(_filters(), st.integers(0, 18), st.integers(1, 19), st.booleans())
def test_filters_leave_out_what_they_say_and_nothing_else(
    bank: Path,
    capsys: pytest.CaptureFixture[str],
    filters: dict[str, list[str]],
    slot: int,
    k: int,
    one_per_video: bool,
) -> None:
    stored = StoredBank.open(bank)

    def passes(s: int) -> bool:
        row = stored.describe(s)
        for kind, values in filters.items():
            name = kind.split("_")[-1]
            if kind == "time":
                ok = float(values[0]) <= stored.time[s] <= float(values[1])
            else:
                ok = not values or (row[name] in values) != kind.startswith("exclude")
            if not ok:
                return False
        return s != slot

    embedding = stored.bank.frames().embedding
    similarity = (embedding @ embedding[slot]).tolist()
    wanted = sorted(filter(passes, range(19)), key=lambda s: -similarity[s])
    if one_per_video:
        first: dict[int, int] = {}
        for s in wanted:
            first.setdefault(int(stored.video[s]), s)
        wanted = list(first.values())
    options = [
        w for n, values in filters.items() if values for w in (f"--{n.replace('_', '-')}", *values)
    ]
    options += ["--one-per-video"] if one_per_video else []
    words = ["search", str(bank), "--slot", str(slot), "--k", str(k), *options]
    if not wanted:
        assert main(["bank", *words]) == 2
        return
    found = bank_json(capsys, *words)["neighbours"]
    assert len(found) == min(k, len(wanted))
    # the frames of b and e may tie within rounding: similarities, not slots, are compared
    expected = [similarity[s] for s in wanted[:k]]
    assert [n["similarity"] for n in found] == pytest.approx(expected, abs=1e-6)
    assert {n["slot"] for n in found} <= set(filter(passes, range(19)))


def test_a_bank_is_searched_with_its_own_encoder(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, run = tmp_path / "bank", write_run(tmp_path / "run")
    assert main(["bank", "build", str(run), str(videos), "--out", str(bank)]) == 0
    other = write_run(tmp_path / "other", seed=1)
    capsys.readouterr()
    search = ["bank", "search", str(bank), str(videos / "a")]
    assert main([*search, "--run", str(other)]) == 2
    assert "not the one that made the bank" in stderr_line(capsys)
    run.rename(tmp_path / "moved")
    assert main(search) == 2
    assert "--run" in stderr_line(capsys)
    assert main([*search, "--run", str(tmp_path / "moved")]) == 0


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


def test_search_with_a_dicom_frame(
    bank: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "loop.dcm"
    pixels = np.stack([np.array(Image.open(videos / "c" / f"{n}.png")) for n in range(4)])
    _write_dicom(path, pixels, "MONOCHROME2")
    answer = bank_json(capsys, "search", str(bank), f"{path}@3", "--k", "1")
    assert answer["query"] == "loop.dcm @3"
    assert (answer["neighbours"][0]["video"], answer["neighbours"][0]["frame"]) == ("c", 3)
    assert main(["bank", "search", str(bank), f"{path}@4"]) == 2
    assert "has 4 frames" in stderr_line(capsys)
