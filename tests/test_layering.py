"""Imports run in one direction only; the tree, not a document, is what is read here.

csrc/core -> csrc/{cpu,cuda} -> usucl_ext -> usucl.losses, usucl.bank -> usucl.data
-> usucl.run_folder -> usucl.models -> usucl.methods, usucl.embedding
-> usucl.evaluation, usucl.gallery -> usucl.training -> usucl.finetuning
-> usucl.comparison -> usucl.report -> usucl.demo -> usucl.cli
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"

# Left to right: each imports from those before it, and from its own package.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"usucl_ext"}),
    frozenset({"usucl.losses", "usucl.bank"}),
    frozenset({"usucl.data"}),
    frozenset({"usucl.run_folder"}),
    frozenset({"usucl.models"}),
    frozenset({"usucl.methods", "usucl.embedding"}),
    frozenset({"usucl.evaluation", "usucl.gallery"}),
    frozenset({"usucl.training"}),
    frozenset({"usucl.finetuning"}),
    frozenset({"usucl.comparison"}),
    frozenset({"usucl.report"}),
    frozenset({"usucl.demo"}),
    frozenset({"usucl.cli"}),
)
# The folders of a comparison, in the same way; files beside them may import all.
COMPARISON = ("objectives", "design", "training", "measurement", "analysis")
DEVICE_VOCABULARY = {"device.h", "hopper.h"}
CUDA_KNOWS_PYTORCH = {"session.cpp"}
CALLERS_OF_THE_EXTENSION = {"usucl_ext", "usucl.losses", "usucl.bank"}
SPEAK_THROUGH_CALLBACKS = ("usucl.embedding", "usucl.evaluation", "usucl.gallery")
CALLERS_OF_THE_OPERATORS = {"usucl_ext/ops.py", "usucl_ext/_registrations.py"}


def _sources() -> list[Path]:
    return sorted([*ROOT.glob("usucl_ext/**/*.py"), *ROOT.glob("python/usucl/**/*.py")])


def _module(source: Path) -> str:
    """Dotted name of a source file, packages by their own name."""
    base = ROOT / "python" if "python" in source.relative_to(ROOT).parts[:1] else ROOT
    parts = source.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(source: Path) -> Iterator[str]:
    """Every module of ours that a file imports, at the top or inside a function."""
    own = _module(source).split(".")
    package = own if source.name == "__init__.py" else own[:-1]
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("usucl", "usucl_ext"))


def _layer(module: str) -> tuple[int, str] | None:
    """(position, name) of the layer's part a module belongs to; None for usucl and usucl._*."""
    for position, parts in enumerate(LAYERS):
        for part in parts:
            if module == part or module.startswith(part + "."):
                return position, part
    return None


def _is_shared(module: str) -> bool:
    """usucl._files and the like: helpers below every layer."""
    parts = module.split(".")
    return len(parts) > 1 and parts[0] == "usucl" and parts[1].startswith("_")


def _name(source: Path) -> str:
    return source.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_imports_run_to_the_right_only(source: Path) -> None:
    module = _module(source)
    if module in ("usucl", "usucl.__main__"):
        return  # the front doors hand out names of every layer, and the commands
    here = _layer(module)
    for imported in _imports(source):
        there = _layer(imported)
        if _is_shared(module):
            assert there is None, f"{module}, below every layer, imports {imported}"
            continue
        assert here is not None, f"{module} belongs to no layer: add it to LAYERS"
        if there is None:
            front_door = imported.split(".")[:2] == ["usucl", "__version__"]
            assert _is_shared(imported) or front_door, f"{module} imports {imported}"
            continue
        assert there[0] < here[0] or there[1] == here[1], f"{module} imports {imported}"


