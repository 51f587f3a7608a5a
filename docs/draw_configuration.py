"""Writes configuration.md: every option of a training run, read from the code.

Names, types and defaults are those of the dataclasses, meanings those of their docstrings, and the
values of the presets those of ``python/usucl/methods``. Only the introduction is written here.

    python docs/draw_configuration.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
import yaml

from usucl.data import UltrasoundAugmentation
from usucl.training import TrainingConfig, presets, read_config
from usucl.training.explained import as_list, meanings, sentence
from usucl.training.presets import in_words

PAGE = Path(__file__).resolve().with_name("configuration.md")
INTRODUCTION = """\
# Every option of a training run

<!-- Written by docs/draw_configuration.py from the code: change the docstrings, not this page. -->

A run's options come from three places, each replacing what the one before says. No environment
variable and no file in your home changes an option.

1. the defaults of the code, in the tables below;
2. a preset: `--preset dense` (unless another is given), `paper` or `paper-code`, or a YAML file
   of your own;
3. `--set NAME=VALUE`, as often as you like, and the options of `usucl train` itself, such as
   `--seed`.

```sh
usucl train --print-config                            # every option of dense, with its meaning
usucl train --print-config --preset paper > mine.yaml # a file to edit and to give to --preset
usucl train videos --dry-run --set epochs=20          # what a run would do, without doing it
```

A file of your own needs only what differs. It names the preset that it changes, which may be
another file (relative to itself); without `preset`, it is that of its `method`, or `dense`:

```yaml
preset: paper
epochs: 100
encoder:
  backbone: resnet18
  pretrained: false
optimiser.lr: 0.01     # a dotted name says the same as a section
cross_k: 8             # so does a plain name that only one section has
```

A name that does not exist is refused with the nearest one that does, and so is a value of another
type or out of its range; the message names the file and the option. The `config.yaml` of a run is
such a file too: `--preset runs/first/config.yaml` starts another run with the same options.

In the tables, *null* means that nothing is given; the column *presets* has the values that differ
from the default. The presets themselves, with the reason for each value, are the files
[dense.yaml](../python/usucl/methods/dense.yaml), [paper.yaml](../python/usucl/methods/paper.yaml)
and [paper-code.yaml](../python/usucl/methods/paper-code.yaml).
"""


def page() -> str:
    """Returns the text of configuration.md."""
    configs = {name: read_config(name, {}) for name in presets()}
    sections = [name for name, value in vars(TrainingConfig()).items() if is_dataclass(value)]
    parts = [INTRODUCTION, *_section("The run itself", None, configs)]
    for section in sections:
        parts += _section(f"`{section}`", section, configs)
    parts += _augmentation()
    return "\n".join(parts)


def _section(title: str, section: str | None, configs: dict[str, TrainingConfig]) -> Iterator[str]:
    """Yields the lines of one section: what it is, and a table of its options."""
    parts = {p: getattr(c, section) if section else c for p, c in configs.items()}
    kinds = list(dict.fromkeys(type(part) for part in parts.values()))
    shared = next(kind for kind in kinds[0].__mro__ if all(issubclass(k, kind) for k in kinds))
    yield f"## {title}\n"
    if section:
        yield _about(shared) + "\n"
    yield "| option | type | default | presets | meaning |\n|---|---|---|---|---|"
    options = [field.name for field in fields(shared)]
    options += [f.name for kind in kinds for f in fields(kind) if f.name not in options]
    for name in dict.fromkeys(options):
        if is_dataclass(getattr(next(iter(parts.values())), name, None)):
            continue
        if section == "curriculum" and name == "epochs":
            continue  # those of the run
        having = {preset: part for preset, part in parts.items() if hasattr(part, name)}
        kind = type(next(iter(having.values())))
        methods = [configs[preset].method for preset in having]
        only = "" if len(having) == len(parts) else f"Only {' and '.join(methods)}. "
        yield _row(name, kind, {p: getattr(part, name) for p, part in having.items()}, only)
    yield ""


def _row(name: str, kind: type, values: dict[str, Any], only: str) -> str:
    default = _default(kind, name)
    differing = {preset: value for preset, value in values.items() if value != default}
    shown = "<br>".join(f"{preset}: {_value(value)}" for preset, value in differing.items())
    words = in_words(get_type_hints(kind)[name])
    meaning = only + _meaning(kind, name)
    return f"| `{name}` | {_cell(words)} | {_value(default)} | {shown} | {meaning} |"


def _default(kind: type, name: str) -> Any:
    return getattr(kind(), name)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if value == "":
        return ""
    text = yaml.safe_dump(_rounded(as_list(value)), default_flow_style=True, width=10**6)
    return f"`{_cell(text.split(chr(10))[0])}`"


def _rounded(value: Any) -> Any:
    """Returns numbers such as 1/6 with four digits."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _meaning(kind: type, name: str) -> str:
    return _cell(meanings(kind, _markdown)[name])


def _markdown(text: str) -> str:
    """Returns a text of a docstring as a sentence of Markdown."""
    return sentence(text, r"`\1\2`")


def _about(kind: type) -> str:
    """Returns what a dataclass says of itself before it names its options."""
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "")
    return _markdown(parsed.short_description or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _augmentation() -> Iterator[str]:
    """Yields the options of ``sampling.augmentation``, where that is given by options."""
    yield "## `sampling.augmentation` by options\n"
    yield (
        "`sampling.augmentation` may also be options by name, such as\n"
        "`{recipe: global, gain: [0.7, 1.4]}`. [augmentation.md](augmentation.md) shows what each\n"
        "does. Without a recipe, what is not named changes nothing.\n"
    )
    yield "| option | type | default | meaning |\n|---|---|---|---|"
    hints = get_type_hints(UltrasoundAugmentation)
    for field in fields(UltrasoundAugmentation):
        default = _value(_default(UltrasoundAugmentation, field.name))
        words = _cell(in_words(hints[field.name]))
        meaning = _meaning(UltrasoundAugmentation, field.name)
        yield f"| `{field.name}` | {words} | {default} | {meaning} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
