"""``usucl bank``: the embedded frames of a data set as a searchable bank."""

from usucl.cli.bank.build import build
from usucl.cli.bank.duplicates import duplicates
from usucl.cli.bank.info import info
from usucl.cli.bank.search import search

__all__ = ["build", "duplicates", "info", "search"]
