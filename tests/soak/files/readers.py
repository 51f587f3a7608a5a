"""Every kind of file that the package reads: how a small one is made, and what reads it."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from tests.helpers.tiny_dicom import SYNTAXES
from tests.helpers.tiny_dicom import write as write_dicom
from tests.helpers.tiny_videos import moving, write
from tests.soak.files.fuzzing import Reader
from usucl.bank import NegativeBank
from usucl.data import VideoCatalog, open_video
from usucl.data.video import read_image
from usucl.data.video.images.times import TIMES
from usucl.data.video.stored import write_stored
from usucl.embedding import Embeddings
from usucl.gallery import Gallery
from usucl.gallery.parts import Parts
from usucl.losses import Frames
from usucl.models import EncoderConfig, FrameEncoder, load_encoder, save_encoder
from usucl.training import read_config

_PICTURES = [Image.fromarray(frame) for frame in moving(8)]


def _video(codec: str, pixels: str, suffix: str, folder: Path) -> Path:
    return write(folder / f"video.{suffix}", moving(70), codec, pixels, group=12)


def _image(suffix: str, count: int, folder: Path) -> Path:
    path = folder / f"image.{suffix}"
    more = {"save_all": True, "append_images": _PICTURES[1:count]} if count > 1 else {}
    _PICTURES[0].save(path, **more)
    return path


def _dicom(syntax: UID, folder: Path) -> Path:
    frames = np.stack([picture[..., 0] for picture in moving(4)])
    return write_dicom(folder / "loop.dcm", frames, syntax=syntax, FrameTime="40")


def _deep_stack(folder: Path) -> Path:
    pages = [Image.fromarray(frame[..., 0].astype("uint16") * 99) for frame in moving(4)]
    pages[0].save(folder / "deep.tif", save_all=True, append_images=pages[1:])
    return folder / "deep.tif"


def _packed_dicom(name: str, folder: Path) -> Path:
    """A loop of one frame over and over, in a syntax that only pydicom's own test files have."""
    data = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    frame = next(generate_frames(data.PixelData, number_of_frames=1))
    data.PixelData = encapsulate([frame] * 3)
    data.NumberOfFrames, data.FrameTime = 3, "40"
    data.save_as(folder / "loop.dcm")
    return folder / "loop.dcm"


