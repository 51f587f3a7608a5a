"""The machine with its GPU, and what is measured on it: ``python -m benchmarks.gpu_machine``.

A process of its own prints it as JSON, so that the suite itself holds no memory of the GPU.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import torch

from benchmarks.gpu_peers import PEERS
from benchmarks.harness import describe_run
from benchmarks.providers import PROVIDERS
from benchmarks.rows import (
    CHUNKED,
    CHUNKED_SEARCH,
    COMPILED,
    COMPILED_CHUNKS,
    CUVS,
    EAGER,
    FAISS_GPU,
    FLASHLIB,
    FLASHLIB_CUTEDSL,
    GRAPH,
    MATMUL,
    MEMEFF,
    MMA_SYNC,
    OURS,
    TRITON,
)

# Providers measured in one process: those that may break come last, or alone.
GROUPS = {
    "goals": (GRAPH, OURS, MATMUL),
    "simple": (GRAPH, OURS, MATMUL, CHUNKED_SEARCH, TRITON, EAGER, CHUNKED),
    "searches": (GRAPH, OURS, FAISS_GPU, CUVS, FLASHLIB, FLASHLIB_CUTEDSL),
    "in batch": (GRAPH, OURS, MEMEFF),
    "mma.sync": (GRAPH, MMA_SYNC),
    "compiled": (OURS, COMPILED, COMPILED_CHUNKS),
}
COMPARED = tuple(dict.fromkeys(name for names in GROUPS.values() for name in names))
# nvidia-smi's names; clocks are read while nothing runs, so the largest ones are listed too.
TOLD = (
    "driver_version",
    "clocks.current.sm",
    "clocks.max.sm",
    "clocks.current.memory",
    "clocks.max.memory",
    "power.limit",
    "temperature.gpu",
)


def gpu() -> dict[str, Any]:
    """Returns facts of the first GPU, or ``{"absent": reason}`` if there is none."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "torch is built without CUDA" if built is None else "torch finds no CUDA device"
        driver = "nvidia-smi is there" if shutil.which("nvidia-smi") else "no nvidia-smi either"
        return {"absent": f"{why} (torch {torch.__version__}; {driver})"}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "count": torch.cuda.device_count(),
        "capability": [found.major, found.minor],
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "l2_mib": round(found.L2_cache_size / 2**20, 1),
        "nvidia_smi": told_by_driver(TOLD, f"GPU-{found.uuid}"),
    }


def told_by_driver(names: tuple[str, ...], device: str) -> dict[str, str] | str:
    """Returns what nvidia-smi says of ``names``, or a sentence if it says nothing."""
    query = f"--query-gpu={','.join(names)}"
    command = ["nvidia-smi", f"--id={device}", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no nvidia-smi: {type(error).__name__}"
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode != 0 or len(values) != len(names):
        return f"nvidia-smi: {(done.stdout + done.stderr).strip()[:200]}"
    return dict(zip(names, values, strict=True))


def describe() -> dict[str, Any]:
    """Returns ``run`` and ``providers`` of a result file."""
    run = describe_run()
    run["machine"]["gpu"] = gpu()
    told = {name: (one.what, one.cannot) for name, one in PROVIDERS.items() if name in COMPARED}
    told |= {name: (one.what, one.cannot) for name, one in PEERS.items()}
    told |= {
        GRAPH: ("the same, captured once as a CUDA graph: without the cost of its launches", ""),
        MMA_SYNC: ("the graph again, without Hopper's own instructions", ""),
    }
    providers = {
        name: {"what": what, "cannot": cannot, "skipped": ""}
        for name, (what, cannot) in told.items()
    }
    return {"run": run, "providers": providers}


if __name__ == "__main__":
    print(json.dumps(describe()))
