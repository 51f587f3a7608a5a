"""Single frames: contents, order, times, and the loss that takes them."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from usucl.data import FrameDataset, VideoCatalog
from usucl.losses import Frames, hard_negative_nce

LENGTHS = [3, 2, 4]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> VideoCatalog:
    root = tmp_path_factory.mktemp("videos")
    for video, length in enumerate(LENGTHS):
        (root / f"v{video}").mkdir()
        for i in range(length):
            Image.new("L", (12, 10), 40 * video + i).save(root / f"v{video}" / f"{i}.png")
    (root / "labels.csv").write_text("video_id,label,patient\nv0,a,p\nv2,b,p\n")
    return VideoCatalog.scan(root)


def test_every_frame_once_in_the_order_of_the_catalogue(catalog: VideoCatalog) -> None:
    frames = FrameDataset(catalog)
    assert len(frames) == 9 and "9 frames of 3 videos" in repr(frames)
    where = [(v, i) for v, length in enumerate(LENGTHS) for i in range(length)]
    for index, (video, i) in enumerate(where):
        frame = frames[index]
        assert frame.image.shape == (3, 10, 12) and frame.image.dtype == torch.uint8
        assert (frame.image == 40 * video + i).all()
        assert (frame.video, frame.frame, frame.time) == (video, i, i / LENGTHS[video])
        assert frame.patient == (-1 if video == 1 else 0)
    assert frames[-1].frame == 3
    with pytest.raises(IndexError, match=r"index must be in \[-9, 9\), got 9"):
        frames[9]
    assert len(pickle.loads(pickle.dumps(frames))) == 9


def test_batches_of_a_data_loader_go_into_the_loss(catalog: VideoCatalog) -> None:
    frames = FrameDataset(catalog, lambda image: image.float() / 255, time_unit="frames")
    image, video, time, patient, _ = next(iter(DataLoader(frames, 9, num_workers=1)))
    weight = torch.randn(3 * 10 * 12, 8, generator=torch.manual_seed(0), requires_grad=True)
    embedding = torch.nn.functional.normalize(image.flatten(1) @ weight, dim=1)
    anchors = Frames(embedding, video, time.float(), patient)
    options = {"window": (1.0, 3.0), "intra_k": 2, "cross_k": 2}
    loss = hard_negative_nce(anchors, embedding.roll(1, 0), [anchors], **options)
    loss.backward()
    assert loss > 0 and weight.grad is not None and weight.grad.abs().sum() > 0
