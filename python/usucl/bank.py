"""The negative bank: a ring buffer of embedded frames with exact hard-negative search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from usucl._files import write_atomically
from usucl_ext import Frames, Selection, select_negatives

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_FORMAT = "usucl-bank-1"


class _MethodOfClassOrInstance:
    """Binds a function to the instance it is reached through, or else to the class."""

    def __init__(self, function: Callable[..., NegativeBank]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(
        self, instance: NegativeBank | None, owner: type[NegativeBank]
    ) -> Callable[[str | Path], NegativeBank]:
        return MethodType(self.function, owner if instance is None else instance)


class NegativeBank:
    """The last ``capacity`` embedded frames, first in first out, searched exactly.

    A plain class on purpose: as registered buffers of a module, its tensors would be broadcast
    from rank 0 by DistributedDataParallel and overwrite every other rank's bank. Keep it as an
    attribute of the training module and put :meth:`state_dict` into the checkpoint.

    Frame number e ever enqueued (from 0) is in slot ``e % capacity``; empty slots have video -1.

    Args:
        capacity: number of slots, >= 1.
        dim: length of an embedding, >= 1.
        search: ``"exact"``, the one kind there is.
        device, dtype: of the stored embeddings; float32, bfloat16, float16 or float64.

    Raises:
        ValueError, TypeError: an argument is not of these; the message names it.
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        *,
        search: str = "exact",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        for name, value in (("capacity", capacity), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if search != "exact":
            raise ValueError(f'search must be "exact", the only search supported, got {search!r}')
        if dtype not in _DTYPES.values():
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype}")
        self.search = search
        self._columns = (
            torch.zeros(capacity, dim, dtype=dtype, device=device),
            torch.full((capacity,), -1, dtype=torch.int64, device=device),
            torch.full((capacity,), torch.nan, dtype=torch.float32, device=device),
            torch.full((capacity,), -1, dtype=torch.int64, device=device),
        )
        self._enqueued = 0

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self._columns[0].shape[0]

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._columns[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored embeddings."""
        return self._columns[0].dtype

    @property
    def device(self) -> torch.device:
        """Where the bank lives."""
        return self._columns[0].device

    def __len__(self) -> int:
        """Number of filled slots."""
        return min(self._enqueued, self.capacity)

    def __repr__(self) -> str:
        return (
            f"NegativeBank({len(self)}/{self.capacity} frames, dim={self.dim}, "
            f"search={self.search!r}, dtype={self.dtype}, device={str(self.device)!r})"
        )

    def frames(self) -> Frames:
        """All slots in place, without a copy; the patient ids are always there, -1 if unknown."""
        return Frames(*self._columns)

    @torch.no_grad()
    def enqueue(self, frames: Frames) -> None:
        """Stores frames in the oldest slots; of more than ``capacity`` the last ones stay.

        Embeddings are detached and converted to the bank's dtype and device. A frame whose time
        is NaN is never an intra-video negative, but still counts as one of its video.

        Args:
            frames: embedding ``[M, dim]``, video int64 ``[M]`` >= 0, time ``[M]``, patient
                int64 ``[M]`` or ``None`` (unknown).

        Raises:
            TypeError, ValueError: of another type, dtype or shape, a negative video id, or an
                embedding that is not finite in the bank's dtype (the message names the row). The
                bank is unchanged then.
        """
        incoming = self._checked(frames)
        rows = incoming[0].shape[0]
        first = self._enqueued + max(rows - self.capacity, 0)
        start = first % self.capacity
        kept = min(rows, self.capacity)
        head = min(kept, self.capacity - start)  # rows before the ring wraps around
        for store, new in zip(self._columns, incoming, strict=True):
            new = new[rows - kept :]
            store[start : start + head] = new[:head]
            if head < kept:
                store[: kept - head] = new[head:]
        self._enqueued += rows

    def _checked(self, frames: Frames) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not isinstance(frames, Frames):
            raise TypeError(f"frames must be a Frames, got {type(frames).__name__}")
        embedding, video, time, patient = frames
        if patient is None:
            patient = torch.full_like(video, -1)
        if not embedding.is_floating_point():
            raise TypeError(f"frames.embedding must be floating point, got {embedding.dtype}")
        if embedding.dim() != 2 or embedding.shape[1] != self.dim:
            raise ValueError(
                f"frames.embedding must have shape [M, {self.dim}], got {list(embedding.shape)}"
            )
        for name, column in (("video", video), ("time", time), ("patient", patient)):
            if column.shape != embedding.shape[:1]:
                raise ValueError(
                    f"frames.{name} must have shape [{embedding.shape[0]}], one value a frame, "
                    f"got {list(column.shape)}"
                )
            if name != "time" and column.dtype != torch.int64:
                raise TypeError(f"frames.{name} must be int64, got {column.dtype}")
        if not time.is_floating_point():
            raise TypeError(f"frames.time must be floating point, got {time.dtype}")
        embedding = embedding.detach().to(self.device, self.dtype)
        video = video.to(self.device)
        # One cheap look, and one wait for the device; a sum that only overflows passes the second.
        if not bool(embedding.sum().isfinite() & (video >= 0).all()):
            for row in (~embedding.isfinite().all(1)).nonzero():
                raise ValueError(
                    f"frames.embedding must be finite in {self.dtype}, row {int(row)} is not"
                )
            for row in (video < 0).nonzero():
                raise ValueError(f"frames.video must be >= 0, row {int(row)} is {int(video[row])}")
        time = time.to(self.device, torch.float32)
        return embedding, video, time, patient.to(self.device)

    def hardest(
        self,
        frames: Frames,
        k: int,
        *,
        window: tuple[float, float] | Tensor | None = None,
        skip: int = 0,
    ) -> Selection:
        """The k most similar cross-video frames of each anchor, and intra-video ones likewise.

        The rules are those of :func:`usucl_ext.select_negatives`: frames of the anchor's video
        and of its known patient are no cross-video negatives.

        Args:
            frames: N anchors on the bank's device; without patient ids, none are known.
            k: negatives wanted of each group, >= 0.
            window: ``(lo, hi)`` in the unit of the times, or ``[2]``, ``[N, 2]``; with it, k
                intra-video negatives are taken too.
            skip: hardest negatives left out of each group.

        Returns:
            :class:`Selection`; an index is a slot of the bank.

        Raises:
            TypeError, ValueError: an argument is not as stated; the message names it.
        """
        if isinstance(frames, Frames) and frames.patient is None:
            frames = frames._replace(patient=torch.full_like(frames.video, -1))
        return select_negatives(
            frames,
            self.frames(),
            window=window,
            intra_k=0 if window is None else k,
            cross_k=k,
            intra_skip=skip,
            cross_skip=skip,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything: the four tensors (not copied) and the number of frames ever enqueued."""
        columns = dict(zip(Frames._fields, self._columns, strict=True))
        return {**columns, "enqueued": torch.tensor(self._enqueued)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state of the same capacity and dim, converted to this dtype and device.

        Raises:
            ValueError: a tensor is missing, of another shape, or holds impossible values. The
                bank is unchanged then.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError(f"a bank's state has {sorted(own)}, got {sorted(state)}")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} must have shape {list(tensor.shape)}, got {list(state[name].shape)}"
                )
        enqueued = int(state["enqueued"])
        filled = torch.arange(self.capacity) < enqueued
        consistent = torch.equal(state["video"].cpu() >= 0, filled)
        if enqueued < 0 or not consistent or not bool(state["embedding"].isfinite().all()):
            raise ValueError("a bank's state must be finite and name a video for each filled slot")
        for name, store in zip(Frames._fields, self._columns, strict=True):
            store.copy_(state[name])
        self._enqueued = enqueued

    def save(self, folder: str | Path) -> None:
        """Writes the bank to ``folder``: a safetensors file and ``bank.json``, which names it.

        ``bank.json`` is replaced last, so an earlier version in the folder stays readable until
        the new one is whole, whatever interrupts the writing.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        content = safetensors.torch.save(state)
        digest = hashlib.sha256(content).hexdigest()
        tensors = _tensor_file(folder, digest)
        write_atomically(tensors, content)
        description = {
            "format": _FORMAT,
            "capacity": self.capacity,
            "dim": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "search": self.search,
            "sha256": digest,
        }
        write_atomically(folder / "bank.json", json.dumps(description, indent=2).encode())
        for earlier in set(folder.glob("bank-*.safetensors")) - {tensors}:
            earlier.unlink()

    def _load(self: NegativeBank | type[NegativeBank], folder: str | Path) -> NegativeBank:
        """Reads what :meth:`save` wrote.

        On a bank it replaces the contents in place and returns the bank, which must have the
        saved capacity and dim; on the class it opens a bank as it was saved, on the CPU.

        Raises:
            FileNotFoundError: ``folder`` holds no bank.
            ValueError: the files are damaged or do not fit this bank, which is unchanged then.
        """
        folder = Path(folder)
        description, state = _read(folder)
        bank = self
        try:
            if isinstance(bank, type):
                dtype = _DTYPES[description["dtype"]]
                capacity, dim = description["capacity"], description["dim"]
                bank = bank(capacity, dim, search=description["search"], dtype=dtype)
            bank.load_state_dict(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the bank in {folder} cannot be loaded: {error}") from error
        return bank

    load = _MethodOfClassOrInstance(_load)


def _tensor_file(folder: Path, digest: str) -> Path:
    # Named by content, so that bank.json never speaks of a file of another version.
    return folder / f"bank-{digest[:16]}.safetensors"


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = folder / "bank.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no bank: bank.json is missing")
    try:
        description = json.loads(path.read_bytes())
        if description["format"] != _FORMAT:
            raise ValueError(f"format is {description['format']!r}, expected {_FORMAT!r}")
        digest = bytes.fromhex(description["sha256"]).hex()  # hexadecimal, so no path
        content = _tensor_file(folder, digest).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("the tensors are not those that were saved (SHA-256 differs)")
        return description, safetensors.torch.load(content)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"the bank in {folder} is damaged: {error}") from error
