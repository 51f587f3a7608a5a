"""The store of a bank: columns of slots that are overwritten oldest first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl.bank.arguments import check_ids, check_tensor
from usucl_ext import Frames
from usucl_ext._advice import advise_of_length

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


_INVALID_STATE = "a bank's state must be finite and name a video for each filled slot"


class Ring:
    """The slots of a bank: frame number e ever enqueued (from 0) is in slot ``e % capacity``.

    Attributes:
        embedding: ``[capacity, D]``.
        video, patient: ``[capacity]`` int64; the video of an empty slot is -1.
        time: ``[capacity]`` float32.
        written: ``[capacity]`` int64, the value of ``enqueued`` when the embedding was written.
        enqueued: number of frames ever enqueued.
        elsewhere: number of frames that were enqueued into other parts of the same bank, whose ages
            count the frames of all parts.
    """

    def __init__(self, embedding: Tensor) -> None:
        capacity, device = embedding.shape[0], embedding.device
        self.video = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.time = torch.full((capacity,), torch.nan, dtype=torch.float32, device=device)
        self.patient = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.written = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.enqueued = self.elsewhere = 0
        self._on_cpu = embedding.is_cpu
        self.live_in(embedding)

    def live_in(self, embedding: Tensor) -> None:
        """Keeps the embeddings in this memory from now on, such as an index's own."""
        self.embedding = embedding
        columns: list[Any] = [_bits(embedding), self.video, self.time, self.patient, self.written]
        # NumPy writes a short range in a tenth of the time that PyTorch's dispatcher needs.
        self._writable = [c.numpy() for c in columns] if self._on_cpu else columns

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self.embedding.shape[0]

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.embedding.shape[1]

    def __len__(self) -> int:
        return min(self.enqueued, self.capacity)

    def ages(self) -> Tensor:
        """Returns the frames enqueued since each was written, ``[capacity]`` int64; -1 if empty."""
        return torch.where(self.video >= 0, self._counted - self.written, -1)

    @property
    def _counted(self) -> int:
        return self.enqueued + self.elsewhere

    def slots_since(self, enqueued: int) -> Tensor:
        """Returns the slots written since frame number ``enqueued``, on the CPU."""
        first = max(enqueued, self.enqueued - self.capacity)
        return torch.arange(first, self.enqueued, device="cpu") % self.capacity

    def enqueue(self, frames: Frames) -> None:
        """Writes frames over the oldest slots; see :meth:`NegativeBank.enqueue`."""
        embedding, video, time, patient = self._checked(frames)
        rows, capacity = embedding.shape[0], self.capacity
        if rows == 0:
            return
        if rows > capacity:
            last = slice(rows - capacity, None)
            embedding, video, time = embedding[last], video[last], time[last]
            patient = None if patient is None else patient[last]
        self.enqueued += rows
        kept = min(rows, capacity)
        start = (self.enqueued - kept) % capacity
        head = min(kept, capacity - start)  # rows before the ring wraps around
        for begin, rows_from, count in ((start, 0, head), (0, head, kept - head)):
            if count == 0:
                continue
            where = slice(begin, begin + count)
            if count == kept:  # the usual case needs no slices
                self._write(where, embedding, video, time, patient)
            else:
                part = slice(rows_from, rows_from + count)
                known = None if patient is None else patient[part]
                self._write(where, embedding[part], video[part], time[part], known)

    def _write(
        self, where: slice, embedding: Tensor, video: Tensor, time: Tensor, patient: Tensor | None
    ) -> None:
        own_embedding, own_video, own_time, own_patient, own_written = self._writable
        own_embedding[where] = _bits(embedding).numpy() if self._on_cpu else _bits(embedding)
        own_video[where] = video.numpy() if self._on_cpu else video
        own_time[where] = time.numpy() if self._on_cpu else time
        if patient is None:
            own_patient[where] = -1
        else:
            own_patient[where] = patient.numpy() if self._on_cpu else patient
        own_written[where] = self._counted

    def replace(self, slots: Tensor, embedding: Tensor) -> Tensor:
        """Replaces the embeddings of filled slots, whose age becomes 0; returns the checked slots.

        Raises:
            TypeError, ValueError: see :meth:`NegativeBank.reembed`; nothing is changed then.
        """
        slots, embedding = check_ids("slots", slots), check_tensor("embedding", embedding)
        if slots.dim() != 1:
            raise TypeError(f"slots must be an int64 tensor [M], got shape {list(slots.shape)}")
        if list(embedding.shape) != [slots.shape[0], self.dim] or not embedding.is_floating_point():
            raise ValueError(
                f"embedding must be floating point [{slots.shape[0]}, {self.dim}], "
                f"got {embedding.dtype} {list(embedding.shape)}"
            )
        slots = slots.to(self.embedding.device)
        filled = len(self)
        if not bool(((slots >= 0) & (slots < filled)).all()):
            raise ValueError(f"slots must be filled ones, 0 .. {filled - 1}, got {slots.tolist()}")
        if slots.unique().numel() != slots.numel():
            raise ValueError("slots must differ from one another, got some twice")
        embedding = embedding.detach().to(self.embedding.device, self.embedding.dtype)
        for row in (~embedding.isfinite().all(1)).nonzero():
            raise ValueError(f"embedding must be finite, row {int(row)} is not")
        self.embedding[slots] = embedding
        self.written[slots] = self._counted
        return slots

    def _checked(self, frames: Frames) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        if not isinstance(frames, Frames):
            raise TypeError(f"frames must be a Frames, got {type(frames).__name__}")
        embedding, video, time, patient = frames
        if self._is_already_valid(embedding, video, time, patient):
            return embedding.detach(), video, time, patient
        if not check_tensor("frames.embedding", embedding).is_floating_point():
            raise TypeError(f"frames.embedding must be floating point, got {embedding.dtype}")
        if embedding.dim() != 2 or embedding.shape[1] != self.dim:
            raise ValueError(
                f"frames.embedding must have shape [M, {self.dim}], got {list(embedding.shape)}"
            )
        video, time = check_ids("frames.video", video), check_tensor("frames.time", time)
        patient = None if patient is None else check_ids("frames.patient", patient)
        if time.is_complex() or time.dtype == torch.bool:
            raise TypeError(f"frames.time must be floating point, got {time.dtype}")
        rows = embedding.shape[:1]
        for name, column in (("video", video), ("time", time), ("patient", patient)):
            if column is not None and column.shape != rows:
                raise ValueError(
                    f"frames.{name} must have shape [{rows[0]}], one value per frame, "
                    f"got {list(column.shape)}"
                )
        device = self.embedding.device
        embedding = embedding.detach().to(device, self.embedding.dtype)
        video = video.to(device)
        if rows[0] > 0 and not _all_finite_and_filled(embedding, video):
            for row in (~embedding.isfinite().all(1)).nonzero():
                raise ValueError(
                    f"frames.embedding must be finite in {embedding.dtype}, row {int(row)} is not"
                )
            for row in (video < 0).nonzero():
                raise ValueError(f"frames.video must be >= 0, row {int(row)} is {int(video[row])}")
        time = time.detach().to(device, torch.float32)
        return embedding, video, time, None if patient is None else patient.to(device)

    def _is_already_valid(
        self, embedding: Tensor, video: Tensor, time: Tensor, patient: Tensor | None
    ) -> bool:
        """Tells the usual case on the CPU quickly: nothing needs an error or a conversion."""
        if not all(c is None or isinstance(c, Tensor) for c in (embedding, video, time, patient)):
            return False
        rows = video.shape
        return (
            self._on_cpu
            and embedding.is_cpu
            and video.is_cpu
            and time.is_cpu
            and embedding.dtype == self.embedding.dtype
            and video.dtype == torch.int64
            and time.dtype == torch.float32
            and not time.requires_grad
            and len(rows) == 1
            and rows[0] > 0
            and embedding.shape == (rows[0], self.embedding.shape[1])
            and time.shape == rows
            and (
                patient is None
                or (patient.is_cpu and patient.dtype == torch.int64 and patient.shape == rows)
            )
            and _all_finite_and_filled(embedding.detach(), video)
        )

    def state(self) -> dict[str, Tensor]:
        """Returns the columns, not copied, and the number of frames ever enqueued."""
        return {**self.columns(), "enqueued": torch.tensor(self.enqueued)}

    def columns(self) -> dict[str, Tensor]:
        """Returns the columns by name, not copied."""
        return {
            "embedding": self.embedding,
            "video": self.video,
            "time": self.time,
            "patient": self.patient,
            "written": self.written,
        }

    def values(self) -> dict[str, np.ndarray]:
        """Returns the state as arrays, which pickles hold by value; :func:`state_of` reads them.

        Tensors would be shared with other processes, through descriptors of files that are gone
        before a spawned process opens them.
        """
        return {name: _bits(column).cpu().numpy() for name, column in self.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state; see :meth:`NegativeBank.load_state_dict`."""
        checked = self._checked_state(state)
        # Embeddings that are finite in float32 may overflow in float16.
        if not bool(checked["embedding"].to(self.embedding.dtype).isfinite().all()):
            raise ValueError(_INVALID_STATE)
        for name, column in self.columns().items():
            column.copy_(checked[name])
        self.enqueued = int(checked["enqueued"])

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state whose embeddings are this ring's already, without reading them."""
        checked = self._checked_state({**state, "embedding": self.embedding})
        for name, column in self.columns().items():
            if name != "embedding":
                column.copy_(checked[name])
        self.enqueued = int(checked["enqueued"])

    def _checked_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the state, with every column, if it fits this ring.

        Raises:
            ValueError: it does not fit.
        """
        own, state = self.state(), dict(state)
        if state.keys() == own.keys() - {"written"}:  # banks of an earlier format had no ages
            enqueued, slot = int(state["enqueued"]), torch.arange(self.capacity)
            latest = enqueued - 1 - (enqueued - 1 - slot) % self.capacity  # frame in each slot
            state["written"] = torch.where(latest >= 0, latest + 1, 0)
        if state.keys() != own.keys():
            raise ValueError(f"a bank's state must have {sorted(own)}, got {sorted(state)}")
        for name, tensor in own.items():
            if check_tensor(name, state[name]).is_floating_point() != tensor.is_floating_point():
                raise ValueError(f"{name} must be {tensor.dtype}, got {state[name].dtype}")
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} must have shape {list(tensor.shape)}, got {list(state[name].shape)}"
                )
        enqueued = int(state["enqueued"])
        filled = torch.arange(self.capacity) < enqueued
        consistent = torch.equal(state["video"].cpu() >= 0, filled)
        if enqueued < 0 or not consistent:
            raise ValueError(_INVALID_STATE)
        if bool((state["written"] > enqueued + self.elsewhere).any()):
            raise ValueError("a bank's state must hold no slot written after its last frame")
        return state


def state_of(values: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the state whose embeddings have this dtype, of :meth:`Ring.values`."""
    state = {name: torch.as_tensor(value) for name, value in values.items()}
    state["embedding"] = state["embedding"].view(dtype)
    return state


def _bits(embedding: Tensor) -> Tensor:
    """Returns the same memory in a dtype that NumPy has."""
    return embedding.view(torch.int16) if embedding.dtype == torch.bfloat16 else embedding


def _all_finite_and_filled(embedding: Tensor, video: Tensor) -> bool:
    """Returns whether all is finite and no id negative; an overflow may also give False.

    A sum of squares is finite only if every element is: one pass, without a boolean tensor.
    """
    flat: Any = embedding.reshape(-1)
    if not embedding.is_cpu:  # waits for the device only once
        total = float(torch.where(video.min() >= 0, torch.dot(flat, flat), torch.nan))
    else:
        if embedding.dtype in (torch.float32, torch.float64):
            flat = flat.numpy()  # its dot product is faster
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(flat.dot(flat)) if video.min().item() >= 0 else math.nan
    advise_of_length("frames.embedding", math.sqrt(total / len(embedding)) if total > 0 else 0.0)
    return math.isfinite(total)
