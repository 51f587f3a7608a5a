"""The configuration of a run from a preset, a YAML file and single changes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, get_loader

from usucl._spelling import did_you_mean
from usucl.data import UltrasoundAugmentation
from usucl.data.sampling.clock import TimeUnit
from usucl.methods import METHODS
from usucl.run_folder import MARK
from usucl.training.config import TrainingConfig, method_of, parser_of

LONGEST_TEXT = 2**16  # bytes of a YAML file; that of a run has about 8,000
MOST_VALUES = 10_000  # in a YAML file
DEEPEST = 8  # files, each with the next as its preset
# Options that runs of earlier versions, which know no ``computing``, had and did not use.
_UNUSED_THEN = {"dense": ("key.momentum", "key.negatives")}
_ALWAYS = {"encoder", "sampling", "curriculum", "loss", "key", "optimiser"}  # of every version
_OLD_AUGMENTATIONS = {"dense": "crop-flip-jitter", "paper": "crop"}
_UNIT, _WINDOWS = "sampling.time_unit", "curriculum.windows"
_ELSEWHERE = {  # what other packages call it, if no name here is near
    "batch_size": "sampling.videos",
    "learning_rate": "optimiser.lr",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "optimizer": "optimiser",
    "tau": "loss.temperature",
    "workers": "sampling.num_workers",
}
_EXAMPLES = {
    "fraction": "[[0.2,0.4],[0.1,0.15]]",
    "seconds": "[[1.0,3.0],[0.5,1.5]]",
    "frames": "[[30,90],[10,40]]",
}


class Layer(NamedTuple):
    """Options from one place, by dotted name; those of later layers replace them."""

    source: str | Path | None  # a preset's name, a file, or None for what a caller has changed
    options: dict[str, Any]


def presets() -> list[str]:
    """Returns the names of the presets that come with the package, one per method."""
    return sorted(METHODS)


def read_config(source: str | Path, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Reads the config of a preset or a YAML file, with some values overridden.

    What a file leaves out is as in its preset: the one that it names by ``preset``, itself a name
    in :func:`presets` or another file (relative to the first), or else that of its ``method``, or
    else ``dense``. The ``config.yaml`` of a run stands for itself. Options in a file that only
    other methods have are ignored: a file may have been written for several methods.

    Args:
        source: one of :func:`presets`, or the path of a YAML file with fields of
            :class:`TrainingConfig`.
        overrides: dotted names such as ``loss.cross_k``, or plain ones such as ``cross_k`` where
            only one section has such a field. A file may have both, too.

    Raises:
        ValueError: the preset is unknown, an option has an unknown or ambiguous name, a value
            of the wrong type or range, or is for another method, or the windows are in another
            unit than the times; the message names it.
    """
    known = _methods_by_option()
    changes = _flat(None, overrides, known)
    layers = [*_layers(source, known, ()), Layer(None, changes)]
    values = {name: value for layer in layers for name, value in layer.options.items()}
    method = str(values.get("method", TrainingConfig.method))
    try:
        method_of(method)
    except ValueError as error:
        raise ValueError(f"{_place(str(error), layers)}{error}") from error
    for option, value in changes.items():
        if method not in known[option]:
            raise ValueError(
                f"{option} is for method {' or '.join(map(repr, known[option]))} only: "
                f"{method!r} has no such option, got {value!r}"
            )
    _check_windows(layers)
    own = {name: value for name, value in values.items() if method in known[name]}
    try:
        return _parsed(method, own)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{_place(str(error), layers)}{error}") from error


def _layers(
    source: str | Path, known: Mapping[str, list[str]], within: tuple[Path, ...]
) -> Iterator[Layer]:
    """Yields the options of a preset or file, after those of the presets that it changes."""
    if str(source) in METHODS:
        content = load_yaml(source, METHODS[str(source)].preset)
        yield Layer(str(source), _flat(source, content, known))
        return
    path = preset_file(source, presets(), within)
    text = read_yaml(path)
    content = load_yaml(path, text)
    base = content.pop("preset", None)
    if base is not None and not isinstance(base, str):
        raise ValueError(f"{path}: preset must be a name or a file, got {base!r}")
    options = _flat(path, content, known)
    if base is None and not _is_whole(text, content):
        base = str(options.get("method", "dense"))
        try:
            method_of(base)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if text.startswith(MARK) and "computing" not in content:
        for name in _UNUSED_THEN.get(str(options.get("method", "dense")), ()):
            options.pop(name, None)
    if base is not None:
        nested = base if base in METHODS else path.parent / base
        yield from _layers(nested, known, (*within, path.resolve()))
    yield Layer(path, options)


