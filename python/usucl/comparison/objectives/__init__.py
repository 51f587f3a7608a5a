"""Published pretraining losses on frames of videos, one method per file.

A new method is a subclass of :class:`Objective` in its own file, and an entry in
:data:`OBJECTIVES`. Losses and heads come from lightly where it has them, which is imported when an
objective is made.
"""

from typing import Any

from usucl._spelling import did_you_mean
from usucl.comparison.objectives.byol import BYOL
from usucl.comparison.objectives.cycle import CycleContrast
from usucl.comparison.objectives.ivpp import IVPP
from usucl.comparison.objectives.lejepa import LeJEPA
from usucl.comparison.objectives.moco import MoCo, VideoMoCo
from usucl.comparison.objectives.objective import Objective
from usucl.comparison.objectives.simclr import SimCLR
from usucl.comparison.objectives.simsiam import SimSiam
from usucl.comparison.objectives.uscl import USCL

OBJECTIVES: dict[str, type[Objective[Any]]] = {
    objective.name: objective
    for objective in (
        SimCLR,
        SimSiam,
        BYOL,
        MoCo,
        VideoMoCo,
        LeJEPA,
        CycleContrast,
        USCL,
        IVPP,
    )
}


def find_objective(name: str) -> type[Objective[Any]]:
    """Returns the objective of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in OBJECTIVES:
        near = did_you_mean(name, OBJECTIVES)
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {name!r}{near}")
    return OBJECTIVES[name]


__all__ = [
    "BYOL",
    "IVPP",
    "OBJECTIVES",
    "USCL",
    "CycleContrast",
    "LeJEPA",
    "MoCo",
    "Objective",
    "SimCLR",
    "SimSiam",
    "VideoMoCo",
    "find_objective",
]