@pytest.mark.parametrize("place", range(len(COMPARISON)), ids=COMPARISON.__getitem__)
def test_a_part_of_a_comparison_knows_those_before_it_only(place: int) -> None:
    known = tuple(f"usucl.comparison.{part}." for part in COMPARISON[: place + 1])
    for source in (ROOT / "python/usucl/comparison" / COMPARISON[place]).glob("**/*.py"):
        for imported in _imports(source):
            is_own = imported.startswith("usucl.comparison.")
            assert not is_own or imported.startswith(known), f"{_name(source)} imports {imported}"


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_only_losses_and_bank_know_the_extension(source: Path) -> None:
    names = [name for name in _imports(source) if name.split(".")[0] == "usucl_ext"]
    if _module(source) == "usucl":
        assert set(names) <= {"usucl_ext.__version__"}  # two packages, one version
    elif names:
        here = _layer(_module(source))
        assert here is not None and here[1] in CALLERS_OF_THE_EXTENSION


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_embedding_evaluation_and_gallery_print_nothing(source: Path) -> None:
    """They tell their caller how far they are; the shell draws it."""
    module = _module(source)
    if not any(module == part or module.startswith(part + ".") for part in SPEAK_THROUGH_CALLBACKS):
        return
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Name) and node.id == "print"), f"{module} prints"
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "rich" not in ast.unparse(node).split(".")[0].split(), f"{module} imports rich"


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_only_two_files_call_the_operators(source: Path) -> None:
    """torch.ops.usucl, read as code: a mention in a docstring is no call."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.ops.usucl":
            assert _name(source) in CALLERS_OF_THE_OPERATORS


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "python" / "usucl" / name).read_text(encoding="utf-8"))


def _strings(node: ast.AST) -> set[str]:
    """Every string that is written in a piece of code."""
    values = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return {value for value in values if isinstance(value, str)}


def _method_names() -> set[str]:
    """What the classes of usucl.methods assign to ``name``."""
    return {
        name
        for source in (ROOT / "python" / "usucl" / "methods").glob("*.py")
        for node in ast.walk(_tree(f"methods/{source.name}"))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "name"
        for name in _strings(node.value)
    }


def _joined(tree: ast.AST) -> Iterator[str]:
    """Names that are appended to a path by ``/``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from _strings(node.right)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [
                n
                for n in body
                if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ]
    return tree


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_only_methods_know_which_method_it_is(source: Path) -> None:
    """Elsewhere what a method does is asked of the method, not concluded from its name."""
    names = _method_names()
    assert names >= {"dense", "paper"}
    if not _module(source).startswith("usucl.methods"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare | ast.MatchValue):
                assert not names & _strings(node), ast.unparse(node)


@pytest.mark.parametrize("source", _sources(), ids=_name)
def test_only_the_run_folder_spells_its_files(source: Path) -> None:
    """File names anywhere in the code, names of folders where a path is made of them."""
    names = set(_joined(_tree("run_folder.py")))
    assert names >= {"config.yaml", "last.ckpt", "initial"}
    if _module(source) != "usucl.run_folder":
        tree = _without_docstrings(ast.parse(source.read_text(encoding="utf-8")))
        assert not names & set(_joined(tree))
        files = "|".join(re.escape(name) for name in names if "." in name)
        assert not re.findall(rf"(?<![\w-])(?:{files})", "\n".join(_strings(tree)))


def _includes(source: Path) -> list[tuple[str, str]]:
    """(bracket, name) of each include."""
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', source.read_text(), re.MULTILINE)


def _native(folder: str) -> list[Path]:
    return sorted(path for path in (CSRC / folder).glob("**/*") if path.is_file())


@pytest.mark.parametrize("source", _native("core"), ids=_name)
def test_core_includes_itself_and_the_standard_library_only(source: Path) -> None:
    """No torch, no intrinsics, no CUDA header: host and device compile the same rules."""
    for bracket, name in _includes(source):
        if bracket == '"':
            target = (source.parent / name, CSRC / name)
            assert any((CSRC / "core") in path.resolve().parents for path in target), name
        else:
            assert re.fullmatch(r"[a-z_]+", name), f"<{name}> is no standard C++ header"


@pytest.mark.parametrize("source", sorted({*_native(".")} - {*_native("core")}), ids=_name)
def test_only_core_compares_ids(source: Path) -> None:
    """Which key counts for which anchor is judged in csrc/core/relation.h, and nowhere else."""
    text = re.sub(r"//.*", "", source.read_text())
    operand = r"\b(?:videos?|patients?)\b(?:\[[^]]*\])?"
    compared = rf"{operand}\s*(?:[=!<>]=|[<>])(?!\s*nullptr)|[=!]=\s*[\w.>-]*{operand}"
    found = re.search(compared, text)
    assert found is None, f"{_name(source)} compares ids: {found and found.group()}"


