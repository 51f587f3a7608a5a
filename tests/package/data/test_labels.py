"""Tables of labels as spreadsheets and people write them, and how they name the videos."""

from __future__ import annotations

import os
import unicodedata
import warnings
from pathlib import Path

import pytest
from PIL import Image

from usucl.data import VideoCatalog, VideoEntry

ROWS = "video_id,label,patient\nv1,gesund,Müller\nv2,krank,Weiß\n"
PICTURE = Image.new("L", (8, 8))


def make(root: Path, *names: str, count: int = 2) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            PICTURE.save(root / name / f"{i}.png")
    return root


def scan(root: Path, table: str | bytes, **options: object) -> tuple[list[VideoEntry], list[str]]:
    """Returns the videos and what was warned of."""
    content = table.encode() if isinstance(table, str) else table
    (root / "labels.csv").write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        catalog = VideoCatalog.scan(root, **options)  # type: ignore[arg-type]
    return list(catalog), [str(warning.message) for warning in caught]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return make(tmp_path, "v1", "v2", "v3")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (ROWS, ""),
        (b"\xef\xbb\xbf" + ROWS.encode(), ""),
        (ROWS.encode("utf-16"), "utf-16-le"),
        (b"\xfe\xff" + ROWS.encode("utf-16-be"), "utf-16-be"),
        (ROWS.encode("utf-16-le"), "utf-16-le"),
        (ROWS.encode("utf-32"), "utf-32-le"),
        (ROWS.encode("cp1252"), "cp1252"),
        (ROWS.replace(",", ";"), "';'"),
        (ROWS.replace(",", "\t").encode("utf-16"), "utf-16-le"),
        ("sep=;\r\n" + ROWS.replace(",", ";"), "';'"),
        ('"sep=;"\n' + ROWS.replace(",", ";"), "';'"),
        (ROWS.replace("\n", "\r\n"), ""),
        (ROWS.replace("\n", "\r"), ""),
        ("\n\n" + ROWS.replace("\n", "\n\n") + ",,\n , ,\n", ""),
        (ROWS.replace("\n", ",,\n"), ""),
        (ROWS.replace("video_id,label,patient", ' Video ID , LABEL,"Patient" '), ""),
        (ROWS.replace("Müller", '"Müller"  '), ""),
        (ROWS.replace("v1", "\u200bv1\xa0"), ""),
    ],
    ids=range(18),
)
def test_tables_of_any_spreadsheet(videos: Path, table: str | bytes, said: str) -> None:
    entries, warned = scan(videos, table)
    assert [(e.label, e.group) for e in entries] == [
        ("gesund", "Müller"),
        ("krank", "Weiß"),
        (None, "v3"),
    ]
    assert len(warned) == bool(said) and all(
        message.startswith("labels.csv: ") and said in message for message in warned
    )


