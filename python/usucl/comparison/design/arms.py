"""The arms of a comparison: how each comes to its encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from usucl._spelling import did_you_mean

Weights = Literal["random", "imagenet", "pixels"]
Group = Literal["baseline", "peer", "ours"]
_KINDS = ("weights", "supervised", "objective", "method")


@dataclass(frozen=True)
class Arm:
    """One way to an encoder. Exactly one of the first four says which.

    Attributes:
        name: name in the config, in files and on the command line.
        weights: nothing is trained: ``"random"`` or ``"imagenet"`` weights, or ``"pixels"``, the
            image itself as its features.
        supervised: trained with the labels of the training patients, of these columns together or
            of ``"all"`` that are asked: what pretraining could reach if it knew them.
        objective: a loss of other authors, a name in
            :data:`usucl.comparison.objectives.OBJECTIVES`.
        method: a method of this package, a name in :data:`usucl.methods.METHODS`.
        title: name in tables and pictures; empty for that of the objective, or ``name``.
        options: changes to the objective or to the method's training, by name, such as
            ``{"loss.intra_k": 0}``.
    """

    name: str
    weights: Weights | None = None
    supervised: Literal["all"] | tuple[str, ...] | None = None
    objective: str | None = None
    method: str | None = None
    title: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,60}", self.name):
            raise ValueError(
                "arms must have names of letters, digits, spaces and . _ + - that begin with a "
                f"letter or a digit, got {self.name!r}"
            )
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"arms.{self.name} must have exactly one of {', '.join(_KINDS)}, got "
                f"{', '.join(given) or 'none'}"
            )
        if self.options and given[0] in ("weights", "supervised"):
            raise ValueError(
                f"arms.{self.name}.options must be empty with {given[0]}, got {dict(self.options)}"
            )
        self._check_names()
        if isinstance(self.supervised, str) and self.supervised != "all":
            object.__setattr__(self, "supervised", (self.supervised,))
        elif self.supervised is not None and not isinstance(self.supervised, str):
            object.__setattr__(self, "supervised", tuple(map(str, self.supervised)))
        if not self.title:
            object.__setattr__(self, "title", self._title())

    @property
    def group(self) -> Group:
        """What it is in the comparison."""
        if self.method is not None:
            return "ours"
        return "peer" if self.objective is not None else "baseline"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that are not as by default, without the name."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}
        content["options"] = dict(self.options)
        if isinstance(self.supervised, tuple):
            content["supervised"] = list(self.supervised)
        return {name: value for name, value in content.items() if value not in (None, "", {})}

    def _check_names(self) -> None:
        from usucl.comparison.objectives import OBJECTIVES
        from usucl.methods import METHODS

        choices = {
            "weights": ("random", "imagenet", "pixels"),
            "objective": tuple(OBJECTIVES),
            "method": tuple(METHODS),
        }
        for kind, known in choices.items():
            value = getattr(self, kind)
            if value is not None and value not in known:
                raise ValueError(
                    f"arms.{self.name}.{kind} must be one of {', '.join(known)}, got {value!r}"
                    f"{did_you_mean(str(value), known)}"
                )

    def _title(self) -> str:
        if self.objective is not None:
            from usucl.comparison.objectives import OBJECTIVES

            return OBJECTIVES[self.objective].title
        return self.name


def read_arms(content: Any) -> tuple[Arm, ...]:
    """Returns the arms of a config's ``arms``: options by name, of which null takes one out."""
    if not isinstance(content, Mapping):
        raise ValueError(f"arms must hold arms by name, got {content!r}")
    known = [f.name for f in fields(Arm) if f.name != "name"]
    arms = []
    for name, options in content.items():
        if options is None:
            continue
        if not isinstance(options, Mapping):
            raise ValueError(f"arms.{name} must hold options by name, got {options!r}")
        for option in options:
            if option not in known:
                hint = did_you_mean(str(option), known)
                raise ValueError(f"arms.{name}.{option} is no option of an arm{hint}")
        if not isinstance(options.get("options", {}), Mapping):
            raise ValueError(
                f"arms.{name}.options must hold options by name, got {options['options']!r}"
            )
        arms.append(Arm(name=str(name), **options))
    return tuple(arms)
