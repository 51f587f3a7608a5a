"""One bank over all processes: each keeps a part, and only candidates travel."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from usucl._files import DamagedFileError, read_json, write_json
from usucl.bank import files
from usucl.bank.arguments import GREATEST, check_int
from usucl.bank.bank import NegativeBank, Window
from usucl.bank.exchange import Exchange
from usucl.bank.hardest import with_patients
from usucl.bank.ring import DTYPES
from usucl.bank.versions import in_use, publishing, remove_unused
from usucl_ext import Frames, Selection

_FORMAT = "usucl-sharded-bank-1"
_COLUMNS = ("embedding", "video", "time", "patient", "written")


class ShardedBank:
    """Joins the banks of all processes of a group to one, with parts in the order of the ranks.

    Every method but ``enqueue``, ``__len__`` and ``ages`` is collective: all ranks call it, in the
    same order, each with its own arguments. The selection is that of a single bank that holds the
    parts one after the other; an index counts through them in this order. If a rank does not take
    part within ``timeout``, the others raise, and the group cannot be used afterwards.

    Args:
        local: this rank's part. All parts have one dim and dtype; capacities may differ.
        group: processes; all by default. ``torch.distributed`` must be initialised.
        timeout: seconds that a rank waits for the others in one exchange.

    Raises:
        RuntimeError: there is no process group.
        ValueError: the parts do not fit together.
        TimeoutError: a rank was not there in time; the message names the exchange.
        ConnectionError: a rank is gone; the message names the exchange.
    """

    def __init__(
        self,
        local: NegativeBank,
        *,
        group: dist.ProcessGroup | None = None,
        timeout: float = 60.0,
    ) -> None:
        if not dist.is_initialized():
            raise RuntimeError("a sharded bank needs an initialised torch.distributed")
        self.local = local
        self._exchange = Exchange(group, timedelta(seconds=timeout), local.device)
        dtypes = list(DTYPES.values())
        own = [local.capacity, local.dim, dtypes.index(local.dtype)]
        table = self._exchange.gather_numbers(own, "the shape of each part")
        for name, column in (("dim", 1), ("dtype", 2)):
            if len(set(table[:, column].tolist())) > 1:
                values = table[:, column].tolist()
                shown = [str(dtypes[v]) for v in values] if name == "dtype" else values
                raise ValueError(f"the parts of a bank must have one {name}, got {shown}")
        self._first = table[:, 0].cumsum(0) - table[:, 0]  # global index of each part's first slot
        self.capacity = int(table[:, 0].sum())

    @property
    def rank(self) -> int:
        """This process's place in the group."""
        return self._exchange.rank

    def __repr__(self) -> str:
        place = f"rank {self.rank} of {self._exchange.size}"
        return f"ShardedBank({place}, {self.capacity} slots, here {self.local!r})"

    def __len__(self) -> int:
        """Number of filled slots of this rank's part."""
        return len(self.local)

    def enqueue(self, frames: Frames) -> None:
        """Puts frames into this rank's part; see :meth:`NegativeBank.enqueue`."""
        self.local.enqueue(frames)

    def ages(self) -> Tensor:
        """Returns the ages in this rank's part; see :meth:`NegativeBank.ages`."""
        return self.local.ages()

    def hardest(
        self,
        frames: Frames,
        k: int,
        *,
        window: Window = None,
        skip: int = 0,
        max_similarity: float | None = None,
    ) -> Selection:
        """Finds the hardest negatives over all parts; see :meth:`NegativeBank.hardest`.

        The anchors of all ranks are gathered, and every part finds its own first ``skip + k`` for
        each. These return to the anchor's rank, as similarity and index, and are merged in the
        order of the selection. N and the values in ``window`` may differ between ranks, but no
        other argument.
        """
        exchange, frames = self._exchange, with_patients(frames)
        k, skip = check_int("k", k, 0, GREATEST), check_int("skip", skip, 0, GREATEST)
        depth = min(skip + k, GREATEST)
        everyone, windows, counts = self._gather_anchors(frames, window, depth)
        found = self.local.hardest(everyone, depth, window=windows, max_similarity=max_similarity)
        offset = int(self._first[self.rank])
        groups: list[Tensor] = []
        for index, similarity in ((found[0], found[1]), (found[2], found[3])):
            width, rows = index.shape[1], counts[self.rank]
            index = torch.where(index >= 0, index + offset, -1)
            what = "the candidates of each part"
            if width == 0:
                groups.extend((index[:rows], similarity[:rows]))
                continue
            # Every rank sends candidates for the anchors of this one: [ranks * rows, width].
            theirs = [rows] * exchange.size
            index = exchange.all_to_all(index, counts, theirs, what)
            similarity = exchange.all_to_all(similarity, counts, theirs, what)
            groups.extend(_merge(index, similarity, exchange.size, skip, k))
        return Selection(*groups)

    def candidates(
        self,
        frames: Frames,
        k: int,
        *,
        window: Window = None,
        max_similarity: float | None = None,
    ) -> Frames:
        """Returns candidates, each sent once; see :meth:`NegativeBank.candidates`."""
        found = self.hardest(frames, k, window=window, max_similarity=max_similarity)
        index = torch.cat([found.intra_index, found.cross_index], dim=1).unique()
        return self.gather(index[index >= 0])

    def gather(self, index: Tensor) -> Frames:
        """Returns a copy of the frames at these global indices, which must ascend."""
        exchange, device = self._exchange, index.device
        first = self._first.to(device)
        owner = torch.searchsorted(first, index, right=True) - 1
        wanted = owner.bincount(minlength=exchange.size).tolist()
        asked = exchange.gather_numbers(wanted, "how many frames each rank wants")
        asked_here = asked[:, self.rank].tolist()
        what = "which frames each rank wants"
        slots = exchange.all_to_all(index - first[owner], wanted, asked_here, what)
        part = self.local.gather(slots)
        what = "the frames that this rank wants"
        return Frames(*(exchange.all_to_all(c, asked_here, wanted, what) for c in part))  # type: ignore[arg-type]

    def turns(self, index: Tensor) -> Tensor:
        """Returns the place of each global index where the parts give a slot each in turn."""
        first = self._first.to(index.device)
        owner = torch.searchsorted(first, index, right=True) - 1
        return (index - first[owner]) * self._exchange.size + owner

    def recall(self, frames: Frames, k: int, *, sample: int = 64) -> float:
        """Measures this rank's part alone, not collectively; see :meth:`NegativeBank.recall`."""
        return self.local.recall(frames, k, sample=sample)

    def _gather_anchors(
        self, frames: Frames, window: Window, depth: int
    ) -> tuple[Frames, Tensor | None, list[int]]:
        """Gathers the anchors of all ranks, their windows, and their number per rank."""
        exchange = self._exchange
        rows = frames.video.shape[0]
        dtype = list(DTYPES.values()).index(frames.embedding.dtype)
        about = [rows, depth, int(window is None), dtype]
        table = exchange.gather_numbers(about, "the number of anchors")
        for name, column in (("skip + k", 1), ("window given or not", 2), ("dtype", 3)):
            if len(set(table[:, column].tolist())) > 1:
                raise ValueError(f"{name} must be the same on all ranks, got {table[:, column]}")
        counts = table[:, 0].tolist()
        columns: list[Tensor] = list(frames)  # type: ignore[arg-type]
        if window is not None:
            bounds = torch.as_tensor(window, dtype=torch.float32, device=frames.time.device)
            columns.append(bounds.reshape(-1, 2).expand(rows, 2))
        what = "the anchors of each rank"
        everyone = [exchange.gather(column.detach(), counts, what) for column in columns]
        return Frames(*everyone[:4]), everyone[4] if window is not None else None, counts

    def state_dict(self) -> list[dict[str, Tensor]]:
        """Returns the states of all parts on the CPU of rank 0; [] on the others."""
        own = {name: tensor.cpu() for name, tensor in self.local.state_dict().items()}
        return self._exchange.collect(own, "the state of each part")

    def load_state_dict(self, state: Sequence[Mapping[str, Tensor]]) -> None:
        """Loads this rank's share of what :meth:`state_dict` gave on rank 0. Not collective.

        If there are as many parts as ranks, each rank takes its own. Otherwise the parts, each
        oldest first, are concatenated and cut into as many ranges as there are ranks; a rank
        enqueues its range oldest first, with its ages. The oldest frames beyond its capacity are
        lost.

        Raises:
            ValueError: the parts do not fit; the bank is unchanged then.
        """
        if len(state) == self._exchange.size:
            self.local.load_state_dict(state[self.rank])
            return
        share = redistributed(
            [partial(dict, part) for part in state],
            [min(int(p["enqueued"]), len(p["video"])) for p in state],
            self.rank,
            self._exchange.size,
            self.local.capacity,
        )
        self.local.load_state_dict(share)

    def save(self, folder: str | Path) -> None:
        """Writes each rank's part and then, on rank 0, ``shards.json``, which names them all.

        Until that is replaced, an earlier version in the folder stays complete.

        Raises:
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        exchange = self._exchange
        number = [uuid.uuid4().int >> 66]  # all ranks use that of rank 0
        version = int(exchange.gather_numbers(number, "the name of the version")[0, 0])
        parts = folder / f"shards-{version:016x}"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as protected:
            with publishing(folder):
                parts.mkdir(exist_ok=True)
                protected.enter_context(in_use(parts))
            self.local.save(parts / f"{self.rank:05d}")
            lengths = exchange.gather_numbers([len(self.local)], "each part to be saved")[:, 0]
            if self.rank == 0:
                about = {"format": _FORMAT, "parts": parts.name, "lengths": lengths.tolist()}
                with publishing(folder):
                    write_json(folder / "shards.json", about)
                    remove_unused(folder, folder.glob(".shards*.tmp"))
                    remove_unused(folder, set(folder.glob("shards-*/")) - {parts})
        exchange.gather_numbers([0], "the list of parts to be written")

    def load(self, folder: str | Path) -> ShardedBank:
        """Reads what :meth:`save` wrote, on any number of ranks. Not collective.

        A rank reads only the parts that it needs; see :meth:`load_state_dict`.

        Raises:
            FileNotFoundError: ``folder`` holds no sharded bank.
            ValueError: the files are damaged, or do not fit; the bank is unchanged then.
        """
        folder = Path(folder)
        path, earlier = folder / "shards.json", None
        while True:
            if not path.is_file():
                raise FileNotFoundError(f"{folder} holds no sharded bank: shards.json is missing")
            about = read_json(path)
            lengths, parts = _lengths(path, about), folder / about["parts"]
            readers = [partial(_read_part, parts / f"{i:05d}") for i in range(len(lengths))]
            size, capacity = self._exchange.size, self.local.capacity
            try:
                with in_use(parts):
                    if len(lengths) == size:
                        self.local.load_state_dict(readers[self.rank]())
                    else:
                        share = redistributed(readers, lengths, self.rank, size, capacity)
                        self.local.load_state_dict(share)
                    return self
            except (FileNotFoundError, DamagedFileError) as error:
                if isinstance(error, DamagedFileError) and parts.is_dir():
                    raise
                if about == earlier or parts.is_dir():
                    raise DamagedFileError(path, f"a part is missing: {error}") from error
                earlier = about  # another process has replaced and removed this version


def _lengths(path: Path, about: Mapping[str, Any]) -> list[int]:
    """Returns the number of frames of each part, if the file has what every version's has."""
    if about.get("format") != _FORMAT:
        raise DamagedFileError(path, f"format must be {_FORMAT!r}, got {about.get('format')!r}")
    lengths, parts = about.get("lengths"), about.get("parts")
    if not (isinstance(parts, str) and re.fullmatch("shards-[0-9a-f]{16}", parts)):
        raise DamagedFileError(path, f"parts must name a folder of parts, got {parts!r}")
    if not (
        isinstance(lengths, list) and lengths and all(type(n) is int and n >= 0 for n in lengths)
    ):
        raise DamagedFileError(path, f"lengths must be the frames of each part, got {lengths!r}")
    return lengths


