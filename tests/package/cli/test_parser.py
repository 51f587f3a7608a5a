"""Words in any order become the values of a command, and help shows every option."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from usucl.cli import COMMANDS, bank, main, run
from usucl.cli.parameters import Command, parameters_of
from usucl.cli.parser import UsageError, help_of_command, values


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "BANK", "RUN", "3", "a=1"):
        Path(name).mkdir()


def read(command: Command, text: str) -> dict[str, Any]:
    """Returns what differs from the defaults."""
    parameters = parameters_of(command)
    found = values("usucl command", command, shlex.split(text))
    found = {name: str(v) if isinstance(v, Path) else v for name, v in found.items()}
    return {name: v for name, v in found.items() if v != parameters[name].default}


@pytest.mark.parametrize(
    ("text", "set_", "held_out"),
    [
        ("DATA --out x", None, None),
        ("--out x DATA", None, None),
        ("--set epochs=2 DATA --out x", ["epochs=2"], None),
        ("--set epochs=2 key.bank=8 DATA --out x", ["epochs=2", "key.bank=8"], None),
        ("DATA --set epochs=2 cross_k=8 --out x", ["epochs=2", "cross_k=8"], None),
        ("--out x --set epochs=2 --set cross_k=8 DATA", ["epochs=2", "cross_k=8"], None),
        ("--set=epochs=2 DATA --out x", ["epochs=2"], None),
        ("--set epochs=2 --out x -- DATA", ["epochs=2"], None),
        ("--held-out 0 DATA --out x", None, [0]),
        ("--held-out 0 1 DATA --out x", None, [0, 1]),
        ("--held-out DATA --out x", None, []),
        ("DATA --out x --held-out", None, []),
        ("--held-out 3 --set a=1 --out x DATA", ["a=1"], [3]),
        ("--set lr=1 --held-out 1 2 DATA --out x", ["lr=1"], [1, 2]),
    ],
)
def test_no_option_takes_the_folder(
    text: str, set_: list[str] | None, held_out: list[int] | None
) -> None:
    expected: dict[str, Any] = {"data": "DATA", "out": "x"}
    expected |= {} if set_ is None else {"set_": set_}
    expected |= {} if held_out is None else {"held_out": held_out}
    assert read(run.train, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--label a BANK q", {"label": ["a"]}),
        ("--label a b BANK q", {"label": ["a", "b"]}),
        ("BANK q --label a b", {"label": ["a", "b"]}),
        ("BANK --label a b q", {"label": ["a", "b"]}),
        ("--label a BANK q --video c d", {"label": ["a"], "video": ["c", "d"]}),
        ("--label a b --video c BANK q --k 3", {"label": ["a", "b"], "video": ["c"], "k": 3}),
        ("--time 0.2 0.4 BANK q", {"time": [0.2, 0.4]}),
        ("--one-per-video BANK q", {"one_per_video": True}),
        ("--label a --label b BANK q", {"label": ["a", "b"]}),
        ("--k 3 --exclude-video v w BANK q", {"k": 3, "exclude_video": ["v", "w"]}),
    ],
)
def test_names_are_left_to_the_arguments(text: str, expected: dict[str, Any]) -> None:
    assert read(bank.search, text) == {"bank": "BANK", "query": "q", **expected}


def test_an_argument_is_not_awaited_where_an_option_replaces_it() -> None:
    expected = {"bank": "BANK", "slot": 3, "label": ["a", "b"]}
    assert read(bank.search, "--slot 3 --label a b BANK") == expected
    assert read(bank.search, "--label a b BANK --slot 3") == expected
    assert read(bank.search, "BANK --slot 3 --label a b") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--set DATA --out x", "--set must be NAME=VALUE, got 'DATA'"),
        ("--held-out x DATA --out x", "--held-out must be a whole number, got 'x'"),
        ("--held-out 0 --out x", "DATA is required"),
        ("--set a=1 b=2 --out x", "DATA is required"),
        ("DATA --out x --set", "--set must be followed by NAME=VALUE"),
    ],
)
def test_wrong_values_are_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        values("usucl train", run.train, shlex.split(text))


def _commands(commands: Any = COMMANDS) -> list[Command]:
    return [c for one in commands.values() for c in ([one] if callable(one) else _commands(one))]


@pytest.mark.parametrize("command", _commands(), ids=lambda command: command.__qualname__)
def test_every_option_tells_its_default(command: Command) -> None:
    for parameter in parameters_of(command).values():
        if parameter.is_option and parameter.amount != "none" and parameter.name != "slot":
            assert "(default: " in parameter.help or "(required)" in parameter.help
    text = help_of_command("usucl command", command)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", _commands(), ids=lambda command: command.__qualname__)
def test_counts_below_one_are_refused(command: Command) -> None:
    """Every number has a least value, and its error names the option."""
    for parameter in parameters_of(command).values():
        if parameter.kind in (int, float):
            with pytest.raises(ValueError, match="must be"):
                parameter.read("-3")


@pytest.mark.parametrize("flag", ["--quiet", "--debug"])
def test_global_options_stand_anywhere(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([flag, "info"], ["info", flag]):
        assert main(words) == 0
    assert "torch" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"usucl {__import__('usucl').__version__}\n"


@pytest.mark.parametrize("out", ["file", "file/x", "file/x/y", "/proc/x", "/proc/x/y"])
def test_out_is_checked_first(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    for words in (
        ["train", "DATA"],
        ["embed", "RUN", "DATA"],
        ["evaluate", "RUN", "DATA"],
        ["bank", "build", "RUN", "DATA"],
        ["bank", "search", "BANK", "q"],
        ["bank", "duplicates", "BANK"],
        ["data", "convert", "DATA"],
        ["demo"],
        ["bench"],
    ):
        if out == "file" and words[0] in ("bank", "bench") and words[-2:] != ["RUN", "DATA"]:
            continue  # a file there is replaced, or refused by the command itself
        assert main([*words, "--out", out]) == 2, words
        said = capsys.readouterr().err
        assert said.startswith("usucl: error: --out must be a ") and said.count("\n") == 1


def test_a_mistyped_folder_has_a_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "DATTA"]) == 2
    assert "got DATTA: there is no such folder; did you mean DATA?" in capsys.readouterr().err
