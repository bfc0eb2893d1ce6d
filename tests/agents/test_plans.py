from __future__ import annotations

import pytest
import torch
from tests.agents.worlds import BEST, simple_world, states
from torch import Tensor

from aime.agents.experience import Experience
from aime.agents.planner import PlannerConfig
from aime.agents.plans import PLANNED_AT_ONCE, PlansConfig, clone_plans, make_plans
from aime.control.policy import Critic, Policy, PolicyConfig
from aime.errors import AimeError
from aime.training.hardware import Hardware
from aime.world_model.model import AIME
from aime.world_model.outputs import Outcomes

HARDWARE = Hardware(torch.device("cpu"), torch.float32)
LENGTH = 10
QUICK = PlansConfig(
    frames=2 * PLANNED_AT_ONCE + 5,
    steps=300,
    batch=64,
    planner=PlannerConfig(candidates=128, elite=16, horizon=1, leash=0.0, max_scale=0.8),
)


def record(model: AIME, count: int) -> Experience:
    """Episodes of frames at random states, where nothing was done that is worth cloning."""
    sure = torch.ones(count, dtype=torch.bool)
    nothing = torch.zeros(count)
    outcomes = Outcomes(sure, sure, nothing, sure, ~sure, torch.empty(count, 0))
    return Experience(states(model, count), torch.full((count, 2), -1.0), outcomes, torch.arange(count) // LENGTH)


def networks(model: AIME) -> tuple[Policy, Critic]:
    sizes = model.config.belief, model.config.latent
    return Policy(PolicyConfig(hidden=32, bins=41), *sizes, 2), Critic(PolicyConfig(hidden=32, bins=41), *sizes)


@torch.no_grad()
def chosen(policy: Policy, model: AIME) -> Tensor:
    there = states(model, 200)
    return policy(there.belief, there.latent, there.step).mode


def test_a_policy_comes_to_do_what_plans_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    model = simple_world(monkeypatch)
    experience, (policy, critic) = record(model, 300), networks(model)
    told: list[tuple[int, int]] = []
    plans = make_plans(policy, critic, model, experience, QUICK, HARDWARE, lambda made, of: told.append((made, of)))
    assert plans is not None
    assert len(plans.rows) == len(plans.actions) == QUICK.frames
    assert len(set(plans.rows.tolist())) == QUICK.frames
    # the last frame of an episode leads nowhere
    assert not bool((plans.rows % LENGTH == LENGTH - 1).any())
    assert float((plans.actions - BEST).abs().mean()) < 0.1
    assert float((chosen(policy, model) - BEST).abs().mean()) > 0.3
    clone_plans(policy, experience, plans, QUICK, lambda step, figures: None)
    assert float((chosen(policy, model) - BEST).abs().mean()) < 0.15


def test_nothing_is_planned_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = simple_world(monkeypatch)
    experience, (policy, critic) = record(model, 20), networks(model)
    for config in (PlansConfig(frames=0), PlansConfig(steps=0)):
        assert make_plans(policy, critic, model, experience, config, HARDWARE, lambda made, of: None) is None


@pytest.mark.parametrize(
    ("name", "value"), [("frames", -1), ("batch", 0), ("learning_rate", float("nan")), ("noise", -1)]
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(AimeError, match=f"^{name} is {value}; expected"):
        PlansConfig(**{name: value})  # type: ignore[arg-type]
