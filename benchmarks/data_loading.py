"""``python -m benchmarks.data_loading``: frames and views per second of one core, by their source.

One synthetic video is written in several formats. What is measured is what training asks for: a few
frames of a video at random places, resized to the size of the frame store, and then augmented. Time
is that of the processor, so the rates are those of a core that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.harness import (
    ROOT,
    OtherPrograms,
    describe_run,
    in_words,
    torch_threads,
)
from benchmarks.rows import Result, Row, publish, read
from usucl.data import Augmentation, FrameStore, VideoCatalog, VideoEntry, write_phantom
from usucl.data.augmentation import AugmentationName
from usucl.data.conversion import Conversion, convert
from usucl.data.store.frames import grey_as_one_channel, resized

HEIGHT, WIDTH, FRAMES = 480, 640, 50
GROUP_OF_PICTURES = 25
SIZES = (64, 224)
PER_CALL = 8  # frames of one video
REQUESTS = 4  # before they are augmented together
ROUNDS = 3
DECODED = ("none", "crop-flip-jitter", "global")  # augmentations of frames that are decoded
STORE, ENCODER = "frame store", "ResNet, forward and backward, float32"
SOURCES = {
    "jpeg": "a folder of JPEG images, quality 95",
    "png": "a folder of PNG images",
    "mp4": f"H.264 with a key frame every {GROUP_OF_PICTURES} frames",
    "dicom": "a DICOM cine loop, JPEG baseline",
    "stored": "a stored video at full size, mapped and resized",
    STORE: "the frame store at training size, mapped",
}
BACKBONES = {64: "resnet18", 224: "resnet50"}
GPU_RATE = 3000  # images/s
PROJECTION = (
    f"assumed: an H100 trains ResNet-50 at 224 px with bfloat16 at {GPU_RATE:,} images/s; an A100 "
    "reaches about 2,600 by issue 1491 of huggingface/pytorch-image-models"
)

Request = Callable[[np.ndarray], Tensor]


def write_sources(folder: Path, height: int, width: int, frames: int) -> dict[str, VideoEntry]:
    """Writes one video in every format; returns the entries of their catalogues, by source."""
    phantom = write_phantom(folder / "phantom", videos=1, frames=frames, image_size=height)
    entry = VideoCatalog.scan(phantom).entries[0]
    pictures = np.zeros((frames, height, width), dtype=np.uint8)
    left = (width - height) // 2
    video = entry.open()
    for picture, frame in zip(pictures, video.iter_frames(range(len(video))), strict=False):
        picture[:, left : left + height] = frame[0].numpy()
    makers = {"jpeg": _images, "png": _images, "mp4": _mp4, "dicom": _dicom}
    for name, make in makers.items():
        (folder / name).mkdir()
        make(folder / name / "v", pictures, name)
    convert(VideoCatalog.scan(folder / "png"), folder / "stored", Conversion(to="store"))
    names = (*makers, "stored")
    return {name: VideoCatalog.scan(folder / name).entries[0] for name in names}


def _images(path: Path, pictures: np.ndarray, kind: str) -> None:
    path.mkdir()
    options: dict[str, Any] = {"quality": 95} if kind == "jpeg" else {"compress_level": 4}
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:04}.{kind}", **options)


def _mp4(path: Path, pictures: np.ndarray, _: str) -> None:
    with av.open(str(path.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:], "yuv420p"
        stream.options = {"g": str(GROUP_OF_PICTURES), "crf": "20"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def _dicom(path: Path, pictures: np.ndarray, _: str) -> None:
    import io

    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage

    parts = []
    for picture in pictures:
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "JPEG", quality=95)
        parts.append(content.getvalue())
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.SOPClassUID, data.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3"
    data.NumberOfFrames, data.Rows, data.Columns = pictures.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.FrameTime = 7, 0, 40
    data.PixelData = encapsulate(parts)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(path.with_suffix(".dcm"), enforce_file_format=True)


def requests(
    entries: Mapping[str, VideoEntry], short_side: int, folder: Path
) -> dict[str, Request]:
    """Returns what gives frames of each source: uint8 [n, 1 or 3, H, W] for numbers of frames."""
    store = FrameStore(list(entries.values()), short_side, 10**10, folder=folder)
    assert store.stored_videos == len(entries)

    def decoding(entry: VideoEntry) -> Request:
        return lambda frames: grey_as_one_channel(resized(entry.open(), frames, short_side))

    found = {name: decoding(entry) for name, entry in entries.items()}
    for number, (name, request) in enumerate(found.items()):
        check(name, request, partial(store.frames, number))
    return found | {STORE: partial(store.frames, list(entries).index("png"))}


def check(name: str, decode: Request, stored: Request) -> None:
    """Raises AssertionError unless the stored frames of a source equal the decoded ones."""
    for frames in (np.arange(5), np.array([3, 0, 3])):
        assert torch.equal(decode(frames), stored(frames)), f"{name}: stored frames differ"


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process on one core, since FFmpeg decodes with as many threads as it may."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _places(frames: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    while True:
        yield np.sort(random.integers(0, frames, PER_CALL))


def measure(
    entries: Mapping[str, VideoEntry],
    sizes: Sequence[int],
    augmentations: Sequence[str],
    folder: Path,
    seconds: float,
    words: Mapping[str, str],
) -> list[Row]:
    """Returns frames/s without, and views/s with each augmentation, and the encoder's images/s."""
    rows = []
    frames = min(entry.num_frames for entry in entries.values())
    for size in sizes:
        steps: dict[str, Callable[[], object]] = {}
        for augmentation in ("none", *augmentations):
            name_or_crop: Any = "crop-flip-jitter" if augmentation == "none" else augmentation
            augment = Augmentation(name_or_crop, size)
            for source, request in requests(entries, augment.short_side, folder).items():
                if source != STORE and augmentation not in DECODED:
                    continue
                places = _places(frames)

                def call(
                    request: Request = request,
                    places: Iterator[np.ndarray] = places,
                    augment: Augmentation | None = None if augmentation == "none" else augment,
                ) -> None:
                    images = [image for _ in range(REQUESTS) for image in request(next(places))]
                    if augment is not None:
                        augment(images, list(range(len(images))))

                steps[f"{source}|{augmentation}"] = call
        steps[f"{ENCODER}|none"] = _encoder(size)
        for key, took in cpu_seconds(steps, seconds).items():
            source, _, augmentation = key.partition("|")
            unit = "images/s" if source == ENCODER else "frames/s"
            shape = (REQUESTS * PER_CALL, size, size)
            row = Row("loading", f"{size} px", source, "both", shape, "uint8", (0, 0), augmentation,
                      1, "rate", None, None, None,
                      "views/s" if augmentation != "none" else unit, 0, **words)  # fmt: skip
            rows.append(row.with_figures(REQUESTS * PER_CALL / took))
    return rows


