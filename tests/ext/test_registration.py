"""What PyTorch is promised: schemas, fake kernels, compilation, autocast, module state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strategies import Problem, plain_problem
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import usucl_ext
from usucl_ext import (
    Frames,
    HardNegativeNCE,
    _problem,
    _registrations,
    hard_negative_nce,
    select_negatives,
)
from usucl_ext._validation import REDUCTIONS

OPS = ("select_negatives", "similarities", "hard_negative_nce", "hard_negative_nce_backward")


# --- opcheck --------------------------------------------------------------------------------------


LOSS_OPTIONS = ("positive_weights", "margin", "temperature", "soft_nn_temperature", "reduction")


def checked(problem: Problem) -> _problem.Problem:
    options = dict(problem.options)
    loss = {name: options.pop(name) for name in LOSS_OPTIONS}
    selection = _problem.check_problem(
        problem.anchors, problem.blocks, positives=problem.positives, **options
    )
    return _problem.with_loss(selection, problem.positives, **loss)


def selection_arguments(problem: Problem) -> tuple[Any, ...]:
    call = checked(problem)
    return _registrations._tensors(call), call.ranks, call.max_similarity


def loss_arguments(problem: Problem) -> tuple[Any, ...]:
    return (
        *selection_arguments(problem),
        REDUCTIONS.index(problem.options["reduction"]),
        problem.anchors.embedding.requires_grad,
    )


def variants(device: torch.device) -> dict[str, Problem]:
    plain = plain_problem(device)
    patients = plain_problem(device, reduction="none", soft_nn_temperature=0.3)
    patients.anchors = patients.anchors._replace(patient=patients.anchors.video // 2)
    patients.blocks = [b._replace(patient=b.video // 2) for b in patients.blocks]
    mixed = plain_problem(device, reduction="sum", window=None, intra_k=0, max_similarity=0.9)
    mixed.blocks[1] = mixed.blocks[1]._replace(embedding=mixed.blocks[1].embedding.bfloat16())
    empty = plain_problem(device, rows=0)
    limits = plain_problem(device, margin=-0.1)
    limits.options["positive_weights"] = torch.tensor([[1.0, 3.0]], device=device).repeat(5, 1)
    found = {"plain": plain, "patients": patients, "mixed": mixed, "empty": empty, "limits": limits}
    if device.type == "cpu":
        found["double"] = plain_problem(device, torch.float64)
    return found


@pytest.fixture(params=["plain", "patients", "mixed", "empty", "limits", "double"])
def variant(request: pytest.FixtureRequest, native_device: torch.device) -> Problem:
    found = variants(native_device)
    if request.param not in found:
        pytest.skip(f"{request.param} is for the CPU")
    return found[request.param]


def test_every_operator_is_checked_here(native_device: torch.device) -> None:
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("usucl::")}
    assert {name.split("::")[1].split(".")[0] for name in names} == set(OPS)


def test_opcheck_select_negatives(variant: Problem) -> None:
    torch.library.opcheck(torch.ops.usucl.select_negatives.default, selection_arguments(variant))


def test_opcheck_similarities(variant: Problem) -> None:
    anchors, keys = variant.anchors.embedding, variant.blocks[-1].embedding
    index = torch.arange(3 * len(anchors), device=anchors.device).reshape(len(anchors), 3) - 1
    torch.library.opcheck(torch.ops.usucl.similarities.default, (anchors, keys, index))


@pytest.mark.parametrize("blocks_with_grad", [(), (0,), (0, 1)])
def test_opcheck_hard_negative_nce(variant: Problem, blocks_with_grad: tuple[int, ...]) -> None:
    variant.anchors.embedding.requires_grad_()
    variant.positives.requires_grad_()
    for number in blocks_with_grad:
        variant.blocks[number].embedding.requires_grad_()
    torch.library.opcheck(torch.ops.usucl.hard_negative_nce.default, loss_arguments(variant))


def test_opcheck_hard_negative_nce_backward(variant: Problem) -> None:
    variant.anchors.embedding.requires_grad_()
    arguments = loss_arguments(variant)
    with torch.no_grad():
        loss, intra, _, cross, _, by_anchor, weights = torch.ops.usucl.hard_negative_nce(*arguments)
    rows = [len(block.video) for block in variant.blocks]
    torch.library.opcheck(
        torch.ops.usucl.hard_negative_nce_backward.default,
        (
            torch.ones_like(loss),
            REDUCTIONS.index(variant.options["reduction"]),
            variant.anchors.embedding.detach(),
            by_anchor,
            weights,
            intra,
            cross,
            checked(variant).num_positives,
            [rows[0]],
            [rows[1]],
        ),
    )


# --- torch.compile --------------------------------------------------------------------------------


def test_a_window_schedule_compiles_once(impl: str, device: torch.device) -> None:
    """20 windows, forward and backward, take one graph and give the eager values."""
    problem = plain_problem(device)
    criterion = HardNegativeNCE(window=(0.0, 1.0), intra_k=2, cross_k=3, impl=impl).to(device)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend=counter)
    anchors = problem.anchors._replace(embedding=problem.anchors.embedding.requires_grad_())
    losses = set()
    for step in range(20):
        criterion.set_window(0.25 * (step % 5), 0.5 + 0.1 * step)
        loss = compiled(anchors, problem.positives, problem.blocks)
        (grad,) = torch.autograd.grad(loss, anchors.embedding)
        eager = criterion(anchors, problem.positives, problem.blocks)
        torch.testing.assert_close(loss, eager)
        torch.testing.assert_close(grad, torch.autograd.grad(eager, anchors.embedding)[0])
        losses.add(loss.item())
    assert counter.frame_count == 1
    assert len(losses) > 5, "the windows made no difference"


def test_numbers_and_shapes_may_change_in_one_graph(impl: str, device: torch.device) -> None:
    """A new temperature, window or margin compiles nothing new; nor do more frames."""

    def call(problem: Problem, number: float) -> tuple[Tensor, ...]:
        loss, selection = hard_negative_nce(
            problem.anchors,
            problem.positives,
            problem.blocks,
            window=(number, 4 * number),
            intra_k=2,
            cross_k=3,
            temperature=number,
            soft_nn_temperature=2 * number,
            margin=-number,
            return_selection=True,
            impl=impl,
        )
        negatives = select_negatives(
            problem.anchors,
            problem.blocks,
            window=(number, 3 * number),
            intra_k=2,
            cross_k=3,
            impl=impl,
        )
        return loss, *selection, *negatives

    # Differentiating the reference's graph takes a minute.
    counter = CompileCounterWithBackend("aot_eager" if impl == "native" else "eager")
    compiled = torch.compile(call, fullgraph=True, backend=counter, dynamic=True)
    graphs = []
    for step in range(4):
        problem = plain_problem(device, rows=5 + step, keys=(9 + 2 * step, 12 + step))
        number = 0.25 + step / 32
        for ours, expected in zip(compiled(problem, number), call(problem, number), strict=True):
            torch.testing.assert_close(ours, expected)
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 4


def test_compiled_function_with_selection(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, temperature=torch.tensor(0.2, device=device))
    torch._dynamo.reset()

    def call(anchors: Frames, positives: Tensor, blocks: list[Frames]) -> Any:
        options = {**problem.options, "reduction": "none"}
        return hard_negative_nce(
            anchors, positives, blocks, return_selection=True, impl=impl, **options
        )

    inputs = (problem.anchors, problem.positives, problem.blocks)
    loss, selection = torch.compile(call, fullgraph=True, backend="aot_eager")(*inputs)
    eager_loss, eager_selection = call(*inputs)
    torch.testing.assert_close(loss, eager_loss)
    for ours, theirs in zip(selection, eager_selection, strict=True):
        torch.testing.assert_close(ours, theirs)


# --- autocast -------------------------------------------------------------------------------------


def test_autocast_truncates_nothing(impl: str, device: torch.device) -> None:
    """In bfloat16 the times 1000 to 1003 would be equal, and so would 0.2 and 0.2001."""
    problem = plain_problem(device, window=(2.5, 3.5), temperature=0.2001)
    problem.anchors = problem.anchors._replace(time=problem.anchors.time * 4 + 1000)
    problem.blocks = [block._replace(time=block.time * 4 + 1000) for block in problem.blocks]
    expected = problem.run(impl)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        ours = problem.run(impl)
    assert ours.loss.dtype == torch.float32
    assert (expected.selection.intra_index >= 0).any()
    for name in ("loss", "anchors", "positives"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    for a, b in zip(ours.selection, expected.selection, strict=True):
        assert torch.equal(a, b)


def test_autocast_of_an_encoder_against_a_float32_bank(impl: str, device: torch.device) -> None:
    """The encoder's bfloat16 output goes in as it comes; its weights get float32 gradients."""
    problem = plain_problem(device)
    encoder = nn.Linear(6, 6, device=device)
    criterion = HardNegativeNCE(window=(0.5, 4.0), intra_k=2, cross_k=3, impl=impl).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        query = encoder(problem.anchors.embedding)
        assert query.dtype == torch.bfloat16
        loss = criterion(
            problem.anchors._replace(embedding=query), problem.positives, problem.blocks
        )
    assert loss.dtype == torch.float32
    loss.backward()
    assert encoder.weight.grad is not None and encoder.weight.grad.dtype == torch.float32
    again = criterion(
        problem.anchors._replace(embedding=query.detach()), problem.positives, problem.blocks
    )
    assert torch.equal(loss.detach(), again)


