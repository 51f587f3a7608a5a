"""The first weights of an encoder, from a run or from a file with its library's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from usucl._files import read_tensors
from usucl.run_folder import RunFolder

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # what state dicts are often kept in
_COUNTER = "num_batches_tracked"  # of batch normalisation; old files lack it
_STATISTICS = ("running_mean", "running_var", _COUNTER)  # which group normalisation has not
_AVERAGES = ("encoder_k", "momentum", "teacher", "target", "ema")  # how their names begin
_OFFICIAL_HEAD = "fc."  # in MoCo's and US_UCL's encoders the projection head is the classifier
_MOST_NAMES = 50


class Start(TypedDict):
    """Which weights an encoder starts from."""

    file: str
    backbone: int  # number of tensors taken
    head: int
    left_out: list[str]  # names in the file, at most 50
    left_out_parts: dict[str, int]  # number of all tensors that were left out, by part of the file


def load_weights(encoder: nn.Module, source: str, left_out: Sequence[str] = ()) -> Start:
    """Copies weights from a file into the ``backbone`` of an encoder, and its ``head`` if it fits.

    The names may be those of an encoder of this package, or of the backbone in its library, behind
    any common prefix, such as ``module.encoder_q.`` of US_UCL and MoCo. Where a file also holds an
    average of the encoder (``encoder_k``), the trained one is taken. A head of other names or
    shapes is left out, and the encoder's own stays.

    Args:
        encoder: has a ``backbone`` and a ``head``.
        source: folder of a run, ``encoder.safetensors``, ``backbone.safetensors``, or a state dict
            in a safetensors file or in one of ``torch.save``, whose code is not run.
        left_out: names of the classifier's layers, which the backbone lacks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or its names, shapes or values do not fit the backbone.
    """
    file = _file(Path(source))
    given, _ = read_checkpoint(file)
    own = encoder.state_dict()
    backbone = {name: value for name, value in own.items() if name.startswith("backbone.")}
    prefix = _prefix([name.removeprefix("backbone.") for name in backbone], given)
    taken = {name: prefix + name.removeprefix("backbone.") for name in backbone}
    _check(file, taken, backbone, given)
    blocks = {name.split(".")[1] for name in backbone}
    layers = tuple(f"{layer}." for layer in left_out)
    unneeded = _STATISTICS if not any(name.endswith(_STATISTICS) for name in backbone) else ()
    if more := sorted(
        name
        for name in given.keys() - set(taken.values())
        if name.startswith(prefix)
        and name.removeprefix(prefix).split(".")[0] in blocks
        and not name.removeprefix(prefix).startswith(layers)
        and not name.endswith(unneeded)
    ):
        raise ValueError(
            f"weights must be of the same backbone, got {file} with {len(more)} more tensors, such "
            f"as {more[0]}"
        )
    own_head = [name for name in own if name.startswith("head.")]
    before = prefix.removesuffix("backbone.")
    for heads in (
        {name: f"{before}{name}" for name in own_head} if prefix.endswith("backbone.") else {},
        {name: prefix + _OFFICIAL_HEAD + name.removeprefix("head.") for name in own_head}
        if prefix
        else {},
    ):
        if heads and all(
            theirs in given and given[theirs].shape == own[name].shape
            for name, theirs in heads.items()
        ):
            _check(file, heads, own, given)
            taken |= heads
            break
    taken |= {name: before + name for name in own if name.startswith("colours.")}
    present = {name: theirs for name, theirs in taken.items() if theirs in given}
    with torch.no_grad():
        for name, theirs in present.items():
            own[name].copy_(given[theirs])
    left = sorted(given.keys() - set(present.values()))
    return Start(
        file=str(file),
        backbone=sum(name in backbone for name in present),
        head=sum(name.startswith("head.") for name in present),
        left_out=left[:_MOST_NAMES],
        left_out_parts=_parts(left),
    )


def left_out_in_words(start: Start) -> str:
    """Returns what of a file was left out, in a few words; empty if nothing was."""
    parts = start["left_out_parts"].items()
    return ", ".join(name if count == 1 else f"{name} ({count} tensors)" for name, count in parts)


def _parts(names: Sequence[str]) -> dict[str, int]:
    """Returns the number of tensors by the module that they belong to, such as ``encoder_k``."""
    parts: dict[str, int] = {}
    for name in names:
        depth = 2 if name.startswith("module.") else 1
        part = ".".join(name.split(".")[:depth])
        parts[part] = parts.get(part, 0) + 1
    return parts


def _file(source: Path) -> Path:
    if not source.is_dir():
        if not source.is_file():
            raise FileNotFoundError(f"weights must be a file or the folder of a run, got {source}")
        return source
    run = RunFolder(source)
    files = (run.encoder_weights, run.backbone_weights)
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"weights must be a file, or a folder with {' or '.join(file.name for file in files)}, "
        f"got {source}"
    )


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """Returns the tensors of a file by their names, and the network that it says they are of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds none, or no format that is known.
    """
    if not file.is_file():
        raise FileNotFoundError(f"file must be a checkpoint, got {file}, which is not there")
    if file.suffix == ".safetensors":
        tensors, about = read_tensors(file)
        return tensors, about.get("architecture")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of any kind, as the bytes may be anything
        raise ValueError(
            "weights must be a file of safetensors, or one of torch.save that holds only tensors "
            f"(no code in it is run), got {file}"
        ) from error
    architecture = content.get("arch") if isinstance(content, Mapping) else None
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        content = {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"weights must be a state dict, tensors by their names, got {file}")
    return tensors, architecture if isinstance(architecture, str) else None


def is_average(name: str) -> bool:
    """Returns whether a tensor, by its name, is of an average of the encoder that was trained."""
    parts = name.lower().split(".")
    return any(part.startswith(average) for part in parts for average in _AVERAGES)


def _prefix(names: list[str], given: Mapping[str, Tensor]) -> str:
    """Returns what stands before the backbone's names in a file.

    Of several it is the one with most of them, of no average if possible, and the shortest.
    """
    ends = {name[: -len(names[0])] for name in given if name.endswith(names[0])}
    found = {prefix: sum(prefix + name in given for name in names) for prefix in ends}

    def order(prefix: str) -> tuple[object, ...]:
        return (-found[prefix], is_average(prefix), len(prefix), prefix)

    return min(found, key=order, default="")


def _check(
    file: Path, taken: Mapping[str, str], own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Raises ValueError unless the file has all of the tensors, in the right shapes."""
    needed = {name: theirs for name, theirs in taken.items() if not name.endswith(_COUNTER)}
    if missing := [theirs for theirs in needed.values() if theirs not in given]:
        raise ValueError(
            f"weights must fit the backbone, got {file} without {len(missing)} of its "
            f"{len(needed)} tensors, such as {missing[0]} (it has, for example, "
            f"{', '.join(list(given)[:3])})"
        )
    for name, theirs in needed.items():
        if given[theirs].shape != own[name].shape:
            raise ValueError(
                f"weights must fit the backbone, got {file} with {theirs} of shape "
                f"{list(given[theirs].shape)} in place of {list(own[name].shape)}"
            )
        if not bool(given[theirs].isfinite().all()):
            raise ValueError(f"weights must be finite, got {file} with {theirs}, which is not")
