"""The shell command ``usucl``. A command is a typed function; its docstring is its help.

Commands import heavy modules themselves, so that ``--help`` and a wrong word are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from usucl._environment import as_command, version_of
from usucl._progress import listen
from usucl.cli import bank, convert, data, info, prepare, run
from usucl.cli.comparison import compare
from usucl.cli.console import messages, quietly
from usucl.cli.errors import reported
from usucl.cli.export import export, import_
from usucl.cli.finetuning import finetune
from usucl.cli.parameters import Command, Commands, parameters_of
from usucl.cli.parser import UsageError, choose, help_of_command, help_of_group, values

ABOUT = "Contrastive pretraining of image encoders from ultrasound videos."
EXAMPLE = """

  usucl train my/videos --out runs/first
  usucl evaluate runs/first my/videos"""

COMMANDS: Commands = {
    "demo": run.demo,
    "train": run.train,
    "embed": run.embed,
    "evaluate": run.evaluate,
    "finetune": finetune,
    "compare": compare,
    "report": run.report,
    "export": export,
    "import": import_,
    "bank": {
        "build": bank.build,
        "info": bank.info,
        "search": bank.search,
        "duplicates": bank.duplicates,
    },
    "data": {"check": data.check, "convert": convert.convert, "prepare": prepare.prepare},
    "bench": info.bench,
    "info": info.info,
}
GROUPS = {
    "bank": "Store the embedded frames of a data set, and search them.",
    "data": "Check a folder of videos, convert it, and prepare published data sets.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    Every error is one line on standard error; with ``--debug`` or ``USUCL_DEBUG`` a traceback comes
    before it.

    Returns:
        0; 1 if nothing is usable, or for an error of a kind that no part of this package raises on
        purpose; 2 for bad input and surroundings; 130 after Ctrl-C; 143 after SIGTERM. After the
        last two, what was finished before is saved.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command_line = ["usucl", *words]
    flags = set(words[: words.index("--")] if "--" in words else words)
    words = [word for word in words if word not in ("--debug", "--quiet")]
    debug = "--debug" in flags or bool(os.environ.get("USUCL_DEBUG"))
    os.environ["MPLBACKEND"] = "Agg"  # commands only write files; a notebook's backend is not here
    typed: dict[str, str] = {}

    def call() -> int | None:
        if "--version" in flags:
            _print_and_stop(f"usucl {_version()}")
        name, command, rest = choose(COMMANDS, words)
        if flags & {"--help", "-h"}:
            _print_and_stop(_help(name, command))
        if not callable(command):
            hint = f"got {f'{rest[0]} before it' if rest else 'none'} (see {name} --help)"
            raise UsageError(f"command must be one of {', '.join(command)}, {hint}")
        typed.update({p.name: p.typed for p in parameters_of(command).values()})
        return command(**values(name, command, rest))

    quiet = "--quiet" in flags
    with messages(), quietly(quiet), listen(not quiet), as_command(command_line):
        return reported(call, typed, debug)


def _help(name: str, command: Command | Commands) -> str:
    if callable(command):
        return help_of_command(name, command)
    about = ABOUT + EXAMPLE if command is COMMANDS else GROUPS[name.rpartition(" ")[2]]
    return help_of_group(name, about, command, GROUPS)


def _version() -> str:
    if installed := version_of("usucl"):
        return installed  # asking PyTorch's extension would take a second
    from usucl import __version__

    return __version__


def _print_and_stop(text: str) -> NoReturn:
    print(text.rstrip())
    raise SystemExit(0)
