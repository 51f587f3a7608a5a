"""In what two results differ but for times and places, and which of their files are damaged."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from usucl._files import check_seal, read_tensors
from usucl.training.checkpoint import read_checkpoint

UNTIMED = ("images_per_second", "data_share", "encoder_share", "loss_share")
"""Columns of metrics that are about time."""
_TIMES = ("seconds", "images_per_second", "seal", "request")
"""Members of JSON objects that are about time, and what depends on them or on a place."""
_SKIPPED = ("run.json", "config.yaml", "report.html")
_UNFINISHED = (".tmp", ".unfinished")


def differences(result: Path, other: Path) -> list[str]:
    """Returns in what two results differ, down to the bit, but for times and identities."""
    found = []
    paths = {p.relative_to(f) for f in (result, other) for p in f.rglob("*") if p.is_file()}
    for path in sorted(paths):
        a, b = result / path, other / path
        if path.parts[0] == "tensorboard":
            continue
        if not (a.is_file() and b.is_file()):
            found.append(f"{path} is in one only")
        elif path.name in _SKIPPED:
            continue
        elif path.suffix == ".ckpt":
            found += [f"{path}: {name}" for name in _unequal(_load(a), _load(b), "")]
        elif path.suffix == ".safetensors":  # whose metadata are in any order
            found += [f"{path}: {n}" for n in _unequal(read_tensors(a)[0], read_tensors(b)[0], "")]
        elif path.suffix == ".json":
            found += [f"{path}: {n}" for n in _unequal(_table(a, result), _table(b, other), "")]
        elif path.name == "metrics.csv":
            found += [str(path)] if _rows(a) != _rows(b) else []
        elif a.read_bytes() != b.read_bytes():
            found.append(str(path))
    return found


def damaged(folder: Path) -> list[str]:
    """Returns the files of a folder that their readers refuse, but for those of no final name."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.endswith(_UNFINISHED) for part in path.parts):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".ckpt":
        read_checkpoint(path)
    elif path.suffix in (".safetensors", ".json"):
        check_seal(path)
        json.loads(path.read_text("utf-8")) if path.suffix == ".json" else read_tensors(path)
    elif path.suffix == ".yaml":
        assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict), "it is no table"
    elif path.suffix == ".csv":
        assert path.stat().st_size, "it is empty"
    elif path.name == "report.html":
        assert path.read_text("utf-8").rstrip().endswith("</html>"), "its end is missing"
    elif path.suffix in (".png", ".jpeg"):
        with Image.open(path) as image:
            image.load()


def _load(path: Path) -> Any:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["run"]
    return checkpoint


def _table(path: Path, folder: Path) -> Any:
    """Returns JSON without times; paths are as if every result were in the same folder."""
    text = re.sub(rf"{re.escape(str(folder.parent))}/[^/\"]*", "RESULT", path.read_text("utf-8"))
    return _without_times(json.loads(text))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in _TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _unequal(a: Any, b: Any, name: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from _unequal(a[key], b[key], f"{name}/{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _unequal(x, y, f"{name}/{index}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
        yield from [] if same else [name]
    elif a != b and not (a != a and b != b):  # NaN is as NaN
        yield name


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in UNTIMED} for row in rows]
