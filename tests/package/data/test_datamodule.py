"""Batches: contents, masks, determinism over workers, windows in every unit of time."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from usucl.data import (
    Curriculum,
    DenseSampler,
    FrameBatch,
    FrameBatches,
    FrameSampler,
    Sampler,
    VideoCatalog,
    VideoDataModule,
    normalise,
)
from usucl.data.sampling.samplers import negative_candidates

LENGTHS = [20, 7, 33, 2, 26]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> VideoCatalog:
    """Five videos whose pixel value is 40 times the video's number plus the frame's index."""
    root = tmp_path_factory.mktemp("videos")
    for video, length in enumerate(LENGTHS):
        (root / f"v{video}").mkdir()
        for i in range(length):
            Image.new("L", (24, 24), 40 * video + i).save(root / f"v{video}" / f"{i}.png")
    (root / "labels.csv").write_text("video_id,label,patient\nv0,a,p\nv1,a,q\nv3,b,p\n")
    return VideoCatalog.scan(root)


def source(view: torch.Tensor) -> int:
    """The grey level of a uniform view, which encodes its video and frame."""
    levels = normalise(torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1))[:, :, 0, 0]
    return int((levels - view.mean((1, 2))).abs().sum(1).argmin())


def test_paper_batch(catalog: VideoCatalog) -> None:
    data = VideoDataModule(catalog, FrameSampler(), image_size=16, augmentation="crop", seed=3)
    assert data.steps_per_epoch == 1
    batch = data.batch(epoch=20, step=0)
    assert [tuple(t.shape) for t in batch[:3]] == [
        (5, 3, 16, 16),
        (5, 3, 16, 16),
        (5, 3, 3, 16, 16),
    ]
    assert sorted(batch.video.tolist()) == list(range(5))
    assert [t.dtype for t in batch[3:]] == [
        torch.int64,
        torch.float32,
        torch.int64,
        torch.int64,
        torch.float32,
        torch.float32,
    ]
    of_patient = dict(zip(batch.video.tolist(), batch.patient.tolist(), strict=True))
    assert of_patient == {0: 0, 1: 1, 2: -1, 3: 0, 4: -1}
    for i, video in enumerate(batch.video.tolist()):
        n, frame = LENGTHS[video], int(batch.frame[i])
        assert source(batch.anchor_view[i]) == 40 * video + frame
        assert float(batch.time[i]) == pytest.approx(frame / n)
        assert 0 < abs(source(batch.positive_view[i]) - 40 * video - frame) <= 3
        inside = negative_candidates(n, frame, (0.2 * n, 0.4 * n), 3)
        for view, time in zip(batch.negative_view[i], batch.negative_time[i], strict=True):
            negative = source(view) - 40 * video
            if len(inside):
                assert negative in inside and float(time) == pytest.approx(negative / n)
            else:
                assert negative == frame and torch.isnan(time)
    assert torch.isnan(batch.negative_time).any(1)[batch.video == 3].all()


def test_dense_batch_and_its_windows(catalog: VideoCatalog) -> None:
    sampler = DenseSampler(videos=3, frames=8, positive_radius=2)
    data = VideoDataModule(catalog, sampler, image_size=16, augmentation="crop")
    batch = data.batch(0, 1)
    assert len(batch.anchor_view) == 24 and batch.negative_view.shape == (24, 0, 3, 16, 16)
    assert batch.negative_time.shape == (24, 0)
    for i, video in enumerate(batch.video.tolist()):
        assert source(batch.anchor_view[i]) == 40 * video + int(batch.frame[i])
        assert abs(source(batch.positive_view[i]) - 40 * video - int(batch.frame[i])) <= 2
    windows = data.windows(batch.video, epoch=0)
    assert windows.shape == (24, 2) and windows.dtype == torch.float32
    same = batch.video[:, None] == batch.video
    apart = (batch.time[:, None] - batch.time).abs()
    inside = same & (apart >= windows[:, :1]) & (apart <= windows[:, 1:])
    distance = (batch.frame[:, None] - batch.frame).abs()
    n = torch.tensor(LENGTHS)[batch.video, None]
    lo, hi = (0.2 * n).clamp(min=3), (0.4 * n).clamp(min=5)
    assert torch.equal(inside, same & (distance >= lo) & (distance <= hi))
    assert inside.any()


def equal(a: FrameBatch, b: FrameBatch) -> bool:
    return all(torch.equal(x.nan_to_num(-9), y.nan_to_num(-9)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("sampler", [FrameSampler(2), DenseSampler(2, 4)])
def test_batches_do_not_depend_on_workers_or_memory(
    catalog: VideoCatalog, sampler: Sampler
) -> None:
    options = {"image_size": 16, "sampler": sampler, "seed": 1}
    here = VideoDataModule(catalog, **options)
    loader = here.train_dataloader()
    loader.sampler.set_epoch(4)
    batches = list(loader)
    assert len(batches) == len(loader) == here.steps_per_epoch
    assert all(equal(b, here.batch(4, step)) for step, b in enumerate(batches))
    torch.rand(3), np.random.default_rng().random()
    workers = VideoDataModule(catalog, **options, num_workers=2, cache_gb=0)
    loader = workers.train_dataloader()
    for epoch in (3, 4):  # persistent workers follow the epoch
        loader.sampler.set_epoch(epoch)
        again = list(loader)
        assert all(equal(a, here.batch(epoch, step)) for step, a in enumerate(again))
    assert not equal(here.batch(3, 0), here.batch(4, 0))


LAYOUTS = [(0, None), (1, "spawn"), (2, "fork"), (4, "fork")]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize(("workers", "context"), LAYOUTS)
def test_batches_are_the_same_for_every_layout_of_workers(
    catalog: VideoCatalog, workers: int, context: str | None
) -> None:
    sampler = DenseSampler(2, 3, steps_per_epoch=3, positives=2, balance="patient")
    batches = FrameBatches(catalog, sampler, image_size=16, guard=0.9, seed=2)
    loader = batches.loader(num_workers=workers, multiprocessing_context=context)
    for epoch in (12, 0):
        loader.sampler.set_epoch(epoch)
        made = list(loader)
        assert len(made) == 3
        assert all(equal(batch, batches[epoch, step]) for step, batch in enumerate(made))


@pytest.mark.parametrize("sampler", [FrameSampler(2), DenseSampler(2, 4, steps_per_epoch=6)])
def test_processes_see_the_batches_of_one(catalog: VideoCatalog, sampler: Sampler) -> None:
    batches = FrameBatches(catalog, sampler, image_size=16)

    def loaded(**layout: Any) -> list[FrameBatch]:
        loader = batches.loader(**layout)
        loader.sampler.set_epoch(3)
        return list(loader)

    one = loaded()
    turns = [loaded(rank=rank, world=2) for rank in (0, 1)]
    taken = [batch for turn in zip(*turns, strict=True) for batch in turn]
    assert all(equal(a, b) for a, b in zip(taken, one, strict=True))
    shares = [loaded(rank=rank, world=2, split=True) for rank in (0, 1)]
    for step, whole in enumerate(one):
        parts = [share[step] for share in shares]
        assert not set(parts[0].video.tolist()) & set(parts[1].video.tolist())
        joined = [torch.cat(columns) for columns in zip(*parts, strict=True)]
        order = [
            (joined[3] == video).nonzero().flatten()
            for video in dict.fromkeys(whole.video.tolist())
        ]
        rows = torch.cat(order)
        assert equal(FrameBatch(*(column[rows] for column in joined)), whole)
    with pytest.raises(ValueError, match=r"world must be at most 2, .* got 3"):
        batches.loader(rank=0, world=3, split=True)


def test_unknown_ways_to_start_workers_are_refused(catalog: VideoCatalog) -> None:
    with pytest.raises(ValueError, match=r"multiprocessing_context must be .* got 'thread'"):
        FrameBatches(catalog).loader(num_workers=1, multiprocessing_context="thread")
    crop = v2.RandomCrop(16)
    batches = FrameBatches(catalog, image_size=16, augmentation=lambda image: crop(image))
    for context in ("spawn", "forkserver"):
        with pytest.raises(ValueError, match=rf"augmentation must be defined .* by '{context}'"):
            batches.loader(num_workers=1, multiprocessing_context=context)
    batches.loader(num_workers=1, multiprocessing_context="fork")


@pytest.mark.parametrize("sampler", [FrameSampler(positives=3), DenseSampler(2, 4, positives=3)])
def test_several_positives_are_near_frames(catalog: VideoCatalog, sampler: Sampler) -> None:
    batch = FrameBatches(catalog, sampler, image_size=16, augmentation="crop")[20, 0]
    n = len(batch.video)
    assert batch.positive_view.shape == (n, 3, 3, 16, 16)
    rows = zip(batch.video, batch.frame, batch.positive_view, batch.positive_offset, strict=True)
    for video, frame, views, offset in rows:
        signed = [source(view) - 40 * int(video) - int(frame) for view in views]
        distance = [abs(number) for number in signed]
        assert (offset * LENGTHS[video]).tolist() == pytest.approx(signed, abs=1e-4)
        assert max(distance) <= 3
        assert LENGTHS[video] < 7 or (min(distance) > 0 and len(set(map(source, views))) == 3)


def test_the_gap_is_in_the_unit_of_time(catalog: VideoCatalog) -> None:
    batches = FrameBatches(catalog, DenseSampler(5, 4), image_size=16, min_gap=0.25)
    n = torch.tensor(LENGTHS)
    lo, hi = (batches.windows(torch.arange(5), 55) * n[:, None]).unbind(1)
    beyond = 3 + (0.25 * n).ceil()
    assert torch.allclose(lo, beyond - 0.01, atol=1e-4)
    assert torch.allclose(hi, beyond + 2.01, atol=1e-4)
    draw = FrameBatches(catalog, FrameSampler(), image_size=16, min_gap=0.25).draw(55, 0)
    found = draw.negatives >= 0
    assert found.any()
    distance = np.abs(draw.negatives - draw.anchor[:, None])
    assert (distance >= beyond.numpy()[draw.video, None])[found].all()
    for gap in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"min_gap must be finite and >= 0, got"):
            FrameBatches(catalog, min_gap=gap)


def test_curriculum_acts_on_the_negatives(catalog: VideoCatalog) -> None:
    curriculum = Curriculum("step", 60)
    sampler = FrameSampler(negatives=8)
    data = VideoDataModule(catalog, sampler, curriculum=curriculum)
    for epoch, (lo, hi) in ((20, (6, 13.2)), (55, (4, 6))):  # of the video with 33 frames
        batch = data.batch(epoch, 0)
        row = batch.video.tolist().index(2)
        distance = (batch.negative_time[row] - batch.time[row]).abs() * 33
        assert distance.min() > lo - 0.1 and distance.max() < hi + 0.1


def test_units_of_time(tmp_path: Path, catalog: VideoCatalog) -> None:
    pages = [Image.new("L", (16, 16), 10 * i) for i in range(20)]
    for name in ("a", "b"):
        pages[0].save(
            tmp_path / f"{name}.gif",
            save_all=True,
            append_images=pages[1:],
            duration=[100] * 10 + [200] * 10,
        )
    curriculum = Curriculum("constant", windows=((1.0, 2.0),))
    options = {"sampler": DenseSampler(2, 8), "curriculum": curriculum}
    gifs = VideoCatalog.scan(tmp_path)
    data = VideoDataModule(gifs, time_unit="seconds", **options)
    batch = data.batch(0, 0)
    expected = torch.where(batch.frame <= 10, batch.frame * 0.1, 1 + (batch.frame - 10) * 0.2)
    assert batch.time.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    rate = gifs.entries[0].frame_rate
    assert rate == pytest.approx(19 / 2.8)
    expected_window = [1.0 - 0.01 / rate, 2.0 + 0.01 / rate]
    assert data.windows(batch.video, 0)[0].tolist() == pytest.approx(expected_window)
    frames = VideoDataModule(gifs, time_unit="frames", **options).batch(0, 0)
    assert torch.equal(frames.time, frames.frame.float())
    with pytest.raises(ValueError, match="unknown for 5 videos such as v0, got 'seconds'"):
        VideoDataModule(catalog, time_unit="seconds")
    with pytest.raises(ValueError, match="curriculum must be given with time_unit 'frames'"):
        VideoDataModule(catalog, time_unit="frames")


def test_windows_in_seconds_lie_beyond_slow_positives(tmp_path: Path) -> None:
    pages = [Image.new("L", (16, 16), 10 * i) for i in range(20)]
    durations = [100] * 10 + [500] * 10
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=durations)
    curriculum = Curriculum("constant", windows=((0.5, 1.0),), cross_only=0)
    batches = FrameBatches(
        VideoCatalog.scan(tmp_path), DenseSampler(1, 8), curriculum=curriculum, time_unit="seconds"
    )
    batch = batches[0, 0]
    rate = batches.clock.frames_per_unit[0]
    windows = batches.windows(batch.video, 0, batch.frame)
    times = batches.catalog.entries[0].open().times
    for frame, (lo, hi) in zip(batch.frame.tolist(), windows.tolist(), strict=True):
        near = times[max(0, frame - 3) : frame + 4]
        reach = max(abs(near - times[frame]).max(), 3 / rate)
        assert lo == pytest.approx(max(0.5, reach + 1 / rate) - 0.01 / rate)
        assert hi == pytest.approx(max(1.0, reach + 3 / rate) + 0.01 / rate)
    assert windows[:, 0].max() > 1.5  # three frames of half a second
    drawn = FrameBatches(
        batches.catalog, FrameSampler(), curriculum=curriculum, time_unit="seconds"
    )[0, 0]
    distance = (drawn.negative_time - drawn.time[:, None]).abs()
    lo, hi = batches.windows(drawn.video, 0, drawn.frame)[0].tolist()
    assert ((distance >= lo) & (distance <= hi)).all()


def test_errors_name_the_argument(catalog: VideoCatalog) -> None:
    with pytest.raises(ValueError, match="time_unit must be"):
        VideoDataModule(catalog, time_unit="hours")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="catalog must hold at least one video"):
        VideoDataModule(VideoCatalog(Path(), ()))


class Recorder(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, FrameBatch]] = []

    def training_step(self, batch: FrameBatch) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch))
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_sets_the_epoch(catalog: VideoCatalog, tmp_path: Path) -> None:
    data = VideoDataModule(catalog, FrameSampler(3), image_size=16, augmentation="crop")
    module = Recorder()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)
    assert [epoch for epoch, _ in module.seen] == [0, 0, 1, 1]
    for (epoch, batch), step in zip(module.seen, [0, 1, 0, 1], strict=True):
        assert isinstance(batch, FrameBatch) and equal(batch, data.batch(epoch, step))


def test_processes_share_the_steps(catalog: VideoCatalog) -> None:
    batches = FrameBatches(catalog, DenseSampler(2, 4, steps_per_epoch=5))
    parts = [list(batches.loader(rank=r, world=2).sampler) for r in (0, 1)]
    assert parts == [[(0, 0), (0, 2), (0, 4)], [(0, 1), (0, 3), (0, 0)]]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_is_drawn_again_is_told(catalog: VideoCatalog, workers: int) -> None:
    loader = FrameBatches(catalog, image_size=16).loader(num_workers=workers)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            list(loader)
    with pytest.warns(UserWarning, match=r"epoch 1 are drawn again: call loader"):
        list(loader)


def test_a_function_of_ones_own_augments(catalog: VideoCatalog) -> None:
    flipped = v2.Compose([v2.RandomCrop(16), v2.RandomVerticalFlip(1.0)])
    batches = FrameBatches(catalog, image_size=16, augmentation=flipped)
    batch = batches[0, 0]
    assert batch.anchor_view.shape[1:] == (3, 16, 16)
    assert equal(batch, batches[0, 0])
    for made, got in ((lambda x: x.float(), "torch.float32"), (lambda x: x[..., :4], "4]")):
        with pytest.raises(ValueError, match=rf"uint8 view \[1 or 3, 16, 16\], got .*{got}"):
            FrameBatches(catalog, image_size=16, augmentation=made)[0, 0]


def test_batches_need_no_training_framework() -> None:
    code = "import sys, usucl.data; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
