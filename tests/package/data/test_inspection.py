"""What is doubtful about videos: each kind of note is given where it should, and only there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from usucl.data import VideoCatalog, open_video
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.summary import Note, Summary
from usucl.data.inspection import KINDS, inspect
from usucl.data.inspection.duplicates import RADIUS, find_duplicates
from usucl.data.inspection.headers import header_facts
from usucl.data.inspection.pictures import look

HEIGHT, WIDTH = 240, 320


def speckle(count: int, *, moving: bool = True, seed: int = 0) -> np.ndarray:
    """uint8 [n, H, W]: blurred noise in a rectangle, black around it."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, HEIGHT, WIDTH), dtype=np.uint8)
    for frame in frames:
        if moving or not frames[0].any():
            coarse = rng.integers(20, 150, (60, 60), dtype=np.uint8)
            tissue = Image.fromarray(coarse).resize((200, 180), Image.Resampling.BICUBIC)
        frame[40:220, 60:260] = np.asarray(tissue)
    return frames


def drawn(
    frames: np.ndarray,
    text: str = "",
    at: tuple[int, int] = (4, 4),
    *,
    size: int = 12,
    colour: tuple[int, int, int] = (255, 255, 255),
    ruler: bool = False,
) -> list[Tensor]:
    """The frames with a text or the ticks of a ruler, each uint8 [3, H, W]."""
    made = []
    for frame in frames:
        image = Image.fromarray(np.repeat(frame[..., None], 3, -1))
        pen = ImageDraw.Draw(image)
        pen.text(at, text, fill=colour, font=ImageFont.load_default(size))
        for tick in range(20, 230, 10) if ruler else ():
            pen.line((300, tick, 306 if tick % 50 else 312, tick), fill=(220, 220, 220))
            pen.line((tick, 230, tick, 236), fill=(220, 220, 220))
        made.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return made


def save(folder: Path, frames: list[Tensor]) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")


@pytest.mark.parametrize("moving", [True, False])
@pytest.mark.parametrize("size", [10, 14, 20])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 220, 0), (140, 140, 140)])
def test_a_name_beside_the_sector_is_found(
    moving: bool, size: int, colour: tuple[int, int, int]
) -> None:
    found = look(drawn(speckle(4, moving=moving), "DOE, JANE 4711", size=size, colour=colour))
    assert found.marks is not None
    assert found.marks.where[0] == "top left"


def test_a_name_within_a_moving_sector_is_found() -> None:
    found = look(drawn(speckle(6), "DOE, JANE 4711", (90, 120), size=16))
    assert found.marks is not None
    assert set(found.marks.where) <= {"left", "middle"}


@pytest.mark.parametrize("moving", [True, False])
def test_tissue_and_rulers_are_no_text(moving: bool) -> None:
    for ruler in (False, True):
        found = look(drawn(speckle(6, moving=moving), ruler=ruler))
        assert found.marks is None
        assert found.colours is None


def test_dark_letters_on_a_bright_panel_are_found() -> None:
    frames = speckle(4)
    frames[:, :30] = 230
    assert look(drawn(frames, "DOE, JANE 4711", (10, 6), size=14, colour=(0, 0, 0))).marks


def test_real_videos_without_text_have_none(data_root: Path) -> None:
    names = ("Pneu_Avi_Video_001", "Cov_Atlas_Day_3", "Reg_liftl_case3_clip2", "Reg_Atlas_alines")
    for name in names:
        video = open_video(data_root / "pocus" / "frames" / name)
        found = look(video.iter_frames(range(0, len(video), 8)))
        assert found.marks is None, name
        assert found.colours is None, name


def test_colours_that_move_and_marks_and_tints() -> None:
    frames = drawn(speckle(4))
    for number, frame in enumerate(frames):
        frame[:, 100 + 10 * number : 110 + 10 * number, 100:140] = torch.tensor([200, 20, 20])[
            :, None, None
        ]
    doppler = look(frames).colours
    assert doppler is not None
    assert doppler.moving
    assert not doppler.tinted
    assert doppler.share == pytest.approx(400 / (HEIGHT * WIDTH), rel=0.01)
    marked = drawn(speckle(4))
    for frame in marked:
        frame[:, 10:20, 300:310] = torch.tensor([0, 255, 0])[:, None, None]
    mark = look(marked).colours
    assert mark is not None
    assert not mark.moving
    assert mark.where == "top right"
    tinted = look(
        [f * torch.tensor([[[1]], [[1]], [[0]]], dtype=torch.uint8) for f in drawn(speckle(3))]
    )
    assert tinted.colours is not None
    assert tinted.colours.tinted


def test_nothing_to_look_at() -> None:
    assert look([]) == (None, None, None)
    assert look([torch.zeros(3, 40, 40, dtype=torch.uint8)]) == (None, None, None)


