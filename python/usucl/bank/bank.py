"""The negative bank of one process: a ring of embedded frames, and the search in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usucl._binding import ClassOrInstanceMethod
from usucl.bank import files
from usucl.bank.arguments import GREATEST, check_ids, check_int
from usucl.bank.hardest import hardest_cross, share_found, spread, with_patients
from usucl.bank.indexes import SearchOptions
from usucl.bank.ring import DTYPES, Ring, state_of
from usucl.bank.searches import index_of
from usucl_ext import Frames, Selection, select_negatives

Window = tuple[float, float] | Tensor | None


class NegativeBank:
    """Stores the last ``capacity`` embedded frames and finds the hardest among them.

    A plain class on purpose: DistributedDataParallel would overwrite registered buffers of a module
    with those of rank 0. Put :meth:`state_dict` into the checkpoint.
    Banks may be sent to other processes and the workers of a ``DataLoader``: a copy arrives. In a
    child that is forked after this process has used several threads, a search may wait forever, as
    PyTorch's own operations do: spawn it, or call ``torch.set_num_threads(1)`` first.

    Frame number e ever enqueued (from 0) is in slot ``e % capacity``; empty slots have video -1.

    The search ``"exact"`` is the fused operator over all slots. With ``"Flat"``, FAISS proposes
    from the same memory, and the selection is the same bit for bit, ties included. Any other string
    of FAISS's index factory (``"IVF4096,Flat"``, ``"IVF1024,PQ32"``, ``"HNSW32"``) gives the best
    of what the index proposes; an inverted file of plain vectors is exact too if ``nprobe`` covers
    all its cells. With every search, exclusion and order are those of
    :func:`usucl_ext.select_negatives`, and an anchor gets k negatives if there are k. An index is
    built in a thread once there are enough frames for it; until then the search is exact. For what
    each search costs and when to use it, see docs/bank.md.

    Args:
        capacity: number of slots, >= 1.
        dim: length of an embedding, >= 1.
        search: ``"exact"``, ``"Flat"`` or a factory string.
        device, dtype: device and dtype (float32, bfloat16, float16 or float64) of the embeddings.
        max_age: greatest age of a frame that is found, in frames enqueued since (:meth:`ages`).
        nprobe: cells of an inverted file that each query searches; by default 1 in 64, at least 8.
        ef_search: candidates that a graph search keeps; by default 256.
        rebuild_after: frames that change until an index is built again, with new centroids. By
            default as many as the bank holds for an inverted file, which takes changes in place;
            an eighth of that for other indexes, which cannot.

    Raises:
        ValueError, TypeError: an argument is not as stated; the message names it.
        ImportError: ``search`` needs FAISS, which is not installed.
    """

    def __init__(
        self,
        capacity: int,
        dim: int,
        *,
        search: str = "exact",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        max_age: int | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rebuild_after: int | None = None,
    ) -> None:
        capacity, dim = check_int("capacity", capacity, 1), check_int("dim", dim, 1)
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
        options = SearchOptions(search, nprobe, ef_search, rebuild_after)
        ring = Ring(torch.zeros(capacity, dim, dtype=dtype, device=device))
        self._set_up(ring, options, max_age)

    def _set_up(self, ring: Ring, options: SearchOptions, max_age: int | None) -> None:
        self.search, self._options = options.search, options
        self.max_age = None if max_age is None else check_int("max_age", max_age, 0)
        self._ring = ring
        self._index = index_of(ring, options)

    def _arguments(self) -> dict[str, Any]:
        """Returns the arguments that make a bank like this one."""
        return {
            "capacity": self.capacity,
            "dim": self.dim,
            "dtype": self.dtype,
            "max_age": self.max_age,
            **vars(self._options),
        }

    def __reduce__(self) -> tuple[Callable[..., NegativeBank], tuple[Any, ...]]:
        """Copies and pickles hold the frames; an index is built again."""
        return _restored, ({**self._arguments(), "device": self.device}, self._ring.values())

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return self._ring.capacity

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._ring.dim

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored embeddings."""
        return self._ring.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Device of the stored frames."""
        return self._ring.embedding.device

    @property
    def enqueued(self) -> int:
        """Number of frames ever enqueued."""
        return self._ring.enqueued

    def __len__(self) -> int:
        """Number of filled slots."""
        return len(self._ring)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{len(self)} of {self.capacity} x {self.dim}"
        return f"NegativeBank({size}, {dtype}, {self.search}, {self.device})"

    def to(self, device: torch.device | str) -> NegativeBank:
        """Moves the bank to a device, in place, and returns it; an index is built again there.

        Raises:
            ValueError: the search has an index that cannot be on this device.
        """
        if (device := torch.empty(0, device=device).device) != self.device:
            arguments = {**self._arguments(), "device": device}
            vars(self).update(vars(_restored(arguments, self._ring.values())))
        return self

    @property
    def index_bytes(self) -> int:
        """Bytes that the index of a full bank takes while it is built, about; 0 without one."""
        return 0 if self._index is None else self._index.bytes

    def frames(self) -> Frames:
        """Returns all slots, not copied, as keys for a loss, which ignores empty slots.

        With ``max_age`` the video ids are copied, and those of older frames are -1.
        """
        ring = self._ring
        video = ring.video
        if self.max_age is not None:
            video = video.masked_fill(ring.ages() > self.max_age, -1)
        return Frames(ring.embedding, video, ring.time, ring.patient)

    def ages(self) -> Tensor:
        """Returns ages, ``[capacity]`` int64: frames enqueued after each; -1 if empty."""
        return self._ring.ages()

    def enqueue(self, frames: Frames) -> None:
        """Writes frames over the oldest slots; if there are more than ``capacity``, the last stay.

        Args:
            frames: M frames of any floating dtype and on any device, which are converted and
                detached; without patient ids, they are unknown. Clone the bank's own frames(),
                which share its memory, before you pass them.

        Raises:
            TypeError, ValueError: a shape or dtype is not as stated, a video id is negative, or an
                embedding is not finite in the bank's dtype (the message names the row). The bank
                is unchanged then.

        Warns:
            UserWarning: once per process: the embeddings are plainly not L2-normalised.
        """
        self._ring.enqueue(frames)

    def count_elsewhere(self, frames: int) -> None:
        """Sets how many frames other parts of the same bank were given, which ages count too."""
        self._ring.elsewhere = frames

    def reembed(self, slots: Tensor, embedding: Tensor) -> None:
        """Replaces the embeddings of the frames in ``slots``, whose age becomes 0.

        Only the caller, who enqueued them, knows which frame is in which slot. ``ages()`` tells
        which are old.

        Args:
            slots: ``[M]`` int64, filled and different.
            embedding: ``[M, dim]``, made by the current encoder.

        Raises:
            TypeError, ValueError: an argument is not as stated; the bank is unchanged then.
        """
        slots = self._ring.replace(slots, embedding)
        if self._index is not None:
            self._index.replaced(slots)

    def hardest(
        self,
        frames: Frames,
        k: int,
        *,
        window: Window = None,
        skip: int = 0,
        max_similarity: float | None = None,
    ) -> Selection:
        """Finds the k most similar cross-video frames of each anchor, and likewise intra-video.

        The rules are those of :func:`usucl_ext.select_negatives`: frames of the anchor's video
        or of its known patient are not cross-video negatives. The intra-video negatives are exact
        with every search, because an anchor's own video has few frames.

        Args:
            frames: N anchors on the bank's device; without patient ids, their patients are unknown.
            k: negatives per group, >= 0.
            window: ``(lo, hi)`` in the unit of the times, or ``[2]``, ``[N, 2]``; with it, k
                intra-video negatives are taken too.
            skip: number of hardest negatives to leave out of each group.
            max_similarity: greatest similarity of a negative.

        Returns:
            :class:`Selection`, whose indices are slots of the bank.

        Raises:
            TypeError, ValueError: an argument is not as stated; the message names it.
        """
        k, skip = check_int("k", k, 0, GREATEST), check_int("skip", skip, 0, GREATEST)
        frames, keys = with_patients(frames), self.frames()
        proposes = self._proposes() and k > 0
        found = select_negatives(
            frames,
            keys,
            window=window,
            intra_k=0 if window is None else k,
            cross_k=0 if proposes else k,
            intra_skip=skip,
            cross_skip=skip,
            max_similarity=max_similarity,
        )
        if not proposes:
            return found
        assert self._index is not None
        slots, similarity = hardest_cross(self._index, keys, frames, k, skip, max_similarity)
        return found._replace(cross_index=slots, cross_similarity=similarity)

    def _proposes(self) -> bool:
        """Brings the index up to date with the ring and returns whether it can be searched."""
        if self._index is None:
            return False
        self._index.catch_up()
        return self._index.size > 0

    def candidates(
        self,
        frames: Frames,
        k: int,
        *,
        window: Window = None,
        max_similarity: float | None = None,
    ) -> Frames:
        """Returns the frames that are among the k hardest of any anchor, once each, by slot.

        As a key block they replace the whole bank. A loss takes the first ``skip + k'`` keys of
        each anchor and group, over all its blocks. Any of those that comes from the bank is among
        the first ``skip + k'`` of the bank, so it is here if k is at least that. Frames that are
        here because of another anchor rank behind an anchor's own, or are not valid for it, and
        ties keep their order. So with an exact search the loss takes the same keys as from the
        whole bank.

        Args:
            frames, window, max_similarity: see :meth:`hardest`.
            k: number of ranks that count, skipped ones included.
        """
        found = self.hardest(frames, k, window=window, max_similarity=max_similarity)
        slots = torch.cat([found.intra_index, found.cross_index], dim=1).unique()
        return self.gather(slots[slots >= 0])

    def gather(self, slots: Tensor) -> Frames:
        """Returns a copy of the frames in these slots."""
        return self.frames().take(check_ids("slots", slots))

    def recall(self, frames: Frames, k: int, *, sample: int = 64) -> float:
        """Measures the share of the k hardest cross-video negatives that this search finds.

        Args:
            frames: anchors, see :meth:`hardest`.
            k: negatives per anchor.
            sample: greatest number of anchors to measure, evenly spaced.

        Returns:
            The share, which is 1 for an exact search and NaN if there is nothing to find.
        """
        k = check_int("k", k, 0, GREATEST)
        frames = spread(with_patients(frames), check_int("sample", sample, 1))
        truth = select_negatives(frames, self.frames(), window=None, intra_k=0, cross_k=k)
        return share_found(self.hardest(frames, k).cross_index, truth.cross_index)

    def rebuild(self) -> None:
        """Builds the index again from all frames, and returns when it is in use.

        Does nothing if the search has no index or there are too few frames to train it.
        """
        if self._index is not None:
            self._index.rebuild()

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the columns, and the number of frames ever enqueued.

        A state that is kept stays as it is. That of a mapped bank is read into memory. An index is
        not part of the state: it is built again, like the first one.
        """
        return {name: column.clone() for name, column in self._ring.state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state of the same capacity and dim, converted to this dtype and device.

        Raises:
            ValueError: a tensor is missing, has another shape, or holds impossible values. The
                bank is unchanged then.
        """
        self._ring.load_state(state)
        if self._index is not None:
            self._index.reset()

    def save(self, folder: str | Path) -> None:
        """Writes the bank to ``folder``: a safetensors file and ``bank.json``, which names it.

        ``bank.json`` is replaced last, so an earlier version in the folder stays readable until
        the new one is complete, even if writing is interrupted. Nothing is copied in memory.

        Raises:
            OSError: the folder cannot be written.
        """
        dtype = str(self.dtype).removeprefix("torch.")
        files.write(Path(folder), {**self._arguments(), "dtype": dtype}, self._ring.state())

    @classmethod
    def open(cls, folder: str | Path, *, mmap: bool = False) -> NegativeBank:
        """Opens a saved bank on the CPU.

        Args:
            folder: folder that :meth:`save` wrote.
            mmap: leave the embeddings in the file, from which the search reads what it needs, so
                they may exceed the memory. Frames enqueued later are kept in memory and never
                change the file. Its checksum is not checked, which would read all of it.

        Raises:
            FileNotFoundError: ``folder`` holds no bank.
            ValueError: the files are damaged.
        """
        folder = Path(folder)
        description, state = files.read(folder, mmap=mmap)
        try:
            options = SearchOptions.among(description)
            dtype, max_age = DTYPES[description["dtype"]], description.get("max_age")
            if not mmap:
                capacity, dim = description["capacity"], description["dim"]
                bank = cls(capacity, dim, dtype=dtype, max_age=max_age, **vars(options))
                bank.load_state_dict(state)
                return bank
            bank = cls.__new__(cls)
            ring = Ring(state["embedding"])
            ring.adopt(state)
            bank._set_up(ring, options, max_age)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the bank in {folder} cannot be loaded: {error}") from error
        return bank

    @ClassOrInstanceMethod
    def load(self: NegativeBank | type[NegativeBank], folder: str | Path) -> NegativeBank:
        """Reads what :meth:`save` wrote.

        Called on a bank, it replaces the contents in place and returns the bank, which must have
        the saved capacity and dim; called on the class, it is :meth:`open`.

        Raises:
            FileNotFoundError: ``folder`` holds no bank.
            ValueError: the files are damaged or do not fit this bank, which is unchanged then.
        """
        if isinstance(self, type):
            return self.open(folder)
        _, state = files.read(Path(folder))
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"the bank in {folder} cannot be loaded: {error}") from error
        return self


def _restored(arguments: dict[str, Any], values: dict[str, Any]) -> NegativeBank:
    bank = NegativeBank(**arguments)
    bank.load_state_dict(state_of(values, bank.dtype))
    return bank
