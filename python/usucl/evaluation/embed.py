"""The encoders of a run, and their embeddings of the frames in a folder of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from usucl._files import check_writable, is_empty
from usucl._progress import job, stage
from usucl.embedding import EmbeddingFormat, Embeddings, check_format, embed_entries
from usucl.models import load_encoder
from usucl.models.files import read_config
from usucl.run_folder import RunFolder

EncoderName = Literal["trained", "random", "pixels"]
ENCODERS: tuple[EncoderName, ...] = ("trained", "random", "pixels")


class PixelEncoder(nn.Module):
    """Uses the frame itself as its embedding: ``size`` x ``size`` grey values.

    They have mean 0 and unit norm, so the cosine of two frames is their Pearson correlation, blind
    to brightness and contrast: the baseline that an encoder has to beat.
    """

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.size = size
        self.head = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Maps normalised images ``[B, 3, S, S]`` to standardised pixels ``[B, size * size]``."""
        small = F.interpolate(
            images.mean(1, keepdim=True), (self.size, self.size), mode="bilinear", antialias=True
        )
        pixels = small.flatten(1)
        pixels = pixels - pixels.mean(1, keepdim=True)
        return pixels / pixels.std(1, keepdim=True).clamp_min(1e-6)


def load_encoders(run: str | Path, names: Sequence[EncoderName] = ENCODERS) -> dict[str, nn.Module]:
    """Returns the encoders to compare: the run's weights after and before training, and pixels."""
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"run must be a run folder, got {run}")
    unknown = set(names) - set(ENCODERS)
    if unknown:
        raise ValueError(f"encoder must be one of {ENCODERS}, got {sorted(unknown)}")
    folder = {"trained": run, "random": RunFolder(run).initial}
    return {
        name: (PixelEncoder() if name == "pixels" else load_encoder(folder[name])).eval()
        for name in names
    }


@job("Embedding", {"Reading videos": 1, "Embedding frames": 3, "Writing embeddings": 0.1})
def embed(
    *,
    run: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    encoder: EncoderName = "trained",
    label: str | None = None,
    sweep: str | None = None,
    min_frames: int = 2,
    frames_per_video: int | None = None,
    batch_size: int = 64,
    format: EmbeddingFormat = "safetensors",
    overwrite: bool = False,
    progress: bool = False,
) -> Embeddings:
    """Embeds the frames of a data folder with an encoder of a run.

    Args:
        run: run folder written by :func:`usucl.train`.
        data: folder of videos.
        out: folder for the files, which begin with ``<encoder>``; by default ``<run>/embedded``
            (``<run>/embeddings`` belongs to :func:`usucl.evaluate`).
        encoder: "trained", "random" (the run's weights before training) or "pixels".
        label: column of ``labels.csv`` that holds the labels; by default that of the run.
        sweep: makes one video of several clips, see :meth:`usucl.data.VideoCatalog.with_sweeps`; by
            default as in the run.
        min_frames: videos with fewer frames are left out; 1 takes single images too.
        frames_per_video: greatest number of frames per video, evenly spaced; None takes all.
        batch_size: frames encoded at once.
        format: ``"safetensors"`` (tensors, and a table of the frames), ``"npz"`` (arrays) or
            ``"csv"`` (a table with the numbers); see :meth:`usucl.embedding.Embeddings.save`.
        overwrite: write into an ``out`` that is not empty; other files in it stay.
        progress: show the progress on standard error.

    Returns:
        The :class:`Embeddings`, also written to ``out``.

    Raises:
        FileNotFoundError: ``run`` is not a run folder.
        FileExistsError: ``out`` is a file, or is not empty and ``overwrite`` is not given.
        OSError: nothing can be written to ``out``.
        ValueError: ``data`` has no readable video, a number is below 1, or ``format`` is another.
    """
    check_format(format)
    for name, value in (
        ("frames_per_video", frames_per_video),
        ("batch_size", batch_size),
        ("min_frames", min_frames),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    encoders = load_encoders(run, [encoder])
    out = RunFolder(run).embedded if out is None else Path(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out must be a folder, got the file {out}")
    if out.exists() and not overwrite and not is_empty(out):
        raise FileExistsError(f"out must be empty, got {out}; give overwrite=True to write into it")
    check_writable(out)
    catalog = RunFolder(run).scan(data, label=label, sweep=sweep, min_frames=min_frames)
    result = embed_entries(
        catalog.entries,
        encoders,
        image_size=image_size_of(run),
        held_out=RunFolder(run).held_out_videos(catalog),
        frames_per_video=frames_per_video,
        batch_size=batch_size,
    )[encoder]
    with stage("Writing embeddings"):
        result.save(out, encoder, format)
    return result


def image_size_of(run: str | Path) -> int:
    """Returns the side of the square images that the encoder was trained on, in pixels."""
    return read_config(RunFolder(run)).image_size
