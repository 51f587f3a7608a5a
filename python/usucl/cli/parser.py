"""From typed words to the values of a command's parameters, and the help.

Words may come in any order, and an option of several values never takes an argument's word: it
leaves to ``DATA`` and its like the last words that they need, and of the others it takes those up
to the next option. ``--`` ends the options.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from usucl._spelling import did_you_mean
from usucl.cli.parameters import (
    Command,
    Commands,
    Parameter,
    description,
    parameters_of,
    rules_of,
    summary,
)

GLOBAL = {
    "--quiet": "print results and errors only: no progress, and no hints",
    "--debug": "show where an error comes from",
    "--version": "print the version and stop",
    "-h, --help": "print this and stop",
}


class UsageError(ValueError):
    """Words that do not make a command; the message names them as they were typed."""


@dataclass
class _Place:
    """Words in a row: arguments, or those after an option of several values.

    ``kept`` is the number of words that no argument may have.
    """

    option: Parameter | None
    words: list[str]
    kept: int = 0


def choose(commands: Commands, words: Sequence[str]) -> tuple[str, Command | Commands, list[str]]:
    """Returns the name of the chosen command, the command or group of commands, and what follows.

    Raises:
        UsageError: there is no such command.
    """
    name, chosen, rest = "usucl", commands, list(words)
    while not callable(chosen) and rest and not rest[0].startswith("-"):
        if rest[0] not in chosen:
            raise UsageError(_no_command(commands, name, chosen, rest))
        name, chosen, rest = f"{name} {rest[0]}", chosen[rest[0]], rest[1:]  # type: ignore[assignment]
    return name, chosen, rest


def _no_command(commands: Commands, name: str, among: Commands, rest: Sequence[str]) -> str:
    known = {word: f"{name} {word}" for word in among}
    for group, members in commands.items():  # "usucl check" is "usucl data check"
        if among is commands and not callable(members):
            known |= {word: f"usucl {group} {word}" for word in members}
    hint = did_you_mean(rest[0], known, form=lambda word: known[word])
    return f"command must be one of {', '.join(among)}, got {rest[0]!r}{hint}"


def values(name: str, command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Returns what to call a command with.

    Args:
        name: the command as it was typed, such as ``usucl train``.
        command: its function.
        words: the words after its name.

    Raises:
        UsageError: the words are no call of this command.
    """
    parameters, rules = parameters_of(command), rules_of(command)
    given, places = _sorted_out(name, parameters, words)
    arguments = [p for p in parameters.values() if not p.is_option]
    room = sum(not (p.name in rules.either and given.keys() & rules.either) for p in arguments)
    found = _share(places, given, room)
    for argument, word in zip(arguments, found, strict=False):
        given[argument.name] = [word]
    if extra := found[len(arguments) :]:
        raise UsageError(f"unexpected {extra[0]!r}: it is {usage(name, command)}")
    if len(excluded := [parameters[p].typed for p in rules.not_both if p in given]) > 1:
        raise UsageError(f"{' and '.join(excluded)} exclude each other, got both")
    read = {p: _value(parameters[p], texts) for p, texts in given.items()}
    free = {p for flag, names in rules.unless.items() if flag in given for p in names}
    required = {name: p for name, p in parameters.items() if p.is_required and name not in free}
    missing = [p.typed for name, p in required.items() if name not in given]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(f"{' and '.join(missing)} {verb} required: {usage(name, command)}")
    if rules.either and len(given.keys() & rules.either) != 1:
        either = " or ".join(parameters[p].typed for p in rules.either)
        got = "both" if given.keys() & rules.either else "none"
        raise UsageError(f"either {either} must be given, got {got}")
    for p, value in read.items():
        for path in value if isinstance(value, list) else [value]:
            if parameters[p].is_path and p not in free:
                _named(parameters[p], parameters[p].check, path)
    return {
        p.name: read.get(p.name, None if p.is_required else p.default) for p in parameters.values()
    }


def _sorted_out(
    name: str, parameters: dict[str, Parameter], words: Sequence[str]
) -> tuple[dict[str, list[str]], list[_Place]]:
    """Returns the texts of options of few values, and the other words in order."""
    given: dict[str, list[str]] = {}
    places = [_Place(None, [])]
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            places.append(_Place(None, rest))
            break
        if not _is_flag(word):
            places[-1].words.append(word)
            continue
        flag, equals, text = word.partition("=")
        option = _option(name, parameters, flag)
        texts = [text] if equals else []
        if option.amount == "several":
            places.append(_Place(option, texts, len(texts)))
            if not equals:
                continue
        else:
            number = {"none": 0, "one": 1, "two": 2}[option.amount]
            while len(texts) < number and rest and not _is_flag(rest[0]):
                texts.append(rest.pop(0))
            if len(texts) != number:
                raise UsageError(_wrong_number(option))
            given[option.name] = texts
        places.append(_Place(None, []))
    return given, places