def preset_file(source: str | Path, presets: Sequence[str], within: tuple[Path, ...]) -> Path:
    """Returns the path of a preset that is none of those that come with the package.

    Args:
        source: as it was given.
        presets: names of those that come with the package.
        within: the files that lead to it, each naming the next as its preset.

    Raises:
        ValueError: there is no such file, or it leads back to itself.
    """
    path = Path(source)
    if not path.is_file():
        given = path.name if within else str(source)
        raise ValueError(
            f"{f'{within[-1]}: ' if within else ''}preset must be one of {', '.join(presets)}, "
            f"or a YAML file, got {given!r}{did_you_mean(given, presets)}"
        )
    if path.resolve() in within or len(within) == DEEPEST:
        raise ValueError(f"{within[-1]}: preset must not lead back to itself, got {str(source)!r}")
    return path


def _is_whole(text: str, content: Mapping[str, Any]) -> bool:
    """Returns whether a file is the config of a run, of this version or an earlier one."""
    return text.startswith(MARK) and content.keys() >= _ALWAYS


def read_yaml(source: Path) -> str:
    """Returns the text of a YAML file, which may not be long.

    Raises:
        ValueError: it is too long, or not in UTF-8.
    """
    if source.stat().st_size > LONGEST_TEXT:
        raise ValueError(f"{source} must be a YAML file of at most {LONGEST_TEXT} bytes")
    try:
        return source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} must be a YAML file in UTF-8: {error}") from error


def load_yaml(source: str | Path, text: str) -> dict[str, Any]:
    """Returns the options in a YAML text; ``source`` names it in messages.

    Raises:
        ValueError: it is no YAML, too large, or holds no options by name.
    """
    try:
        # In Python, for a text that is nested too deeply ends the process in C.
        if _values(yaml.compose(text, yaml.SafeLoader), {}) > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")
        content = get_loader("yaml")(text)
    except RecursionError as error:
        raise ValueError(f"{source}: its lists are nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{source} is no YAML: {place}{error.problem}") from error
    except Exception as error:  # the YAML library's errors have no common base
        raise ValueError(f"{source}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold options by name, got {content!r}")
    return content


