"""Parameters of commands: what may be typed for them, and what their help says.

A command is a function. Its parameters become arguments (``data`` is ``DATA``) and, if they are
keyword-only, options (``batch_size`` is ``--batch-size``). A check in the annotation, such as that
of :data:`Count`, is made before anything heavy is imported.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from usucl._environment import check_writable, existing
from usucl._patterns import one_group, sweep_groups
from usucl._spelling import did_you_mean

Command: TypeAlias = Callable[..., "int | None"]
Amount: TypeAlias = Literal["none", "one", "two", "several"]


@dataclass(frozen=True)
class Rules:
    """Which parameters of a command depend on each other.

    Attributes:
        either: exactly one of these is given.
        not_both: at most one of these is given.
        needed: these are required although Python has a default ...
        unless: ... unless such a flag is given, after which some of them are neither required nor
            looked at.
    """

    either: tuple[str, ...] = ()
    not_both: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def rules(**given: Any) -> Callable[[Command], Command]:
    """Returns a decorator that gives a command its :class:`Rules`."""

    def decorate(command: Command) -> Command:
        command.rules = Rules(**given)  # type: ignore[attr-defined]
        return command

    return decorate


class Metavar(str):
    """What stands for a value in the help, such as ``LO HI``."""


def at_least(least: float, unit: str = "") -> Callable[[float], None]:
    """Returns a check of a number."""

    def check(value: float) -> None:
        if not value >= least:
            raise ValueError(f"must be at least {least:g}{unit}, got {value:g}")

    return check


def between(least: float, most: float, what: str) -> Callable[[float], None]:
    """Returns a check of a number."""

    def check(value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"must be {what}, {least:g} to {most:g}, got {value:g}")

    return check


def positive(value: float) -> None:
    """Checks a number."""
    if not 0 < value < math.inf:
        raise ValueError(f"must be positive, got {value:g}")


def assignment(text: str) -> None:
    """Checks a change of a configuration."""
    name, equals, _ = text.partition("=")
    if not (equals and name.replace(".", "_").isidentifier()):
        raise ValueError(f"must be NAME=VALUE, got {text!r}")


def pattern(text: str) -> None:
    """Checks a regular expression."""
    one_group(text)


def sweep_pattern(text: str) -> None:
    """Checks what makes sweeps: a regular expression, or none."""
    if text != "none":
        sweep_groups(text)


def folder_of(what: str) -> Callable[[Path], None]:
    """Returns a check of a folder that is read."""

    def check(path: Path) -> None:
        if path.is_dir():
            return
        reason = f"{path}: there is no such folder{_beside(path)}"
        raise ValueError(f"must be {what}, got {f'the file {path}' if path.exists() else reason}")

    return check


def new_folder(path: Path) -> None:
    """Checks a folder that is written to, which may exist."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"must be a folder, got the file {path}")
    _can_be_written("folder", path, path)


def new_file(path: Path) -> None:
    """Checks a file that is written, which may exist."""
    if path.is_dir():
        raise ValueError(f"must be a file, got the folder {path}")
    _can_be_written("file", path, path.parent)


def _can_be_written(kind: str, path: Path, folder: Path) -> None:
    around = existing(folder)
    if not around.is_dir():
        raise ValueError(f"must be a {kind}, got {path}, but {around} is a file")
    try:
        check_writable(around)
    except OSError as error:
        reason = f"nothing can be written to {around}: {error.strerror}"
        raise ValueError(f"must be a {kind} that can be written, got {path}; {reason}") from error


