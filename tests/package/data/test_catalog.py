"""Finding videos in a folder, their labels and folds."""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from usucl.data import Skipped, VideoCatalog, VideoEntry
from usucl.data.catalog.folds import assign_folds


def frames(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("L", (16, 16), i).save(folder / f"{i}.png")
    return folder


def gif(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("L", (16, 16), 40 * i) for i in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=50)
    return path


def test_mixed_and_nested_in_natural_order(tmp_path: Path) -> None:
    frames(tmp_path / "v10", 3)
    frames(tmp_path / "v2", 4)
    gif(tmp_path / "hospital" / "day1" / "clip.gif", 5)
    frames(tmp_path / "hospital" / "day1", 2)
    frames(tmp_path / ".hidden", 3)
    catalog = VideoCatalog.scan(tmp_path)
    assert [e.id for e in catalog] == ["day1", "clip", "v2", "v10"]
    assert [e.num_frames for e in catalog] == [2, 5, 4, 3]
    assert catalog.entries[1].frame_rate == pytest.approx(20)
    assert all(e.group == e.id and not e.patient_known for e in catalog)
    assert all(e.label is None and e.fold is None and e.frame_labels is None for e in catalog)
    assert catalog.entries[0].open() is catalog.entries[0].open()
    assert catalog.skipped == ()


def test_ids_are_relative_paths_where_names_repeat(tmp_path: Path) -> None:
    for place in ("a/clip", "b/clip", "b/other"):
        frames(tmp_path / place, 2)
    gif(tmp_path / "b" / "clip.gif", 3)
    assert [e.id for e in VideoCatalog.scan(tmp_path)] == [
        "a/clip",
        "b/clip",
        "b/clip.gif",
        "other",
    ]


def test_unusable_videos_are_named_with_their_trouble(tmp_path: Path) -> None:
    frames(tmp_path / "good", 2)
    frames(tmp_path / "single", 1)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "broken.avi").write_text("not a video")
    (frames(tmp_path / "torn", 3) / "1.png").write_bytes(b"\x89PNG")
    catalog = VideoCatalog.scan(tmp_path)
    assert [e.id for e in catalog] == ["good"]
    reasons = {item.path.name: item.reason for item in catalog.skipped}
    assert list(reasons) == ["broken.avi", "empty.mp4", "nothing", "single", "torn"]
    assert reasons["empty.mp4"] == "the file is empty"
    assert reasons["nothing"] == "the folder is empty"
    assert reasons["single"] == "too short: 1 of at least 2 frames"
    assert "cannot be decoded" in reasons["broken.avi"]
    assert reasons["torn"].startswith("1.png: ")
    assert len(VideoCatalog.scan(tmp_path, min_frames=1)) == 2


def test_nothing_usable_lists_what_was_found(tmp_path: Path) -> None:
    frames(tmp_path / "single", 1)
    (tmp_path / "notes.pdf").touch()
    with pytest.raises(ValueError, match=r"no usable video.*\n.*single: too short.*\n.*1 x \.pdf"):
        VideoCatalog.scan(tmp_path)
    with pytest.raises(ValueError, match="root must be a folder"):
        VideoCatalog.scan(tmp_path / "absent")


def test_files_of_unknown_kinds_are_named_and_texts_are_not(tmp_path: Path) -> None:
    frames(tmp_path / "good", 2)
    for name in ("a.dcm", "b.DICOM", "c.nii", "d", "notes.txt", "paper.pdf", ".hidden.dcm"):
        (tmp_path / name).write_text("x")
    reasons = {s.path.name: s.reason for s in VideoCatalog.scan(tmp_path).skipped}
    dicom = "not a DICOM file"
    other = "no video or image format that is read"
    assert reasons == {"a.dcm": dicom, "b.DICOM": dicom, "c.nii": other, "d": other}


