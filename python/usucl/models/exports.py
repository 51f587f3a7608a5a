"""The encoder of a run as a file for other libraries."""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from usucl._files import check_writable, read_tensors, replacing, write_atomically, write_json
from usucl._progress import job
from usucl.models.backbones import Library, library_of
from usucl.models.card import write_card
from usucl.models.colours import Colours
from usucl.models.encoder import FrameEncoder
from usucl.models.files import load_encoder, write_backbone
from usucl.models.usage import backbone_lines, image_lines, plain_network
from usucl.run_folder import RunFolder

Format = Literal["torchvision", "timm", "pt2", "onnx"]
_STATE = (".safetensors", ".pth", ".pt")
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "torchvision": _STATE,
    "timm": _STATE,
    "pt2": (".pt2",),
    "onnx": (".onnx",),
}
_ONNX = ("onnx", "onnxscript", "onnxruntime")
# Greatest difference of a written network from the encoder, in units of its largest output: sums
# of a deep network in another order, in float32.
_ROUNDING = 1e-4


@job("Exporting the encoder")
def export(
    run: str | Path,
    *,
    out: str | Path | None = None,
    format: Format | None = None,
    data_licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the encoder of a run for use without this package.

    ``"torchvision"`` and ``"timm"`` are the weights of the backbone, named as these libraries name
    theirs, as safetensors or, by the ending ``.pth`` or ``.pt``, for ``torch.load``; ResNets fit
    both, other networks the library that they are of. ``"pt2"`` is the whole network for
    ``torch.export.load``, ``"onnx"`` the same for ONNX; both take normalised images
    ``[B, channels, S, S]``, for any B, and return features ``[B, F]`` and embeddings ``[B, dim]``.
    The file holds size, mean and standard deviation of the images in its metadata; those of
    ``x.pth`` are in ``x.pth.json`` beside it. It is read back and compared with the encoder before
    it is written. :func:`export_usage` says how to load it.

    Beside it goes a model card, ``README.md`` or, where that is another file, ``NAME.md``: what the
    encoder was trained on, in numbers of videos and patients, how, what it reached, and the
    licence of the data.

    Args:
        run: run folder, or another one with an encoder, such as its ``initial``.
        out: the file, or a folder for it; by default in ``exported`` of the run.
        format: by default that of the ending of ``out``, or the library of the backbone.
        data_licence: licence of the data, for the model card; "not stated" by default.
        overwrite: replace an earlier file.

    Returns:
        The file.

    Raises:
        FileNotFoundError: ``run`` holds no encoder.
        FileExistsError: the file exists, and ``overwrite`` is not given.
        ValueError: the format is unknown, the ending or the network does not fit it, or the
            encoder is damaged.
        ImportError: the format needs a library that is not installed.
        OSError: the file cannot be written.
        RuntimeError: what the written network computes is not what the encoder computes.
    """
    encoder = load_encoder(run)
    path, format = _target(RunFolder(run), encoder, out, format)
    is_bare = path.suffix in (".pth", ".pt")
    about = path.with_name(f"{path.name}.json")
    if path.resolve() == RunFolder(run).encoder_weights.resolve():
        raise ValueError(f"out must be another file than the encoder of the run, got {path}")
    for file in (path, about) if is_bare else (path,):
        if file.exists() and not (overwrite and file.is_file()):
            raise FileExistsError(f"{file} exists: give overwrite=True to replace it")
    check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        with replacing(path) as temporary:
            write_backbone(encoder, temporary)
            _compare(encoder, _loaded(encoder, read_tensors(temporary)[0], format))
    else:
        if is_bare:
            content, network = _pth(encoder, format)
        else:
            content, network = {"pt2": _pt2, "onnx": _onnx}[format](encoder)
        _compare(encoder, network)
        write_atomically(path, content)
        if is_bare:
            write_json(about, encoder.description(bare=True))
    write_card(RunFolder(run), encoder, path, export_usage(run, path.name, format), data_licence)
    return path


def export_usage(run: str | Path, file: str | Path, format: Format | None = None) -> str:
    """Returns the lines of Python that embed an image with a file that :func:`export` wrote."""
    encoder, file = load_encoder(run), Path(file)
    config = encoder.config
    format = format or _format_of(file, library_of(config.backbone))
    is_whole = format in ("pt2", "onnx")
    images = image_lines(encoder.description(bare=not is_whole), from_grey=config.channels == 1)
    name = repr(str(file))
    if format == "onnx":
        network = [
            "import onnxruntime",
            "",
            f"session = onnxruntime.InferenceSession({name})",
            'features, embedding = session.run(None, {"images": images.numpy()})',
        ]
    elif format == "pt2":
        network = [
            f"network = torch.export.load({name}).module()",
            "features, embedding = network(images)",
        ]
    else:
        library: Library = "timm" if format == "timm" else "torchvision"
        load = "load_file({})" if file.suffix == ".safetensors" else "torch.load({})"
        network = [*backbone_lines(config, library, load.format(name))]
    return "\n".join([*images, "", *network])


def _target(
    run: RunFolder, encoder: FrameEncoder, out: str | Path | None, format: Format | None
) -> tuple[Path, Format]:
    """Returns the file to write, and its format."""
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    path = run.exported if out is None else Path(out)
    own_library = library_of(encoder.config.backbone)
    if out is None or path.is_dir():
        format = format or own_library
        own = "" if SUFFIXES[format][0] == f".{format}" else f".{format}"
        name = encoder.config.backbone.removeprefix("timm:")
        path = path / f"{name}{own}{SUFFIXES[format][0]}"
    format = format or _format_of(path, own_library)
    if path.suffix not in SUFFIXES[format]:
        endings = " or ".join(SUFFIXES[format])
        raise ValueError(f"out must end with {endings} for the format {format}, got {path}")
    return path, format


def _format_of(path: Path, own_library: Library) -> Format:
    for format in (own_library, *get_args(Format)):
        if path.suffix in SUFFIXES[format]:
            return cast(Format, format)
    endings = ", ".join(sorted({s for suffixes in SUFFIXES.values() for s in suffixes}))
    raise ValueError(f"out must end with one of {endings}, got {path}")


class _Whole(nn.Module):
    """Features and embeddings in one pass, without the checks of :class:`FrameEncoder`."""

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__()
        self.colours = encoder.colours or nn.Identity()
        self.backbone, self.head = encoder.backbone, encoder.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(self.colours(images))
        return features, F.normalize(self.head(features), dim=1)


Network = Callable[[Tensor], tuple[Tensor, ...]]


def _pth(encoder: FrameEncoder, format: Format) -> tuple[bytes, Network]:
    buffer = io.BytesIO()
    torch.save(encoder.backbone.state_dict(), buffer)
    buffer.seek(0)
    return buffer.getvalue(), _loaded(encoder, torch.load(buffer, weights_only=True), format)


def _loaded(encoder: FrameEncoder, state: Mapping[str, Tensor], format: Format) -> Network:
    """Returns a library's network with weights, which takes what the encoder takes.

    Raises:
        ValueError: the library's network of this name has others.
    """
    library: Library = "timm" if format == "timm" else "torchvision"
    network = plain_network(encoder, library).eval()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        own = library_of(encoder.config.backbone)
        raise ValueError(
            f"format must be {own}, pt2 or onnx, because the network of this name in {library} has "
            f"weights of other names or shapes, got {format!r}"
        ) from error
    colours = encoder.colours or (Colours(1) if encoder.config.channels == 1 else nn.Identity())
    return lambda images: (network(colours(images)),)


def _pt2(encoder: FrameEncoder) -> tuple[bytes, Network]:
    batch = {0: torch.export.Dim("batch")}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library about itself
        program = torch.export.export(_Whole(encoder), _images(encoder, 2), dynamic_shapes=(batch,))
        about = {"preprocessing.json": json.dumps(encoder.description())}
        torch.export.save(program, buffer, extra_files=about)
        buffer.seek(0)
        return buffer.getvalue(), torch.export.load(buffer).module()


def _onnx(encoder: FrameEncoder) -> tuple[bytes, Network]:
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"format onnx needs {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'usucl[export]'"
        )
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Whole(encoder),
            _images(encoder, 2),
            input_names=["images"],
            output_names=["features", "embedding"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for name, value in encoder.description().items():
        model.metadata_props.add(key=name, value=str(value))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def network(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {"images": images.numpy()})))

    return content, network


def _images(encoder: FrameEncoder, count: int) -> tuple[Tensor]:
    size, channels = encoder.config.image_size, encoder.config.channels
    return (torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0)),)


@torch.no_grad()
def _compare(encoder: FrameEncoder, network: Network) -> None:
    """Checks that a network read back computes what the encoder does, for another batch size."""
    (images,) = _images(encoder, 3)
    for expected, got in zip(_Whole(encoder)(images), network(images), strict=False):
        error = float((got - expected).abs().max() / expected.abs().max())
        if not error <= _ROUNDING:
            raise RuntimeError(
                f"the exported network must compute what the encoder does, got values that differ "
                f"by {error:.2g} of the largest"
            )
