"""RGB equals its formulas on various tasks, and preserves norms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.optimization.problems import (
    EVERYTHING,
    SHAPES,
    SIZES,
    P,
    Reference,
    clear,
    columns,
    cost,
    flat_grad,
    losses,
    parameters,
)
from torch import Tensor, nn

from aime.errors import AimeError
from aime.optimization import RGB, RGBConfig
from aime.optimization.rotation import angle_slopes

Reach = list[list[bool]]


def direction_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-300))


def random(tasks: int, seed: int = 0) -> Tensor:
    return torch.randn(tasks, P, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conflicting(tasks: int, seed: int) -> Tensor:
    gradients = random(tasks, seed)
    gradients[1:] -= 2 * gradients[:1]
    return gradients


def aligned(tasks: int, seed: int) -> Tensor:
    return random(1, seed).expand(tasks, P) + 1e-3 * random(tasks, seed + 1)


def parallel(tasks: int, seed: int) -> Tensor:
    return random(1, seed) * torch.arange(1, tasks + 1)[:, None]


def opposed(tasks: int, seed: int) -> Tensor:
    return random(1, 0) * torch.tensor([1.0, -1.0]).repeat(tasks)[:tasks, None]


def with_a_zero(tasks: int, seed: int) -> Tensor:
    gradients = random(tasks, seed)
    gradients[seed % tasks] = 0
    return gradients


def with_noise(tasks: int, seed: int) -> Tensor:
    gradients = random(tasks, seed)
    gradients[seed % tasks] *= 1e-9
    return gradients


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [random, conflicting, aligned, parallel, opposed, with_a_zero, with_noise])
def test_follows_the_formulas_from_the_first_step_on(kind, tasks: int) -> None:  # type: ignore[no-untyped-def]
    named, reference, reach = parameters(), Reference(tasks), [EVERYTHING] * tasks
    balancer = RGB(named.items())
    for step in range(5):
        gradients = kind(tasks, step)
        clear(named)
        balance = balancer.backward(losses(named, gradients, reach))
        wanted = reference.step(gradients, reach, [1.0] * tasks)
        torch.testing.assert_close(flat_grad(named), wanted, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(balance.norms, gradients.norm(dim=1))
        torch.testing.assert_close(balancer.state_dict()["angle.task0"], reference.angles[0], rtol=1e-7, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_tasks_that_reach_different_parameters(data: st.DataObject) -> None:
    tasks = data.draw(st.integers(2, 4))
    named, reference = parameters(), Reference(tasks)
    balancer = RGB(named.items())
    for step in range(3):
        reach: Reach = data.draw(
            st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=tasks, max_size=tasks)
        )
        ramps = data.draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=tasks, max_size=tasks))
        gradients = random(tasks, step)
        clear(named)
        balancer.backward(losses(named, gradients, reach), {f"task{row}": ramp for row, ramp in enumerate(ramps)})
        torch.testing.assert_close(flat_grad(named), reference.step(gradients, reach, ramps), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(consensus(balancer), reference.consensus, rtol=1e-9, atol=1e-12)


def test_a_module_may_be_any_function_of_the_name() -> None:
    """Parts of a joined module turn by themselves, as they do as modules of their own."""
    alone = {f"{'ab'[number % 2]}.{number}": each for number, each in enumerate(parameters().values())}
    joined = {f"whole.{name}": each for name, each in zip(alone, parameters().values(), strict=True)}
    first = RGB(alone.items(), RGBConfig(scope="module"))
    second = RGB(joined.items(), RGBConfig(scope="module"), lambda name: name.split(".")[1])
    for step in range(2):
        gradients = random(3, step)
        for balancer, named in ((first, alone), (second, joined)):
            clear(named)
            balancer.backward(losses(named, gradients, [EVERYTHING] * 3))
        assert torch.equal(flat_grad(alone), flat_grad(joined))
    assert torch.equal(first.state_dict()["angles.task0"], second.state_dict()["angles.task0"])


def consensus(balancer: RGB) -> Tensor:
    state = balancer.state_dict()
    return torch.cat([state[f"consensus.layer.{number}"].reshape(-1) for number in range(len(SHAPES))])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_by_module_each_module_has_a_balancer_of_its_own(data: st.DataObject) -> None:
    tasks = data.draw(st.integers(1, 4))
    config = RGBConfig(scope="module")
    named = {f"{'ab'[number % 2]}.{number}": each for number, each in enumerate(parameters().values())}
    apart = {f"{'ab'[number % 2]}.{number}": each for number, each in enumerate(parameters().values())}
    whole = RGB(named.items(), config)
    single = {module: RGB([(name, each) for name, each in apart.items() if name[0] == module]) for module in ("a", "b")}
    for step in range(3):
        reach: Reach = data.draw(
            st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=tasks, max_size=tasks)
        )
        gradients = random(tasks, step)
        for each in (named, apart):
            clear(each)
        whole.backward(losses(named, gradients, reach))
        for module, balancer in single.items():
            others = [
                [is_reached and name[0] == module for is_reached, name in zip(row, apart, strict=True)] for row in reach
            ]
            balancer.backward(losses(apart, gradients, others))
        torch.testing.assert_close(flat_grad(named), flat_grad(apart), rtol=1e-9, atol=1e-12)
    fresh = RGB(named.items(), config)
    fresh.load_state_dict(whole.state_dict())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(AimeError, match=r"rgb\.scope"):
        RGB(named.items()).load_state_dict(whole.state_dict())


def test_single_precision_keeps_the_direction() -> None:
    named, reference = parameters(torch.float32), Reference(3)
    balancer = RGB(named.items())
    for step in range(6):
        gradients = conflicting(3, step).float()
        gradients[1] *= 1e-3
        clear(named)
        balancer.backward(losses(named, gradients, [EVERYTHING] * 3))
        assert direction_error(flat_grad(named), reference.step(gradients, [EVERYTHING] * 3, [1.0] * 3)) < 1e-6


def test_private_parameters_get_the_plain_sum() -> None:
    named, gradients = parameters(), conflicting(3, 0)
    reach = [[True, True, False, False, False], [True, False, True, False, False], [False, False, False, True, False]]
    balance = RGB(named.items()).backward(losses(named, gradients, reach))
    plain = (gradients * columns(reach)).sum(0)
    same = [torch.equal(*pair) for pair in zip(flat_grad(named).split(SIZES), plain.split(SIZES), strict=True)]
    assert same == [False, True, True, True, True]
    assert balance.active.tolist() == [True, True, False], "the third task shares nothing"
    assert named["layer.4"].grad is None, "no task reaches it"


def test_cosines_are_of_the_shared_parameters() -> None:
    named, gradients = parameters(), random(2)
    balance = RGB(named.items()).backward(losses(named, gradients, [EVERYTHING, [True, False, False, False, False]]))
    shared = gradients[:, : SIZES[0]]
    torch.testing.assert_close(balance.cosines[0, 1], torch.cosine_similarity(shared[0], shared[1], dim=0))
    figures = dict(balance.named())
    assert figures.keys() == {
        *(f"balance/{figure}_task{row}" for figure in ("norm", "angle") for row in range(2)),
        "balance/cosine_task0_task1",
    }


def test_without_angles_it_is_the_sum() -> None:
    named, gradients = parameters(), conflicting(3, 0)
    RGB(named.items(), RGBConfig(angle_steps=0)).backward(losses(named, gradients, [EVERYTHING] * 3))
    torch.testing.assert_close(flat_grad(named), gradients.sum(0))


def test_tasks_turn_towards_each_other_and_keep_their_norms() -> None:
    named, gradients = parameters(), conflicting(2, 0)
    balancer = RGB(named.items())
    cosine = torch.cosine_similarity(gradients[0], gradients[1], dim=0)
    for _ in range(30):
        clear(named)
        balance = balancer.backward(losses(named, gradients, [EVERYTHING] * 2))
        assert bool(((balance.angles >= 0) & (balance.angles < math.pi / 2)).all())
    norms = gradients.norm(dim=1)
    # the length of ‖g_1‖ r_1 + ‖g_2‖ r_2 tells the angle between the two
    square = flat_grad(named).square().sum()
    turned = (square - norms.square().sum()) / (2 * norms.prod())
    assert cosine + 0.3 < turned <= 1
    assert square.sqrt() <= norms.sum() + 1e-9


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_the_scale_of_a_loss_changes_the_weight_of_its_own_direction_only(scale: float, seed: int) -> None:
    gradients = conflicting(3, seed)
    found = []
    for factor in (1.0, 2.0, scale):
        named = parameters()
        scaled = gradients * torch.tensor([factor, 1.0, 1.0], dtype=torch.float64)[:, None]
        RGB(named.items()).backward(losses(named, scaled, [EVERYTHING] * 3))
        found.append(flat_grad(named))
    own = found[1] - found[0]
    torch.testing.assert_close(own.norm(), gradients[0].norm(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found[2], found[0] + (scale - 1) * own, rtol=1e-8, atol=1e-9)


def test_angle_slopes_are_the_derivatives_of_the_cost() -> None:
    torch.manual_seed(0)
    basis = torch.randn(4, 9, dtype=torch.float64)
    units = torch.nn.functional.pad((1 / basis[:3].norm(dim=1)).diag(), (0, 1))
    whole = units @ basis
    along = whole @ basis[3]
    across = (basis[3].square().sum() - along**2).sqrt()
    helpers = (torch.tensor([0, 0, 0, 1.0]).double() - along[:, None] * units) / across[:, None]
    helpers[2] = 0  # one that is not rotated
    angles = torch.tensor([0.0, 0.7, 0.0], dtype=torch.float64)
    votes = torch.tensor([1.0, 0.8, 0.6], dtype=torch.float64)
    slopes = angle_slopes(angles, units, helpers, basis @ basis.T, votes, 1.3)

    def wanted(values: Tensor) -> Tensor:
        return cost(values, whole, helpers @ basis, 1.3, votes)

    derivative = torch.func.grad(wanted)(angles)
    torch.testing.assert_close(slopes[:2], derivative[:2])
    step = torch.eye(3, dtype=torch.float64) * 1e-5
    numerical = torch.stack([wanted(angles + each) - wanted(angles - each) for each in step]) / 2e-5
    torch.testing.assert_close(slopes[:2], numerical[:2], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("silent", [0.0, torch.zeros(())])
def test_votes_weigh_the_consensus_and_at_zero_the_gradient_still_counts(silent: float | Tensor) -> None:
    named, gradients, reach = parameters(), random(3), [EVERYTHING] * 3
    balancer = RGB(named.items())
    balance = balancer.backward(losses(named, gradients, reach), {"task1": silent, "task2": 0.25})
    assert balance.active.tolist() == [True, False, True]
    torch.testing.assert_close(balance.norms, gradients.norm(dim=1))
    units = gradients / gradients.norm(dim=1, keepdim=True)
    torch.testing.assert_close(consensus(balancer), 0.1 * (units[0] + 0.25 * units[2]) / 1.25)
    absent = parameters()
    others = losses(absent, gradients, reach)
    del others["task1"]
    RGB(absent.items()).backward(others, {"task2": 0.25})
    torch.testing.assert_close(flat_grad(named), flat_grad(absent) + gradients[1])


@pytest.mark.parametrize("vote", [1e-9, 0.0])
@pytest.mark.parametrize("tasks", [2, 3])
def test_a_vanishing_vote_turns_the_others_as_little_as_a_task_that_is_not_there(tasks: int, vote: float) -> None:
    reach = [EVERYTHING] * tasks
    hardly, absent = parameters(), parameters()
    balancers = RGB(hardly.items()), RGB(absent.items())
    last = f"task{tasks - 1}"
    for step in range(5):
        gradients = random(tasks, step)
        clear(hardly)
        clear(absent)
        balancers[0].backward(losses(hardly, gradients, reach), {last: vote})
        balancers[1].backward(losses(absent, gradients[:-1], reach[:-1]))
        # its own gradient, which nothing has turned, comes on top
        torch.testing.assert_close(flat_grad(hardly), flat_grad(absent) + gradients[-1], rtol=1e-6, atol=1e-6)


def test_batches_accumulate_to_the_gradient_of_their_sum() -> None:
    whole, halves = parameters(), parameters()
    first, second = random(2, 0), random(2, 1)
    RGB(whole.items()).backward(losses(whole, first + second, [EVERYTHING] * 2))
    balancer = RGB(halves.items())
    balancer.differentiate(losses(halves, first, [EVERYTHING] * 2))
    assert all(each.grad is None for each in halves.values())
    balancer.differentiate(losses(halves, second, [EVERYTHING] * 2))
    balancer.resolve()
    torch.testing.assert_close(flat_grad(halves), flat_grad(whole))


def test_adds_to_what_is_in_grad_in_the_memory_format_of_the_parameter() -> None:
    named, gradients = parameters(), random(2)
    balancer = RGB(named.items(), RGBConfig(angle_steps=0))
    for times in (1, 2):
        balancer.backward(losses(named, gradients, [EVERYTHING] * 2))
        torch.testing.assert_close(flat_grad(named), times * gradients.sum(0))
    assert all(each.grad is not None and each.grad.stride() == each.stride() for each in named.values())


def test_frozen_parameters_and_constant_losses_are_left_alone() -> None:
    named, gradients = parameters(), random(2)
    named["layer.1"].requires_grad_(False)
    tasks = losses(named, gradients, [EVERYTHING] * 2) | {"constant": torch.zeros((), dtype=torch.float64)}
    balance = RGB(named.items()).backward(tasks)
    assert balance.active.tolist() == [True, True, False]
    assert named["layer.1"].grad is None
    assert named["layer.0"].grad is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_named_shown_and_not_remembered(value: float) -> None:
    named, gradients, reach = parameters(), conflicting(3, 0), [EVERYTHING] * 3
    balancer = RGB(named.items())
    balancer.backward(losses(named, gradients, reach))
    before = balancer.state_dict()
    broken = gradients.clone()
    broken[1, 4] = value
    clear(named)
    balance = balancer.backward(losses(named, broken, reach))
    assert balance.norms.isfinite().tolist() == [True, False, True]
    assert balance.active.tolist() == [True, False, True]
    assert not flat_grad(named).isfinite().all()
    after = balancer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_goes_on_from_its_state_to_the_bit() -> None:
    named, reach = parameters(torch.float32), [EVERYTHING] * 3
    balancer = RGB(named.items())
    for step in range(3):
        balancer.backward(losses(named, conflicting(3, step).float(), reach))
    other = RGB(named.items())
    other.load_state_dict(balancer.state_dict())
    found = []
    for each in (balancer, other):
        clear(named)
        each.backward(losses(named, conflicting(3, 9).float(), reach))
        found.append(flat_grad(named))
    assert torch.equal(*found)
    assert {name for name in balancer.state_dict() if name.startswith("angle.")} == {f"angle.task{i}" for i in range(3)}
    assert balancer.state_dict()["consensus.layer.2"].shape == SHAPES[2]


def test_the_state_of_another_model_is_refused_and_changes_nothing() -> None:
    balancer = RGB(parameters().items())
    before = balancer.state_dict()
    state = {name: torch.ones_like(value) for name, value in before.items()}
    state["consensus.layer.4"] = torch.ones(3)
    with pytest.raises(AimeError, match=r"consensus\.layer\.4: found shape \[3\], expected shape \[7\]; resume"):
        balancer.load_state_dict(state)
    del state["consensus.layer.4"]
    with pytest.raises(AimeError, match=r"consensus\.layer\.4: missing"):
        balancer.load_state_dict(state)
    assert all(torch.equal(before[name], value) for name, value in balancer.state_dict().items())


def test_impossible_constants_are_refused() -> None:
    with pytest.raises(AimeError, match=r"rgb\.angle_steps is -1; expected"):
        RGBConfig(angle_steps=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_no_step_waits_for_the_device() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)).cuda()
    balancer, x = RGB(model.named_parameters()), torch.ones(3, 8, device="cuda")

    def step() -> None:
        out = model(x)
        balancer.backward({"first": out[:, 0].sum(), "second": out[:, 1].square().sum()}, {"second": 0.5})

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
