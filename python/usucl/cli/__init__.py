"""The shell command ``usucl``. A command is a typed function; its docstring is its help.

Positional parameters are arguments, and keyword-only parameters are options. Commands import heavy
modules themselves, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from usucl._environment import set_typed_command
from usucl._progress import listen
from usucl.cli import bank, convert, data, info, run
from usucl.cli.console import messages, say
from usucl.cli.export import export

Command: TypeAlias = Callable[..., int | None]

COMMANDS: Mapping[str, Command | Mapping[str, Command]] = {
    "demo": run.demo,
    "train": run.train,
    "embed": run.embed,
    "evaluate": run.evaluate,
    "report": run.report,
    "export": export,
    "bank": {
        "build": bank.build,
        "info": bank.info,
        "search": bank.search,
        "duplicates": bank.duplicates,
    },
    "data": {"check": data.check, "convert": convert.convert},
    "bench": info.bench,
    "info": info.info,
}
GROUPS = {
    "bank": "Store the embedded frames of a data set, and search them.",
    "data": "Check a folder of videos, and convert it to folders of frames.",
}
UNKNOWN_ERROR, BAD_INPUT = 1, 2
EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)
LONGEST_MESSAGE = 1000  # characters: a damaged file may hold text without end


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
    set_typed_command(["usucl", *words])
    debug = "--debug" in words or bool(os.environ.get("USUCL_DEBUG"))
    os.environ["MPLBACKEND"] = "Agg"  # commands only write files; a notebook's backend is not here
    with messages(), listen():
        return _run([word for word in words if word != "--debug"], debug)


def _run(words: Sequence[str], debug: bool) -> int:
    parser = _empty("Contrastive pretraining of image encoders from ultrasound videos.")
    parser.prog = "usucl"
    _add_commands(parser, COMMANDS)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    options: Mapping[str, Any] = {}
    try:
        with _terminable():
            command, options = _chosen(COMMANDS, parser.parse_args(words))
            return command(**options) or 0
    except ArgumentError as error:
        return _complain(_plain(str(error)), debug)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        unnamed = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
        message = str(error) or unnamed
        return _complain(_as_typed(_plain(_without_traceback(message)), options), debug)
    except KeyboardInterrupt:
        return _complain("interrupted", debug, code=130)
    except _Terminated:
        return _complain("terminated (SIGTERM)", debug, code=128 + signal.SIGTERM)
    except Exception as error:
        message = f"{type(error).__name__}: {_without_traceback(str(error))}"
        hint = "" if debug else "; USUCL_DEBUG=1 shows where"
        return _complain(message + hint, debug, code=UNKNOWN_ERROR)


class _Terminated(BaseException):
    """SIGTERM: like KeyboardInterrupt, no error that anything but ``main`` may catch."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns the first SIGTERM into an exception, so that files are closed; the second kills."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # whoever has called this decides
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _empty(description: str) -> ArgumentParser:
    return ArgumentParser(
        description=description,
        exit_on_error=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_commands(
    parser: ArgumentParser, commands: Mapping[str, Command | Mapping[str, Command]]
) -> None:
    choices = parser.add_subcommands(required=False, dest="command", title="commands")
    for name, command in commands.items():
        if isinstance(command, Mapping):
            group = _empty(GROUPS[name])
            choices.add_subcommand(name, group, help=GROUPS[name])
            _add_commands(group, command)  # jsonargparse needs the outer level first
        else:
            choices.add_subcommand(name, _leaf(command), help=_summary(command))


def _leaf(command: Command) -> ArgumentParser:
    """Makes a parser of a command, with help from its docstring."""
    documented = docstring_parser.parse(inspect.getdoc(command) or "")
    helps = {
        entry.arg_name: " ".join((entry.description or "").split()) for entry in documented.params
    }
    types = get_type_hints(command)
    parser = _empty(_description(documented))
    for name, parameter in inspect.signature(command).parameters.items():
        kind, default = _not_none(types[name]), parameter.default
        flag = f"--{name.rstrip('_').replace('_', '-')}"  # set_ is --set
        settings: dict[str, Any] = {"help": helps[name].replace("%", "%%")}
        if kind is bool:
            settings["action"] = "store_true"
        elif get_origin(kind) is Sequence:
            many = "extend" if default == () else "store"  # a default is replaced, not added to
            settings |= {"type": get_args(kind)[0], "nargs": "*", "action": many}
            default = None if default is None else list(default)
        else:
            settings["type"] = kind
        if default is parameter.empty:
            settings["required"] = True
        elif kind is not bool:
            settings["default"] = default
            settings["help"] += "" if default in (None, []) else f" (default: {default})"
        if kind is not bool and get_origin(kind) is not Literal:
            settings["metavar"] = name.rstrip("_").upper()
        if parameter.kind is parameter.KEYWORD_ONLY:
            parser.add_argument(flag, dest=name, **settings)
        else:
            if settings.pop("required", False) is False:
                settings["nargs"] = "?"
            parser.add_argument(name, **settings)
    return parser


def _not_none(kind: Any) -> Any:
    """Returns ``T`` of ``T | None``: None is the default and cannot be typed in."""
    kinds = [k for k in get_args(kind) if k is not type(None)]
    return kinds[0] if type(None) in get_args(kind) and len(kinds) == 1 else kind


def _summary(command: Command) -> str:
    return (inspect.getdoc(command) or "").split("\n", 1)[0]


def _description(documented: docstring_parser.Docstring) -> str:
    parts = (documented.short_description, documented.long_description)
    return "\n\n".join(part for part in parts if part)


def _chosen(
    commands: Mapping[str, Command | Mapping[str, Command]], chosen: Namespace
) -> tuple[Command, dict[str, Any]]:
    name = chosen.get("command")
    if name is None:
        raise ValueError(f"command must be one of {', '.join(commands)}, got none (see --help)")
    command, options = commands[name], chosen[name]
    if isinstance(command, Mapping):
        return _chosen(command, options)
    return command, dict(vars(options))


def _complain(message: str, debug: bool, code: int = BAD_INPUT) -> int:
    if debug:
        traceback.print_exc()
    message = " ".join(message.split())
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " ..."
    say(f"usucl: error: {message}", stderr=True)
    return code


def _without_traceback(message: str) -> str:
    """Returns the cause in a message of a data loader's worker, which holds the whole traceback."""
    cause = r"(?s)'?Caught \w+ in DataLoader worker.*\n(?:Original )?\w[\w.]*: (.+)"
    worker = re.match(cause, message)
    return worker[1] if worker else message


def _as_typed(message: str, options: Mapping[str, Any]) -> str:
    """Writes the parameters in a message as options: ``run=`` becomes ``--run``."""
    flags = {name: name.rstrip("_").replace("_", "-") for name in options}
    first, *rest = re.split(r"(?=[ :])", message, maxsplit=1)  # "k must be ...", "time: ..."
    message = "".join([flags.get(first, first), *rest])
    named = "|".join(map(re.escape, flags)) or "(?!)"
    return re.sub(rf"\b({named})=(True\b|(?![^\s,;]))", lambda m: f"--{flags[m[1]]}", message)


def _plain(message: str) -> str:
    """Returns a parser's message without its "keys" and classes."""
    message = re.sub(r'Parser key "([\w.]+)"', r"\1", message)
    return re.sub(r"<class '(\w+)'>", r"\1", message)
