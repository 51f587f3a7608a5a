"""Figures that papers report on these data sets, to stand beside one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple


class Figure(NamedTuple):
    """A published figure, a share between 0 and 1, and its standard deviation if that is given."""

    mean: float
    deviation: float | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        name: of the table.
        data: the recipe of the data that it is about.
        task: the column of labels.
        probe: how the encoders were judged, "linear" or "fine-tuning".
        source: where the figures stand, in words.
        address: where they were read.
        caution: why they may not be comparable.
        arms: the figures of each arm by their names.
        pretrained_on: the recipe of the data that the encoders were pretrained on; empty if other.
        confirmed: whether the figures were read where their authors publish them, and not in a
            listing of others.
    """

    name: str
    data: str
    task: str
    probe: str
    source: str
    address: str
    caution: str
    arms: Mapping[str, Mapping[str, Figure]]
    pretrained_on: str = ""
    confirmed: bool = True


def published_tables(data: str | None = None) -> tuple[PublishedTable, ...]:
    """Returns the published tables, or those on the data of one recipe."""
    import yaml

    text = resources.files("usucl.data.recipes").joinpath("published.yaml").read_text("utf-8")
    tables = (
        PublishedTable(**{**table, "arms": {a: _figures(row) for a, row in table["arms"].items()}})
        for table in yaml.safe_load(text)
    )
    return tuple(table for table in tables if data in (None, table.data))


def _figures(row: Mapping[str, float | list[float]]) -> dict[str, Figure]:
    cells = {name: cell if isinstance(cell, list) else [cell] for name, cell in row.items()}
    return {name: Figure(*cell) for name, cell in cells.items()}