def _beside(path: Path) -> str:
    """Returns a question for the folders beside one that does not exist."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names, form=lambda name: str(path.with_name(name)))


Count = Annotated[int, at_least(1)]
Seed = Annotated[int, at_least(0)]
Change = Annotated[str, assignment, Metavar("NAME=VALUE")]
Data = Annotated[Path, folder_of("a folder of videos")]
Pattern = Annotated[str, pattern, Metavar("REGEX")]
Label = Annotated[str, Metavar("COLUMN")]
Sweep = Annotated[str, sweep_pattern, Metavar("REGEX")]
Run = Annotated[Path, folder_of("a run folder")]
Evaluated = Annotated[Path, folder_of("the folder of an evaluation")]
Bank = Annotated[Path, folder_of("the folder of a bank")]
NewFolder = Annotated[Path, new_folder]
NewFile = Annotated[Path, new_file]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command.

    Attributes:
        name: as in Python.
        typed: as in the shell, ``DATA`` or ``--set``.
        kind: type of each value.
        choices: the only possible values, if there are any.
        checks: of each value; those of a path look at the disk.
        amount: how many values are typed after it.
        metavar: what stands for a value in the help.
        help: one paragraph.
    """

    name: str
    typed: str
    kind: type
    choices: tuple[str, ...]
    checks: tuple[Callable[[Any], None], ...]
    amount: Amount
    metavar: str
    help: str
    default: Any

    @property
    def is_option(self) -> bool:
        """Whether it is typed with its name."""
        return self.typed.startswith("--")

    @property
    def is_path(self) -> bool:
        """Whether its values are paths."""
        return self.kind is Path

    @property
    def may_be_empty(self) -> bool:
        """Whether the option may stand without values, which is not the same as not to stand."""
        return self.amount == "several" and self.default is None

    @property
    def is_required(self) -> bool:
        """Whether the command cannot be called without it."""
        return self.default is inspect.Parameter.empty

    def read(self, text: str) -> Any:
        """Returns the value of a text.

        Raises:
            ValueError: the text stands for no value; the message follows the name.
        """
        if self.choices and text not in self.choices:
            hint = did_you_mean(text, self.choices)
            raise ValueError(f"must be one of {', '.join(self.choices)}, got {text!r}{hint}")
        if self.kind is Path and not text:
            raise ValueError("must be a path, got an empty text")
        try:
            value = self.kind(text)
        except ValueError:
            what = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"must be {what}, got {text!r}") from None
        if not self.is_path:
            self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Checks one value.

        Raises:
            ValueError: it is not possible; the message follows the name.
        """
        for check in self.checks:
            check(value)

    def takes(self, text: str) -> bool:
        """Returns whether a text looks like a value of this option, and not like an argument."""
        if self.kind is str and not self.checks:
            return False
        try:
            self.read(text)
        except ValueError:
            return False
        return True


def parameters_of(command: Command) -> dict[str, Parameter]:
    """Returns the parameters of a command by name, from its signature and docstring."""
    import docstring_parser

    documented = docstring_parser.parse(inspect.getdoc(command) or "")
    helps = {entry.arg_name: entry.description or "" for entry in documented.params}
    types = get_type_hints(command, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        is_option = parameter.kind is parameter.KEYWORD_ONLY
        help = " ".join(helps[name].split())
        needed = name in rules_of(command).needed
        default = parameter.empty if needed else parameter.default
        found[name] = _parameter(name, types[name], default, is_option, help)
    return found


def rules_of(command: Command) -> Rules:
    """Returns the rules of a command."""
    rules: Rules = getattr(command, "rules", Rules())
    return rules


def _parameter(name: str, kind: Any, default: Any, is_option: bool, help: str) -> Parameter:
    plain = name.rstrip("_")  # json_ is --json
    extras: list[Any] = []
    kind, amount = _unwrapped(kind, extras), "one"
    if kind is bool:
        amount = "none"
    elif get_origin(kind) in (Sequence, tuple):
        amount = "two" if get_origin(kind) is tuple else "several"
        kind = _unwrapped(get_args(kind)[0], extras)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    metavar = {int: "N", float: "NUMBER", Path: "PATH"}.get(kind, plain.upper())
    if choices:
        metavar = "{" + ",".join(choices) + "}"
    metavar = next((extra for extra in extras if isinstance(extra, Metavar)), metavar)
    if not is_option:
        metavar = plain.upper()
    help = help.removesuffix(".")
    if default is inspect.Parameter.empty and is_option:
        help += " (required)"
    elif default not in (inspect.Parameter.empty, None, ()) and amount != "none":
        help += f" (default: {default})"
    return Parameter(
        name=name,
        typed=f"--{plain.replace('_', '-')}" if is_option else plain.upper(),
        kind=str if choices else kind,
        choices=choices,
        checks=tuple(extra for extra in extras if callable(extra)),
        amount=amount,  # type: ignore[arg-type]
        metavar=metavar,
        help=help,
        default=default,
    )


def _unwrapped(kind: Any, extras: list[Any]) -> Any:
    """Returns ``T`` of ``T | None`` and of ``Annotated[T, check]``; None cannot be typed in."""
    while True:
        if get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            extras += more
            continue
        kinds = [k for k in get_args(kind) if k is not type(None)]
        if type(None) not in get_args(kind) or len(kinds) != 1:
            return kind
        kind = kinds[0]


def summary(command: Command) -> str:
    """Returns the first line of a command's docstring."""
    return (inspect.getdoc(command) or "").split("\n", 1)[0]


def description(command: Command) -> str:
    """Returns what a command's docstring says before its arguments."""
    import docstring_parser

    documented = docstring_parser.parse(inspect.getdoc(command) or "")
    return "\n\n".join(filter(None, (documented.short_description, documented.long_description)))


Commands: TypeAlias = Mapping[str, "Command | Mapping[str, Command]"]