@pytest.mark.parametrize("source", [*_native("cpu"), *_native("cuda")], ids=_name)
def test_cpu_and_cuda_do_not_know_each_other(source: Path) -> None:
    here = source.relative_to(CSRC).parts[0]
    other = {"cpu": "cuda", "cuda": "cpu"}[here]
    for bracket, name in _includes(source):
        if bracket == '"':
            assert not re.search(rf"(^|/){other}/", name), f"{here} includes {name}"


def _included(source: Path) -> set[Path]:
    """The files of csrc that a file includes."""
    names = [name for bracket, name in _includes(source) if bracket == '"']
    found = {(start / name).resolve() for name in names for start in (source.parent, CSRC)}
    return {path for path in found if path.is_file() and CSRC in path.parents}


@pytest.mark.parametrize("source", _native("cpu/tile"), ids=_name)
def test_tiles_know_core_only(source: Path) -> None:
    """What is compiled for one instruction set does not know what it is used for."""
    for path in _included(source):
        assert path.parent in (CSRC / "core", CSRC / "cpu" / "tile"), f"includes {_name(path)}"


@pytest.mark.parametrize(
    "source", sorted({*_native("cuda")} - {*_native("cuda/tensor_cores")}), ids=_name
)
def test_tensor_cores_are_called_through_passes(source: Path) -> None:
    for path in _included(source):
        assert path.parent != CSRC / "cuda" / "tensor_cores", f"includes {_name(path)}"


NESTED = r"\((?:[^;{}()]|\((?:[^()]|\([^()]*\))*\))*\)"
FUNCTION = rf"^(?:[\w:<>*&]+ )+[*&]?(\w+){NESTED}"


@pytest.mark.parametrize("folder", ["core", "cpu", "cuda"])
def test_no_files_need_each_other(folder: str) -> None:
    """By what they include, and by what one source file calls that another defines."""
    needs = {source: _included(source) for source in _native(folder)}
    text = {source: re.sub(r"//.*", "", source.read_text()) for source in needs}
    sources = [source for source in needs if source.suffix != ".h"]
    headers = "\n".join(text[source] for source in needs if source.suffix == ".h")
    declared = set(re.findall(FUNCTION + ";", headers, re.MULTILINE))
    for definer in sources:
        defined = declared & set(re.findall(FUNCTION + r" \{", text[definer], re.MULTILINE))
        called = re.compile(rf"(?<![.>\w])(?:{'|'.join(defined)})(?:<\w+>)?\(") if defined else None
        for caller in sources:
            if called and caller != definer and called.search(text[caller]):
                needs[caller].add(definer)
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, with the files of the circle


@pytest.mark.parametrize("source", _native("cuda"), ids=_name)
def test_kernels_keep_to_the_device_vocabulary(source: Path) -> None:
    """What the emulator cannot run is in two files alone, PyTorch in two others."""
    text = re.sub(r"//.*", "", source.read_text())
    if source.name not in DEVICE_VOCABULARY:
        assert not re.search(r"\basm\b|__shared__|<<<|cuda_runtime\.h|\bcuda\.h", text)
    if source.name not in CUDA_KNOWS_PYTORCH:
        assert not any("torch" in name for _, name in _includes(source))


@pytest.mark.parametrize("source", _native("cuda"), ids=_name)
def test_tensor_maps_are_kernel_parameters(source: Path) -> None:
    """The TMA reads a map where the launch put it, not from a copy on the stack."""
    text = re.sub(r"//.*", "", source.read_text())
    assert not re.search(r"(?<!const __grid_constant__ )\bTensorMap\s+\w+\s*[,)]", text)


@pytest.mark.parametrize("source", _native("cuda"), ids=_name)
def test_nothing_waits_for_the_device(source: Path) -> None:
    """No synchronisation, no memory but PyTorch's: calls can be captured in a CUDA graph."""
    text = re.sub(r"//.*", "", source.read_text())
    assert not re.search(r"cuda\w*Synchronize|cudaMalloc|cudaFree|cudaMemcpy\b", text)