# --- the module -----------------------------------------------------------------------------------


def test_module_is_the_function(impl: str, device: torch.device) -> None:
    problem = plain_problem(
        device, intra_skip=1, cross_skip=2, soft_nn_temperature=0.3, reduction="sum"
    )
    module = HardNegativeNCE(return_selection=True, impl=impl, **problem.options).to(device)
    inputs = (problem.anchors, problem.positives, problem.blocks)
    expected = hard_negative_nce(*inputs, return_selection=True, impl=impl, **problem.options)
    loss, selection = module(*inputs)
    assert torch.equal(loss, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(selection, expected[1], strict=True))


def test_module_keeps_nothing_in_a_checkpoint() -> None:
    module = HardNegativeNCE(window=(0.2, 0.4), intra_k=3, cross_k=4)
    assert not module.state_dict() and not list(module.parameters())
    module.load_state_dict({})


def test_set_window_writes_into_the_same_buffer() -> None:
    module = HardNegativeNCE(window=(0.2, 0.4), intra_k=3, cross_k=4)
    buffer = dict(module.named_buffers())["window"]
    address = buffer.data_ptr()
    module.set_window(0.1, 0.15)
    assert module.window is buffer and buffer.data_ptr() == address
    assert buffer.tolist() == pytest.approx([0.1, 0.15], rel=1e-6)


