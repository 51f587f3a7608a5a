"""``python -m benchmarks.data_catalog``: cataloguing an archive of many small videos.

The archive is made up: mp4, avi and DICOM files of 64 x 64 pixels and 20 frames, GIFs, and folders
of 8 still images. It is scanned without a manifest, again with one, and after 10 files have
changed, each time in a process of its own. Before that, a small archive is checked to give the same
catalogue all three ways.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.harness import ROOT, OtherPrograms, describe_run

SIDE, FRAMES, STILLS = 64, 20, 8
DISTINCT = 24  # encoded files per kind: the others are copies that differ in a few bytes
SHARES = {"mp4": 0.4, "avi": 0.2, "png": 0.15, "jpg": 0.1, "gif": 0.03, "dcm": 0.12}
CHANGED = 10
PER_FOLDER = 200
VIDEOS, QUICK_VIDEOS = 10_000, 200


def write_archive(root: Path, count: int) -> dict[str, int]:
    """Writes ``count`` videos in nested folders; returns how many there are of each kind."""
    numbers = itertools.count()
    counts = {kind: round(share * count) for kind, share in SHARES.items()}
    counts["mp4"] += count - sum(counts.values())
    for kind, many in counts.items():
        makers = [_maker(kind, seed) for seed in range(min(DISTINCT, many))]
        for _ in range(many):
            number = next(numbers)
            folder = root / f"site{number // PER_FOLDER % 7}" / f"day{number // PER_FOLDER}"
            folder.mkdir(parents=True, exist_ok=True)
            makers[number % len(makers)](folder / f"v{number}", number)
    return counts


def _maker(kind: str, seed: int) -> Callable[[Path, int], None]:
    """Returns what writes copies of one video of a kind, each of other bytes."""
    coarse = np.random.default_rng(seed).integers(0, 200, (FRAMES, 8, 8), dtype=np.uint8)
    grey = [Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for c in coarse]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / f"v.{kind}"
        if kind in ("png", "jpg"):
            stills = []
            for picture in grey[:STILLS]:
                picture.save(file)
                stills.append(file.read_bytes())
            return lambda path, number: _write_stills(path, kind, stills, number)
        if kind == "gif":
            grey[0].save(file, save_all=True, append_images=grey[1:], duration=40)
        elif kind == "dcm":
            _write_dicom(file, np.stack([np.asarray(picture) for picture in grey]))
        else:
            _write_video(file, grey, "mpeg4" if kind == "mp4" else "mjpeg")
        content = file.read_bytes()
    return lambda path, number: _write_copy(path.with_suffix(f".{kind}"), content, number)


def _write_stills(path: Path, kind: str, stills: Sequence[bytes], number: int) -> None:
    path.mkdir()
    for i, still in enumerate(stills):
        (path / f"{i}.{kind}").write_bytes(still + number.to_bytes(8, "big"))


def _write_copy(path: Path, content: bytes, number: int) -> None:
    """Writes a file whose pixels are those of ``content``, and whose bytes are not."""
    mark = number.to_bytes(8, "big")
    if path.suffix == ".mp4":
        path.write_bytes(content + (16).to_bytes(4, "big") + b"free" + mark)
    elif path.suffix == ".avi":
        path.write_bytes(content + b"JUNK" + (8).to_bytes(4, "little") + mark)
    elif path.suffix == ".dcm":
        path.write_bytes(mark + content[8:])  # of the preamble
    else:
        path.write_bytes(content[:-1] + b"!\xfe\x08" + mark + b"\0;")  # a comment of a GIF


def _write_video(path: Path, pictures: Sequence[Image.Image], codec: str) -> None:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in pictures:
            frame: Any = av.VideoFrame.from_image(picture.convert("RGB"))
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode(None))


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3"
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.CineRate = 7, 0, 25
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW"
    data.save_as(path, enforce_file_format=True)


def change(root: Path, seed: int) -> None:
    """Gives some video files in the archive other bytes."""
    files = sorted(root.rglob("*.mp4"))
    for i, file in enumerate(random.Random(seed).sample(files, min(CHANGED, len(files)))):
        content = file.read_bytes()
        _write_copy(file, content, -(i + 1) % 2**64)


def scan(root: Path, *, manifest: bool = True) -> dict[str, Any]:
    """Returns what a scan takes and finds, as seen by the process that does it."""
    from usucl.data import VideoCatalog
    from usucl.data.video import video_facts

    before = os.times()
    start = time.perf_counter()
    catalog = VideoCatalog.scan(root, manifest=manifest)
    seconds, after = time.perf_counter() - start, os.times()
    facts = [(e.id, e.summary and e.summary.digest, video_facts(e.open())) for e in catalog]
    found = json.dumps([facts, [str(s) for s in catalog.skipped]])
    return {
        "seconds": seconds,
        "cpu_seconds": after.user + after.system - before.user - before.system,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "videos": len(catalog),
        "skipped": len(catalog.skipped),
        "found": hashlib.sha256(found.encode()).hexdigest(),
    }


def scan_alone(root: Path, cache: Path, *, manifest: bool = True) -> dict[str, Any]:
    """Returns :func:`scan` of a new process, which has imported what it needs."""
    code = (
        "import json, sys; from pathlib import Path; import benchmarks.data_catalog as b;"
        f"print(json.dumps(b.scan(Path(sys.argv[1]), manifest={manifest})))"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    surroundings = os.environ | {"USUCL_CACHE": str(cache), "PYTHONPATH": paths}
    words = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(words, env=surroundings, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(root: Path, cache: Path, count: int) -> dict[str, dict[str, Any]]:
    """Returns what each way of scanning takes.

    Raises:
        AssertionError: they do not find the same.
    """
    cold = scan_alone(root, cache)
    warm = scan_alone(root, cache)
    assert cold["videos"] == warm["videos"] == count, (cold, warm)
    assert cold["skipped"] == 0 and cold["found"] == warm["found"]
    change(root, seed=1)
    changed = scan_alone(root, cache)
    assert changed["videos"] == count and changed["found"] == cold["found"]  # the same pixels
    return {"cold": cold, "warm": warm, "changed": changed}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; raises AssertionError if a scan finds anything else than the archive holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_catalog", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_VIDEOS} videos")
    parser.add_argument("--videos", type=int, default=VIDEOS, help="how many")
    parser.add_argument("--out", type=Path, help="JSON file; by default by date")
    options = parser.parse_args(arguments)
    count = QUICK_VIDEOS if options.quick else options.videos
    start, others, about = time.perf_counter(), OtherPrograms(), describe_run()
    name = f"catalog-{about['date'].replace(':', '').rstrip('Z').replace('T', '-')}.json"
    out = options.out or ROOT / "benchmarks" / "results" / "data" / name
    if out.exists():
        sys.exit(f"{out} exists: results are never overwritten")
    with tempfile.TemporaryDirectory() as temporary:
        small, root, cache = (Path(temporary) / n for n in ("small", "archive", "cache"))
        write_archive(small, min(count, 100))
        checked = measure(small, cache, min(count, 100))
        unkept = scan_alone(small, cache, manifest=False)
        assert unkept["found"] == checked["cold"]["found"]
        kinds = write_archive(root, count)
        rows = measure(root, cache, count)
        manifest = sum(file.stat().st_size for file in cache.rglob("*.jsonl"))
    about |= {"quick": options.quick, "seconds": round(time.perf_counter() - start)}
    about |= {"cores_of_others": others.cores(), "videos": kinds, "manifest_bytes": manifest}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"run": about, "scans": rows}, indent=1) + "\n", encoding="utf-8")
    for what, row in rows.items():
        print(
            f"{what:>8}: {row['seconds']:7.2f} s, {row['cpu_seconds']:7.2f} s of cores, "
            f"peak {row['peak_mib']:.0f} MiB, {row['videos']} videos"
        )
    print(f"Written: {out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
