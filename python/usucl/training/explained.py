"""A configuration as YAML in which a comment explains every option, from the docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from usucl.training.presets import read_config

WIDTH = 100
HEAD = "# Every option. Change any by --set NAME=VALUE, or in a file that is given to --preset.\n"
RUN_HEAD = (
    "# Every option of this run. To start another with them, give this file to --preset.\n"
    "# Change a copy of it, never the file itself: the run reads it when it is resumed.\n"
)


def explained(preset: str | Path, overrides: Mapping[str, Any]) -> str:
    """Returns the YAML text of a configuration with every option, its value and what it means.

    :func:`usucl.training.read_config` reads it as well.

    Args:
        preset: see there.
        overrides: see there.

    Raises:
        ValueError: see there.
    """
    return explain(read_config(preset, overrides))


def explain(config: Any, head: str = HEAD) -> str:
    """Returns the YAML text of options in which a comment explains each, from its docstring."""
    return head + "\n".join(_lines(config, "")) + "\n"


def _lines(options: Any, indent: str) -> Iterator[str]:
    told, types = meanings(type(options)), get_type_hints(type(options))
    for name in (field.name for field in fields(options)):
        if indent and name == "epochs":
            continue  # the curriculum's are those of the run
        value, mark = getattr(options, name), f"{indent}# "
        yield from textwrap.wrap(
            told[name] + _choices(types[name], told[name]),
            WIDTH,
            initial_indent=mark,
            subsequent_indent=mark,
            break_on_hyphens=False,
        )
        if is_dataclass(value):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            text = yaml.safe_dump(as_list(value), default_flow_style=True, width=10**6)
            yield f"{indent}{name}: {text.split(chr(10))[0]}"


def as_list(value: Any) -> Any:
    """Returns a value with lists in place of its tuples, as YAML has them."""
    return [as_list(item) for item in value] if isinstance(value, tuple) else value


def _choices(kind: Any, meaning: str) -> str:
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return "" if all(str(c) in meaning for c in choices) else f" One of: {', '.join(choices)}."


def meanings(options: type, form: Callable[[str], str] | None = None) -> dict[str, str]:
    """Returns what the docstrings say of each option of a dataclass, as :func:`sentence` or so."""
    told = {}
    for source in reversed(options.__mro__):
        for entry in docstring_parser.parse(inspect.getdoc(source) or "").params:
            for name in entry.arg_name.split(", "):
                told[name] = (form or sentence)(entry.description or "")
    return told


def sentence(text: str, code: str = r"\1\2") -> str:
    """Returns a text of a docstring as a sentence about YAML, in which null stands for None.

    Args:
        text: the text.
        code: what becomes of the names in it, as a replacement for a regular expression.
    """
    text = re.sub(r":\w+:`~?([\w.]+)`|``(.+?)``", code, " ".join(text.split()))
    text = re.sub(r"\bNone\b", "null", text)
    return text if re.match(r"\w\b", text) else text[:1].upper() + text[1:]
