"""A configuration as YAML in which a comment explains every option, from the docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from usucl.training.presets import read_config

WIDTH = 100
HEAD = "# Every option. Change any by --set NAME=VALUE, or in a file that is given to --preset.\n"


def explained(preset: str | Path, overrides: Mapping[str, Any]) -> str:
    """Returns the YAML text of a configuration with every option, its value and what it means.

    :func:`usucl.training.read_config` reads it as well.

    Args:
        preset: see there.
        overrides: see there.

    Raises:
        ValueError: see there.
    """
    return explained_options(read_config(preset, overrides))


def explained_options(options: Any) -> str:
    """Returns the same for the options of any dataclass that its docstring explains."""
    return HEAD + "\n".join(_lines(options, "")) + "\n"


def _lines(options: Any, indent: str) -> Iterator[str]:
    meanings, types = _meanings(type(options)), get_type_hints(type(options))
    for name in (field.name for field in fields(options)):
        if indent and name == "epochs":
            continue  # the curriculum's are those of the run
        value, mark = getattr(options, name), f"{indent}# "
        yield from textwrap.wrap(
            meanings[name] + _choices(types[name], meanings[name]),
            WIDTH,
            initial_indent=mark,
            subsequent_indent=mark,
            break_on_hyphens=False,
        )
        if is_dataclass(value):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            text = yaml.safe_dump(_as_list(value), default_flow_style=True, width=10**6)
            yield f"{indent}{name}: {text.split(chr(10))[0]}"


def _as_list(value: Any) -> Any:
    return [_as_list(item) for item in value] if isinstance(value, tuple) else value


def _choices(kind: Any, meaning: str) -> str:
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return "" if all(str(c) in meaning for c in choices) else f" One of: {', '.join(choices)}."


def _meanings(options: type) -> dict[str, str]:
    """Returns what the docstrings say of each option of a dataclass, in plain words."""
    meanings = {}
    for source in reversed(options.__mro__):
        for entry in docstring_parser.parse(inspect.getdoc(source) or "").params:
            for name in entry.arg_name.split(", "):
                meanings[name] = _plain(entry.description or "")
    return meanings


def _plain(text: str) -> str:
    """Returns a text without the marks of a docstring, as a sentence."""
    text = re.sub(r":\w+:`~?([\w.]+)`|``(.+?)``", lambda m: m[1] or m[2], " ".join(text.split()))
    return text[:1].upper() + text[1:]
