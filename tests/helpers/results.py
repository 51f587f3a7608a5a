"""Made-up results of benchmarks."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import suite
from benchmarks.problems import DTYPES, ORDERS
from benchmarks.providers import PROVIDERS
from benchmarks.rows import EAGER, MATMUL, OURS, SEARCH, Result, Row

WORDS = {"machine": "a machine", "versions": "usucl 1", "commit": "abc"}
MAIN = ((256, 16384), (512, 65536), (1024, 65536), (256, 262144))


def a_row(**fields: object) -> Row:
    row = Row("shapes", suite.OP, OURS, "both", (512, 65536, 128), "float32", (3, 32), "random", 2,
              "time", 100.0, 90.0, 110.0, "ms", 20, **WORDS)  # fmt: skip
    return replace(row, **fields)  # type: ignore[arg-type]


def a_result(rows: list[Row], **run: object) -> Result:
    """Returns a run on two threads, with all providers present."""
    facts = {"cpu": "a CPU", "cores": 2, "threads": 2, "features": [], "cpu_capability": "avx2",
             "torch_cpu_capability": "AVX2", "load_before": 0.1, "settings": {}}  # fmt: skip
    head = {"machine": facts, "versions": {"usucl": "1", "torch": "2"}, "commit": "abc",
            "date": "today", "quick": False, "cores_of_others": 0.1, **run}  # fmt: skip
    told = {name: {"what": "", "cannot": "", "skipped": ""} for name in PROVIDERS}
    return Result(head, told, rows)


def made_up() -> Result:
    """Returns all figures with goals: ours is 100 ms at 65536 keys, others a known multiple."""
    peak = a_row(group="machine", op="fma_peak", provider="machine", mode="", shape=(0, 0, 0),
                 metric="rate", value=100.0, unit="GFLOP/s")  # fmt: skip
    rows = [peak]
    multiples = {MATMUL: 2.0, EAGER: 12.0, SEARCH: 6.0}
    for shape in (*MAIN, (32, 65536), (32, 96)):
        one = a_row(shape=(*shape, 128))
        rows += [one, replace(one, metric="memory", value=shape[0] / 16, unit="MiB")]
        for provider, multiple in multiples.items():
            theirs = replace(one, provider=provider, value=100.0 * multiple)
            rows += [theirs if provider == EAGER else replace(theirs, mode="forward")]
            rows += [replace(theirs, metric="ratio", value=multiple, unit="x", versus=OURS)]
    rows += _sweep("k", [{"k": (3, k)} for k in (4, 32, 256)], [1.1, 1.2])
    rows += _sweep("dtype", [{"dtype": name} for name in DTYPES], [0.5, 0.7])
    rows += _sweep("order", [{"order": name} for name in ORDERS], [1.5, 1.0, 2.5, 1.1])
    varied = {"N": ((64, 65536, 128), (512, 65536, 128)), "D": ((512, 65536, 64),)}
    for group, shapes in varied.items():
        one = [a_row(group=group, shape=shape) for shape in shapes]
        rows += one + [replace(row, provider=MATMUL, mode="forward") for row in one]
    return a_result(rows)


def _sweep(group: str, changes: list[dict[str, object]], ratios: list[float]) -> list[Row]:
    times = [a_row(group=group, **change) for change in changes]
    relative = [replace(row, metric="ratio", unit="x", value=ratio, versus=group)
                for row, ratio in zip(times[1:], ratios, strict=True)]  # fmt: skip
    return times + relative
