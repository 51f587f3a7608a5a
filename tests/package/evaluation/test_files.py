"""Files of an evaluation: whole or an error that names the file; what is odd gets a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import make_data, make_run

from usucl import _files
from usucl._files import DamagedFileError
from usucl._tables import read_table
from usucl.cli import main
from usucl.embedding import Embeddings
from usucl.evaluation import embed, evaluate
from usucl.evaluation.schema import Evaluation
from usucl.report import figures, write_report

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"frames_per_video": 2, "queries_per_video": 1, "resamples": 5}
UNWRITABLE = Path("/sys/kernel")  # for root too


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its evaluation; tests work on copies."""
    root = tmp_path_factory.mktemp("evaluated")
    run = make_run(root / "run", make_data(root / "data", videos=4, frames=3), held_out=1)
    evaluate(run=run, data=root / "data", **FEW)
    return run


def small_embeddings(**changes: object) -> Embeddings:
    fields = {
        "features": torch.eye(3), "embedding": torch.eye(3), "video": torch.tensor([0, 0, 1]),
        "frame": torch.tensor([0, 1, 0]), "time": torch.tensor([0.0, 0.5, 0.0]),
        "frame_label": ("=1+1", None, "\udcff"), "video_id": ("=a", "b\n'c"), "group": ("@g", "-5"),
        "label": ("+x", None), "held_out": (True, False),
    }  # fmt: skip
    return Embeddings(**{**fields, **changes})  # type: ignore[arg-type]


def test_texts_come_back_and_are_no_formulas(tmp_path: Path) -> None:
    made = small_embeddings()
    made.save(tmp_path, "e")
    read = Embeddings.load(tmp_path, "e")
    for name in ("frame_label", "video_id", "group", "label", "held_out"):
        assert getattr(read, name) == getattr(made, name)
    lines = (tmp_path / "e.csv").read_text(encoding="utf-8", errors="replace")
    assert not [
        cell for cell in lines.replace("\n", ",").split(",") if cell[:1] in "=+@\t" and cell
    ]


@pytest.mark.parametrize("ending", ["csv", "safetensors"])
def test_one_changed_bit_of_embeddings_is_named(tmp_path: Path, ending: str) -> None:
    small_embeddings().save(tmp_path, "e")
    path = tmp_path / f"e.{ending}"
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 13):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError, match=rf"e\.{ending} is damaged"):
            Embeddings.load(tmp_path, "e")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"e\.{ending}"):
        Embeddings.load(tmp_path, "e")


def test_earlier_embeddings_stay_until_both_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_embeddings().save(tmp_path, "e")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usucl.embedding.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        small_embeddings(video_id=("other", "names")).save(tmp_path, "e")
    assert Embeddings.load(tmp_path, "e").video_id == ("=a", "b\n'c")
    assert {path.name for path in tmp_path.iterdir()} == {"e.csv", "e.safetensors"}


@pytest.mark.parametrize("ending", ["csv", "safetensors"])
@pytest.mark.parametrize("length", [0, 1, 40, -9])
def test_files_without_a_seal_that_are_cut_are_named(
    tmp_path: Path, ending: str, length: int
) -> None:
    from safetensors.torch import save_file

    small_embeddings().save(tmp_path, "e")
    tensors, _ = _files.read_tensors(tmp_path / "e.safetensors")
    save_file(tensors, tmp_path / "e.safetensors")
    assert len(Embeddings.load(tmp_path, "e")) == 3
    path = tmp_path / f"e.{ending}"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFileError, match=r"e\.\w+ is damaged"):
        Embeddings.load(tmp_path, "e")


