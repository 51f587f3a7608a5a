"""What the dense CUDA pass should take, from its machine code and its bytes. A prediction.

``python -m benchmarks.cuda_prediction [LIBRARY]`` counts the instructions of one tile, 128 anchors
x 128 keys, and sets the time against the limits of an H200 one by one: tensor cores, shared
memory, instruction issue, bytes from L2 and from memory. Nothing of it was measured on a GPU; it is
there to be held against the first measurement.
"""

from __future__ import annotations

import heapq
import itertools
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cuda_binary import command, dump, readable

COMMAND = "python -m benchmarks.cuda_prediction"
TILE, WARPS, PAIRS_OF_LANE = 128, 8, 64  # anchors and keys; of a thread block; in one tile
CHUNK_BYTES = 128
SHAPES = ((512, 65536), (4096, 65536), (4096, 1048576))
DIM = 128
# Opcodes of the pipe that takes half as many lanes a cycle as are issued.
HALF_RATE = {
    "FMNMX",
    "FSETP",
    "ISETP",
    "IADD3",
    "LOP3",
    "SEL",
    "FSEL",
    "SHF",
    "PLOP3",
    "LEA",
    "PRMT",
}


@dataclass(frozen=True)
class Gpu:
    """One H200. The rates of the first line were measured elsewhere, the second are nominal."""

    tensor_flops: float = 790e12  # bfloat16, a large matrix product
    mma_share: float = 0.63  # of them by mma.sync
    clock: float = 1.755e9
    multiprocessors: int = 132
    schedulers: int = 4
    shared_bytes: int = 128  # a cycle and multiprocessor
    l2_bytes: float = 5.5e12  # a second
    memory_bytes: float = 4.3e12
    launch: float = 2e-6  # of one kernel after another in a graph
    launches: int = 9


@dataclass(frozen=True)
class Instruction:
    """One line of machine code: its opcode, whether it may be skipped, where it may jump."""

    opcode: str
    predicated: bool
    target: int | None


@dataclass(frozen=True)
class TileCode:
    """Instructions that a warp issues for one tile.

    Attributes:
        chunk: for 128 bytes of every row, products and loads.
        products, loads: of those, HMMA and LDSM.
        epilogue: the comparison of all scores where none reaches its limit, by opcode.
    """

    chunk: int
    products: int
    loads: int
    epilogue: Counter[str]

    @property
    def per_pair(self) -> float:
        """Instructions of the epilogue."""
        return self.epilogue.total() / PAIRS_OF_LANE

    @property
    def half_rate_per_pair(self) -> float:
        return sum(n for op, n in self.epilogue.items() if op in HALF_RATE) / PAIRS_OF_LANE


def machine_code(text: str) -> dict[tuple[str, str], dict[int, Instruction]]:
    """(architecture, kernel) to address to instruction, of what cuobjdump prints."""
    code: dict[tuple[str, str], dict[int, Instruction]] = {}
    arch, kernel = "", {}
    for line in text.splitlines():
        if line.startswith("arch = "):
            arch = line.removeprefix("arch = ").strip()
        function = re.match(r"\s*Function : (\S+)", line)
        if function:
            kernel = code.setdefault((arch, readable(function.group(1))), {})
        found = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);", line)
        if found:
            address, predicate, opcode, rest = found.groups()
            jump = re.search(r"0x([0-9a-f]+)\s*$", rest) if opcode.startswith("BRA") else None
            target = int(jump.group(1), 16) if jump else None
            kernel[int(address, 16)] = Instruction(opcode, predicate is not None, target)
    return code


def shortest(code: dict[int, Instruction], start: int, ends: set[int]) -> list[int]:
    """Addresses from ``start`` to the nearest end, the way of fewest instructions."""
    order = sorted(code)
    following = dict(itertools.pairwise(order))
    queue: list[tuple[int, int, tuple[int, ...]]] = [(0, start, ())]
    seen: set[int] = set()
    while queue:
        length, at, path = heapq.heappop(queue)
        if at in seen:
            continue
        seen.add(at)
        if at in ends:
            return [*path, at]
        one = code[at]
        steps = [] if one.target is None else [one.target]
        jumps = one.target is not None or one.opcode.split(".")[0] in ("EXIT", "RET")
        if at in following and (one.predicated or not jumps):
            steps.append(following[at])
        for step in steps:
            heapq.heappush(queue, (length + 1, step, (*path, at)))
    raise ValueError("there is no such path: the kernel has another form")