def test_links_multiply_no_video(tmp_path: Path) -> None:
    frames(tmp_path / "root" / "study" / "clip", 2)
    frames(tmp_path / "elsewhere", 2)
    (tmp_path / "root" / "study" / "clip" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "again").symlink_to(tmp_path / "root" / "study")
    (tmp_path / "root" / "outside").symlink_to(tmp_path / "elsewhere")
    catalog = VideoCatalog.scan(tmp_path / "root")
    paths = [e.path.relative_to(catalog.root).as_posix() for e in catalog]
    assert paths == ["outside", "study/clip"]


def test_a_file_counts_once_however_many_names_it_has(tmp_path: Path) -> None:
    raw, train = tmp_path / "raw", tmp_path / "a_train"
    clips = [gif(raw / f"case{i}.gif", 3) for i in range(4)]
    stills = frames(raw / "stills", 2)
    for folder in (train, train / "hard", train / "soft"):
        folder.mkdir()
    (train / "x0.gif").symlink_to("../raw/case0.gif")
    os.link(clips[1], train / "x1.gif")
    (train / "x2.gif").symlink_to(train / "x0.gif")
    for frame in stills.iterdir():
        os.link(frame, train / "hard" / frame.name)
        (train / "soft" / frame.name).symlink_to(frame)
    (train / "all").symlink_to(raw)
    gif(tmp_path / "copy.gif", 3)
    catalog = VideoCatalog.scan(tmp_path)
    assert sorted(e.id for e in catalog) == ["case0", "case1", "case2", "case3", "copy", "stills"]
    assert catalog.skipped == () and len(set(catalog.with_folds(3).split([0])[1])) == 2
    links = {e.id: sorted(path.name for path in e.links) for e in catalog}
    assert links["case0"] == ["x0.gif", "x2.gif"] and links["case1"] == ["x1.gif"]


def test_a_catalogue_goes_to_a_spawned_process(tmp_path: Path) -> None:
    frames(tmp_path / "v", 3)
    gif(tmp_path / "w.gif", 4)
    (tmp_path / "broken.avi").touch()
    (tmp_path / "labels.csv").write_text("video_id,label,patient,fold\nv,a,p,0\nw,b,q,1\n")
    catalog = VideoCatalog.scan(tmp_path)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        there, shapes = pool.submit(_there_and_back, catalog).result()
        entry = pool.submit(copy.copy, catalog.entries[1]).result()
    assert there == catalog and shapes == [(3, 3, 16, 16), (4, 3, 16, 16)]
    assert entry == catalog.entries[1] and len(entry.open()) == 4


def _there_and_back(catalog: VideoCatalog) -> tuple[VideoCatalog, list[tuple[int, ...]]]:
    return catalog, [tuple(e.open().frames(range(e.num_frames)).shape) for e in catalog]


def test_fewer_groups_than_folds_are_said(tmp_path: Path) -> None:
    catalog = catalog_of(("p", "a", None), ("q", "a", None), ("r", "b", None))
    with pytest.warns(UserWarning, match="5 are asked for, 3 groups give 3"):
        assert sorted(e.fold for e in catalog.with_folds(5)) == [0, 1, 2]
    with pytest.raises(ValueError, match="n must be 2 to 1"):
        catalog_of(("p", "a", None)).with_folds(5)


def test_damaged_videos_are_taken_if_told(tmp_path: Path) -> None:
    frames(tmp_path / "good", 3)
    (frames(tmp_path / "torn", 3) / "1.png").write_bytes(b"\x89PNG")
    (skipped,) = VideoCatalog.scan(tmp_path).skipped
    assert skipped.path.name == "torn" and skipped.reason.startswith("1.png: ")
    assert len(VideoCatalog.scan(tmp_path / "good", damaged="keep")) == 1
    good, torn = VideoCatalog.scan(tmp_path, damaged="keep")
    assert good.open().damage is None and torn.num_frames == 2
    assert "1 of 3 images are broken" in str(torn.open().damage)
    for root in (tmp_path, tmp_path / "good"):  # whole videos are known from before
        with pytest.raises(ValueError, match="damaged must be one of"):
            VideoCatalog.scan(root, damaged="drop")  # type: ignore[arg-type]


