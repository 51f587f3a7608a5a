"""What nvcc made of the CUDA kernels: registers, memory, instructions. Needs no GPU.

The library is the one built in place, or the one that USUCL_CUDA_LIBRARY names. What
-ffp-contract=off ensures on the CPU must hold here too: a similarity is a chain of fused
multiply-adds, and whatever else is added or multiplied is rounded each time.
"""

from __future__ import annotations

import re

import pytest

from benchmarks import cuda_binary, cuda_prediction
from benchmarks.cuda_binary import Kernel, Library, occupancy, read, readable, table

MOST_BYTES = 8 * 2**20  # per architecture, with host code: three times what it takes
MOST_STATIC_SHARED = 48 * 1024  # per thread block, granted by every architecture

# Kernels, whatever their template arguments, by what they compute.
SIMILARITIES = {"cross_kernel", "intra_kernel", "pair_kernel"}
GRADIENTS = {"row_kernel", "key_kernel"}
TENSOR_CORES = {"nominate_kernel", "sample_kernel"}
FLOAT64_SUMS = {"sum_kernel", "temperature_kernel"}  # over all anchors, whatever their dtype


@pytest.fixture(scope="module")
def library() -> Library:
    reason = cuda_binary.absent_reason()
    if reason:
        pytest.skip(reason)
    path, tool = cuda_binary.find_library(), cuda_binary.find_cuobjdump()
    assert path is not None and tool is not None
    return read(path, tool)


@pytest.fixture
def ptx(library: Library) -> dict[str, list[str]]:
    """Returns the floating-point statements by kernel name."""
    if not library.ptx:
        pytest.skip(f"no PTX in {library.path.name}, built for {', '.join(library.archs)}")
    number = re.compile(r"^(?:@!?%p\d+ )?(?:\w+\.)+f(?:32|64)\b")
    return {
        name: [line for line in lines if number.match(line)] for name, lines in library.ptx.items()
    }


def plain(name: str) -> str:
    return name.split("<", 1)[0]


def of(kernels: set[str], library: Library) -> list[Kernel]:
    """Returns the instances of these kernels, all of which must be there."""
    found = [kernel for kernel in library.kernels if plain(kernel.name) in kernels]
    assert {plain(kernel.name) for kernel in found} == kernels, "a kernel was renamed or removed"
    return found


def test_the_file_is_small(library: Library) -> None:
    print("\n" + table(library))
    assert library.size <= MOST_BYTES * len(library.archs)


def test_every_architecture_has_every_kernel(library: Library) -> None:
    names = {arch: {k.name for k in library.kernels if k.arch == arch} for arch in library.archs}
    first, *others = names.values()
    assert all(other == first for other in others), names
    assert not library.ptx or set(library.ptx) == first


def test_no_kernel_spills(library: Library) -> None:
    """No kernel keeps an array in local memory either, on any architecture."""
    assert not [(one.name, one.arch, one.stack) for one in library.kernels if one.stack > 0]


def test_tensor_cores_are_fed_from_shared_memory(library: Library) -> None:
    """A step has 32 products; ldmatrix loads their fragments, asynchronous copies the chunks."""
    for kernel in of(TENSOR_CORES, library):
        code = list(kernel.instructions)
        places = [i for i, op in enumerate(code) if op == "HMMA"]
        # 16 products of 16 x 8 per step of 32 bytes, 4 steps per chunk, unrolled once.
        assert len(places) == 4 * 16, (kernel.name, kernel.arch)
        assert code.count("LDSM") == 4 * (4 + 2), (kernel.name, kernel.arch)
        assert "LDGSTS" in code, (kernel.name, kernel.arch)
        assert not {"LDL", "STL"} & set(code[places[0] : places[-1]]), (kernel.name, kernel.arch)


def test_the_comparison_of_the_scores_fits_beside_the_products(library: Library) -> None:
    """An H200 multiprocessor has time for 4.8 half-rate operations per pair at D = 128."""
    tool = cuda_binary.find_cuobjdump()
    assert tool is not None
    text = cuda_binary.dump(tool, "--dump-sass", library.path)
    found = 0
    for (_, name), code in cuda_prediction.machine_code(text).items():
        if plain(name) == "nominate_kernel":
            found += 1
            tile = cuda_prediction.tile_code(code)
            assert tile.half_rate_per_pair < 2.4, name
            assert tile.per_pair < 4.8, name
    assert found >= 3


def test_static_shared_memory_fits_every_gpu(library: Library) -> None:
    most = max(library.kernels, key=lambda kernel: kernel.shared)
    assert most.shared <= MOST_STATIC_SHARED, most.name


def test_at_least_one_block_is_resident(library: Library) -> None:
    assert all(occupancy(kernel) != 0 for kernel in library.kernels)


