"""DICOM files as videos: pixels as pydicom converts them, times, counts, patients, plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from tiny_dicom import SYNTAXES, dataset, jpeg, write
from tiny_videos import moving

from usucl import open_video
from usucl.data import VideoError
from usucl.data.dicom import dicom_frame
from usucl.data.video import restore_video, video_facts
from usucl.data.video.dicom.video import DicomVideo
from usucl.data.video.images.image import thumbnail

COLOURS = np.stack(moving(5, 36, 52))
COLOURS = np.stack([COLOURS[..., 0], COLOURS[..., 1] // 2, 255 - COLOURS[..., 2]], axis=-1)
GREY = COLOURS[..., 0].copy()
TIMES = {"FrameIncrementPointer": 0x00181063, "FrameTime": "40"}
BUNDLED = (
    "ExplVR_BigEnd.dcm",  # in planes
    "examples_jpeg2k.dcm",  # YBR_RCT
    "examples_palette.dcm",
    "examples_ybr_color.dcm",  # a loop of YBR_FULL_422 in JPEG
    "JPEGLSNearLossless_08.dcm",
    "JPGExtended.dcm",  # of 12 bits
    "MR_small_jp2klossless.dcm",
    "MR_small_bigendian.dcm",
    "rtdose_rle.dcm",  # of 32 bits
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # lossless
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
)


def converted(path: Path, low: float = 0, high: float = 255) -> np.ndarray:
    """float64 [N, H, W, 3] by pydicom's own functions, grey values from ``low`` to ``high``."""
    data = pydicom.dcmread(path)
    pixels = pixel_array(data, raw=False)
    pixels = pixels.reshape(-1, data.Rows, data.Columns, *pixels.shape[pixels.ndim - 1 :][
        : data.SamplesPerPixel - 1])  # fmt: skip
    if data.PhotometricInterpretation == "PALETTE COLOR":
        looked_up = apply_color_lut(pixels, data)
        return (looked_up >> 8 if looked_up.max() > 255 else looked_up).astype(float)
    if data.SamplesPerPixel == 3:
        return (pixels >> (data.BitsStored - 8)).astype(float)
    values = apply_voi_lut(apply_modality_lut(pixels, data), data).astype(float)
    shown = ((values - low) * 255 / (high - low)).clip(0, 255)
    if data.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    return np.repeat(shown[..., None], 3, axis=-1)