def _encoder(size: int) -> Callable[[], object]:
    import torchvision

    encoder = torchvision.models.get_model(BACKBONES[size])
    images = torch.randn(REQUESTS * PER_CALL, 3, size, size)

    def step() -> None:
        encoder.zero_grad()
        encoder(images).square().mean().backward()

    return step


def cpu_seconds(steps: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, np.ndarray]:
    """Returns the time that a core works for each call, by round; the steps take turns.

    It is the time of the processor and not that of the clock, so other programs hardly count.
    """
    calls: dict[str, int] = {}
    for name, step in steps.items():
        step()
        start = time.process_time()
        step()
        took = max(time.process_time() - start, 1e-6)
        calls[name] = max(1, round(seconds / ROUNDS / took))
    times = {name: np.empty(ROUNDS) for name in steps}
    for number in range(ROUNDS):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(calls[name]):
                step()
            times[name][number] = (time.process_time() - start) / calls[name]
    return times


def projected(rows: Sequence[Row]) -> dict[str, float]:
    """Returns how many cores would feed the GPU at 224 px, by source and augmentation."""
    return {
        f"{row.provider}, {row.order}": math.ceil(10 * GPU_RATE / row.value) / 10
        for row in rows
        if row.op == "224 px" and row.provider != ENCODER and row.value
    }


def markdown(result: Result) -> str:
    """Returns the tables of a result."""
    orders = list(dict.fromkeys(row.order for row in result.rows))
    lines = []
    for op in dict.fromkeys(row.op for row in result.rows):
        lines += [f"| {op}, per second on one core | {' | '.join(orders)} |"]
        lines += [f"|--|{'--:|' * len(orders)}"]
        for provider in result.providers:
            found = [result.value(op=op, provider=provider, order=order) for order in orders]
            cells = ["" if value is None else f"{value:,.0f}" for value in found]
            lines.append(f"| {result.providers[provider]['what']} | {' | '.join(cells)} |")
        lines.append("")
    if cores := result.run.get("cores_for_a_gpu"):
        lines.append(f"Cores to feed a GPU (projection; {PROJECTION}): ")
        lines.append("; ".join(f"{name}: {number:g}" for name, number in cores.items()))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; raises AssertionError before any measurement if a stored frame is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_loading", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 pixels only, shortly")
    parser.add_argument("--out", type=Path, help="JSON file; by default by date")
    parser.add_argument("--show", type=Path, help="only show this JSON file")
    options = parser.parse_args(arguments)
    if options.show is not None:
        print(markdown(read(options.show)))
        return 0
    start, others, about = time.perf_counter(), OtherPrograms(), describe_run()
    name = f"loading-{about['date'].replace(':', '').rstrip('Z').replace('T', '-')}.json"
    out = options.out or ROOT / "benchmarks" / "results" / "data" / name
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    sizes: Sequence[int] = SIZES[:1] if options.quick else SIZES
    shape = (96, 128, 12) if options.quick else (HEIGHT, WIDTH, FRAMES)
    seconds = 0.05 if options.quick else 0.5
    with torch_threads(1), one_core(), tempfile.TemporaryDirectory() as temporary:
        entries = write_sources(Path(temporary), *shape)
        names = get_args(AugmentationName)
        folder = Path(temporary) / "store"
        rows = measure(entries, sizes, names, folder, seconds, in_words(about))
    about["machine"]["threads"] = 1
    about |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    about |= {"cores_of_others": others.cores(), "frames": dict(zip("hwn", shape, strict=True))}
    about |= {"projection": PROJECTION, "cores_for_a_gpu": projected(rows)}
    what = SOURCES | {ENCODER: f"{ENCODER} (18 at 64 px, 50 at 224 px)"}
    providers = {n: {"what": w, "cannot": "", "skipped": ""} for n, w in what.items()}
    result = Result(about, providers, rows)
    publish(result, out, markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