def tile_code(code: dict[int, Instruction]) -> TileCode:
    """Of a ``nominate_kernel``.

    Raises:
        ValueError: it has not the form of one.
    """
    order = sorted(code)
    products = [a for a in order if code[a].opcode.startswith("HMMA")]
    if not products:
        raise ValueError("expected tensor core products in the kernel, found none")
    first_load = max(a for a in order if a < products[0] and code[a].opcode.startswith("BAR"))
    chunk = [a for a in order if first_load < a <= products[-1]]
    loads = [a for a in chunk if code[a].opcode.startswith("LDSM")]
    chunk = [a for a in chunk if a >= loads[0]]
    scores = [a for a in order if a > products[-1] and code[a].opcode.startswith("FMNMX")]
    barriers = {a for a in order if code[a].opcode.startswith("BAR")}
    path = shortest(code, scores[0], barriers)
    epilogue = Counter(code[a].opcode.split(".")[0] for a in path)
    return TileCode(len(chunk), len(products), len(loads), epilogue)


def limits(
    tile: TileCode, n: int, m: int, dim: int, element_bytes: int, gpu: Gpu
) -> dict[str, float]:
    """Seconds by what would take them alone."""
    chunks = -(-dim * element_bytes // CHUNK_BYTES)
    tiles = -(-n // TILE) * -(-m // TILE) / gpu.multiprocessors  # of one multiprocessor
    rate = gpu.tensor_flops * gpu.mma_share * (0.5 if element_bytes == 4 else 1)
    loaded = chunks * (WARPS * tile.loads * 512 + 2 * TILE * CHUNK_BYTES)
    issued = WARPS * (chunks * tile.chunk + tile.epilogue.total()) / gpu.schedulers
    rows = -(-n // TILE) * m * dim * element_bytes
    return {
        "tensor cores": 2 * n * m * dim / rate,
        "shared memory": tiles * loaded / gpu.shared_bytes / gpu.clock,
        "issue": tiles * issued / gpu.clock,
        "L2": rows / gpu.l2_bytes,
    }


def report(library: Path, cuobjdump: Path, gpu: Gpu) -> str:
    """Markdown: the tile's instructions by element type, then the times by shape."""
    code = machine_code(dump(cuobjdump, "--dump-sass", library))
    lines = [
        "| kernel | arch | instructions a chunk | HMMA | LDSM | epilogue a pair | half-rate |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    tiles = {}
    for (arch, name), kernel in sorted(code.items()):
        if not name.startswith("nominate_kernel"):
            continue
        tile = tiles[arch, name] = tile_code(kernel)
        lines.append(
            f"| `{name}` | {arch} | {tile.chunk} | {tile.products} | {tile.loads} "
            f"| {tile.per_pair:.2f} | {tile.half_rate_per_pair:.2f} |"
        )
    lines += [
        "",
        "| elements | anchors x keys x D | predicted | bound by | tensor | shared | issue | L2 |",
        "|---|---|--:|---|--:|--:|--:|--:|",
    ]
    arch = max(arch for arch, _ in tiles)
    for name, size in (("BFloat16", 2), ("TF32", 4)):
        tile = tiles[arch, f"nominate_kernel<{name}Elements>"]
        for n, m in SHAPES:
            each = limits(tile, n, m, DIM, size, gpu)
            bound = max(each, key=lambda key: each[key])
            before = m * DIM * size / gpu.memory_bytes  # the norms of the keys
            whole = each[bound] + before + gpu.launches * gpu.launch
            shown = " | ".join(f"{1e6 * value:.0f} us" for value in each.values())
            lines.append(
                f"| {name} | {n} x {m} x {DIM} | {1e6 * whole:.0f} us | {bound} | {shown} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the predictions for an H200."""
    return command(COMMAND, __doc__, lambda library, tool: report(library, tool, Gpu()), arguments)


if __name__ == "__main__":
    sys.exit(main())
