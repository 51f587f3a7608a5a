"""Frames of DICOM files: as bright as meant, known by content, refused if damaged or too large."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from tiny_dicom import SYNTAXES, write

from usucl.data import VideoCatalog, VideoError, open_video
from usucl.data.video.dicom import is_dicom

GREY = np.random.default_rng(0).integers(0, 230, (3, 16, 24), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 230, (3, 16, 24, 3), dtype=np.uint8)


def frame_of(path: Path, index: int) -> np.ndarray:
    """uint8 [3, H, W]."""
    return open_video(path)[index].numpy()


def palette(bits: int, width: int, factor: int) -> dict[str, Any]:
    entries = (np.arange(256) * factor).astype(f"<u{width}").tobytes()
    return {
        f"{primary}PaletteColorLookupTable{part}": value
        for primary in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, bits]), ("Data", entries))
    }


def in_16(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype("<u2")


@pytest.mark.parametrize(
    ("pixels", "more"),
    [
        (in_16(GREY), {"BitsStored": 8}),
        (in_16(GREY) | 0x4000, {"BitsStored": 8}),  # bits above the value are not part of it
        (in_16(GREY) << 8, {"BitsStored": 8, "HighBit": 15}),
        (in_16(RGB), {"BitsStored": 8}),
        (in_16(RGB) << 4, {"BitsStored": 12}),
        (in_16(RGB) << 8, {}),
        (GREY, palette(8, 1, 1)),
        (GREY, palette(8, 2, 1)),
        (GREY, palette(16, 2, 1)),
        (GREY, palette(16, 2, 257)),
        (GREY, palette(8, 2, 256)),
        (in_16(GREY), {"BitsStored": 8, **palette(16, 2, 256)}),
    ],
    ids=range(12),
)
def test_8_bits_are_as_bright_in_16(tmp_path: Path, pixels: np.ndarray, more: Any) -> None:
    looked_up = "RedPaletteColorLookupTableData" in more
    colours = "PALETTE COLOR" if looked_up else "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    shown = frame_of(write(tmp_path / "a", pixels, colours, **more), 1)
    meant = RGB[1].transpose(2, 0, 1) if pixels.ndim == 4 else np.stack([GREY[1]] * 3)
    assert np.array_equal(shown, meant)


def test_a_palette_of_bytes_may_have_more_than_256_entries(tmp_path: Path) -> None:
    entries = {k: v for k, v in palette(8, 1, 1).items()}
    for name, value in entries.items():
        entries[name] = [512, 0, 8] if name.endswith("Descriptor") else bytes(256) + value
    path = write(tmp_path / "a", in_16(GREY) + 256, "PALETTE COLOR", BitsStored=9, **entries)
    assert np.array_equal(frame_of(path, 0)[0], GREY[0])


def compressed(folder: Path) -> dict[str, bytes]:
    """Files of every way to pack pixels."""
    return {n: write(folder / n, GREY, syntax=uid).read_bytes() for n, uid in SYNTAXES.items()}


def test_every_cut_is_told(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    path = tmp_path / "cut"
    for name, content in compressed(tmp_path / "whole").items():
        path.write_bytes(content)
        assert len(open_video(path)) == 3, name
        for length in [*range(0, len(content) - 1, 37), len(content) - 9]:
            path.write_bytes(content[:length])
            with pytest.raises(VideoError) as told:
                open_video(path)
            assert "\n" not in str(told.value), name


def test_damage_is_told_in_one_sentence_or_harmless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "whole").mkdir()
    path = tmp_path / "damaged"
    for content in compressed(tmp_path / "whole").values():
        for _ in range(45):
            mutant = np.frombuffer(content, np.uint8).copy()
            places = rng.integers(0, len(mutant), rng.integers(1, 8))
            mutant[places] = rng.integers(0, 256, len(places))
            path.write_bytes(mutant.tobytes())
            try:
                frames = open_video(path)[:]
            except VideoError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            else:
                assert frames.shape[1] == 3


def deflated(path: Path, *pieces: bytes) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    file = io.BytesIO(b"\0" * 128 + b"DICM")
    file.seek(0, io.SEEK_END)
    write_file_meta_info(file, meta)
    packer = zlib.compressobj(9, wbits=-15)
    body = b"".join(map(packer.compress, pieces)) + packer.flush()
    path.write_bytes(file.getvalue() + body)
    return path


def test_what_inflates_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USUCL_MAX_INFLATED_BYTES", str(2**26))
    begin = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, 0xFFFFFFF0)
    path = deflated(tmp_path / "bomb", begin, *[bytes(2**23)] * 20)
    with pytest.raises(VideoError, match="set USUCL_MAX_INFLATED_BYTES to raise"):
        open_video(path)
    many = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, 0) * 100_000
    path = deflated(tmp_path / "many", *[many] * 30)
    before = time.monotonic()
    with pytest.raises(VideoError, match="too many elements"):
        open_video(path)
    assert time.monotonic() - before < 10


def test_what_a_header_would_cost_is_refused(tmp_path: Path) -> None:
    for rows, columns in ((32000, 32000), (65535, 60000), (1, 60000), (60000, 2)):
        path = write(tmp_path / "a", GREY, Rows=rows, Columns=columns)
        with pytest.raises(VideoError, match=r"too large.*USUCL_MAX_"):
            open_video(path)
    path = write(tmp_path / "a", GREY, NumberOfFrames=10**8)
    with pytest.raises(VideoError, match="cut short: 1152 of 38400000000 bytes of pixels"):
        open_video(path)


def test_a_frame_larger_than_the_header_says_is_refused(tmp_path: Path) -> None:
    Image.new("L", (9000, 9000)).save(file := io.BytesIO(), "jpeg")
    packed = encapsulate([file.getvalue()] * 3)
    path = write(tmp_path / "a", GREY, syntax=JPEGBaseline8Bit, packed=packed)
    with pytest.raises(VideoError, match="a frame is 9000x9000, not 24x16 as the header says"):
        open_video(path)
    segment = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * 2**22
    path = write(tmp_path / "a", GREY, syntax=RLELossless, packed=encapsulate([segment] * 3))
    with pytest.raises(VideoError, match="a frame unpacks to more than 24x16"):
        open_video(path)


@pytest.mark.parametrize("name", ["IM_0001", "I0000002", "scan.ima", "1.2.840.113", "a.DCM"])
def test_dicom_is_known_by_content(tmp_path: Path, name: str) -> None:
    data = pydicom.dcmread(write(tmp_path / name, GREY))
    (tmp_path / "v").mkdir()
    for i in range(2):
        Image.fromarray(GREY[i]).save(tmp_path / "v" / f"{i}.png")
    for form in ("whole", "explicit", "implicit"):
        if form != "whole":
            implicit = form == "implicit"
            syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            data.file_meta.TransferSyntaxUID = syntax
            data.save_as(tmp_path / name)
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(content[content.index(b"\x08\0\x16\0") :])
        assert [entry.num_frames for entry in VideoCatalog.scan(tmp_path)] == [3, 2], form
        assert np.array_equal(frame_of(tmp_path / name, 2)[0], GREY[2]), form


def test_other_files_are_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "a"
    rng = np.random.default_rng(0)
    contents = [rng.bytes(300) for _ in range(300)] + [b"\x08\0" * 200, b"\x02\0" * 200, bytes(400)]
    for content in contents:
        path.write_bytes(content)
        assert not is_dicom(path)


def test_files_without_pictures_are_left_out_and_told(tmp_path: Path) -> None:
    for name, kind in (("report", "ComprehensiveSRStorage"), ("file", "EncapsulatedPDFStorage")):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = getattr(pydicom.uid, kind), "1.2.3"
        data.save_as(tmp_path / name, enforce_file_format=True)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    write(tmp_path / "loop", GREY)
    write(tmp_path / "still", GREY[:1])
    catalog = VideoCatalog.scan(tmp_path)
    assert [entry.id for entry in catalog] == ["loop"]
    assert {item.path.name: item.reason for item in catalog.skipped} == {
        "report": "holds no picture, or is cut before it (DICOM Comprehensive SR Storage)",
        "file": "holds no picture, or is cut before it (DICOM Encapsulated PDF Storage)",
        "still": "too short: 1 of at least 2 frames",
    }
