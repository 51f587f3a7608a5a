"""Which elements of a DICOM header name a patient or who was with them; never what they say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from usucl.data.video.dicom.header import one_sentence

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
    from pydicom import dcmread

    with one_sentence(path):
        dataset = dcmread(path, stop_before_pixels=True, force=True, defer_size=4096)
        removed = str(dataset.get("PatientIdentityRemoved") or "").strip().upper() == "YES"
        names = _OTHERS if removed else (*_PATIENT, *_OTHERS)
        filled = tuple(name for name in names if _is_filled(dataset.get(name)))
        private = sum(element.tag.is_private for element in dataset)
        stated = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    return HeaderFacts(filled, private, removed, {"YES": True, "NO": False}.get(stated))


def _is_filled(value: object) -> bool:
    return value is not None and bool(str(value).strip(" \0[]'^"))
