"""Tries problems in this process; ``run.py`` starts one per capability and number of threads."""

from __future__ import annotations

import json
import sys
import time
import traceback
from itertools import count

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from strategies import Problem, problems

from tests.soak.operator import checks

EXAMPLES = 50  # of one batch, after which the time is looked at
KINDS = {
    "on a grid": problems(max_rows=9, max_keys=80),
    "real values": problems(on_grid=False, spoiled=False, max_rows=9, max_keys=80),
    "float64": problems(dtypes=(torch.float32, torch.float64)),
}


def all_checks(problem: Problem, number: int, threads: int) -> None:
    """Every problem is compared with the truth, and some are tried in further ways."""
    torch.set_num_threads(threads)
    checks.assert_true(problem)
    if number % 10 == 0:
        checks.assert_changes_are_noticed(problem)
    if number % 10 == 5:
        checks.assert_same_at_once(problem)
    if number % 50 == 7 and threads == 1:
        checks.assert_same_in_a_fork(problem)


def batch(kind: str, number: int, first_seed: int, threads: int) -> tuple[int, str]:
    """Returns how many problems were tried, and the least one that failed, "" if none did."""
    tried = count()
    suppressed = list(HealthCheck)

    @seed(hash((first_seed, kind, number)))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=suppressed,
    )
    @given(problem=KINDS[kind])
    def check(problem: Problem) -> None:
        all_checks(problem, next(tried), threads)

    try:
        check()
    except Exception:
        return next(tried), traceback.format_exc()[-3000:]
    return next(tried), ""


def main(first_seed: int, threads: int, seconds: float, batches: int) -> None:
    """Prints what came of it as JSON."""
    deadline, tried, found = time.monotonic() + seconds, dict.fromkeys(KINDS, 0), []
    for number in range(batches):
        for kind in KINDS:
            if time.monotonic() < deadline:
                some, failure = batch(kind, number, first_seed, threads)
                tried[kind] += some
                found += [f"{kind}: {failure}"] if failure else []
    print(json.dumps({"tried": tried, "found": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
