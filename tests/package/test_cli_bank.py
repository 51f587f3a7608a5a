"""The bank's commands: built whole whatever interrupts it, searched exactly, duplicates found."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from usucl.bank import NegativeBank
from usucl.cli import main
from usucl.cli.bank import pairs
from usucl.cli.bank.stored import UNFINISHED, StoredBank, StoredVideo
from usucl.data import VideoError, load_frames
from usucl.data.dicom import dicom_frame
from usucl.losses import Frames
from usucl.models import EncoderConfig, FrameEncoder, save_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 40


def _write_video(folder: Path, seed: int, frames: int = 4) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(frames):
        grey = rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")


def _write_run(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_encoder(FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=16)), folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of four patients in three folds, and one that cannot be read.

    Video e is a copy of b, darker and with a frame less, under another patient's name.
    """
    root = tmp_path_factory.mktemp("data") / "videos"
    for seed, name in enumerate("abcd"):
        _write_video(root / name, seed)
    (root / "e").mkdir()
    for number in range(3):
        grey = np.array(Image.open(root / "b" / f"{number}.png"))
        Image.fromarray((grey * 0.98).astype(np.uint8)).save(root / "e" / f"{number}.png")
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "labels.csv").write_text(
        "video_id,label,patient,fold\na,cyst,p1,0\nb,stone,p1,0\nc,cyst,p2,1\nd,,,\ne,stone,p3,2\n"
    )
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def bank(videos: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bank") / "bank"
    assert main(["bank", "build", str(run), str(videos), "--out", str(out)]) == 0
    return out


def _stderr_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("usucl: error: ")
    return line


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bank", *words, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def _assert_same_bank(a: Path, b: Path) -> None:
    one, other = StoredBank.open(a), StoredBank.open(b)
    assert one.videos == other.videos
    for x, y in zip(one.bank.frames(), other.bank.frames(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


# build


def test_what_a_build_leaves(
    bank: Path, videos: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = StoredBank.open(bank)
    assert [v.id for v in stored.videos] == list("abcde")
    assert stored.describe(5) == {
        "slot": 5, "video": "b", "frame": 1, "time": 0.25, "patient": "p1", "label": "stone",
        "fold": 0, "path": str(videos / "b"),
    }  # fmt: skip
    frames = stored.bank.frames()
    assert frames.patient is not None
    assert frames.video.tolist() == stored.video.tolist()
    assert frames.patient.tolist() == [0] * 8 + [1] * 4 + [-1] * 4 + [2] * 3
    np.testing.assert_allclose(frames.time.numpy(), stored.time, rtol=1e-6)
    assert sorted(f.name.split("-")[0] for f in bank.iterdir()) == ["bank", "bank.json", "contents"]

    assert main(["bank", "build", str(run), str(videos), "--out", str(bank)]) == 2
    assert "--overwrite" in _stderr_line(capsys)


def test_an_interrupted_build_goes_on_where_it_was(
    bank: Path,
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out)]
    read = []

    def interrupted(entry: Any, *rest: Any) -> Any:
        if entry.id == "c":
            raise KeyboardInterrupt
        return load_frames(entry, *rest)

    monkeypatch.setattr("usucl.data.load_frames", interrupted)
    assert main(words) == 130
    assert len(list((out / UNFINISHED).iterdir())) == 2
    assert main(["bank", "info", str(out)]) == 2
    assert "unfinished" in capsys.readouterr().err

    def counted(entry: Any, *rest: Any) -> Any:
        read.append(entry.id)
        return load_frames(entry, *rest)

    (part, *_) = sorted((out / UNFINISHED).iterdir())
    part.write_bytes(part.read_bytes()[:-5])  # a damaged part is made again
    monkeypatch.setattr("usucl.data.load_frames", counted)
    assert main(words) == 0
    assert read[-3:] == list("cde") and len(read) == 4
    captured = capsys.readouterr()
    assert "1 of 5 videos were finished before" in captured.out
    assert "left out" in captured.err and "broken.mp4" in captured.err
    _assert_same_bank(out, bank)


def test_leftovers_of_others_are_not_mixed_in(
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another encoder, and a video that was changed: what was embedded before is not used."""
    data, out = tmp_path / "videos", tmp_path / "bank"
    shutil.copytree(videos, data)
    words = ["bank", "build", str(run), str(data), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(StoredBank, "save", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    other = _write_run(tmp_path / "other", seed=1)
    _write_video(data / "new", 7)
    shutil.rmtree(data / "a")
    (data / "new").rename(data / "a")
    capsys.readouterr()
    assert main(["bank", "build", str(other), *words[3:]]) == 0
    said = capsys.readouterr().out
    assert "Going on" not in said and "Not used: 5 videos" in said
    fresh = tmp_path / "fresh"
    assert main(["bank", "build", str(other), *words[3:-1], str(fresh)]) == 0
    _assert_same_bank(out, fresh)


def test_a_video_that_breaks_is_left_out(
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(entry: Any, *rest: Any) -> Any:
        if entry.id in broken_ids:
            raise VideoError(entry.path, "gone")
        return load_frames(entry, *rest)

    broken_ids = {"a", "d"}
    monkeypatch.setattr("usucl.data.load_frames", broken)
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out), "--dtype", "bfloat16"]
    assert main(words) == 0
    assert f"left out: {videos / 'a'}: gone" in capsys.readouterr().err
    stored = StoredBank.open(out)
    assert [v.id for v in stored.videos] == ["b", "c", "e"]
    assert stored.bank.capacity == len(stored.bank) == 11
    assert stored.bank.dtype == torch.bfloat16

    broken_ids |= {"b", "c", "e"}
    assert main([*words, "--overwrite"]) == 2
    assert "readable" in capsys.readouterr().err
    assert len(StoredBank.open(out).bank) == 11  # the earlier bank is still there


def test_a_search_that_does_not_exist_is_refused_before_the_work(
    videos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "build", str(run), str(videos), "--out", str(tmp_path / "bank")]
    assert main([*words, "--search", "no such index"]) == 2
    assert "search" in _stderr_line(capsys)
    assert not (tmp_path / "bank").exists()


def test_killed_at_any_moment(
    bank: Path, videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at 30 moments, over and over an earlier bank: it stays whole, and the work does too.

    Each round starts where the one before was killed. After one that put the new bank in place, the
    next starts with the earlier bank and no work done.
    """
    out = tmp_path / "bank"
    earlier = tmp_path / "earlier"
    words = ["bank", "build", str(_write_run(tmp_path / "other", seed=1)), str(videos)]
    assert main([*words, "--out", str(earlier)]) == 0
    shutil.copytree(earlier, out)
    # a server that has imported everything forks the children: no threads, and fast
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    modules = ("cli.bank.build", "cli.bank.parts", "cli.bank.stored", "evaluation.embed")
    context.set_forkserver_preload([f"usucl.{module}" for module in modules])
    rng = np.random.default_rng(0)
    words = ["bank", "build", str(run), str(videos), "--out", str(out), "--overwrite"]

    def start() -> Any:
        process = context.Process(target=main, args=(words,))
        process.start()
        return process

    whole = 0.0
    for _ in range(2):  # the first one starts the server
        began = time.monotonic()
        start().join()
        whole = time.monotonic() - began
    _assert_same_bank(out, bank)
    kills, parts = 0, set[str]()
    for _ in range(120):
        if kills == 30:
            break
        if StoredBank.open(out).source["run"] == str(run):  # finished: all the work anew
            shutil.rmtree(out)
            shutil.copytree(earlier, out)
            parts = set()
        process = start()
        time.sleep(float(rng.uniform(0.1, 1.0) * whole))
        process.kill()
        process.join()
        kills += process.exitcode == -9
        opened = StoredBank.open(out)  # whole, whichever it is
        _assert_same_bank(out, bank if opened.source["run"] == str(run) else earlier)
        if opened.source["run"] != str(run):
            now = {f.name for f in (out / UNFINISHED).glob("[!.]*")}
            assert parts <= now  # no finished video is lost
            parts = now
    assert kills == 30
    assert main(words) == 0
    _assert_same_bank(out, bank)
    assert sorted(f.name.split("-")[0] for f in out.iterdir()) == ["bank", "bank.json", "contents"]


def test_killed_between_the_bank_and_the_clearing_up(
    videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("usucl.cli.bank.parts.Parts.remove", _interrupt)
        assert main(words) == 130
    (out / ".bank.json.99.tmp").touch()
    assert (out / UNFINISHED).is_dir()
    assert main([*words, "--dtype", "float16"]) == 2  # another bank than the one that is there
    assert main(words) == 0
    assert not (out / UNFINISHED).exists() and not list(out.glob(".*"))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# info


def test_info(bank: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = _json(capsys, "info", str(bank))
    assert (facts["frames"], facts["capacity"], facts["videos"], facts["patients"]) == (
        19,
        19,
        5,
        3,
    )
    assert facts["labels"] == {"cyst": 2, "stone": 2}
    assert facts["folds"] == {"0": 2, "1": 1, "2": 1}
    assert facts["frames_per_video"] == {"least": 3, "median": 4, "most": 4}
    assert (facts["dim"], facts["dtype"], facts["search"]) == (16, "float32", "exact")
    assert facts["run"] == str(run)
    assert facts["bytes"] == sum(f.stat().st_size for f in bank.iterdir())
    assert main(["bank", "info", str(bank)]) == 0
    assert "cyst: 2, stone: 2" in capsys.readouterr().out


def test_info_of_a_bank_saved_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = NegativeBank(8, 4)
    bank.enqueue(Frames(torch.eye(4), torch.tensor([0, 0, 1, 2]), torch.zeros(4)))
    bank.save(tmp_path)
    facts = _json(capsys, "info", str(tmp_path))
    assert (facts["frames"], facts["capacity"], facts["videos"]) == (4, 8, 3)
    assert main(["bank", "search", str(tmp_path), "--slot", "0"]) == 2
    assert "usucl bank build" in _stderr_line(capsys)


def test_a_damaged_table_is_named(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bank, copy)
    (table,) = copy.glob("contents-*.json")
    for content in ("{", "{}", '{"format": "other"}', table.read_text().replace('"frames"', '"f"')):
        table.write_text(content)
        assert main(["bank", "search", str(copy), "--slot", "0"]) == 2
        assert f"{table.name} is damaged" in _stderr_line(capsys)


# search


def test_search_by_frame_image_and_slot(
    bank: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    query = f"{videos / 'b'}@1"
    found = _json(capsys, "search", str(bank), query, "--k", "3", "--out", str(sheet))["neighbours"]
    assert [n["rank"] for n in found] == [1, 2, 3]
    assert (found[0]["video"], found[0]["frame"]) == ("b", 1)
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert Image.open(sheet).width > 500
    image = _json(capsys, "search", str(bank), str(videos / "b" / "1.png"), "--k", "3")
    assert image["neighbours"] == found
    slot = _json(capsys, "search", str(bank), "--slot", "5", "--k", "30")
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
    assert said in _stderr_line(capsys)


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
    found = _json(capsys, *words)["neighbours"]
    assert len(found) == min(k, len(wanted))
    # the frames of b and e may tie within rounding: similarities, not slots, are compared
    expected = [similarity[s] for s in wanted[:k]]
    assert [n["similarity"] for n in found] == pytest.approx(expected, abs=1e-6)
    assert {n["slot"] for n in found} <= set(filter(passes, range(19)))


def test_a_bank_is_searched_with_its_own_encoder(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, run = tmp_path / "bank", _write_run(tmp_path / "run")
    assert main(["bank", "build", str(run), str(videos), "--out", str(bank)]) == 0
    other = _write_run(tmp_path / "other", seed=1)
    capsys.readouterr()
    search = ["bank", "search", str(bank), str(videos / "a")]
    assert main([*search, "--run", str(other)]) == 2
    assert "not the one that made the bank" in _stderr_line(capsys)
    run.rename(tmp_path / "moved")
    assert main(search) == 2
    assert "--run" in _stderr_line(capsys)
    assert main([*search, "--run", str(tmp_path / "moved")]) == 0


# DICOM


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
    answer = _json(capsys, "search", str(bank), f"{path}@3", "--k", "1")
    assert answer["query"] == "loop.dcm @3"
    assert (answer["neighbours"][0]["video"], answer["neighbours"][0]["frame"]) == ("c", 3)
    assert main(["bank", "search", str(bank), f"{path}@4"]) == 2
    assert "has 4 frames" in _stderr_line(capsys)


# duplicates


def test_duplicates_across_patients_and_folds(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy of b is found, called the same picture, and told from pairs that are only alike."""
    sheet, table = tmp_path / "sheet.png", tmp_path / "pairs.csv"
    words = ["duplicates", str(bank), "--threshold", "0.5"]
    answer = _json(capsys, *words, "--out", str(sheet), "--csv", str(table))
    same = [pair for pair in answer["pairs"] if pair["same_picture"]]
    (pair,) = same
    assert (pair["a"]["video"], pair["b"]["video"]) == ("b", "e")
    assert pair["a"]["frame"] == pair["b"]["frame"]
    assert pair["correlation"] > 0.99 and pair["difference"] < 5
    assert pair["other_patient"] and pair["other_fold"]
    assert answer["summary"]["same_picture_across_folds"] == 1
    assert answer["summary"]["pairs"] == len(answer["pairs"])
    similarities = [pair["similarity"] for pair in answer["pairs"]]
    assert similarities == sorted(similarities, reverse=True)
    assert Image.open(sheet).width > 500
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["similarity"]) for row in rows] == similarities
    assert main(["bank", *words, "--top", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 pairs of videos the same picture: 1 across patients, 1 across folds" in said

    of_d = [pair for pair in answer["pairs"] if "d" in (pair["a"]["video"], pair["b"]["video"])]
    assert all(pair["other_patient"] is None and pair["other_fold"] is None for pair in of_d)
    for across, field in (("patient", "patient"), ("fold", "fold")):
        for pair in _json(capsys, *words, "--across", across)["pairs"]:
            a, b = pair["a"][field], pair["b"][field]
            assert a != b or a is None
            assert across == "patient" or None not in (a, b)


def test_no_duplicates_and_no_folds(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["bank", "duplicates", str(bank), "--threshold", "1", "--out", str(out)]) == 0
    assert "No pairs of videos" in capsys.readouterr().out
    assert out.exists()
    stored = StoredBank.open(bank)
    videos = tuple(StoredVideo(**{**v.__dict__, "fold": None}) for v in stored.videos)
    StoredBank(tmp_path / "bank", stored.bank, videos, stored.source).save()
    assert main(["bank", "duplicates", str(tmp_path / "bank"), "--across", "fold"]) == 2
    assert "0 folds" in _stderr_line(capsys)


def test_pictures_that_are_gone_are_not_compared(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = StoredBank.open(bank)
    moved = {"path": str(tmp_path / "nowhere")}
    videos = tuple(StoredVideo(**{**v.__dict__, **moved}) for v in stored.videos)
    StoredBank(tmp_path / "bank", stored.bank, videos, stored.source).save()
    words = ["duplicates", str(tmp_path / "bank"), "--threshold", "0.5"]
    answer = _json(capsys, *words, "--out", str(tmp_path / "sheet.png"))
    assert answer["summary"]["unreadable"] == len(answer["pairs"]) > 0
    assert main(["bank", *words]) == 0
    assert "no longer there" in capsys.readouterr().out


@settings(max_examples=25)
@given(st.data())
def test_every_pair_at_or_above_the_threshold_is_found(data: st.DataObject) -> None:
    """Against all pairs of rows, with many copies of a frame, so that pages are full."""
    videos = data.draw(st.integers(2, 4))
    counts = data.draw(st.lists(st.integers(1, 45), min_size=videos, max_size=videos))
    total = sum(counts)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    corner = rng.integers(0, data.draw(st.integers(1, 3)), total)
    embedding = torch.eye(4)[torch.from_numpy(corner)]
    patients = [data.draw(st.sampled_from([None, "p", "q"])) for _ in counts]
    folds = [data.draw(st.sampled_from([None, 0, 1])) for _ in counts]
    stored_videos = tuple(
        StoredVideo(str(i), "nowhere", n, patients[i], None, folds[i], tuple(range(n)))
        for i, n in enumerate(counts)
    )
    bank = NegativeBank(total, 4)
    stored = StoredBank(Path("nowhere"), bank, stored_videos, {})
    number = {None: -1, "p": 0, "q": 1}
    patient = torch.tensor([number[p] for p in patients])[torch.from_numpy(stored.video)]
    video = torch.from_numpy(stored.video)
    bank.enqueue(Frames(embedding, video, torch.zeros(total), patient))

    across = data.draw(st.sampled_from(["video", "patient", "fold"]))

    def counts_as_pair(a: int, b: int) -> bool:
        x, y = stored.video_of(a), stored.video_of(b)
        if across == "fold":
            return None not in (x.fold, y.fold) and x.fold != y.fold
        same_patient = across == "patient" and x.patient is not None and x.patient == y.patient
        return x.id != y.id and not same_patient

    if across == "fold" and len({fold for fold in folds if fold is not None}) < 2:
        with pytest.raises(ValueError, match="folds"):
            pairs.find_pairs(stored, 0.5, across)
        return
    wanted = {
        (a, b)
        for a in range(total)
        for b in range(a + 1, total)
        if corner[a] == corner[b] and counts_as_pair(a, b)
    }
    found = pairs.find_pairs(stored, 0.5, across, every_frame=True)
    assert {(pair.a, pair.b) for pair in found} == wanted and len(found) == len(wanted)
    best = pairs.find_pairs(stored, 0.5, across)
    of_videos = {(stored.video[a], stored.video[b]) for a, b in wanted}
    assert {(stored.video[p.a], stored.video[p.b]) for p in best} == of_videos
    assert sum(pair.frames for pair in best) == len(wanted)


def test_correlation_is_of_details() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 64, 64, generator=generator) * 255
    slope = torch.linspace(0, 400, 64)[:, None]
    assert pairs.correlation(a, a * 0.5 + 20) == pytest.approx(1, abs=1e-5)  # float32 sums
    assert abs(pairs.correlation(a + slope, b + slope)) < 0.1
    assert pairs.correlation(a, -a) == pytest.approx(-1, abs=1e-5)
    flat = torch.full((64, 64), 7.0)
    assert pairs.correlation(flat, flat) == 1
    assert pairs.correlation(flat, a) == 0