def test_names_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    frames(tmp_path / "good", 2)
    latin = Path(os.fsdecode(os.fsencode(tmp_path / "clip_") + b"\xe9"))
    try:
        frames(latin, 2)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    (tmp_path / "labels.csv").write_text("video_id,label\ngood,1\n")
    catalog = VideoCatalog.scan(tmp_path)
    assert [e.id for e in catalog] == ["good"]
    (skipped,) = catalog.skipped
    assert skipped.path.name == r"clip_\xe9" and "not valid UTF-8" in skipped.reason


def test_labels(tmp_path: Path) -> None:
    for name in ("a/clip", "b/clip", "c"):
        frames(tmp_path / name, 2)
    gif(tmp_path / "d.gif", 2)
    (tmp_path / "labels.csv").write_text(
        "\ufeffvideo_id, label,patient,fold\na/clip,ill,p1,0\nc,,p1,0\nd.gif,well,,1\n",
        encoding="utf-8",
    )
    by_id = {e.id: e for e in VideoCatalog.scan(tmp_path)}
    assert [by_id[i].label for i in ("a/clip", "b/clip", "c", "d")] == ["ill", None, None, "well"]
    assert [by_id[i].group for i in ("a/clip", "b/clip", "c", "d")] == ["p1", "b/clip", "p1", "d"]
    assert [by_id[i].patient_known for i in ("a/clip", "b/clip", "d")] == [True, False, False]
    assert [by_id[i].fold for i in ("a/clip", "b/clip", "d")] == [0, None, 1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("video,label\nx,1\n", "labels.csv must have the columns video_id, label; missing: video"),
        ("video_id,label\nx,1\nx,1\n", "lines 2 and 3 both name 'x'"),
        ("video_id,label\nx,1\ny,1\nx.gif,1\n", "lines 2 and 4 both name 'x'"),
        ("video_id,label\nclip,1\n", "video_id 'clip' fits 2 videos"),
        ("video_id,label,fold\nx,1,one\n", "line 2: fold must be a whole number from 0, got 'one'"),
    ],
)
def test_contradicting_labels_are_errors(tmp_path: Path, table: str, message: str) -> None:
    gif(tmp_path / "x.gif", 2)
    gif(tmp_path / "y.gif", 2)
    frames(tmp_path / "a" / "clip", 2)
    frames(tmp_path / "b" / "clip", 2)
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        VideoCatalog.scan(tmp_path)


def test_labels_of_unknown_videos_are_a_warning(tmp_path: Path) -> None:
    frames(tmp_path / "x", 2)
    frames(tmp_path / "short", 1)
    (tmp_path / "labels.csv").write_text("video_id,label\nx,1\nshort,1\ngone,1\n")
    with pytest.warns(UserWarning, match=r"no video in the folder is called gone$"):
        catalog = VideoCatalog.scan(tmp_path)
    assert catalog.entries[0].label == "1"


def test_frame_labels(tmp_path: Path) -> None:
    frames(tmp_path / "x", 3)
    frames(tmp_path / "y", 3)
    table = tmp_path / "frame_labels.csv"
    table.write_text("video_id,frame,label\nx,2,c\nx,0,a\nx,1,b\n")
    x, y = VideoCatalog.scan(tmp_path)
    assert x.frame_labels == ("a", "b", "c") and y.frame_labels is None
    table.write_text("video_id,frame,label\nx,2,c\n")
    with pytest.warns(UserWarning, match=r"labels of some frames only.*x \(1 of 3\)"):
        assert VideoCatalog.scan(tmp_path).entries[0].frame_labels == (None, None, "c")
    table.write_text("video_id,frame,label\nx,3,c\n")
    with pytest.raises(ValueError, match="labels frame 3 of 'x', which has 3 frames"):
        VideoCatalog.scan(tmp_path)
    table.write_text("video_id,frame,label\nx,1,c\nx,1,d\n")
    with pytest.raises(ValueError, match="line 3 contradicts"):
        VideoCatalog.scan(tmp_path)


