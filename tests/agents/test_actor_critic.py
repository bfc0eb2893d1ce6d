from __future__ import annotations

import math

import pytest
import torch
from einops import rearrange
from tests.agents.worlds import BEST, simple_world, states
from tests.models import small_config

from aime.agents.actor_critic import ActorCritic, ActorCriticConfig, ImaginedTrajectory
from aime.agents.experience import Experience, no_progress
from aime.agents.policy import PolicyConfig
from aime.agents.returns import largest_return
from aime.agents.warm_start import WarmStartConfig
from aime.data.clips import Targets
from aime.dynamics.choices import likeliest
from aime.dynamics.latent_dynamics import LatentDynamics
from aime.errors import AimeError
from aime.primitives.distributions import CensoredGaussian
from aime.primitives.hardware import Hardware
from aime.world_model.model import AIME

CPU = Hardware(torch.device("cpu"), torch.float32)
SMALL = PolicyConfig(hidden=32, bins=41)


def rewarded_model() -> LatentDynamics:
    dynamics = AIME(small_config()).dynamics.eval().requires_grad_(False)
    assert dynamics.control is not None
    dynamics.control.rewards_seen.fill_(1)
    return dynamics


def learner(dynamics: LatentDynamics, **changes: object) -> ActorCritic:
    settings = {"starts": 256, "horizon": 2, "actor_rate": 5e-3, "entropy": 0.0, "divergence": 0.0, **changes}
    return ActorCritic(ActorCriticConfig(policy=SMALL, **settings), dynamics, CPU)  # type: ignore[arg-type]


def test_the_policy_comes_to_do_what_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)
    agent = learner(dynamics)
    first = agent.learn(states(dynamics, 256))
    for _ in range(120):
        last = agent.learn(states(dynamics, 256))
    there = states(dynamics, 200)
    chosen = agent.policy(there.belief, there.latent, there.step).mode
    assert (chosen - BEST).abs().mean() < 0.15
    assert last["imagined_reward"] > first["imagined_reward"] + 0.2
    values = agent.critic(there.belief, there.latent, there.step).mean
    most = 1 / (1 - agent.config.discount)
    assert values.mean() > 1.2 and values.max() < 1.1 * most, "the critic expects more than one step's reward"


def test_its_steps_grow_smaller_until_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)
    agent, moved = learner(dynamics, steps=20), []
    for _ in range(21):
        before = torch.cat([weight.detach().flatten().clone() for weight in agent.policy.parameters()])
        agent.learn(states(dynamics, 64))
        after = torch.cat([weight.detach().flatten() for weight in agent.policy.parameters()])
        moved.append(float((after - before).norm()))
    assert 0 < moved[19] < 0.1 * moved[0]
    assert moved[20] == 0


def test_trajectories_follow_the_likeliest_latents() -> None:
    torch.manual_seed(0)
    dynamics = rewarded_model()
    there = states(dynamics, 4)
    path = learner(dynamics, horizon=3).imagine(there)
    actions = rearrange(path.actions, "h n a -> n h a")
    mode = dynamics.rollout(there, actions, likeliest)
    torch.testing.assert_close(rearrange(path.latents[1:], "h n d -> n h d"), mode.latents, atol=1e-5, rtol=1e-5)


def test_a_divergence_holds_it_to_the_behaviour(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch, habit=-0.5)
    agent = learner(dynamics, divergence=30.0, samples=16)
    for _ in range(120):
        last = agent.learn(states(dynamics, 64))
    there = states(dynamics, 200)
    assert (agent.policy(there.belief, there.latent, there.step).mode + 0.5).abs().mean() < 0.15
    assert last["divergence"] < 0.5


def test_after_a_warm_start_it_is_kept_near_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch, habit=0.9)
    agent = learner(
        dynamics, divergence=30.0, samples=16, warm_start=WarmStartConfig(critic_steps=60, policy_steps=200)
    )
    episode = torch.arange(400) // 20
    sure = torch.ones(400, dtype=torch.bool)
    targets = Targets(sure, sure, torch.rand(400), sure, ~sure, torch.empty(400, 0))
    experience = Experience(states(dynamics, 400), torch.full((400, 2), -0.4), targets, episode)
    agent.warm_start(experience, no_progress)
    expected = largest_return(experience, agent.config.discount)
    assert float(agent.critic.largest) == float(agent.slow_critic.largest) == pytest.approx(expected)
    for _ in range(60):
        last = agent.learn(states(dynamics, 64))
    there = states(dynamics, 200)
    assert (agent.policy(there.belief, there.latent, there.step).mode + 0.4).abs().mean() < 0.15
    assert last["divergence"] < 0.5


def test_the_gradient_of_the_divergence_is_that_of_the_integral(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch, habit=0.1)
    agent = learner(dynamics, divergence=1.0, samples=60_000)
    location = torch.tensor([[[0.4, 0.8]]], requires_grad=True)
    scale = torch.tensor([[[0.3, 0.5]]], requires_grad=True)
    policy = CensoredGaussian(location, scale)
    path = ImaginedTrajectory(torch.zeros(2, 1, 16), torch.zeros(2, 1, 6), torch.zeros(2, 1, 6), torch.zeros(1, 1, 2))
    torch.manual_seed(0)
    held, divergence = agent._divergence(policy, path)
    found = torch.autograd.grad(held.sum(), (location, scale))
    integral = divergence_by_quadrature(location, scale, 0.1, 0.2)
    expected = torch.autograd.grad(integral, (location, scale))
    assert float(divergence) == pytest.approx(float(integral.detach()), rel=0.02)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0.06, atol=0.03)


def divergence_by_quadrature(
    location: torch.Tensor, scale: torch.Tensor, other_location: float, other_scale: float
) -> torch.Tensor:
    """KL of censored Gaussians, summed over independent actions: the density's integral and two point masses."""
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]
    mine = torch.distributions.Normal(location[0, 0].double(), scale[0, 0].double())
    other = torch.distributions.Normal(torch.tensor(other_location).double(), torch.tensor(other_scale).double())
    inside = torch.trapezoid(mine.log_prob(grid).exp() * (mine.log_prob(grid) - other.log_prob(grid)), grid, dim=0)
    edge = torch.tensor(1.0, dtype=torch.float64)
    low, other_low = mine.cdf(-edge), other.cdf(-edge)
    high, other_high = 1 - mine.cdf(edge), 1 - other.cdf(edge)
    return (inside + low * (low / other_low).log() + high * (high / other_high).log()).sum()


def test_the_same_seed_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = simple_world(monkeypatch)

    def learned() -> list[float]:
        torch.manual_seed(3)
        agent = learner(dynamics)
        return [float(agent.learn(states(dynamics, 8))["actor"]) for _ in range(3)]

    assert learned() == learned()
    assert all(math.isfinite(each) for each in learned())


def test_the_world_model_is_not_changed() -> None:

    torch.manual_seed(0)
    dynamics = rewarded_model()
    before = {name: value.clone() for name, value in dynamics.state_dict().items()}
    agent = learner(dynamics, divergence=0.1, entropy=1e-3)
    figures = agent.learn(states(dynamics, 16))
    assert all(torch.isfinite(each) for each in figures.values())
    assert all(torch.equal(value, before[name]) for name, value in dynamics.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"), [("steps", -1), ("horizon", -1), ("discount", 1.5), ("entropy", -1.0), ("samples", 1)]
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(AimeError, match=f"{name} is {value}; expected"):
        ActorCriticConfig(**{name: value})  # type: ignore[arg-type]
