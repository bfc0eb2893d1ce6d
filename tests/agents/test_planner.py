from __future__ import annotations

import pytest
import torch
from tests.agents.worlds import BEST, Control, Exactly, simple_world, states
from tests.models import small_config
from torch import Tensor

from aime.agents.agent import PolicyDecider
from aime.agents.planner import Limits, Planner, PlannerConfig
from aime.dynamics.choices import likeliest
from aime.errors import AimeError
from aime.world_model.model import AIME

QUICK = {"candidates": 128, "elite": 16, "horizon": 4}


@pytest.mark.parametrize("kind", ["mppi", "cem"])
def test_it_finds_what_is_worth_most(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    dynamics = simple_world(monkeypatch)
    planner = Planner(dynamics, PlannerConfig(kind=kind, iterations=5, **QUICK))  # type: ignore[arg-type]
    planner.reset(3)
    action = planner.decide(states(dynamics, 3))
    assert action.shape == (3, 2)
    assert (action - BEST).abs().max() < 0.2


def test_a_plan_is_carried_on(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)
    planner = Planner(dynamics, PlannerConfig(iterations=1, **QUICK))  # type: ignore[arg-type]
    planner.reset(1)
    there = states(dynamics, 1)
    distances = [float((planner.decide(there) - BEST).abs().mean()) for _ in range(6)]
    assert min(distances[3:]) < distances[0]
    planner.reset(1)
    assert not planner._plan.any()


def test_what_an_episode_does_depends_on_its_own_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)
    planner = Planner(dynamics, PlannerConfig(iterations=2, **QUICK), proposers=(Control(0.1).action_schema,))  # type: ignore[arg-type]
    policy = PolicyDecider(Control(0.1).action_schema, sample=True, noise=0.2)
    for decider in (planner, policy):
        decider.reset(3, [5, 6, 7])
        together = [decider.decide(states(dynamics, 3)) for _ in range(2)]
        assert (together[0][0] - together[0][1]).abs().max() > 1e-3
        decider.reset(2, [7, 5])
        apart = [decider.decide(states(dynamics, 2)) for _ in range(2)]
        for all_three, two in zip(together, apart, strict=True):
            torch.testing.assert_close(two, all_three[[2, 0]], atol=1e-5, rtol=1e-5)


def test_the_critic_counts_beyond_the_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)

    def critic(belief: Tensor, latent: Tensor, step: Tensor) -> Exactly:
        return Exactly(-100 * (latent[..., :2] + BEST).square().sum(-1))

    planner = Planner(dynamics, PlannerConfig(horizon=1, iterations=5, candidates=128, elite=16), critic)  # type: ignore[arg-type]
    assert (planner.decide(states(dynamics, 2)) + BEST).abs().max() < 0.2


def test_a_leash_holds_it_to_the_behaviour(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch, habit=-0.5)
    free = Planner(dynamics, PlannerConfig(iterations=5, **QUICK))  # type: ignore[arg-type]
    held = Planner(dynamics, PlannerConfig(iterations=5, leash=10.0, **QUICK))  # type: ignore[arg-type]
    there = states(dynamics, 1)
    assert float(free.decide(there).mean()) > 0.3
    assert float(held.decide(there).mean()) < -0.3


def test_the_leash_is_held_by_the_first_proposer(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch, habit=0.9)
    config = PlannerConfig(iterations=5, leash=10.0, **QUICK)  # type: ignore[arg-type]
    planner = Planner(dynamics, config, proposers=(Control(-0.5).action_schema, Control(0.9).action_schema))
    assert float(planner.decide(states(dynamics, 1)).mean()) < -0.3


def test_with_a_critic_it_stays_near_by_default() -> None:
    assert PlannerConfig().limits(critic=True) == Limits(horizon=3, proposed=0.5, max_scale=0.4, leash=1.0)
    assert PlannerConfig().limits(critic=False) == Limits(horizon=12, proposed=0.25, max_scale=0.8, leash=0.0)
    chosen = PlannerConfig(horizon=7, proposed=0.0, max_scale=0.2, leash=0.0)
    assert chosen.limits(critic=True) == chosen.limits(critic=False) == Limits(7, 0.0, 0.2, 0.0)


def test_a_search_does_not_begin_narrower_than_it_may_become() -> None:
    wide = PlannerConfig(min_scale=0.6)
    assert wide.limits(critic=False).max_scale == 0.8
    with pytest.raises(AimeError, match=r"^min_scale is 0.6; expected max_scale, 0.4, or less$"):
        wide.limits(critic=True)
    with pytest.raises(AimeError, match=r"^min_scale is 0.3; expected max_scale, 0.2, or less$"):
        PlannerConfig(min_scale=0.3, max_scale=0.2)


def test_proposals_are_among_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)
    behaviour = Control(BEST).action_schema
    alone = PlannerConfig(iterations=1, proposed=0.5, temperature=0.01, max_scale=0.1, **QUICK)  # type: ignore[arg-type]
    planner = Planner(dynamics, alone, proposers=(behaviour,))
    assert (planner.decide(states(dynamics, 1)) - BEST).abs().max() < 0.3, (
        "what is drawn around 0 does not reach so far"
    )


def test_candidates_have_the_value_of_a_dream_of_them() -> None:
    torch.manual_seed(0)
    dynamics = AIME(small_config()).dynamics.eval().requires_grad_(False)
    assert dynamics.control is not None
    torch.nn.init.normal_(dynamics.control.reward.logits.weight)
    dynamics.control.rewards_seen.fill_(1)
    planner = Planner(dynamics, PlannerConfig(discount=0.9, **QUICK))  # type: ignore[arg-type]
    there, candidates = states(dynamics, 2), torch.rand(2, 3, 4, 2) * 2 - 1
    found = planner.evaluate(there, candidates)
    for row in range(2):
        for which in range(3):
            start = there.pick(slice(row, row + 1))
            dream = dynamics.rollout(start, candidates[row, which][None], likeliest)
            read = dream.read
            rewards = dynamics.control.reward(*read).mean[0]
            goes_on = dynamics.control.continuation(*read).sigmoid()[0]
            reached = torch.cat([torch.ones(1), (0.9 * goes_on).cumprod(0)[:-1]])
            torch.testing.assert_close(found[row, which], (reached * rewards).sum(), rtol=1e-4, atol=1e-4)


def test_proposals_have_the_value_of_candidates() -> None:
    torch.manual_seed(0)
    dynamics = AIME(small_config()).dynamics.eval().requires_grad_(False)
    assert dynamics.control is not None
    torch.nn.init.normal_(dynamics.control.reward.logits.weight)
    dynamics.control.rewards_seen.fill_(1)
    planner = Planner(dynamics, PlannerConfig(leash=0.5, **QUICK), proposers=(dynamics.control.action_schema,))  # type: ignore[arg-type]
    there = states(dynamics, 2)
    planner.reset(2)
    proposed, values = planner._propose(there)
    assert proposed.shape == (2, 32, 4, 2)
    torch.testing.assert_close(values, planner.evaluate(there, proposed), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("candidates", 0), ("elite", 600), ("proposed", 1.0), ("leash", -1.0)])
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(AimeError, match=f"{name} is {value}; expected"):
        PlannerConfig(**{name: value})  # type: ignore[arg-type]