def _is_flag(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.startswith("-") and word != "-"
    return False


def _option(name: str, parameters: dict[str, Parameter], flag: str) -> Parameter:
    options = {p.typed: p for p in parameters.values() if p.is_option}
    near = [p for typed, p in options.items() if typed.startswith(flag) and len(flag) > 2]
    if flag in options or len(near) == 1:
        return options.get(flag, near[0])
    if near:
        raise UsageError(f"{flag} is ambiguous: {' or '.join(p.typed for p in near)}")
    known = [typed[2:] for typed in (*options, "--quiet", "--debug", "--version", "--help")]
    hint = did_you_mean(flag.lstrip("-"), known, form=lambda known: f"--{known}")
    raise UsageError(f"{flag} is no option of {name}{hint or f'; see {name} --help'}")


def _wrong_number(option: Parameter) -> str:
    if option.amount == "none":
        return f"{option.typed} takes no value"
    return f"{option.typed} must be followed by {option.metavar}"


def _share(places: Sequence[_Place], given: dict[str, list[str]], room: int) -> list[str]:
    """Returns the words of arguments, of which there may be ``room``; options get all others.

    Those that the arguments still lack are the last of one place if one has as many, because
    arguments stand together.
    """
    lacking = max(0, room - sum(len(place.words) for place in places if place.option is None))
    spare = [_spare(place) for place in places]
    enough = [i for i, number in enumerate(spare) if number >= lacking]
    arguments: dict[int, list[str]] = {}
    for i in enough[-1:] or reversed(range(len(places))):
        number = min(spare[i], lacking)
        lacking -= number
        end = len(places[i].words) - number
        arguments[i] = places[i].words[end:]
        places[i].words[end:] = []
    for i, place in enumerate(places):
        if place.option is None:
            arguments[i] = place.words
            continue
        if not place.words and not place.option.may_be_empty:
            raise UsageError(_wrong_number(place.option))
        given.setdefault(place.option.name, []).extend(place.words)
    return [word for i in sorted(arguments) for word in arguments[i]]


def _spare(place: _Place) -> int:
    """Returns how many of a place's words may be arguments, the last of them."""
    if place.option is None:
        return 0
    kept = max(place.kept, 0 if place.option.may_be_empty else 1)
    while kept < len(place.words) and place.option.takes(place.words[kept]):
        kept += 1
    return max(0, len(place.words) - kept)


def _value(parameter: Parameter, texts: list[str]) -> Any:
    if parameter.amount == "none":
        return True
    read = [_named(parameter, parameter.read, text) for text in texts]
    return read[0] if parameter.amount == "one" else read


def _named(parameter: Parameter, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise UsageError(f"{parameter.typed} {error}") from error


def usage(name: str, command: Command) -> str:
    """Returns a command's arguments and required options in the order in which to type them."""
    parameters, either = parameters_of(command), rules_of(command).either
    parts = [_call(p) for p in parameters.values() if p.is_required and p.name not in either]
    parts += [f"({' | '.join(_call(parameters[p]) for p in either)})"] if either else []
    return " ".join([name, *parts, "[options]"])


def _call(parameter: Parameter) -> str:
    value = "" if parameter.amount == "none" else f" {parameter.metavar}"
    return f"{parameter.typed}{value}" if parameter.is_option else parameter.typed


def help_of_command(name: str, command: Command) -> str:
    """Returns the help of a command."""
    parser = _parser(usage(name, command), description(command))
    parameters = list(parameters_of(command).values())
    for title, among in (
        ("arguments", [p for p in parameters if not p.is_option]),
        ("options", [p for p in parameters if p.is_option]),
    ):
        group = parser.add_argument_group(title)
        for parameter in among:
            several = " ..." if parameter.amount == "several" else ""
            _row(group, _call(parameter) + several, parameter.help)
    return _with_global(parser)


def help_of_group(
    name: str, about: str, commands: Commands, groups: dict[str, str], more: str = ""
) -> str:
    """Returns the help of a group of commands; ``more`` comes last."""
    parser = _parser(f"{name} COMMAND ...", about)
    parser.epilog = f"{name} COMMAND --help tells the options of a command.{more}"
    group = parser.add_argument_group("commands")
    for word, command in commands.items():
        if callable(command):
            _row(group, word, summary(command))
        else:
            _row(group, word, f"{groups[word]} Commands: {', '.join(command)}.")
    return _with_global(parser)


class _Lines(argparse.HelpFormatter):
    """Breaks no option in two, keeps paragraphs apart, and examples, which begin with a space."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        filled = [p if p.startswith(" ") else "\n".join(self._split_lines(p, width)) for p in parts]
        return "\n\n".join(filled)


def _parser(usage: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        usage=usage,
        description=description,
        add_help=False,
        formatter_class=_Lines,
    )


def _with_global(parser: argparse.ArgumentParser) -> str:
    group = parser.add_argument_group("for every command")
    for typed, help in GLOBAL.items():
        _row(group, typed, help)
    return parser.format_help()


def _row(group: argparse._ArgumentGroup, left: str, right: str) -> None:
    """Adds a line to the help; argparse, which reads nothing here, breaks it as wide as it may."""
    group.add_argument(
        f"row {len(group._group_actions)}", metavar=left, help=right.replace("%", "%%")
    )