def catalog_of(*rows: tuple[str, str, int | None]) -> VideoCatalog:
    entries = tuple(
        VideoEntry(f"v{i}", Path(f"v{i}"), 9, None, label, group, True, fold)
        for i, (group, label, fold) in enumerate(rows)
    )
    return VideoCatalog(Path(), entries, (Skipped(Path("bad"), "broken"),))


@given(
    videos=st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from(["ill", "well", None])), min_size=2
    ),
    n=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_folds_keep_groups_together(
    videos: list[tuple[int, str | None]], n: int, seed: int
) -> None:
    groups = [f"p{group}" for group, _ in videos]
    labels = [label for _, label in videos]
    open_folds: list[int | None] = [None] * len(videos)
    if len(set(groups)) < n:
        with pytest.raises(ValueError, match="n must be 2 to"):
            assign_folds(groups, labels, open_folds, n=n, seed=seed)
        return
    folds = assign_folds(groups, labels, open_folds, n=n, seed=seed)
    assert set(folds) == set(range(n))
    of_group = defaultdict(set)
    for group, fold in zip(groups, folds, strict=True):
        of_group[group].add(fold)
    assert all(len(found) == 1 for found in of_group.values())
    assert folds == assign_folds(groups, labels, open_folds, n=n, seed=seed)


def test_folds_are_balanced_by_label() -> None:
    catalog = catalog_of(*[(f"p{i}", "ill" if i < 10 else "well", None) for i in range(30)])
    for seed in range(5):
        folds = Counter((e.fold, e.label) for e in catalog.with_folds(5, seed))
        assert folds == {(f, c): k for f in range(5) for c, k in (("ill", 2), ("well", 4))}


def test_given_folds_stay() -> None:
    catalog = catalog_of(("p", "a", 2), ("p", "a", None), ("q", "a", 0), ("r", "b", None))
    folds = [e.fold for e in catalog.with_folds(5)]
    assert folds[:3] == [2, 2, 0] and folds[3] in range(3)
    with pytest.raises(ValueError, match="group 'p' are in folds 0, 1"):
        catalog_of(("p", "a", 0), ("p", "a", 1)).with_folds()


def test_given_folds_may_have_any_numbers() -> None:
    numbered = catalog_of(("p", "a", 3), ("q", "a", 1), ("r", "a", None), ("s", "a", None))
    assert sorted(e.fold for e in numbered.with_folds(5)) == [1, 1, 3, 3]


def test_given_folds_that_are_all_the_same_are_ignored() -> None:
    catalog = catalog_of(("p", "a", 1), ("q", "a", 1), ("r", "a", None))
    with pytest.warns(UserWarning, match="every fold given is 1.*3 folds are made"):
        assert sorted(e.fold for e in catalog.with_folds(3)) == [0, 1, 2]


def test_split() -> None:
    catalog = catalog_of(("p", "a", 0), ("q", "a", 1), ("r", "b", 2))
    train, held_out = catalog.split([1])
    assert [e.id for e in train] == ["v0", "v2"] and [e.id for e in held_out] == ["v1"]
    assert train.skipped == catalog.skipped and held_out.skipped == ()
    for folds in ([0, 1, 2], [7]):
        with pytest.raises(ValueError, match="held_out_folds must be some"):
            catalog.split(folds)
    with pytest.raises(ValueError, match="v0 have none; call with_folds"):
        catalog_of(("p", "a", None)).split([0])


def test_real_lung_videos(data_root: Path) -> None:
    catalog = VideoCatalog.scan(data_root / "pocus").with_folds()
    assert len(catalog) == 87 and catalog.skipped == ()
    assert Counter(e.label for e in catalog) == {
        "covid": 14,
        "pneumonia": 27,
        "regular": 42,
        "viral": 4,
    }
    assert len({e.group for e in catalog}) == 35 and all(e.patient_known for e in catalog)
    train, held_out = catalog.split([0])
    assert not {e.group for e in train} & {e.group for e in held_out}