@pytest.mark.parametrize(
    "name", ["evaluation.json", "embeddings/trained.csv", "embeddings/random.safetensors"]
)
def test_a_report_of_a_damaged_file_names_it(evaluated: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 2
    (run / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"run/{name} is damaged"):
        write_report(run)


@pytest.mark.parametrize("name", ["split.csv", "encoder.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'"', b"a,b\n1\n", b"[1]"])
def test_a_report_of_a_wrong_file_names_it(
    evaluated: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    (run / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"run/{name} is damaged"):
        write_report(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("retrieval", "temporal", "trained", "value"), "0.5"),
        (("retrieval", "temporal", "trained", "value"), 10**400),
        (("retrieval", "temporal", "trained", "value"), float("nan")),
        (("retrieval", "temporal"), {}),
        (("retrieval",), []),
        (("geometry", "uniformity"), {"trained": None}),
        (("geometry",), {}),
        (("probes", "label"), 3),
        (("probes", "label", "classes"), [1, 2]),
        (("probes", "label", "cross_validation", "knn"), {"frame": {"macro_auroc": {}}}),
        (("probes", "label", "cross_validation", "forest"), {"frame": {"macro_auroc": {}}}),
        (("protocol", "resamples"), "many"),
        (("counts", "held_out", "videos"), None),
        (("machine", "cpu_cores"), [4]),
        (("versions",), None),
        (("skipped",), [{"path": 3}]),
    ],
)
def test_an_evaluation_of_another_form_is_named(
    evaluated: Path, tmp_path: Path, path: tuple[str, ...], value: object
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    content = _files.read_json(run / "evaluation.json")
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (run / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=r"run/evaluation\.json is damaged"):
        write_report(run)


def test_evaluations_from_before_there_were_seals_are_read(evaluated: Path) -> None:
    content = _files.read_json(evaluated / "evaluation.json")
    assert Evaluation.from_json(json.loads(json.dumps(content))).to_json() == content


@pytest.mark.parametrize("function", [evaluate, embed])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_measured(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: object
) -> None:
    monkeypatch.setattr("usucl.data.VideoCatalog.scan", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "file").touch()
    for out in (UNWRITABLE / "new" / "folder", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=str(out)):
            function(run=evaluated, data=evaluated.parent / "data", out=out)  # type: ignore[operator]


@pytest.mark.parametrize(
    "embedding",
    [
        torch.full((40, 8), float("nan")),
        torch.full((40, 8), float("inf")),
        torch.ones(40, 8),
        torch.zeros(40, 1),
        torch.eye(8).repeat(5, 1),
        torch.cat([torch.full((1, 8), float("nan")), torch.randn(39, 8)]),
    ],
    ids=["nan", "infinity", "collapsed", "one dimension", "few points", "one nan"],
)
def test_a_map_of_any_embeddings(tmp_path: Path, embedding: torch.Tensor) -> None:
    """A t-SNE of equal points ends the process."""
    e = small_embeddings(
        features=embedding, embedding=embedding, video=torch.arange(40) % 2,
        frame=torch.arange(40), time=torch.arange(40) / 40, frame_label=(None,) * 40,
    )  # fmt: skip
    drawn = figures.embedding_map({"trained": e}, tmp_path / "map.png")
    nothing = not embedding.isfinite().any()
    assert (drawn is None) == nothing
    assert (tmp_path / "map.png").is_file() == (not nothing)


@pytest.mark.parametrize(
    "case", ["one video", "one patient", "one class", "a class of one", "none"]
)
def test_little_data_is_measured_and_reported(tmp_path: Path, case: str) -> None:
    videos = 1 if case == "one video" else 4
    data = make_data(tmp_path / "data", videos=videos, frames=2, labels=case != "none")
    table = data / "labels.csv"
    if case != "none":
        text = table.read_text()
        if case == "one patient":
            text = text.replace("patient_1", "patient_0")
        if case in ("one class", "a class of one"):
            text = text.replace("along", "across")
        if case == "a class of one":
            text = text.replace("video_3,across", "video_3,along")
        table.write_text(text)
    run = make_run(tmp_path / "run", data, held_out=0 if case == "one video" else 1)
    evaluate(run=run, data=data, **FEW)
    text = write_report(run).read_text(encoding="utf-8")
    assert "What it learned" in text and ">nan<" not in text


def test_single_images_are_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=4, frames=2)
    for video in (1, 3):
        (data / f"video_{video}" / "1.png").unlink()
    run = make_run(tmp_path / "run", data, held_out=1)
    without, with_them = (evaluate(run=run, data=data, min_frames=n, **FEW) for n in (2, 1))
    assert [sum(c.videos for c in e.counts.values()) for e in (without, with_them)] == [2, 4]
    assert len(without.skipped) == 2 and not with_them.skipped
    # The run does not know the images, so these are other data than its own.
    written = json.loads((run / "evaluations" / "data" / "evaluation.json").read_text())
    assert Evaluation.from_json(written).protocol.min_frames == 1
    report = write_report(run, evaluation=run / "evaluations" / "data")
    assert "What it learned" in report.read_text(encoding="utf-8")
    assert len(embed(run=run, data=data, out=tmp_path / "e", min_frames=1)) == 6
    with pytest.raises(ValueError, match="min_frames must be at least 1, got 0"):
        evaluate(run=run, data=data, min_frames=0, **FEW)


def test_embeddings_as_arrays(tmp_path: Path) -> None:
    made = small_embeddings(features=torch.randn(3, 5))
    assert made.save(tmp_path, "e", "npz") == tmp_path / "e.npz"
    with np.load(tmp_path / "e.npz") as arrays:
        for name in ("features", "embedding", "video", "frame", "time"):
            assert np.array_equal(arrays[name], getattr(made, name).numpy())
        assert arrays["features"].dtype == np.float32 and arrays["video"].dtype == np.int64
        assert arrays["video_id"].tolist() == list(made.video_id)
        assert arrays["label"].tolist() == ["+x", ""]
        assert arrays["frame_label"].tolist() == ["=1+1", "", "\udcff"]
        assert arrays["held_out"].tolist() == [True, False]


def test_embeddings_as_a_table_with_numbers(tmp_path: Path) -> None:
    made = small_embeddings(embedding=torch.randn(3, 2), features=1e-9 * torch.randn(3, 4))
    assert made.save(tmp_path, "e", "csv") == tmp_path / "e.csv"
    rows = read_table(tmp_path / "e.csv")
    assert [*rows[0]][:8] == [
        *("video", "video_id", "frame", "time", "group", "label", "frame_label", "part")
    ]
    assert [*rows[0]][8:] == ["embedding_0", "embedding_1", *(f"feature_{i}" for i in range(4))]
    for values, columns in ((made.embedding, [*rows[0]][8:10]), (made.features, [*rows[0]][10:])):
        read = torch.tensor([[float(row[name]) for name in columns] for row in rows])
        assert torch.equal(read, values)
    assert [row["video_id"] for row in rows] == ["=a", "=a", "b\n'c"]
    assert [row["part"] for row in rows] == ["held_out", "held_out", "train"]


def test_embeddings_replace_those_of_another_format(tmp_path: Path) -> None:
    """A table of other frames beside the tensors would be taken for damage."""
    made = small_embeddings()
    for format, files in (
        ("safetensors", {"e.csv", "e.safetensors"}),
        ("csv", {"e.csv"}),
        ("npz", {"e.npz"}),
        ("safetensors", {"e.csv", "e.safetensors"}),
    ):
        made.save(tmp_path, "e", format)  # type: ignore[arg-type]
        assert {path.name for path in tmp_path.iterdir()} == files
    Embeddings.load(tmp_path, "e")
    with pytest.raises(ValueError, match="format must be one of safetensors, npz, csv, got 'xls'"):
        made.save(tmp_path, "e", "xls")  # type: ignore[arg-type]


def test_embed_writes_the_format_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "data", videos=2, frames=3)
    run = make_run(tmp_path / "run", data)
    words = ["embed", str(run), str(data), "--encoder", "pixels", "--out", str(tmp_path / "out")]
    assert main([*words, "--format", "npz"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pixels.npz"]
    assert main([*words, "--format", "csv", "--overwrite"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pixels.csv"]
    assert len(read_table(tmp_path / "out" / "pixels.csv")) == 6
    assert main([*words, "--format", "xls", "--overwrite"]) == 2
    assert repr(embed(run=run, data=data, encoder="pixels", frames_per_video=1)) == (
        "Embeddings(2 frames of 2 videos, 1024 features, 1024 dimensions)"
    )