def _catalogue(table: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("ann", "bob", "cid", "dan"):
        (folder / name).mkdir()
        for frame in range(2):
            Image.new("L", (8, 8), 50 * frame).save(folder / name / f"{frame}.png")
    if table == "labels.csv":
        rows = "ann,cyst,p1,0\nbob,stone,p1,0\ncid,cyst,p2,1\ndan,,,\n"
        (folder / table).write_text("video_id,label,patient,fold\n" + rows)
    else:
        rows = "".join(f"{name},{frame},x{frame}\n" for name in ("ann", "cid") for frame in (0, 1))
        (folder / table).write_text("video_id,frame,label\n" + rows)
    return folder / table


def _entries(path: Path) -> Any:
    fields = ("id", "label", "group", "patient_known", "fold", "frame_labels", "source")
    return [[getattr(e, name) for name in fields] for e in VideoCatalog.scan(path.parent)]


def _sweeps(folder: Path) -> Path:
    _catalogue("labels.csv", folder)
    rows = "left,ann,2\nleft,bob,1\nright,cid,1\n"
    (folder / "sweeps.csv").write_text("sweep_id,part,order\n" + rows)
    return folder / "sweeps.csv"


def _joined(path: Path) -> Any:
    sweeps = VideoCatalog.scan(path.parent).with_sweeps(path)
    return [[entry.id, entry.label, [part.video.id for part in entry.parts]] for entry in sweeps]


def _manifest(folder: Path) -> Path:
    _catalogue("labels.csv", folder / "data")
    os.environ["USUCL_CACHE"] = str(folder / "cache")
    VideoCatalog.scan(folder / "data")
    (path,) = (folder / "cache").rglob("*.jsonl")
    return path


def _scanned(path: Path) -> Any:
    os.environ["USUCL_CACHE"] = str(path.parents[1])
    return _entries(path.parents[2] / "data" / "labels.csv")


def _config(folder: Path) -> Path:
    (folder / "config.yaml").write_text(read_config("paper", {"data": "videos"}).to_yaml())
    return folder / "config.yaml"


def _options(path: Path) -> Any:
    return read_config(path, {})


def _checkpoint(folder: Path) -> Path:
    from usucl.training.checkpoint import PARTS, Checkpoints

    torch.manual_seed(0)
    content = dict.fromkeys(PARTS, 0) | {"state_dict": {"weight": torch.randn(64, 8)}}
    Checkpoints().save_checkpoint(content, folder / "last.ckpt")
    return folder / "last.ckpt"


def _checkpoint_content(path: Path) -> Any:
    from usucl.training.checkpoint import read_checkpoint

    return read_checkpoint(path)


def _encoder(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    save_encoder(FrameEncoder(EncoderConfig(backbone="resnet10", image_size=32, dim=8)), folder)
    return folder / name


def _weights(path: Path) -> Any:
    encoder = load_encoder(path.parent)
    return [encoder.config, encoder.state_dict()]


def _frames(count: int = 32) -> Frames:
    embedding = torch.nn.functional.normalize(
        torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    )
    return Frames(embedding, torch.arange(count) // 4, torch.arange(count).float() % 4)


def _bank(pattern: str, folder: Path) -> Path:
    bank = NegativeBank(64, 8)
    bank.enqueue(_frames())
    bank.save(folder)
    (path,) = folder.glob(pattern)
    return path


def _stored(path: Path) -> Any:
    return NegativeBank.open(path.parent).frames()


def _gallery(folder: Path) -> Path:
    _catalogue("labels.csv", folder / "data")
    _encoder("encoder.json", folder / "run")
    Gallery.build(run=folder / "run", data=folder / "data", out=folder / "bank")
    shutil.rmtree(folder / "run")
    (path,) = (folder / "bank").glob("contents*.json")
    return path


def _contents(path: Path) -> Any:
    gallery = Gallery.open(path.parent)
    return [gallery.contents.videos, gallery.bank.frames()]


def _part(folder: Path) -> Path:
    _catalogue("labels.csv", folder / "data")
    parts = Parts(folder / "parts", "encoder")
    parts.save(_task(folder), _frames(2).embedding)
    return folder / "parts" / "part.safetensors"


def _task(folder: Path) -> Any:
    entry = VideoCatalog.scan(folder / "data").entries[0]
    # The name of a part holds the path of the video, which each copy of the folder has elsewhere.
    task = Parts(folder / "parts", "encoder").task(entry, [0, 1])
    return type(task)(task.entry, task.frames, "part")


def _part_content(path: Path) -> Any:
    embedding = Parts(path.parent, "encoder").load(_task(path.parents[1]))
    if embedding is None:
        raise ValueError(f"{path.name} is embedded anew")
    return embedding


def _embeddings(suffix: str, folder: Path) -> Path:
    frames = _frames()
    videos = int(frames.video.max()) + 1
    Embeddings(
        embedding=frames.embedding,
        features=frames.embedding.clone(),
        video=frames.video,
        frame=frames.time.long(),
        time=frames.time,
        frame_label=(None,) * len(frames.video),
        video_id=tuple(f"v{i}" for i in range(videos)),
        group=tuple(f"g{i}" for i in range(videos)),
        label=tuple("ab"[i % 2] for i in range(videos)),
        held_out=tuple(i % 2 == 0 for i in range(videos)),
    ).save(folder, "embeddings")
    return folder / f"embeddings.{suffix}"


def _embedded(path: Path) -> Any:
    return list(vars(Embeddings.load(path.parent, path.stem)).values())


def _shown(path: Path) -> Any:
    video = open_video(path)
    return [video.times, video[:], video[-1]]


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, picture in enumerate(_PICTURES):
        picture.save(folder / f"{number}.png")
    (folder / TIMES).write_text(
        "frame,seconds\n" + "".join(f"{i}.png,{i / 8}\n" for i in range(len(_PICTURES)))
    )
    return folder / TIMES


def _timed_pictures(folder: Path) -> Path:
    return _pictures(folder / "v")


def _shown_with_times(table: Path) -> object:
    return _shown(table.parent)


def _pixels(folder: Path) -> Path:
    video = open_video(_pictures(folder / "frames").parent)
    write_stored(folder / "v.safetensors", lambda: video.iter_frames(range(len(video))), video)
    return folder / "v.safetensors"


_VIDEOS = {
    "mp4": ("libx264", "yuv420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "mov": ("mpeg4", "yuv420p"),
    "mkv": ("ffv1", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "mpg": ("mpeg2video", "yuv420p"),
    "wmv": ("wmv2", "yuv420p"),
    "gif": ("gif", "gray"),
}
_BUNDLED = {
    "jpeg-lossless": "SC_rgb_jpeg_gdcm.dcm",
    "jpeg-12": "JPGExtended.dcm",
    "jpeg-ls": "SC_rgb_jls_lossy_line.dcm",
}

READERS: dict[str, Reader] = {
    **{f"video-{s}": Reader(partial(_video, *how, s), _shown) for s, how in _VIDEOS.items()},
    **{f"image-{s}": Reader(partial(_image, s, 1), read_image)
       for s in ("png", "jpg", "bmp", "tif", "webp")},
    **{f"stack-{s}": Reader(partial(_image, s, 8), _shown) for s in ("tif", "png", "webp")},
    "stack-deep": Reader(_deep_stack, _shown),
    **{f"dicom-{n}": Reader(partial(_dicom, uid), _shown) for n, uid in SYNTAXES.items()},
    **{f"dicom-{n}": Reader(partial(_packed_dicom, f), _shown) for n, f in _BUNDLED.items()},
    "stored-video": Reader(_pixels, _shown, sealed=True),
    TIMES: Reader(_timed_pictures, _shown_with_times),
    **{n: Reader(partial(_catalogue, n), _entries) for n in ("labels.csv", "frame_labels.csv")},
    "sweeps.csv": Reader(_sweeps, _joined),
    "manifest": Reader(_manifest, _scanned, sealed=True),
    "config.yaml": Reader(_config, _options),
    "checkpoint": Reader(_checkpoint, _checkpoint_content, sealed=True),
    "encoder.json": Reader(partial(_encoder, "encoder.json"), _weights, sealed=True),
    "encoder.safetensors": Reader(partial(_encoder, "encoder.safetensors"), _weights, sealed=True),
    "bank.json": Reader(partial(_bank, "bank.json"), _stored, sealed=True),
    "bank-tensors": Reader(partial(_bank, "*.safetensors"), _stored, sealed=True),
    "contents": Reader(_gallery, _contents, sealed=True),
    "part": Reader(_part, _part_content, sealed=True),
    "embeddings-tensors": Reader(partial(_embeddings, "safetensors"), _embedded, sealed=True),
    "embeddings-table": Reader(partial(_embeddings, "csv"), _embedded, sealed=True),
}  # fmt: skip
