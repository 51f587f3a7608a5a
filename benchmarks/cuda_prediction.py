"""Predicts the time of the dense CUDA pass from its machine code and its bytes.

``python -m benchmarks.cuda_prediction [LIBRARY]`` counts the instructions of one tile, 128 anchors
x 128 keys, and derives the time that each limit of an H200 allows: tensor cores, shared memory,
instruction issue, bytes from L2 and from memory. It covers both kernels that nominate: by mma.sync
and, where the library holds machine code of 9.0a, by wgmma. It is a lower bound, as latencies are
not in it. docs/cuda.md compares it with what was measured.
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
TILE, WARPS, PAIRS_OF_LANE = 128, 8, 64  # anchors and keys; per thread block; per tile
CHUNK_BYTES = 128
WARPS_KERNEL, HOPPER_KERNEL = "nominate_kernel", "nominate_hopper_kernel"
SHAPES = ((512, 65536), (4096, 65536), (4096, 1048576))
DIM = 128
# Opcodes of the pipe that takes half as many lanes per cycle as are issued.
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
    """An H200: ``tensor_flops``, ``mma_share``, ``l2_bytes`` and ``memory_bytes`` were measured by
    others, ``launch`` is a usual value, and all else is nominal."""

    tensor_flops: float = 790e12  # per second: bfloat16, a large matrix product by wgmma
    mma_share: float = 0.63  # the part of them that mma.sync reaches
    lanes: int = 128  # fused multiply-adds per cycle and multiprocessor
    clock: float = 1.755e9
    multiprocessors: int = 132
    schedulers: int = 4
    shared_bytes: int = 128  # per cycle and multiprocessor
    l2_bytes: float = 5.5e12  # per second
    memory_bytes: float = 4.3e12
    launch: float = 2e-6  # seconds between kernels of a graph
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
        chunk: instructions for 128 bytes of every row, products and loads.
        products: those of them that are HMMA or HGMMA.
        loads: those of them that are LDSM.
        epilogue: the comparison of all scores if none reaches its limit, by opcode.
        by_warpgroups: whether the products are HGMMA, which reads its operands itself.
    """

    chunk: int
    products: int
    loads: int
    epilogue: Counter[str]
    by_warpgroups: bool

    @property
    def shared_bytes(self) -> int:
        """Bytes per chunk read by all warps, or by both warpgroups of 64 anchors each."""
        if self.by_warpgroups:
            return 2 * (TILE // 2 + TILE) * CHUNK_BYTES
        return WARPS * self.loads * 512

    @property
    def per_pair(self) -> float:
        """Instructions of the epilogue per pair."""
        return self.epilogue.total() / PAIRS_OF_LANE

    @property
    def half_rate_per_pair(self) -> float:
        return sum(n for op, n in self.epilogue.items() if op in HALF_RATE) / PAIRS_OF_LANE


def machine_code(text: str) -> dict[tuple[str, str], dict[int, Instruction]]:
    """Returns cuobjdump's output as (architecture, kernel) to address to instruction."""
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
            # After the target some disassemblers print how the instruction is scheduled.
            jump = re.search(r"0x([0-9a-f]+)\s*(?:[?&]|$)", rest) if opcode[:3] == "BRA" else None
            target = int(jump.group(1), 16) if jump else None
            kernel[int(address, 16)] = Instruction(opcode, predicate is not None, target)
    return code


def shortest(code: dict[int, Instruction], start: int, ends: set[int]) -> list[int]:
    """Returns the addresses from ``start`` to an end, on the path of fewest instructions."""
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
    """Returns the tile's code of a kernel that nominates.

    Raises:
        ValueError: the kernel does not have that form.
    """
    order = sorted(code)

    def places(opcode: str) -> list[int]:
        return [a for a in order if code[a].opcode.startswith(opcode)]

    by_warpgroups = bool(places("HGMMA"))
    products = places("HGMMA") or places("HMMA")
    if not products:
        raise ValueError("the kernel must have tensor core products, got none")
    barriers = places("BAR")
    if by_warpgroups:
        # The chunk that begins the sums precedes the one that adds to them.
        begin = max(a for a in places("WARPGROUP.ARRIVE") if a < products[-1])
        products = [a for a in products if a > begin]
        loads = []
        counted = min(a for a in barriers if a > products[-1])  # one maximum may come before it
    else:
        before = max(a for a in barriers if a < products[0])
        loads = [a for a in places("LDSM") if before < a <= products[-1]]
        begin, counted = loads[0], products[-1]
    chunk = [a for a in order if begin <= a <= products[-1]]
    first_score = min(a for a in places("FMNMX") if a > counted)
    path = shortest(code, first_score, set(barriers))
    epilogue = Counter(code[a].opcode.split(".")[0] for a in path)
    return TileCode(len(chunk), len(products), len(loads), epilogue, by_warpgroups)


def limits(
    tile: TileCode, n: int, m: int, dim: int, element_bytes: int, gpu: Gpu
) -> dict[str, float]:
    """Returns the seconds that each limit alone would take, by its name."""
    chunks = -(-dim * element_bytes // CHUNK_BYTES)
    tiles = -(-n // TILE) * -(-m // TILE) / gpu.multiprocessors  # per multiprocessor
    rate = gpu.tensor_flops * (1 if tile.by_warpgroups else gpu.mma_share)
    rate *= 0.5 if element_bytes == 4 else 1
    loaded = chunks * (tile.shared_bytes + TILE * CHUNK_BYTES)  # keys are written; anchors stay
    issued = WARPS * (chunks * tile.chunk + tile.epilogue.total()) / gpu.schedulers
    rows = -(-n // TILE) * m * dim * element_bytes
    return {
        "tensor cores": 2 * n * m * dim / rate,
        "shared memory": tiles * loaded / gpu.shared_bytes / gpu.clock,
        "issue": tiles * issued / gpu.clock,
        "L2": rows / gpu.l2_bytes,
    }


def report(library: Path, cuobjdump: Path, gpu: Gpu) -> str:
    """Returns Markdown: the tile's instructions by element type, then the times by shape."""
    code = machine_code(dump(cuobjdump, "--dump-sass", library))
    tiles = {
        (name, arch): tile_code(kernel)
        for (arch, name), kernel in code.items()
        if name.startswith(WARPS_KERNEL) or (name.startswith(HOPPER_KERNEL) and arch == "sm_90a")
    }
    lines = [
        "| kernel | arch | instructions per chunk | products | LDSM | epilogue per pair "
        "| half-rate |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for (name, arch), tile in sorted(tiles.items()):
        lines.append(
            f"| `{name}` | {arch} | {tile.chunk} | {tile.products} | {tile.loads} "
            f"| {tile.per_pair:.2f} | {tile.half_rate_per_pair:.2f} |"
        )
    lines += [
        "",
        "| by | elements | anchors x keys x D | predicted | bound | tensor | shared | issue | L2 |",
        "|---|---|---|--:|---|--:|--:|--:|--:|",
    ]
    lines += [chain_line(n, m, gpu) for n, m in SHAPES]
    for kernel, title in ((WARPS_KERNEL, "mma.sync"), (HOPPER_KERNEL, "wgmma")):
        for elements, size in (("BFloat16", 2), ("TF32", 4)):
            name = f"{kernel}<{elements}Elements>"
            archs = [arch for found, arch in tiles if found == name]
            if archs:  # the architecture of the H200, or else the nearest
                tile = tiles[name, "sm_90a" if "sm_90a" in archs else max(archs)]
                lines += [tile_line(title, elements, size, tile, n, m, gpu) for n, m in SHAPES]
    return "\n".join(lines)


def tile_line(
    title: str, elements: str, size: int, tile: TileCode, n: int, m: int, gpu: Gpu
) -> str:
    """Returns a line for the whole pass: the binding limit, norms of the keys, launches."""
    each = limits(tile, n, m, DIM, size, gpu)
    bound = max(each, key=lambda key: each[key])
    norms = m * DIM * size / gpu.memory_bytes
    whole = each[bound] + norms + gpu.launches * gpu.launch
    shown = " | ".join(f"{1e6 * value:.0f} us" for value in each.values())
    shape = f"{n} x {m} x {DIM}"
    return f"| {title} | {elements} | {shape} | {1e6 * whole:.0f} us | {bound} | {shown} |"


def chain_line(n: int, m: int, gpu: Gpu) -> str:
    """Returns a line for all pairs by the chain, at the peak of fused multiply-adds."""
    seconds = n * m * DIM / (gpu.multiprocessors * gpu.lanes * gpu.clock)
    shape = f"{n} x {m} x {DIM}"
    return f"| the chain | all | {shape} | > {1e6 * seconds:.0f} us | FMA peak | | | | |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the predictions for an H200."""
    return command(COMMAND, __doc__, lambda library, tool: report(library, tool, Gpu()), arguments)


if __name__ == "__main__":
    sys.exit(main())