@pytest.mark.parametrize(("dtype", "fused"), [("float", "FFMA"), ("double", "DFMA")])
def test_a_similarity_is_fused_in_machine_code(library: Library, dtype: str, fused: str) -> None:
    kernels = [kernel for kernel in of(SIMILARITIES, library) if f"<{dtype}" in kernel.name]
    assert {plain(kernel.name) for kernel in kernels} == SIMILARITIES
    for kernel in kernels:
        assert fused in kernel.instructions, (kernel.name, kernel.arch)


def test_float32_stays_float32(library: Library) -> None:
    """There is no accidental double, which has a 64th of the rate on many GPUs."""
    for kernel in library.kernels:
        if "<float" not in kernel.name or plain(kernel.name) in FLOAT64_SUMS:
            continue
        # DADD does not count: ptxas moves any 64 bits by adding zero.
        doubles = {"DFMA", "DMUL", "DSETP"} & set(kernel.instructions)
        assert not doubles, (kernel.name, kernel.arch, doubles)


# In PTX a division is one statement, not yet the fused multiply-adds that it becomes, so PTX shows
# exactly what the source asked for.


def test_a_similarity_is_nothing_but_fused_multiply_adds(ptx: dict[str, list[str]]) -> None:
    scaled = "0f77800000"  # 2^112: a float16 is read by one product, which is exact
    for name, lines in ptx.items():
        if plain(name) in SIMILARITIES:
            fused = "fma.rn.f32" if "<float" in name else "fma.rn.f64"
            assert any(fused in line for line in lines), name
            products = [line for line in lines if re.search(r"\bmul\.", line)]
            assert [line for line in products if scaled not in line] == [], name


def test_gradients_are_rounded_after_every_product(ptx: dict[str, list[str]]) -> None:
    assert {plain(name) for name in ptx} >= GRADIENTS
    for name, lines in ptx.items():
        if plain(name) in GRADIENTS:
            assert [line for line in lines if re.search(r"\bfma\.", line)] == [], name
            assert any(re.search(r"\bmul\.rn\.", line) for line in lines), name


def test_nothing_is_left_for_the_assembler_to_fuse(ptx: dict[str, list[str]]) -> None:
    """ptxas contracts a product and a sum that name no rounding."""
    unnamed = re.compile(r"\b(?:add|sub|mul)(?:\.ftz|\.sat)*\.f(?:32|64)\b")
    assert [(n, line) for n, lines in ptx.items() for line in lines if unnamed.search(line)] == []


def test_float32_stays_float32_in_the_source(ptx: dict[str, list[str]]) -> None:
    computes = re.compile(r"\b(?:add|sub|mul|fma|div|sqrt|setp|min|max)\S*\.f64\b")
    for name, lines in ptx.items():
        if "<float" in name and plain(name) not in FLOAT64_SUMS:
            assert [line for line in lines if computes.search(line)] == [], name


def test_no_fast_mathematics(ptx: dict[str, list[str]]) -> None:
    """Subnormal numbers are kept, divisions correctly rounded."""
    fast = re.compile(r"\b(?:(?:add|sub|mul|fma|div)\S*\.ftz|(?:div|sqrt)\.(?:approx|full))\b")
    assert [(n, line) for n, lines in ptx.items() for line in lines if fast.search(line)] == []


# --- the reader -----------------------------------------------------------------------------------


def a_kernel(**fields: object) -> Kernel:
    given = {"arch": "sm_80", "registers": 32, "stack": 0, "shared": 0, "threads": 128, **fields}
    return Kernel(name="a_kernel", instructions=(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 1.0),
        ({"registers": 255}, 0.125),  # 8 warps of 64
        ({"registers": 33}, 0.75),  # as for 40, since a warp gets multiples of 256
        ({"shared": 48 * 1024}, 3 / 16),  # 3 blocks of 49 KiB in 164 KiB
        ({"shared": 48 * 1024, "arch": "sm_90a"}, 4 / 16),
        ({"threads": 1024, "arch": "sm_120"}, 2 / 3),
        ({"threads": 0}, None),
        ({"arch": "sm_999"}, None),
    ],
    ids=str,
)
def test_occupancy(fields: dict[str, object], expected: float | None) -> None:
    assert occupancy(a_kernel(**fields)) == expected


def test_names_are_readable() -> None:
    assert readable("not_mangled") == "not_mangled"
    assert readable("_ZN5usucl4cuda13select_kernelIfEEvPKT_l") == "select_kernel<float>"
    assert readable("_ZN5usucl4cuda4tileIfLi3ELb1EEEvPKT_") == "tile<float, 3, true>"


def test_what_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USUCL_CUDA_LIBRARY", __file__)
    monkeypatch.setattr(cuda_binary, "find_cuobjdump", lambda: None)
    assert cuda_binary.main([]) == 1 and "no cuobjdump" in capsys.readouterr().err
    monkeypatch.undo()
    if cuda_binary.find_cuobjdump() is not None:
        assert cuda_binary.main([__file__]) == 1 and "cuobjdump" in capsys.readouterr().err
