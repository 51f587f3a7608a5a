"""Patients that DICOM files name, where neither a table nor a pattern does."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny_dicom import write

from usucl.data import VideoCatalog
from usucl.data.catalog.patients import patient_in_file


def loops(root: Path, *patients: str | None) -> Path:
    root.mkdir(exist_ok=True)
    for i, patient in enumerate(patients):
        pixels = np.random.default_rng(i).integers(0, 255, (3, 16, 24), dtype=np.uint8)
        named = {} if patient is None else {"PatientID": patient}
        write(root / f"v{i}.dcm", pixels, **named)
    return root


def groups(catalog: VideoCatalog) -> list[str | None]:
    return [entry.group if entry.patient_known else None for entry in catalog]


def test_files_name_patients_and_the_manifest_keeps_them(tmp_path: Path) -> None:
    loops(tmp_path, "A", " A ", "B", None, "ANON")
    for _ in range(2):
        catalog = VideoCatalog.scan(tmp_path)
        assert groups(catalog) == ["A", "A", "B", None, None] and catalog.patients == "partly"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ANON",
        "anonymous",
        "Anonymized",
        "ANONYMISED",
        "unknown",
        "None",
        "0",
        "0000",
        "-",
        "N/A",
        "na",
        "XXXX",
        "no_name",
        "^^\n",
        "",
        "",
        "",
        "PatientID",
        "de-identified",
        "<removed>",
        "test",
    ],
)
def test_words_for_everybody_are_no_patient(name: str) -> None:
    assert patient_in_file(name.strip()) == ""


@pytest.mark.parametrize("name", ["ANON0001", "17", "001", "P-0", "Nowak", "case 3", "10.2.3"])
def test_pseudonyms_are_patients(name: str) -> None:
    assert patient_in_file(name) == name


def test_tables_and_patterns_come_first(tmp_path: Path) -> None:
    loops(tmp_path, "A", "A", "B", "C")
    (tmp_path / "labels.csv").write_text("video_id,label,patient\nv0,x,p1\nv2,x,\n")
    catalog = VideoCatalog.scan(tmp_path)
    assert groups(catalog) == ["p1", "p1", "B", "C"]  # who is p1 in one file is p1 in all
    with pytest.warns(UserWarning, match="1 of 4 videos have none by the pattern"):
        found = catalog.with_patients(r"^v([0-2])")
    assert groups(found) == ["p1", "1", "2", "C"]
    with pytest.warns(UserWarning, match="'A' is one patient by the DICOM files, but 'p1' and '1'"):
        VideoCatalog.scan(tmp_path, patient_pattern=r"^v([0-3])")


def test_contradictions_with_the_table_are_told(tmp_path: Path) -> None:
    loops(tmp_path, "A", "B", "B")
    table = tmp_path / "labels.csv"
    table.write_text("video_id,label,patient\nv0,x,p\nv1,x,p\n")
    with pytest.warns(UserWarning, match="'p' is one patient by the table or pattern, but 'A'"):
        assert groups(VideoCatalog.scan(tmp_path)) == ["p", "p", "p"]
    table.write_text("video_id,label,patient\nv1,x,p\nv2,x,q\n")
    with pytest.warns(UserWarning, match="'B' is one patient by the DICOM files, but 'p' and 'q'"):
        assert groups(VideoCatalog.scan(tmp_path)) == ["A", "p", "q"]


def test_one_patient_for_a_whole_archive_is_doubtful(tmp_path: Path) -> None:
    loops(tmp_path, *["study7"] * 21)
    with pytest.warns(UserWarning, match="all 21 DICOM files are of 'study7'"):
        catalog = VideoCatalog.scan(tmp_path)
    assert set(groups(catalog)) == {"study7"}
    loops(tmp_path, "other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoCatalog.scan(tmp_path)


def test_a_table_names_the_patient_of_a_sweep_of_files(tmp_path: Path) -> None:
    loops(tmp_path, "A", "A", "B")
    (tmp_path / "sweeps.csv").write_text("sweep_id,part\ns,v0\ns,v1\n")
    assert groups(VideoCatalog.scan(tmp_path)) == ["A", "B"]
    (tmp_path / "labels.csv").write_text("video_id,label,patient\ns,x,p\n")
    assert groups(VideoCatalog.scan(tmp_path)) == ["p", "B"]


def test_reading_files_in_threads_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    loops(tmp_path, *"ABCDEFGHIJKLMNOP")
    before = list(warnings.filters)
    VideoCatalog.scan(tmp_path)
    assert list(warnings.filters) == before
