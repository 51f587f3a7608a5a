"""The first weights of an encoder, from a run or from a file with torchvision's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from usucl._files import read_tensors
from usucl.run_folder import RunFolder

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # what state dicts are often kept in
_COUNTER = "num_batches_tracked"  # of batch normalisation; old files lack it
_MOST_NAMES = 50


class Start(TypedDict):
    """Which weights an encoder starts from."""

    file: str
    backbone: int  # number of tensors taken
    head: int
    left_out: list[str]  # names in the file, at most 50


def load_weights(encoder: nn.Module, source: str) -> Start:
    """Copies weights from a file into the ``backbone`` of an encoder, and its ``head`` if it fits.

    The names may be those of an encoder of this package, or of torchvision's and timm's ResNets,
    behind any common prefix. A head of other names or shapes is left out, and the encoder's own
    stays.

    Args:
        encoder: has a ``backbone`` and a ``head``.
        source: folder of a run, ``encoder.safetensors``, ``backbone.safetensors``, or a state dict
            in a safetensors file or in one of ``torch.save``, whose code is not run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or its names, shapes or values do not fit the backbone.
    """
    file = _file(Path(source))
    given = _read(file)
    own = encoder.state_dict()
    backbone = {name: value for name, value in own.items() if name.startswith("backbone.")}
    prefix = _prefix([name.removeprefix("backbone.") for name in backbone], given)
    taken = {name: prefix + name.removeprefix("backbone.") for name in backbone}
    _check(file, taken, backbone, given)
    blocks = {name.split(".")[1] for name in backbone}
    if more := sorted(
        name
        for name in given.keys() - set(taken.values())
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] in blocks
    ):
        raise ValueError(
            f"weights must be of the same backbone, got {file} with {len(more)} more tensors, such "
            f"as {more[0]}"
        )
    heads = {
        name: f"{prefix.removesuffix('backbone.')}{name}" for name in own.keys() - taken.keys()
    }
    if prefix.endswith("backbone.") and all(
        theirs in given and given[theirs].shape == own[name].shape for name, theirs in heads.items()
    ):
        _check(file, heads, own, given)
        taken |= heads
    present = {name: theirs for name, theirs in taken.items() if theirs in given}
    with torch.no_grad():
        for name, theirs in present.items():
            own[name].copy_(given[theirs])
    left = sorted(given.keys() - set(present.values()))
    return Start(
        file=str(file),
        backbone=sum(name in backbone for name in present),
        head=sum(name not in backbone for name in present),
        left_out=left[:_MOST_NAMES],
    )


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


def _read(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by their names.

    Raises:
        ValueError: it holds none, or no format that is known.
    """
    if file.suffix == ".safetensors":
        return read_tensors(file)[0]
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of any kind, as the bytes may be anything
        raise ValueError(
            "weights must be a file of safetensors, or one of torch.save that holds only tensors "
            f"(no code in it is run), got {file}"
        ) from error
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        content = {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"weights must be a state dict, tensors by their names, got {file}")
    return tensors


def _prefix(names: list[str], given: Mapping[str, Tensor]) -> str:
    """Returns what stands before the backbone's names in a file; the shortest of the best."""
    ends = {name[: -len(names[0])] for name in given if name.endswith(names[0])}
    found = {prefix: sum(prefix + name in given for name in names) for prefix in ends}
    return min(found, key=lambda prefix: (-found[prefix], len(prefix), prefix), default="")


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