def assert_as_pydicom(video: Any, *black_white: float) -> None:
    meant = converted(video.path, *black_white)
    shown = video[:].permute(0, 2, 3, 1).numpy()
    assert shown.shape == meant.shape
    assert np.abs(shown - meant).max() <= 0.5 + 1e-6
    for index in (len(video) - 1, 0, len(video) // 2):
        assert np.array_equal(video[index].permute(1, 2, 0).numpy(), shown[index])


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2", "RGB"])
def test_every_syntax_that_can_be_written(tmp_path: Path, syntax: str, colours: str) -> None:
    pixels = COLOURS if colours == "RGB" else GREY
    path = write(tmp_path / "IM_0001", pixels, colours, syntax=SYNTAXES[syntax], **TIMES)
    video = open_video(path)
    assert isinstance(video, DicomVideo) and video.damage is None
    assert len(video) == 5 and (video.height, video.width) == (36, 52)
    assert video.times == pytest.approx(np.arange(5) * 0.04) and video.frame_rate == 25
    assert_as_pydicom(video)
    again = restore_video(path, json.loads(json.dumps(video_facts(video))))
    assert torch.equal(again[:], video[:]) and repr(again) == repr(video)
    assert np.array_equal(again.times, video.times)
    shown = video[:].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(video.thumbnails, [thumbnail(Image.fromarray(frame)) for frame in shown])


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_files(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    video = open_video(path)
    assert_as_pydicom(video, *(video._range or ()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("syntax", ["explicit", "big", "deflated", "rle"])
@pytest.mark.parametrize(
    ("bits", "more"),
    [
        (12, {}),
        (12, {"WindowCenter": 1500, "WindowWidth": 900}),
        (12, {"WindowCenter": [1500, 9], "WindowWidth": [900, 9], "VOILUTFunction": "SIGMOID"}),
        (12, {"WindowCenter": 0, "WindowWidth": 0}),  # written for no window
        (16, {"RescaleSlope": "0.5", "RescaleIntercept": "-1024"}),
        (16, {"RescaleSlope": None, "RescaleIntercept": None, "ModalityLUTSequence": []}),
        (16, {"PixelRepresentation": 1, "WindowCenter": -90, "WindowWidth": 4000}),
        (8, {"WindowCenter": 127, "WindowWidth": 100}),
    ],
    ids=range(8),
)
def test_one_scaling_for_all_frames(tmp_path: Path, syntax: str, bits: int, more: Any) -> None:
    pixels = (GREY.astype(np.int64) * np.arange(1, 6)[:, None, None] * 3) % 2**bits
    kind = np.uint8 if bits == 8 else np.uint16
    low, high = 0.0, 2.0**bits - 1  # what a window spreads over
    if more.get("PixelRepresentation"):
        pixels, kind = pixels - 900, np.int16
        low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    if not more.get("WindowWidth"):
        values = pixels * float(more.get("RescaleSlope") or 1)
        values += float(more.get("RescaleIntercept") or 0)
        low, high = values.min(), values.max()
    path = write(tmp_path / "a", pixels.astype(kind), syntax=SYNTAXES[syntax],
                 BitsStored=bits, **more)  # fmt: skip
    video = open_video(path)
    assert video._range == pytest.approx((low, high))  # type: ignore[attr-defined]
    if more.get("WindowWidth") == 0 or more.get("RescaleSlope", 1) is None:  # written for none
        meant = (pixels - low) * 255 / (high - low)
        assert np.abs(video[:][:, 0].numpy() - meant).max() <= 0.5 + 1e-6
    else:
        assert_as_pydicom(video, low, high)


def test_planes_halved_colours_and_values_that_are_not_finite(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(COLOURS.transpose(0, 3, 1, 2)).reshape(COLOURS.shape)
    video = open_video(write(tmp_path / "planes", planes, "RGB", PlanarConfiguration=1))
    assert np.array_equal(video[:].permute(0, 2, 3, 1).numpy(), COLOURS)
    assert_as_pydicom(open_video(write(tmp_path / "full", COLOURS, "YBR_FULL")))
    halved = COLOURS.reshape(5, 36, 26, 2, 3)
    packed = np.concatenate([halved[..., 0], halved[:, :, :, 0, 1:]], axis=-1)
    data = dataset(COLOURS, "YBR_FULL_422")
    data.PixelData = np.ascontiguousarray(packed).tobytes()
    data.save_as(tmp_path / "halved", enforce_file_format=True)
    assert_as_pydicom(open_video(tmp_path / "halved"))
    wrong = open_video(write(tmp_path / "wrong", COLOURS, "YBR_FULL_422"))  # they are not halved
    assert torch.equal(wrong[:], open_video(tmp_path / "full")[:])
    data = dataset(GREY.astype(np.float32))
    data.FloatPixelData = data.PixelData
    del data.PixelData, data.BitsStored, data.HighBit
    data.save_as(tmp_path / "float", enforce_file_format=True)
    assert_as_pydicom(open_video(tmp_path / "float"), GREY.min(), GREY.max())
    data.FloatPixelData = np.where(GREY.max() == GREY, np.nan, GREY).astype(np.float32).tobytes()
    data.save_as(tmp_path / "nan", enforce_file_format=True)
    with pytest.raises(VideoError, match="there are values that are not finite"):
        open_video(tmp_path / "nan")


@pytest.mark.parametrize(
    ("more", "times"),
    [
        ({"FrameTime": "33.5"}, [0, 0.0335, 0.067, 0.1005, 0.134]),
        ({"FrameTimeVector": [0, 10, 20, 10, 20]}, [0, 0.01, 0.03, 0.04, 0.06]),
        ({"FrameTimeVector": [10, 20, 10, 20]}, [0, 0.01, 0.03, 0.04, 0.06]),
        ({"FrameTimeVector": [0, 10], "CineRate": "10"}, [0, 0.1, 0.2, 0.3, 0.4]),
        ({"FrameTimeVector": [0, 10, 0, 10, 20], "FrameTime": "5"}, [0, 0.005, 0.01, 0.015, 0.02]),
        ({"FrameTimeVector": [0, 10, 20, 10, 20], "FrameTime": "5",
          "FrameIncrementPointer": 0x00181065}, [0, 0.01, 0.03, 0.04, 0.06]),
        ({"FrameTimeVector": [0, 10, 20, 10, 20], **TIMES}, [0, 0.04, 0.08, 0.12, 0.16]),
        ({"FrameTime": "0", "RecommendedDisplayFrameRate": "20"}, [0, 0.05, 0.1, 0.15, 0.2]),
        ({"CineRate": "0"}, None),
        ({}, None),
    ],
    ids=range(10),
)  # fmt: skip
def test_times(tmp_path: Path, more: Any, times: list[float] | None) -> None:
    video = open_video(write(tmp_path / "a.dcm", GREY, **more))
    assert video.times == (None if times is None else pytest.approx(times))
    assert video.frame_rate == (None if times is None else pytest.approx(4 / times[-1]))


@pytest.mark.parametrize(("syntax", "stated"), [("explicit", 3), ("explicit", 7), ("rle", 3),
                         ("jpeg", 7), ("jpeg", 1), ("jpeg2000", 9)])  # fmt: skip
def test_a_wrong_number_of_frames_is_told(tmp_path: Path, syntax: str, stated: int) -> None:
    path = write(tmp_path / "a", GREY, syntax=SYNTAXES[syntax])
    data = pydicom.dcmread(path)
    data.NumberOfFrames = stated
    data.save_as(path)
    told = "5 frames are there, but its header says" if stated < 5 else f"5 of {stated} frames are"
    with pytest.raises(VideoError, match=told):
        open_video(path)
    video = open_video(path, damaged="keep")
    assert len(video) == 5 and video.damage is not None
    meant = open_video(write(tmp_path / "b", GREY, syntax=SYNTAXES[syntax]))
    assert torch.equal(video[:], meant[:])


def test_frames_in_several_fragments_and_wrong_tables(tmp_path: Path) -> None:
    frames = [jpeg(frame) for frame in GREY]
    whole = open_video(write(tmp_path / "whole", GREY, syntax=JPEGBaseline8Bit))[:]
    packings = {
        "table": encapsulate(frames, fragments_per_frame=3),
        "no table": encapsulate(frames, fragments_per_frame=3, has_bot=False),
        "one each": encapsulate(frames, has_bot=False),
    }
    table = bytearray(packings["table"])
    table[12:16] = (9999).to_bytes(4, "little")
    packings["wrong table"] = bytes(table)
    for name, packed in packings.items():
        path = write(tmp_path / name, GREY, syntax=JPEGBaseline8Bit, packed=packed)
        assert torch.equal(open_video(path)[:], whole), name


def test_broken_frames_are_dropped_from_a_kept_loop(tmp_path: Path) -> None:
    frames = [jpeg(frame) for frame in GREY]
    frames[1] = frames[1][:60]
    path = write(tmp_path / "a", GREY, syntax=JPEGBaseline8Bit, packed=encapsulate(frames), **TIMES)
    with pytest.raises(VideoError, match="a frame is not JPEG Baseline"):
        open_video(path)
    video = open_video(path, damaged="keep")
    assert len(video) == 4 and "1 of 5 frames are broken (frame 1 " in str(video.damage)
    assert video.times == pytest.approx([0, 0.08, 0.12, 0.16])
    whole = open_video(write(tmp_path / "b", GREY, syntax=JPEGBaseline8Bit))
    assert torch.equal(video[1:], whole[2:])
    assert torch.equal(restore_video(path, video_facts(video))[:], video[:])


def test_pixels_packed_otherwise_than_stated_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a", GREY, syntax=JPEGBaseline8Bit)
    stated = ExplicitVRLittleEndian.ljust(len(JPEGBaseline8Bit), "\0").encode()
    path.write_bytes(path.read_bytes().replace(JPEGBaseline8Bit.encode(), stated))
    with pytest.raises(VideoError, match="its pixels are compressed, its header says they are not"):
        open_video(tmp_path / "a")
    write(path, GREY)
    path.write_bytes(
        path.read_bytes().replace(ExplicitVRLittleEndian.encode(), RLELossless.encode(), 1)
    )
    with pytest.raises(VideoError, match="its pixels are not in fragments"):
        open_video(path)


def test_a_still_has_one_frame_and_its_patient(tmp_path: Path) -> None:
    video = open_video(write(tmp_path / "a", GREY[:1], PatientID="Müller 7 ",
                             SpecificCharacterSet="ISO_IR 192"))  # fmt: skip
    assert len(video) == 1 and video.patient == "Müller 7"
    assert open_video(write(tmp_path / "b", GREY, PatientID="")).patient is None


def test_doubtful_headers_are_logged_by_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a", COLOURS, "RGB", syntax=JPEGBaseline8Bit)  # which is YBR
    caplog.clear()
    assert len(open_video(path)[:]) == len(COLOURS) and not caplog.records
    assert not pydicom.config.logger.disabled


def test_a_patients_number_with_a_backslash(tmp_path: Path) -> None:
    assert open_video(write(tmp_path / "a", GREY, PatientID=["7", "b"])).patient == r"7\b"


def test_a_missing_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from usucl.data.video.dicom import codestream

    monkeypatch.setattr(codestream, "find_spec", lambda name: None)
    path = write(tmp_path / "a", GREY, syntax=RLELossless)
    assert len(open_video(path)) == 5  # pydicom itself decodes it
    lossless = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False)))
    decoder = pydicom.pixels.get_decoder(pydicom.dcmread(lossless).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {})
    needed = r"JPEG Lossless.*: decoding them needs pylibjpeg-libjpeg: pip install 'usucl\[dicom\]'"
    with pytest.raises(VideoError, match=needed):
        open_video(lossless)


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    video = open_video(write(tmp_path / "a", GREY, syntax=ExplicitVRLittleEndian))
    write(tmp_path / "a", GREY[:2])
    with pytest.raises(VideoError, match="frame 4 is gone: the file was changed"):
        video[4]
    write(tmp_path / "a", GREY[:, :20].copy())
    with pytest.raises(VideoError, match="another size than when opened"):
        video[0]


def test_the_shared_loop_of_clinical_ultrasound(data_root: Path) -> None:
    assert_as_pydicom(open_video(data_root / "dicom" / "OBXXXX1A_rle_2frame.dcm"))
    loop = open_video(data_root / "dicom" / "examples_ybr_color.dcm")
    assert len(loop) == 30 and loop.patient == "204"
    assert loop.frame_rate == pytest.approx(30, rel=1e-3)


def test_single_frames_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "loop", np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8))
    video = open_video(path)
    frame, number = dicom_frame(path)
    assert number == 2 and frame.equal(video[2])
    assert dicom_frame(path, 4)[0].equal(video[-1])
    with pytest.raises(IndexError, match="has 5 frames, got @-1"):
        dicom_frame(path, -1)
    (tmp_path / "other").write_text("no picture")
    with pytest.raises(VideoError, match="not a DICOM file"):
        dicom_frame(tmp_path / "other")
