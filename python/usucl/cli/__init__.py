"""The shell command ``usucl``. A command is a typed function; its docstring is its help.

Positional parameters are arguments, and keyword-only parameters are options. Commands import heavy
modules themselves, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from usucl.cli import bank, convert, data, info, run

Command: TypeAlias = Callable[..., int | None]

COMMANDS: Mapping[str, Command | Mapping[str, Command]] = {
    "demo": run.demo,
    "train": run.train,
    "embed": run.embed,
    "evaluate": run.evaluate,
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
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 (nothing usable), 2 (bad input)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("USUCL_DEBUG"))
    parser = _empty("Contrastive pretraining of image encoders from ultrasound videos.")
    parser.prog = "usucl"
    _add_commands(parser, COMMANDS)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    try:
        chosen = parser.parse_args([word for word in words if word != "--debug"])
    except ArgumentError as error:
        return _complain(_one_line(str(error)), debug)
    options: Mapping[str, Any] = {}
    try:
        command, options = _chosen(COMMANDS, chosen)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return command(**options) or 0
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        return _complain(_as_typed(str(error), options) or type(error).__name__, debug)
    except KeyboardInterrupt:
        return _complain("interrupted", debug, code=130)


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
    print(f"usucl: error: {message}", file=sys.stderr)
    return code


def _as_typed(message: str, options: Mapping[str, Any]) -> str:
    """Writes the parameters in a message as options: ``run=`` becomes ``--run``."""
    flags = {name: name.rstrip("_").replace("_", "-") for name in options}
    first, *rest = re.split(r"(?=[ :])", message, maxsplit=1)  # "k must be ...", "time: ..."
    message = "".join([flags.get(first, first), *rest])
    named = "|".join(map(re.escape, flags)) or "(?!)"
    return re.sub(rf"\b({named})=(True\b|(?![^\s,;]))", lambda m: f"--{flags[m[1]]}", message)


def _one_line(message: str) -> str:
    """Puts a parser's message on one line, without its "keys" and classes."""
    message = re.sub(r"\s+", " ", message).strip()
    message = re.sub(r'Parser key "([\w.]+)"', r"\1", message)
    return re.sub(r"<class '(\w+)'>", r"\1", message)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"usucl: warning: {message}", file=sys.stderr)