def _read_part(folder: Path) -> dict[str, Tensor]:
    return files.read(folder)[1]


def redistributed(
    parts: Sequence[Callable[[], Mapping[str, Tensor]]],
    lengths: Sequence[int],
    rank: int,
    ranks: int,
    capacity: int,
) -> dict[str, Tensor]:
    """Returns one rank's state from another number of parts; reads only those that it needs."""
    total = sum(lengths)
    begin, end = rank * total // ranks, (rank + 1) * total // ranks
    chosen: list[dict[str, Tensor]] = []
    first = 0
    for read, length in zip(parts, lengths, strict=True):
        lo, hi = max(begin - first, 0), min(end - first, length)
        first += length
        if lo >= hi:
            continue
        state = read()
        enqueued, slots = int(state["enqueued"]), len(state["video"])
        if min(enqueued, slots) != length:
            raise ValueError(f"a part must hold {length} frames, got {min(enqueued, slots)}")
        order = torch.arange(enqueued - length, enqueued)[lo:hi]  # numbers of the frames
        rows = {name: state[name][order % slots] for name in _COLUMNS if name in state}
        written = rows.setdefault("written", order + 1)
        rows["age"] = enqueued - written
        rows["turn"] = enqueued - order  # the greatest is overwritten first
        chosen.append(rows)
    if not chosen:
        dim = parts[0]()["embedding"].shape[1]
        nothing = torch.zeros(0, dtype=torch.int64)
        chosen = [
            {
                "embedding": torch.zeros(0, dim),
                "video": nothing,
                "time": torch.zeros(0),
                "patient": nothing,
                "age": nothing,
                "turn": nothing,
            }
        ]
    rows = {name: torch.cat([part[name] for part in chosen]) for name in chosen[0]}
    order = rows["turn"].argsort(descending=True, stable=True)[-capacity:]
    kept = len(order)
    rows["written"] = kept - rows["age"]
    empty = {"embedding": 0, "video": -1, "time": torch.nan, "patient": -1, "written": 0}
    state = {}
    for name in _COLUMNS:
        column = rows[name][order]
        missing = column.new_full((capacity - kept, *column.shape[1:]), empty[name])
        state[name] = torch.cat([column, missing])
    return {**state, "enqueued": torch.tensor(kept)}


def _merge(
    index: Tensor, similarity: Tensor, parts: int, skip: int, k: int
) -> tuple[Tensor, Tensor]:
    """Merges candidates ``[parts * N, skip + k]`` to ranks ``skip .. skip + k - 1``: ``[N, k]``.

    Within a part they have the order of the selection, and the parts that of the index, so a
    stable sort by similarity gives the order of the selection.
    """
    depth = skip + k

    def beside(column: Tensor) -> Tensor:
        rows = len(column) // parts
        return column.reshape(parts, rows, depth).permute(1, 0, 2).reshape(rows, parts * depth)

    similarity, order = beside(similarity).sort(dim=1, descending=True, stable=True)
    index = beside(index).gather(1, order)
    return index[:, skip:depth].contiguous(), similarity[:, skip:depth].contiguous()
