"""Presets that are no harm: bombs of aliases, depth and size, and names of other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from usucl.training import read_config

_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_LAUGHS, "aliases stand for more than"),
        ("a: &a [*a]", "aliases stand for more than"),
        ("epochs: " + "[" * 2000, "nested too deeply"),
        ("x" * 70_000, "at most 65536 bytes"),
        ("loss: {cross_k: 1, cross_k: 2}", "cross_k is given twice"),
        ("sampling: other.yaml", "sampling of .* must hold options by name, got 'other.yaml'"),
        ("encoder: 5", "encoder must hold options by name, got 5"),
        ("epochs: !!python/object/apply:os.getcwd []", "constructor"),
    ],
    ids=lambda value: value[:12],
)
def test_it_is_refused_and_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("videos: 3\n")
    Path("preset.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)preset\.yaml.*{said}|{said}"):
        read_config("preset.yaml", {})


def test_a_few_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: &n 7\nepochs: *n\nsampling: '{videos: 3}'\n")
    config = read_config(tmp_path / "a.yaml", {})
    assert (config.seed, config.epochs, config.sampling.videos) == (7, 7, 3)