def test_cells_may_hold_separators_and_notes_line_breaks(videos: Path) -> None:
    table = 'video_id,note,label\nv1,"two\nlines, and ""more""","a, b"\nv2,-,c\n'
    entries, warned = scan(videos, table)
    assert [e.label for e in entries] == ["a, b", "c", None] and not warned


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('video_id,label\nv1,"a\nv2,b\nv3,c\n', "line 2: is a quotation mark never closed"),
        ('video_id,label\nv1,a\nv2,"b\nv3,"c"\n', "line 3: is a quotation mark never closed"),
        ('video_id,label\nv1,"a\nv2,b"\nv3,c\n', "line 2: label holds a line break"),
        ('video_id,label\nv1,a\n"v2,b\n' + "v3,c\n" * 40000, "line 3: .*never closed.*limit"),
        ('video_id,note,label\nv1,"n\n\n",a\nv2,"b,c\n', "line 5: is a quotation mark"),
        ("video_id,label\nv1,a\nv2,b,c\n", "line 3: there are 3 cells, but 2 columns"),
        ("video_id,label,Label\nv1,a,b\n", "line 1: there are two columns 'label'"),
        ("", "must have the columns video_id, label; missing: video_id, label"),
        ("video_id;labels\nv1;a\n", r"missing: label \(its columns are video_id, labels\): name "),
        ("file;label\nv1;a\n", r"missing: video_id \(its columns are file, label\)$"),
        (
            "video_id,label,patient,fold\nv1,a,p,0\nv2,a,q,1\nv3,a,p,1\n",
            "lines 2 and 4 put patient 'p' into folds 0 and 1",
        ),
        (
            "video_id,label,group,fold\nv1,a,7.0,0\nv2,a,,1\nv3,a,7,2\n",
            "lines 2 and 4 put patient '7' into folds 0 and 2",
        ),
        (b"video_id,label\nv1,a\nv2,\0\n", "line 3: it is no text"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "it is no text: export the table as CSV"),
        (b"video_id,label\nv1,\x81\n", "line 2: it is no text in utf-8 or cp1252"),
        (ROWS.encode("utf-16")[:-1], "line 3: it is no text in utf-16-le"),
        ("video_id,label,fold\nv1,a,-1\n", "line 2: fold must be a whole number.*got '-1'"),
        ("video_id,label,fold\nv1,a," + "9" * 5000, "line 2: fold must be a whole number"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(
    videos: Path, table: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^labels.csv:? .*{message}"):
        scan(videos, table)


def test_cells_that_a_spreadsheet_leaves_out_are_empty(videos: Path) -> None:
    entries, (warned,) = scan(videos, "video_id,label,patient\nv1,a,p\nv2,b\nv3\n")
    assert [(e.label, e.patient_known) for e in entries] == [("a", 1), ("b", 0), (None, 0)]
    assert warned.startswith("labels.csv: 2 rows have fewer cells") and warned.endswith("3, 4")


def test_folds_may_be_written_as_pandas_does(videos: Path) -> None:
    entries, _ = scan(videos, "video_id,label,fold\nv1,a,1.0\nv2,a,nan\nv3,a,\n")
    assert [e.fold for e in entries] == [1, None, None]


UNKNOWN = ["nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "<NA>", "NaT", "#N/A", "#VALUE!"]
SIGNS = ["-", "--", "?", ".", "\u2013", "  "]


@pytest.mark.parametrize("word", [*UNKNOWN, *SIGNS, "none", "None", "unknown", "Unknown", ""])
def test_missing_patients_are_not_one_patient(videos: Path, word: str) -> None:
    rows = "".join(f"v{i},a,{word}\n" for i in (1, 2, 3))
    entries, warned = scan(videos, f"video_id,label,patient\n{rows}")
    assert [(e.group, e.patient_known) for e in entries] == [(f"v{i}", False) for i in (1, 2, 3)]
    assert len(warned) == bool(word.strip())
    assert all("patient is taken as unknown in 3 rows" in message for message in warned)


@pytest.mark.parametrize("word", [*UNKNOWN, *SIGNS])
def test_missing_labels_are_no_class(videos: Path, word: str) -> None:
    entries, warned = scan(videos, f"video_id,label\nv1,a\nv2,{word}\nv3,{word}\n")
    assert [e.label for e in entries] == ["a", None, None]
    assert len(warned) == bool(word.strip())
    assert all("label is taken as unknown in 2 rows" in message for message in warned)


def test_none_and_unknown_may_be_classes(videos: Path) -> None:
    entries, (warned,) = scan(videos, "video_id,label\nv1,cyst\nv2,none\nv3,Unknown\n")
    assert [e.label for e in entries] == ["cyst", "none", "Unknown"]
    assert "taken as a class: 'none' (1 videos), 'Unknown' (1 videos)" in warned
    entries, warnings_ = scan(videos, "video_id,label\nv1,+\nv2,-\nv3,++\n")
    assert [e.label for e in entries] == ["+", "-", "++"] and not warnings_


def test_other_words_are_missing_only_if_told(videos: Path) -> None:
    table = "video_id,label,patient\nv1,0,0\nv2,1,0\nv3,1,p\n"
    entries, warned = scan(videos, table)
    assert [(e.label, e.group) for e in entries] == [("0", "0"), ("1", "0"), ("1", "p")]
    entries, warned = scan(videos, table, missing=("0",))
    assert [(e.label, e.group) for e in entries] == [(None, "v1"), ("1", "v2"), ("1", "p")]
    assert len(warned) == 2


def test_frames_without_a_label_are_not_labelled(videos: Path) -> None:
    table = "video_id,frame,label\nv1,0,none\nv1,1.0,-\nv2,0,a\nv2,1,nan\nv3,0,a\nv3,1,\n"
    (videos / "frame_labels.csv").write_text(table)
    with pytest.warns(UserWarning, match=r"v2 \(1 of 2\), v3 \(1 of 2\)"):
        entries = list(VideoCatalog.scan(videos))
    assert [e.frame_labels for e in entries] == [("none", "-"), ("a", None), ("a", None)]


def test_a_row_may_label_a_range_of_frames(tmp_path: Path) -> None:
    root = make(tmp_path, "v1", count=6)
    header = "video_id,frame,Last Frame,label\n"
    (root / "frame_labels.csv").write_text(header + "v1,1,2,a\nv1,2,,a\nv1,4.0,5.0,b\nv1,3,,\n")
    with pytest.warns(UserWarning, match=r"1 of 1 videos have labels of some.*v1 \(4 of 6\)"):
        (entry,) = VideoCatalog.scan(root)
    assert entry.frame_labels == (None, "a", "a", None, "b", "b")
    for row, message in (
        ("v1,3,2,a", "line 2: last_frame must be at least frame 3, got 2"),
        ("v1,3,6,a", "line 2 labels frame 6 of 'v1', which has 6 frames"),
        ("v1,0,3,a\nv1,2,,b", "line 3 contradicts an earlier label of frame 2"),
        ("v1,0,x,a", "line 2: last_frame must be a whole number"),
    ):
        (root / "frame_labels.csv").write_text(header + row)
        with pytest.raises(ValueError, match=message):
            VideoCatalog.scan(root)


def test_leading_zeros_are_kept_and_whole_numbers_found(tmp_path: Path) -> None:
    root = make(tmp_path, "00012", "7")
    table = "Video-ID,LABEL,patient\n00012,a,007\n7.0,b,12.0\n"
    entries, warned = scan(root, table)
    assert [(e.id, e.label, e.group) for e in entries] == [("7", "b", "12"), ("00012", "a", "007")]
    assert not warned
    entries, warned = scan(root, "video_id;label\n7,0;b\n12;a\n")
    assert [e.label for e in entries] == ["b", None]
    assert "called 12 (did you mean 00012?)" in " ".join(warned)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("V1", "v1"), ("12", "0012"), ("C:\\data\\v1", "v1"), ("/home/x/Case_3", "case_3")],
)
def test_names_of_other_computers_and_spreadsheets_come_with_the_nearest(
    tmp_path: Path, name: str, nearest: str
) -> None:
    root = make(tmp_path, "v1", "0012", "case_3")
    entries, (warned,) = scan(root, f"video_id,label\n{name},a\n")
    assert f"called {name} (did you mean {nearest}?)" in warned
    assert [e.label for e in entries] == [None] * 3


COLUMNS = "video_id,B Lines,zone,patient\nv1,yes,L1,p\nv2,no,R1,q\nv3,?,R1,q\n"


def test_any_column_can_be_the_label(videos: Path) -> None:
    entries, (warned,) = scan(videos, COLUMNS, label="b_lines")
    assert [(e.label, e.group) for e in entries] == [("yes", "p"), ("no", "q"), (None, "q")]
    assert warned == "labels.csv: b_lines is taken as unknown in 1 rows, which say '?'"
    entries, _ = scan(videos, COLUMNS, label="zone")
    assert [e.label for e in entries] == ["L1", "R1", "R1"]
    with pytest.raises(ValueError, match=r"missing: label .*B Lines, zone.*: name the column"):
        scan(videos, COLUMNS)


@pytest.mark.parametrize(
    ("table", "groups", "folds"),
    [
        ("video_id,patient\nv1,p\nv2,q\nv3,q\n", ["p", "q", "q"], [None] * 3),
        ("video_id;Group;Source\nv1;p;a\nv2;;b\n", ["p", "v2", "v3"], [None] * 3),
        ("video_id,fold\nv1,0\nv2,1\nv3,1\n", ["v1", "v2", "v3"], [0, 1, 1]),
    ],
)
def test_a_table_of_patients_or_folds_needs_no_labels(
    videos: Path, table: str, groups: list[str], folds: list[int | None]
) -> None:
    entries, _ = scan(videos, table)
    assert [entry.label for entry in entries] == [None] * 3
    assert [entry.group for entry in entries] == groups
    assert [entry.fold for entry in entries] == folds


def test_labels_of_frames_go_with_a_table_of_patients(videos: Path) -> None:
    (videos / "frame_labels.csv").write_text("video_id,frame,label\nv1,0,a\nv1,1,b\n")
    entries, warned = scan(videos, "video_id,patient\nv1,p\n")
    assert entries[0].frame_labels == ("a", "b") and entries[0].group == "p" and not warned


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "b_line",
            "got 'b_line'; the columns are B Lines, zone; did you mean B Lines",
        ),
        ("severity", "got 'severity'; the columns are B Lines, zone$"),
        ("Patient", "label must be a column that says what a video shows, got 'Patient'"),
        ("", "label must be a column of labels.csv, got ''"),
    ],
)
def test_a_wrong_column_is_refused_with_the_nearest(videos: Path, label: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan(videos, COLUMNS, label=label)


def test_either_table_may_have_the_column_of_the_labels(videos: Path) -> None:
    with pytest.raises(ValueError, match="got 'zone', but there is none in"):
        VideoCatalog.scan(videos, label="zone")
    (videos / "frame_labels.csv").write_text("video_id,frame,plane\nv1,0,long\nv1,1,cross\n")
    entries, warned = scan(videos, COLUMNS, label="plane")
    assert [(e.label, e.group) for e in entries] == [(None, "p"), (None, "q"), (None, "q")]
    assert entries[0].frame_labels == ("long", "cross") and not warned
    entries, warned = scan(videos, COLUMNS, label="zone")
    assert [e.frame_labels for e in entries] == [None] * 3 and not warned


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_names_match_however_accents_are_spelled(
    tmp_path: Path, on_disk: str, in_table: str
) -> None:
    root = make(tmp_path, unicodedata.normalize(on_disk, "Hôpital/Jürgen é"))
    row = unicodedata.normalize(in_table, "Jürgen é")
    patients = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    make(root, "z")
    (root / "frame_labels.csv").write_text(f"video_id,frame,label\nHôpital/{row},0,a\n{row},1,b\n")
    table = f"video_id,label,patient\n{row},x,{patients[0]}\nz,x,{patients[1]}\n"
    entries, warned = scan(root, table)
    assert [(e.id, e.label) for e in entries] == [("Jürgen é", "x"), ("z", "x")] and not warned
    assert {e.group for e in entries} == {"Zoë"} and entries[0].frame_labels == ("a", "b")


def test_names_that_only_look_alike_are_two_videos(tmp_path: Path) -> None:
    both = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    make(tmp_path, *both)
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("the file system takes both for one name")
    entries, _ = scan(tmp_path, f"video_id,label\n{both[0]},c\n{both[1]},d\n")
    assert {e.id: e.label for e in entries} == {both[0]: "c", both[1]: "d"}


def test_unknown_names_come_with_the_nearest(videos: Path) -> None:
    make(videos, "study/case_0017")
    rows = "case_017,a\nstudy\\case_0017,b\nsomething else,c\n,d\n"
    entries, (warned,) = scan(videos, f"video_id,label\n{rows}")
    assert entries[0].id == "case_0017" and entries[0].label == "b"
    assert "called case_017 (did you mean case_0017?), something else, (empty)" in warned


def test_a_video_has_the_labels_of_its_links(videos: Path) -> None:
    (videos / "train").mkdir()
    for i in (1, 2):
        (videos / "train" / f"x{i}").symlink_to(videos / f"v{i}")
    entries, warned = scan(videos, "video_id,label\ntrain/x1,a\nx2,b\nv2,b\nv3,c\n")
    assert sorted(str(e.label) for e in entries) == ["a", "b", "c"] and not warned
    with pytest.raises(ValueError, match="lines 2 and 3 both name"):
        scan(videos, "video_id,label\nx2,b\nv2,c\n")


def test_whole_numbers_are_one_class_however_they_are_written(videos: Path) -> None:
    (videos / "frame_labels.csv").write_text("video_id,frame,label\nv1,0,2.0\nv1,1,2\n")
    entries, said = scan(videos, "video_id,label\nv1,1.0\nv2,1\nv3/,0.5\n")
    assert [entry.label for entry in entries] == ["1", "1", "0.5"]
    assert entries[0].frame_labels[:2] == ("2", "2")
    assert not any("called" in sentence for sentence in said)


def test_labels_and_patients_that_differ_in_case_are_told(videos: Path) -> None:
    table = "video_id,label,patient\nv1,Ill,p1\nv2,ill,P1\nv3,well,p1\n"
    entries, said = scan(videos, table)
    assert [entry.label for entry in entries] == ["Ill", "ill", "well"]
    assert said == [
        "labels.csv: label: told apart by their case alone: 'Ill' and 'ill'",
        "labels.csv: patient: told apart by their case alone: 'P1' and 'p1'",
    ]


def test_an_id_is_that_of_one_video_whatever_folders_hold(tmp_path: Path) -> None:
    make(tmp_path, "v1", "site/v1")
    entries, _ = scan(tmp_path, "video_id,label\nv1,here\nsite/v1,there\n")
    assert {entry.id: entry.label for entry in entries} == {"v1": "here", "site/v1": "there"}
