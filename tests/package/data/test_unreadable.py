"""What cannot be read is left out with a reason, and stops nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tiny_dicom
from archives import stills

from usucl.data import VideoCatalog
from usucl.data.catalog.scanning import search


def reasons(root: Path) -> dict[str, str]:
    return {item.path.name: item.reason for item in VideoCatalog.scan(root).skipped}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    stills(tmp_path / "v", 2)
    for name in ("pipe.mp4", "pipe", "pipe.png"):
        os.mkfifo(tmp_path / name)
    assert reasons(tmp_path) == dict.fromkeys(
        ("pipe", "pipe.mp4", "pipe.png"), "not a file that can be read"
    )


def test_folders_that_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stills(tmp_path / "v", 2)
    stills(tmp_path / "closed", 2)
    listing = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, os.strerror(13), str(path))
        return listing(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refusing)
        found = reasons(tmp_path)
    assert found == {"closed": "the folder cannot be read (Permission denied)"}


def test_files_that_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stills(tmp_path / "v", 2)
    (tmp_path / "IM0001").write_bytes(b"x" * 500)
    with monkeypatch.context() as patched:
        patched.setattr(search.os, "access", lambda path, mode: False)
        assert reasons(tmp_path) == {"IM0001": "cannot be read (permission denied)"}
    assert reasons(tmp_path) == {"IM0001": "no video or image format that is read"}


def test_dicom_without_pictures_and_directories(tmp_path: Path) -> None:
    stills(tmp_path / "v", 2)
    data = tiny_dicom.dataset(np.zeros((2, 16, 24), np.uint8))
    del data.PixelData
    data.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "report.dcm").read_bytes())
    assert pydicom.dcmread(tmp_path / "DICOMDIR").NumberOfFrames == 2
    for _ in range(2):
        found = reasons(tmp_path)
        assert list(found) == ["report.dcm"] and "pixel" in found["report.dcm"]
