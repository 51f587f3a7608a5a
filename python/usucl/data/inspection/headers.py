"""What a DICOM header holds: which elements name a patient or who was with them, and texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydicom import Dataset

# From the basic profile for confidentiality, PS3.15 table E.1-1: what names people and places, and
# the dates. Unique identifiers and descriptions are not among them.
_PATIENT = ("PatientName", "PatientID")
_OTHERS = (
    *("PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientMotherBirthName"),
    *("OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames", "IssuerOfPatientID"),
    *("PatientAddress", "PatientTelephoneNumbers", "PatientComments", "MedicalRecordLocator"),
    *("MilitaryRank", "Occupation", "EthnicGroup", "CountryOfResidence", "RegionOfResidence"),
    *("ResponsiblePerson", "AdditionalPatientHistory", "AdmissionID", "CurrentPatientLocation"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "PhysiciansOfRecord"),
    *("NameOfPhysiciansReadingStudy", "RequestingPhysician", "RequestingService"),
    *("OperatorsName", "DeviceSerialNumber", "AccessionNumber", "StudyID"),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "AcquisitionDateTime", "ContentDate"),
)


class HeaderFacts(NamedTuple):
    """What a DICOM header tells about people.

    Attributes:
        keywords: names of the elements that are filled.
        private: number of private elements, which may hold anything.
        removed: whether the header says that the patient's identity was removed; ``keywords``
            then leaves out the patient's name and number, which stand for others.
        burned_in: whether the header says that the pixels name the patient, None if it is silent.
    """

    keywords: tuple[str, ...]
    private: int
    removed: bool
    burned_in: bool | None


def header_facts(path: Path) -> HeaderFacts:
    """Returns what the header of a DICOM file tells about people.

    Raises:
        VideoError: it cannot be read.
    """
    from usucl.data.video.dicom.header import one_sentence

    with one_sentence(path):
        dataset = _read(path)
        removed = str(dataset.get("PatientIdentityRemoved") or "").strip().upper() == "YES"
        names = _OTHERS if removed else (*_PATIENT, *_OTHERS)
        filled = tuple(name for name in names if _is_filled(dataset.get(name)))
        private = sum(element.tag.is_private for element in dataset)
        stated = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    return HeaderFacts(filled, private, removed, {"YES": True, "NO": False}.get(stated))


def header_texts(path: Path, keywords: Iterable[str]) -> dict[str, str]:
    """Returns elements of the header of a DICOM file as text; empty for one that is missing.

    Raises:
        VideoError: it cannot be read.
    """
    from usucl.data.video.dicom.header import one_sentence

    with one_sentence(path):
        dataset = _read(path)
        return {keyword: str(dataset.get(keyword) or "").strip() for keyword in keywords}


def _read(path: Path) -> Dataset:
    from pydicom import dcmread

    return dcmread(path, stop_before_pixels=True, force=True, defer_size=4096)


def _is_filled(value: object) -> bool:
    return value is not None and bool(str(value).strip(" \0[]'^"))