def test_module_without_window_takes_cross_video_negatives_only(
    impl: str, device: torch.device
) -> None:
    problem = plain_problem(device)
    module = HardNegativeNCE(
        window=None, intra_k=0, cross_k=3, return_selection=True, impl=impl
    ).to(device)
    _, selection = module(problem.anchors, problem.positives, problem.blocks)
    assert selection.intra_index.shape == (5, 0) and (selection.cross_index >= 0).all()


def test_a_temperature_parameter_is_learnt(impl: str, device: torch.device) -> None:
    problem = plain_problem(device)
    module = HardNegativeNCE(
        window=(0.5, 4.0),
        intra_k=2,
        cross_k=3,
        temperature=nn.Parameter(torch.tensor(0.2)),
        impl=impl,
    ).to(device)
    assert list(module.state_dict()) == ["temperature"]
    module(problem.anchors, problem.positives, problem.blocks).backward()
    (temperature,) = module.parameters()
    assert temperature.grad is not None and temperature.grad.item() != 0


def test_auto_is_native_where_there_is_a_kernel(native_device: torch.device) -> None:
    problem = plain_problem(native_device)
    auto, native = (
        select_negatives(problem.anchors, problem.blocks, impl=impl, **problem.selection_options)
        for impl in ("auto", "native")
    )
    assert all(torch.equal(a, b) for a, b in zip(auto, native, strict=True))
    assert usucl_ext.reference.select_negatives is not usucl_ext.select_negatives
