"""Every recurrence passes the same tests, by itself and inside the latent dynamics of a model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.models import small_config
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from aime.dynamics.choices import likeliest
from aime.dynamics.config import DynamicsConfig
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.dynamics.recurrences import RECURRENCES
from aime.dynamics.recurrences.interface import Memory, Recurrence
from aime.dynamics.states import Carry, Track
from aime.primitives.tensor_files import save_weights
from aime.world_model.model import AIME

B, T, INPUTS, BELIEF = 3, 9, 5, 8


def example() -> type[Recurrence]:
    """The recurrence that CONTRIBUTING.md adds."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class GRU.*?)```", text, re.DOTALL)
    found: dict[str, type[Recurrence]] = {}
    exec(code, {"torch": torch, "nn": nn, "Recurrence": Recurrence, "__name__": __name__}, found)
    return found["GRU"]


@pytest.fixture(params=[*RECURRENCES, "gru"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in RECURRENCES:
        monkeypatch.setitem(RECURRENCES, request.param, example())
    return str(request.param)


@pytest.fixture
def recurrence(kind: str) -> Recurrence:
    """In float64, every parameter away from its start."""
    torch.manual_seed(0)
    recurrence = RECURRENCES[kind](INPUTS, BELIEF).double()
    with torch.no_grad():
        for weight in recurrence.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return recurrence


@pytest.fixture
def dynamics(kind: str) -> LatentDynamics:
    torch.manual_seed(0)
    model = AIME(replace(small_config(), dynamics=DynamicsConfig(kind))).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.dynamics


def inputs(length: int = T) -> Tensor:
    return torch.randn(B, length, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def clips(dynamics: LatentDynamics, length: int = T) -> tuple[Tensor, Tensor, Tensor]:
    widths, generator = dynamics.widths, torch.Generator().manual_seed(2)
    sizes = widths.latent, widths.context, widths.action
    latents, contexts, actions = (
        torch.randn(B, length, size, dtype=torch.float64, generator=generator) for size in sizes
    )
    return latents, contexts, actions.clamp(-1, 1)


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_the_parallel_form_gives_the_numbers_of_single_steps(recurrence: Recurrence, length: int) -> None:
    read = inputs(length)
    belief, memory = recurrence.initial(B)
    beliefs = recurrence(read, belief, memory)
    memories = recurrence.memories(read, beliefs, memory)
    many = recurrence.many_steps()
    for t in range(length):
        torch.testing.assert_close(beliefs[:, t], belief, rtol=1e-10, atol=1e-10)
        if isinstance(memory, Tensor):
            torch.testing.assert_close(memories[:, t], memory, rtol=1e-10, atol=1e-10)
        after = recurrence.step(read[:, t], belief, memory)
        torch.testing.assert_close(many(read[:, t], belief, memory), after, rtol=1e-10, atol=1e-10)
        belief, memory = after


def test_it_is_causal(recurrence: Recurrence) -> None:
    read = inputs()
    changed = read.clone()
    changed[:, 4] += 1
    before, after = (recurrence(each, *recurrence.initial(B)) for each in (read, changed))
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).any(-1).all()


def test_the_gradient_is_that_of_single_steps_and_reaches_every_parameter(recurrence: Recurrence) -> None:
    read, weights = inputs(), list(recurrence.parameters())
    belief, memory = recurrence.initial(B)
    beliefs = recurrence(read, belief, memory)
    parallel = torch.autograd.grad(beliefs.square().sum(), weights)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(T):
        total = total + belief.square().sum()
        belief, memory = recurrence.step(read[:, t], belief, memory)
    for mine, theirs in zip(parallel, torch.autograd.grad(total, weights), strict=True):
        assert mine.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_memories_have_the_gradient_of_single_steps(recurrence: Recurrence) -> None:
    read, weights = inputs(), list(recurrence.parameters())
    belief, memory = recurrence.initial(B)
    if not isinstance(memory, Tensor):
        assert memory == ()
        return
    memories = recurrence.memories(read, recurrence(read, belief, memory), memory)
    scanned = torch.autograd.grad(memories.square().sum(), weights)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(T):
        total = total + memory.square().sum()
        belief, memory = recurrence.step(read[:, t], belief, memory)
    for mine, theirs in zip(scanned, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_it_comes_back_from_disk(recurrence: Recurrence, kind: str, tmp_path: Path) -> None:
    save_weights(recurrence.state_dict(), tmp_path / "weights.safetensors")
    other = RECURRENCES[kind](INPUTS, BELIEF).double()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    expected = recurrence(inputs(), *recurrence.initial(B))
    assert torch.equal(other(inputs(), *other.initial(B)), expected)


class Step(nn.Module):
    """One step of a recurrence, as a module: what an exported policy would run."""

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence

    def forward(self, read: Tensor, belief: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return self.recurrence.step(read, belief, memory)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@torch.no_grad()
def test_it_is_exported_to_a_file_and_gives_equal_numbers(recurrence: Recurrence, tmp_path: Path) -> None:
    belief, memory = recurrence.initial(B)
    parts: list[tuple[nn.Module, Tensor]] = [(recurrence, inputs()), (Step(recurrence), inputs()[:, 0])]
    for part, read in parts:
        # traced with other numbers, so that none of these becomes a constant
        program = torch.export.export(part, (torch.zeros_like(read), belief + 1, tree_map(torch.ones_like, memory)))
        torch.export.save(program, tmp_path / "part.pt2")
        exported = torch.export.load(tmp_path / "part.pt2").module()
        found, expected = exported(read, belief, memory), part(read, belief, memory)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def followed(dynamics: LatentDynamics, latents: Tensor, contexts: Tensor, actions: Tensor) -> list[Carry]:
    """The state after each step, one step at a time."""
    fresh, states = torch.ones(B, dtype=torch.bool), []
    carry = dynamics.start(B)
    for t in range(latents.shape[1]):
        entering = dynamics.enter(carry, actions[:, t - 1], fresh)
        now = slice(t, t + 1)
        track = dynamics.scan(latents[:, now], contexts[:, now], actions[:, now], entering, fresh)
        carry, fresh = dynamics.states_at(track, 0), torch.zeros_like(fresh)
        states.append(carry)
    return states


def same(found: Carry, expected: Carry) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_states_of_a_clip_are_those_of_single_steps(dynamics: LatentDynamics) -> None:
    given = clips(dynamics)
    track = dynamics.scan(*given)
    stepped = followed(dynamics, *given)
    several = dynamics.states_at(track, torch.tensor([0, 4]))
    for time, state in enumerate(stepped):
        same(dynamics.states_at(track, time), state)
    same(several.map(lambda each: each[:, 0]), stepped[0])
    same(several.map(lambda each: each[:, 1]), stepped[4])


@torch.no_grad()
def test_a_clip_goes_on_in_pieces(dynamics: LatentDynamics) -> None:
    latents, contexts, actions = clips(dynamics)
    whole = dynamics.scan(latents, contexts, actions)
    first = dynamics.scan(latents[:, :4], contexts[:, :4], actions[:, :4])
    fresh = torch.tensor([False, False, True])
    entering = dynamics.enter(dynamics.states_at(first, -1), actions[:, 3], fresh)
    rest = dynamics.scan(latents[:, 4:], contexts[:, 4:], actions[:, 4:], entering, fresh)
    again = dynamics.scan(latents[:, 4:], contexts[:, 4:], actions[:, 4:])

    def read(track: Track) -> tuple[Tensor, ...]:
        return *track.read, track.prior.mixture.means, track.expected_contexts

    for mine, straight, repeated in zip(read(rest), read(whole), read(again), strict=True):
        torch.testing.assert_close(mine[:2], straight[:2, 4:], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine[2], repeated[2], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_rollout_is_its_steps(dynamics: LatentDynamics) -> None:
    carry = dynamics.states_at(dynamics.scan(*clips(dynamics)), -1)
    actions = clips(dynamics, 4)[2]
    dream = dynamics.rollout(carry, actions, likeliest)
    for step in range(4):
        carry, _, choice = dynamics.step(carry, actions[:, step], likeliest)
        torch.testing.assert_close(dream.latents[:, step], carry.latent, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dream.steps[:, step], carry.step, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dream.beliefs[:, step], carry.belief, rtol=1e-10, atol=1e-10)
        assert torch.equal(dream.components[:, step], choice.component)


def test_steps_repeated_at_once_have_the_numbers_and_gradients_of_single_steps(dynamics: LatentDynamics) -> None:
    """The reference cuts each step's latent, step and context from the graph: its gradient runs along the beliefs."""
    weights, actions = list(dynamics.parameters()), clips(dynamics, 4)[2]
    carry = dynamics.states_at(dynamics.scan(*clips(dynamics)), -1)
    path, beliefs, means = [], [], []
    for number in range(4):
        carry = carry._replace(**{name: getattr(carry, name).detach() for name in ("latent", "step", "context")})
        path.append(carry)
        carry, prior, _ = dynamics.step(carry, actions[:, number], likeliest)
        beliefs.append(carry.belief)
        means.append(prior.mixture.means)
    expected = torch.stack(beliefs, dim=1), torch.stack(means, dim=1)
    found, priors = dynamics.repeat([path[0], *(each.map(Tensor.detach) for each in path[1:])], actions)
    for mine, single in zip((found, priors.mixture.means), expected, strict=True):
        torch.testing.assert_close(mine, single, rtol=1e-9, atol=1e-9)
        gradients = (
            torch.autograd.grad(each.square().sum(), weights, retain_graph=True, allow_unused=True)
            for each in (mine, single)
        )
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_steps_repeated_at_once_are_not_rounded_where_they_have_a_gradient(dynamics: LatentDynamics) -> None:
    dynamics.float()
    latents, contexts, actions = (each.float() for each in clips(dynamics))
    track = dynamics.scan(latents, contexts, actions)
    path = [dynamics.states_at(track, time) for time in range(3)]
    expected, exact = dynamics.repeat(path, actions[:, :3])
    with torch.autocast("cpu", torch.bfloat16):
        found, prior = dynamics.repeat(path, actions[:, :3])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(prior.mixture.means, exact.mixture.means, rtol=0, atol=0)
