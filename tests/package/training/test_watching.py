"""What is watched during training: it changes nothing, and says what is true."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from runs import BACKBONE, make_data
from threadpoolctl import threadpool_limits
from torch import nn

from usucl._files import read_tensors
from usucl.bank import NegativeBank
from usucl.data import VideoCatalog
from usucl.losses import Frames, LossInputs, hard_negative_nce
from usucl.report import write_report
from usucl.run_folder import RunFolder
from usucl.training import loggers, read_config, train
from usucl.training.callbacks.mining import BINS, bank_ages, histogram, mining_figures
from usucl.training.callbacks.monitor import COLUMNS
from usucl.training.callbacks.probe import LabelledFrames, evaluation_mode, labelled_frames
from usucl.training.callbacks.progress import Pace
from usucl.training.callbacks.saving import Saving
from usucl.training.summary import summary_rows

TINY = {"preset": "dense", "backbone": BACKBONE, "image_size": 32, "dim": 8, "progress": False}
TINY |= {"epochs": 2, "videos": 4, "frames": 3, "steps_per_epoch": 2, "log_every": 1}
TINY |= {"cross_k": 4, "bank": 40, "max_similarity": 0.999, "soft_nn_temperature": 0.1}
EVERYTHING = {"probe_every": 1, "probes": ["knn", "linear"], "images_every": 1, "images": 2}
NEW = COLUMNS[COLUMNS.index("window_hi") + 1 :]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Of the fixtures of this module, too: the number of threads changes the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def trained(out: Path) -> dict[str, Any]:
    """The weights, the optimiser and the bank, in which every step shows."""
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: checkpoint[name] for name in ("state_dict", "optimizer_states", "bank")}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from flat(inner, f"{name}.{key}")
    else:
        yield name, value


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("watched") / "videos", frames=8)


@pytest.fixture(scope="module")
def watched(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """A run with every monitor on, and what the savers of its encoder could choose by."""
    seen: list[dict] = []
    save = Saving.on_train_epoch_end

    def noting(self: Saving, trainer: Any, module: Any) -> None:
        seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        save(self, trainer, module)

    out = tmp_path_factory.mktemp("runs") / "watched"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saving, "on_train_epoch_end", noting)
        train(data=videos, out=out, **TINY, **EVERYTHING)
    return out, seen


def test_watching_changes_no_bit(
    videos: Path, watched: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    plain = train(data=videos, out=tmp_path / "plain", logger="none", histograms=False, **TINY)
    mine, other = dict(flat(trained(plain))), dict(flat(trained(watched[0])))
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        is_tensor = isinstance(value, torch.Tensor)
        assert torch.equal(value, other[name]) if is_tensor else value == other[name], name
    numbers = [name for name in COLUMNS if not name.endswith(("_share", "_second"))]
    a, b = (rows(out / "metrics.csv") for out in (plain, watched[0]))
    assert [[row[n] for n in numbers] for row in a] == [[row[n] for n in numbers] for row in b]
    left_out = {"tensorboard", "hardness.csv", "probe.csv", "negatives", "loggers"}
    assert left_out.isdisjoint(path.name for path in plain.iterdir())


def test_what_a_watched_run_leaves(watched: tuple[Path, list[dict]]) -> None:
    out, seen = watched
    probed = rows(out / "probe.csv")
    assert [(row["step"], row["epochs_done"], row["probe"]) for row in probed] == [
        (step, done, probe)
        for step, done in (("0", "0"), ("2", "1"), ("4", "2"))
        for probe in ("knn", "linear")
    ]
    assert {(r["classes"], r["patients"], r["videos"], r["chance"]) for r in probed} == {
        ("2", "3", "6", "0.5")
    }
    for metrics, done in zip(seen, ("1", "2"), strict=True):
        for row in (row for row in probed if row["epochs_done"] == done):
            value = metrics[f"probe_{row['probe']}_balanced_accuracy"]
            assert value == pytest.approx(float(row["balanced_accuracy"]), rel=1e-6)

    metrics = rows(out / "metrics.csv")
    assert [row["bank_age_oldest"] for row in metrics] == ["0", "1", "2", "3"]
    assert all(0 <= float(row["above_positive"]) <= 1 for row in metrics)
    assert all(0.25 <= float(row["soft_nn_weight"]) <= 1 for row in metrics)
    assert all(float(row["learning_rate"]) > 0 for row in metrics)
    counts = rows(out / "hardness.csv")
    for row in (row for row in counts if row["group"] == "positive"):
        numbers = [int(value) for name, value in row.items() if name not in ("step", "group")]
        assert len(numbers) == BINS and sum(numbers) == 2 * 4 * 3  # every view has one

    sheets = sorted((out / "negatives").iterdir())
    assert [sheet.name for sheet in sheets] == ["epoch_0001.png", "epoch_0002.png"]
    assert RunFolder(out).last_negatives == sheets[1]
    with Image.open(sheets[1]) as image:
        assert np.asarray(image.convert("L")).std() > 5
    told = dict(summary_rows(RunFolder(out)))
    assert told["epochs"] == "2, of 4 steps in all" and "best" in told["probe (knn)"]
    html = write_report(out).read_text(encoding="utf-8")
    assert "What was mined" in html and "epoch_0002.png" in html
    assert (out / "figures" / "mining.png").is_file()


def test_a_run_of_an_earlier_version_goes_on(
    watched: tuple[Path, list[dict]], tmp_path: Path
) -> None:
    """Its metrics have fewer columns, and it has no other tables."""
    out = watched[0]
    before = rows(out / "metrics.csv")
    old = [name for name in COLUMNS if name not in NEW]
    with (out / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, old, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(before)
    (out / "hardness.csv").unlink()
    train(out=out, resume=True, epochs=3, progress=False)
    after = rows(out / "metrics.csv")
    assert [row["step"] for row in after] == ["1", "2", "3", "4", "5", "6"]
    assert all(row[name] == before[i][name] for i, row in enumerate(after[:4]) for name in old)
    assert {row[name] for row in after[:4] for name in NEW} == {""}
    assert float(after[5]["above_positive"]) >= 0
    assert [row["epochs_done"] for row in rows(out / "probe.csv")][::2] == ["0", "1", "2", "3"]
    assert {row["step"] for row in rows(out / "hardness.csv")} == {"5", "6"}


def test_the_figures_of_mining() -> None:
    def frames(vectors: list[list[float]], video: list[int]) -> Frames:
        times = torch.arange(len(video)).float()
        return Frames(torch.tensor(vectors), torch.tensor(video), times)

    # Two anchors of other videos. The first has an intra-video negative (0.6) and finds a copy of
    # itself in another video; the second has cross-video negatives alone, all below its positive.
    anchors = frames([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    positives = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    keys = frames([[0.6, 0.8], [1.0, 0.0], [0.8, 0.6]], [0, 2, 2])
    keys = keys._replace(time=torch.tensor([5.0, 0.0, 1.0]))
    inputs = LossInputs(anchors, positives, (keys,), torch.tensor([1.0, 9.0]))
    _, selection = hard_negative_nce(
        *inputs[:3], window=inputs.window, intra_k=1, cross_k=2, return_selection=True
    )
    found = mining_figures(inputs, selection, soft_nn_temperature=0.1, max_similarity=0.7)
    assert found["intra_share"] == 1 / 5  # one of the first, two and two of both cross-video
    assert found["above_positive"] == 1 / 2
    assert found["near_duplicates"] == 1 / 4
    weights = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(-2.0))]  # 1 to 0.8, and 0.8 to 0.6
    assert found["soft_nn_weight"] == pytest.approx(np.mean(weights), rel=1e-5)
    # Possible: 3 of the first, 3 of the second (0.8, 0, 0.6); above 0.7: 1, 0.8, and 0.8.
    assert found["struck_by_max_similarity"] == 3 / 6
    assert math.isnan(mining_figures(inputs, selection)["soft_nn_weight"])

    _, nothing = hard_negative_nce(
        *inputs[:3], window=None, intra_k=0, cross_k=0, return_selection=True
    )
    assert all(math.isnan(value) for value in mining_figures(inputs, nothing).values())


def test_ages_and_histograms() -> None:
    bank = NegativeBank(6, 2, max_age=3)
    assert math.isnan(bank_ages(bank, 0)["bank_age"]) and math.isnan(bank_ages(None, 3)["bank_age"])
    for _ in range(3):
        bank.enqueue(Frames(torch.eye(2), torch.arange(2), torch.zeros(2)))
    # Two came in each of three steps; those of the first are 4 frames old, which is too old.
    assert bank_ages(bank, 3) == {"bank_age": 0.5, "bank_age_oldest": 1.0}
    counts = histogram(torch.tensor([-1.0, -0.96, 0.0, 0.049, 0.999, 1.0]))
    assert (counts[0], counts[BINS // 2], counts[-1], sum(counts)) == (2, 2, 2, 6)


def test_what_is_probed(videos: Path, tmp_path: Path) -> None:
    catalog = VideoCatalog.scan(videos)
    found = labelled_frames(catalog, 20, 32, seed=0)
    assert isinstance(found, LabelledFrames)
    assert found.images.shape == (16, 1, 32, 32) and found.classes == ("across", "along")
    assert len(found.splits) == 4  # patients
    for split in found.splits:
        assert not set(found.group[split.fit]) & set(found.group[split.test])
    few = labelled_frames(catalog, 5, 32, seed=0)
    assert isinstance(few, LabelledFrames) and len(few.truth) == 5 and len(set(few.truth)) == 2

    plain = VideoCatalog.scan(make_data(tmp_path / "plain", videos=2, frames=2, labels=False))
    assert "no labels of two classes" in str(labelled_frames(plain, 9, 32, seed=0))
    rows = "video_id,label,patient\nvideo_0,a,one\nvideo_1,b,one\n"
    (tmp_path / "plain" / "labels.csv").write_text(rows)
    one = VideoCatalog.scan(tmp_path / "plain")
    assert "all of one patient (one)" in str(labelled_frames(one, 9, 32, seed=0))
    by_frame = "video_id,frame,label\n" + "".join(
        f"video_{v},{f},{'ab'[f]}\n" for v in range(2) for f in range(2)
    )
    (tmp_path / "plain" / "labels.csv").unlink()
    (tmp_path / "plain" / "frame_labels.csv").write_text(by_frame)
    frames = labelled_frames(VideoCatalog.scan(tmp_path / "plain"), 9, 32, seed=0)
    assert isinstance(frames, LabelledFrames) and not frames.by_video and len(frames.truth) == 4


def test_no_labels_are_said_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "videos", videos=4, frames=6, labels=False)
    options = {**TINY, "epochs": 1, "steps_per_epoch": 1, "videos": 3}
    out = train(data=data, out=tmp_path / "run", probe_every=1, logger="csv", **options)
    assert capsys.readouterr().err.count("No probes (watching.probe_every): ") == 1
    assert rows(out / "probe.csv") == [] and not (out / "tensorboard").exists()
    assert read_tensors(out / "encoder.safetensors")


def test_evaluation_mode_leaves_everything_as_it_was() -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.BatchNorm1d(2).eval()).train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    torch.manual_seed(1)
    expected = torch.rand(2), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.manual_seed(1)
    with evaluation_mode(module):
        assert not any(part.training for part in module.modules())
        module(torch.rand(4, 2))
        np.random.rand(3)  # noqa: NPY002
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.get_state()[1], expected[1])  # noqa: NPY002
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_the_remaining_time_counts_pauses_and_does_not_jump() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    told: list[tuple[float, float]] = []  # remaining, and what it really took from there
    ends: list[float] = []
    for epoch in range(10):
        pace.epoch()
        for step in range(20):
            now[0] += 1.0 if step else 16.0 if epoch else 5.0  # 15 seconds for saving and probes
            pace.step()
            left = pace.remaining((9 - epoch) * 20 + 19 - step, 10 - epoch)
            if left is not None and epoch:
                told.append((left, now[0]))
    ends.append(now[0] + 15)
    assert all(left == pytest.approx(ends[0] - at, abs=1e-6) for left, at in told)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("logger", "tensorbord", "watching.logger must be one of tensorboard, csv"),
        ("logger", ["none", "csv"], "watching.logger must be 'none' alone"),
        ("logger", [], "watching.logger must be 'none' alone or some others"),
        ("probes", [], "watching.probes must be some of knn, linear"),
        ("probes", "knn", r"must be a list of knn, linear, got 'knn'; did you mean \[knn\]\?"),
        ("probe_every", -1, "watching.probe_every must be >= 0, got -1"),
        ("probe_frames", 1, r"watching.probe_frames must be in \[2, "),
        ("images_every", "often", "watching.images_every must be an integer, got 'often'"),
        ("images", 0, r"watching.images must be in \[1, 100\], got 0"),
        ("project", " ", "watching.project must be a name"),
    ],
)
def test_wrong_options_are_named(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config("dense", {option: value})


def test_a_logger_that_is_not_installed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(ValueError, match=r"'wandb' needs the package wandb, .* pip install wandb"):
        train(data=videos, out=tmp_path / "run", logger=["tensorboard", "wandb"], **TINY)
    assert not (tmp_path / "run").exists()


class FakeLogger(Logger):
    """Weights & Biases or MLflow, as far as Lightning calls them."""

    made: ClassVar[list[FakeLogger]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.logged: list[int | None] = []
        self.parameters: dict[str, Any] = {}
        self.finished = False
        self.pictures: list[str] = []
        self.run_id = options.get("run_id") or "id of the server"
        self.made.append(self)

    name = version = None  # type: ignore[assignment]

    @property
    def experiment(self) -> FakeLogger:
        return self

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.logged.append(step)

    def log_hyperparams(self, params: Any) -> None:
        self.parameters = params

    def log_image(self, key: str, images: list[str]) -> None:
        self.pictures += images

    def log_artifact(self, run: str, path: str, folder: str) -> None:
        self.pictures.append(path)

    def finish(self) -> None:
        self.finished = True


def test_other_loggers_go_on_with_the_same_run(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(FakeLogger):
        pass

    FakeLogger.made.clear()
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    monkeypatch.setattr(loggers, "WandbLogger", FakeLogger)
    monkeypatch.setattr(loggers, "MLFlowLogger", Other)
    options = {**TINY, "epochs": 1, "images_every": 1, "logger": ["wandb", "mlflow"]}
    out = train(data=videos, out=tmp_path / "my run", project="liver", **options)
    train(out=out, resume=True, epochs=2, progress=False)
    wandb, mlflow, wandb_again, mlflow_again = FakeLogger.made
    assert wandb.options["id"] == wandb_again.options["id"] == RunFolder(out).id
    assert wandb.options["name"] == "my run" and wandb.options["project"] == "liver"
    assert mlflow.options["run_name"] == "my run" and mlflow.options["run_id"] is None
    assert mlflow_again.options["run_id"] == "id of the server"
    assert wandb.logged == mlflow.logged == [1, 2] and wandb_again.logged == [3, 4]
    assert wandb.parameters["loss"]["cross_k"] == 4
    assert [Path(path).name for path in wandb.pictures] == ["epoch_0001.png"] and wandb.finished
    assert not (out / "tensorboard").exists()


def test_an_encoder_in_float64_is_probed_and_kept_before_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is not there when an epoch has its checkpoint never comes: the epoch is not done again.
    out, there = tmp_path / "run", []
    monkeypatch.setattr(
        "usucl.training.checkpoint.Checkpoints.save_checkpoint",
        lambda *_, **__: there.append((out / "best" / "best.json").is_file()),
    )
    train(
        data=make_data(tmp_path / "data", videos=6, frames=3),
        out=out,
        held_out=(),
        **{"backbone": BACKBONE, "image_size": 32, "dim": 8, "epochs": 1, "steps_per_epoch": 1},
        **{"sampling.videos": 2, "sampling.frames": 2, "probe_every": 1},
        precision="64-true",
        progress=False,
    )
    assert there == [True]