def _entry(name: str, bits: int, **fields: object) -> VideoEntry:
    summary = Summary(f"{name if bits else 'same'}", (bits, bits, bits), 9.0)
    return VideoEntry(name, Path(name), 9, None, summary=summary, **fields)  # type: ignore[arg-type]


def test_copies_are_found_within_the_radius() -> None:
    near, far = (1 << int(RADIUS)) - 1, (1 << int(RADIUS) + 1) - 1
    pairs = find_duplicates([_entry("a", 0), _entry("b", near), _entry("c", 0), _entry("d", far)])
    assert [(p.video, p.other, p.equal) for p in pairs if p.video < 3] == [
        (1, 0, False),
        (2, 0, True),
    ]
    assert [(p.video, p.other) for p in pairs if p.video == 3] == [(3, 1)]  # a bit away from b


def test_a_copy_of_another_patient_is_told_before_a_closer_one() -> None:
    def of(name: str, bits: int, patient: str) -> VideoEntry:
        return _entry(name, bits, group=patient, patient_known=True)

    (first, second) = find_duplicates([of("a", 3, "P1"), of("b", 1, "P2"), of("c", 1, "P2")])
    assert (first.video, first.other) == (1, 0)
    assert (second.video, second.other) == (2, 0)


def test_ten_thousand_videos_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (10_000, 5))
    hashes[9_000:9_010] = hashes[:10]
    entries = [
        VideoEntry(
            f"v{i}", Path(f"v{i}"), 9, None, summary=Summary(f"{i}", tuple(map(int, row)), 9)
        )
        for i, row in enumerate(hashes)
    ]
    start = time.process_time()
    pairs = find_duplicates(entries)
    assert [(p.video, p.other, p.bits) for p in pairs] == [(9_000 + i, i, 0) for i in range(10)]
    assert time.process_time() - start < 30


def test_keywords_of_headers_without_their_values(data_root: Path) -> None:
    facts = header_facts(data_root / "dicom" / "examples_ybr_color.dcm")
    assert "PatientName" in facts.keywords
    assert "StudyDate" in facts.keywords
    assert facts.private > 0
    assert not facts.removed


def test_a_header_that_says_its_identity_was_removed(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    dataset = dcmread(get_testdata_file("CT_small.dcm"))  # type: ignore[arg-type]
    dataset.PatientIdentityRemoved = "YES"
    dataset.BurnedInAnnotation = "YES"
    dataset.PatientName = "pseudonym 7"
    dataset.InstitutionName = ""
    dataset.remove_private_tags()
    dataset.save_as(tmp_path / "a.dcm")
    facts = header_facts(tmp_path / "a.dcm")
    assert facts.removed
    assert facts.burned_in
    assert facts.private == 0
    assert "PatientName" not in facts.keywords
    assert "InstitutionName" not in facts.keywords
    assert "StudyDate" in facts.keywords


def test_a_folder_of_doubtful_videos(tmp_path: Path) -> None:
    save(tmp_path / "fine", drawn(speckle(6)))
    save(tmp_path / "frozen", drawn(speckle(4, moving=False, seed=5)))
    save(tmp_path / "named", drawn(speckle(6, seed=2), "DOE, JANE 4711"))
    save(tmp_path / "copy", drawn(speckle(6)))
    brighter = np.clip(speckle(6) * 1.2, 0, 255).astype(np.uint8)
    save(tmp_path / "similar", drawn(brighter))
    save(tmp_path / "beating", drawn(np.concatenate([speckle(5, seed=3)] * 3)))
    (tmp_path / "labels.csv").write_text(
        "video_id,label,patient\nfine,a,P1\nfrozen,a,P2\nnamed,a,P3\ncopy,b,P4\nsimilar,b,P1\n"
        "beating,b,P5\n"
    )
    found = inspect(VideoCatalog.scan(tmp_path))
    kinds = {(note.video_id, note.kind) for note in found.notes}
    assert kinds == {
        ("frozen", "static"),
        ("beating", "periodic"),
        ("fine", "duplicate"),  # copy comes before it
        ("similar", "near-duplicate"),
        ("named", "text"),
    }
    texts = {note.kind: note.text for note in found.notes}
    assert "the same frames as copy, which is of another patient (P4, not P1)" in texts["duplicate"]
    assert "repeats every 5.0 frames" in texts["periodic"]
    order = [KINDS.index(note.kind) for note in found.notes]
    assert order == sorted(order)
    assert all(isinstance(note, Note) for note in found.notes)
    quick = inspect(VideoCatalog.scan(tmp_path), pictures=False)
    assert {note.kind for note in quick.notes} == {kind for _, kind in kinds} - {"text"}
    assert any("the pictures" in words for words in quick.unseen)