def _values(node: yaml.Node | None, known: dict[int, float]) -> float:
    """Returns the number of values in a node once its aliases are written out.

    Raises:
        ValueError: a name is given twice.
    """
    if id(node) not in known:
        known[id(node)] = math.inf  # to an alias of the node within itself
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            names = [str(name.value) for name, _ in node.value]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is given twice")
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _flat(
    source: str | Path | None, content: Mapping[str, Any], known: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Returns options by their dotted names; sections may be written as one text."""
    sections = {option.rpartition(".")[0] for option in known} - {""}
    options: dict[str, Any] = {}
    place = "" if source is None else f"{source}: "
    for name, value in content.items():
        if name not in sections:
            pairs = {name: value}
        else:
            if isinstance(value, str):
                value = load_yaml(name if source is None else f"{name} of {source}", value)
            if not isinstance(value, dict):
                raise ValueError(f"{place}{name} must hold options by name, got {value!r}")
            pairs = {f"{name}.{option}": inner for option, inner in value.items()}
        for option, inner in pairs.items():
            try:
                dotted = _dotted(str(option), known)
            except ValueError as error:
                raise ValueError(f"{place}{error}") from error
            if dotted in options:
                raise ValueError(f"{place}{dotted} is given twice")
            options[dotted] = str(inner) if isinstance(inner, Path) else inner
    return options


def _methods_by_option() -> dict[str, list[str]]:
    """Returns the names of the methods that have each option, by its dotted name."""
    methods: dict[str, list[str]] = {}
    for method in METHODS:
        for name, value in vars(TrainingConfig.of(method)).items():
            options = [f"{name}.{o.name}" for o in fields(value)] if is_dataclass(value) else []
            for option in (name, *options):
                methods.setdefault(option, []).append(method)
    return methods


def _dotted(name: str, known: Mapping[str, Any]) -> str:
    """Returns ``section.option``, or ``option`` for options of the run itself."""
    if name in known:
        return name
    found = sorted(option for option in known if option.endswith(f".{name}"))
    if len(found) > 1:
        raise ValueError(f"{name} is ambiguous: give {' or '.join(found)}")
    if not found:
        plain = {option.rpartition(".")[2] for option in known}
        section, dot, option = name.partition(".")
        other = _ELSEWHERE.get(section if dot else name)
        if other is not None:
            hint = f"; did you mean {other}{dot}{option}?"
        else:
            hint = did_you_mean(name, sorted({*known, *plain}))
        raise ValueError(f"{name} is no option of a training run{hint}")
    return found[0]


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        section, _, option = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[option] = value
    return nested


def _check_windows(layers: list[Layer]) -> None:
    """Raises an error if the windows were given for another unit of time than the run has."""
    unit, of_windows = "fraction", "fraction"
    for layer in layers:
        unit = layer.options.get(_UNIT, unit)
        if _WINDOWS in layer.options:
            of_windows = unit
    if unit != of_windows and {unit, of_windows} <= set(get_args(TimeUnit)):
        raise ValueError(
            f"{_WINDOWS} must be given too where {_UNIT} is {unit!r}, because the preset's are in "
            f"another unit ({of_windows}): for example {_WINDOWS}={_EXAMPLES[unit]}"
        )


def _parsed(method: str, values: Mapping[str, Any]) -> TrainingConfig:
    """Returns the config; the type and the range of every value are checked."""
    name = "sampling.augmentation"
    if name in values:  # their earlier names were those of methods
        given = values[name]
        if isinstance(given, UltrasoundAugmentation):
            given = given.options()
        values = {**values, name: _OLD_AUGMENTATIONS.get(str(given), given)}
    defaults = vars(TrainingConfig.of(method))
    parser = parser_of(method)
    for option, value in values.items():
        kind = _kind(option, defaults)
        if value is None and NoneType not in get_args(kind):  # the parser would let it pass
            raise ValueError(f"{option} must be {in_words(kind)}, got null")
    try:
        parsed = parser.parse_object(_nested(values))
    except ArgumentError as error:
        raise ValueError(_said(error, defaults, values)) from error
    sections: dict[str, Any] = {}
    for name, default in defaults.items():
        sections[name] = parsed[name]
        if is_dataclass(default):
            section: Any = type(default)
            try:
                sections[name] = section(**vars(parsed[name]))
            except (ValueError, TypeError) as error:
                prefix = "" if str(error).startswith(f"{name}.") else f"{name}."
                raise type(error)(f"{prefix}{error}") from error
    return TrainingConfig(**sections)


def _said(error: ArgumentError, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Returns the parser's complaint of a value as a sentence about the option."""
    found = re.search(r'Parser key "([\w.]+)"', str(error))
    if not found or found[1] not in values:
        return " ".join(str(error).split())
    kind, value = _kind(found[1], defaults), values[found[1]]
    form = "[{}]" if get_origin(kind) is tuple else "{}"
    near = did_you_mean(value, _choices(kind), form=form.format) if isinstance(value, str) else ""
    return f"{found[1]} must be {in_words(kind)}, got {value!r}{near}"


def _choices(kind: Any) -> list[str]:
    """Returns the words that an option may be, wherever in its type they are."""
    if get_origin(kind) is Literal:
        return list(map(str, get_args(kind)))
    return [word for part in get_args(kind) for word in _choices(part)]


def _kind(name: str, defaults: Mapping[str, Any]) -> Any:
    section, _, option = name.rpartition(".")
    return get_type_hints(type(defaults[section]) if section else TrainingConfig)[option]


def in_words(kind: Any) -> str:
    """Returns the type of an option, as a sentence about it says it."""
    plain = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        inner, rest = get_args(kind)[0], get_args(kind)[1:]
        if get_origin(inner) is tuple:
            return "a list of pairs (lo, hi)"
        how_many = "a pair" if len(rest) == 1 and rest[0] is not Ellipsis else "a list"
        article, _, noun = in_words(inner).partition(" ")
        if article in ("a", "an"):
            return f"{how_many} of {noun}s"
        return f"{how_many} of {in_words(inner).removeprefix('one of ')}"
    if get_origin(kind) is dict:
        return "options by name"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(in_words(k) if k is not NoneType else "null" for k in get_args(kind))
    return plain.get(kind, str(kind))


def _place(message: str, layers: list[Layer]) -> str:
    """Returns the file that the option in a message is from, or that changes its preset."""
    for source, options in reversed(layers):
        named = any(re.match(rf"{re.escape(option)}\b", message) for option in options)
        if named and not isinstance(source, str):
            return "" if source is None else f"{source}: "
    files = [source for source, _ in layers if isinstance(source, Path)]
    return f"{files[-1]}: " if files else ""
