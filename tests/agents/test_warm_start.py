from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aime.agents.experience import Experience
from aime.agents.policy import Critic, Policy, PolicyConfig
from aime.agents.warm_start import WarmStartConfig, advantage_weights, clone_better_actions, fit_critic, values
from aime.data.clips import Targets
from aime.dynamics.states import Carry, Widths
from aime.errors import AimeError

SMALL = PolicyConfig(hidden=32, bins=41)
WIDTHS = Widths(latent=4, context=2, action=1, belief=8)
BEST = 0.5
EPISODES, LENGTH = 60, 12


def record(known_actions: bool = True) -> Experience:
    """Episodes of random actions: one of 0.5 is worth 1 on arrival, and 4 in an even episode, as its latent tells."""
    torch.manual_seed(0)
    count = EPISODES * LENGTH
    episode = torch.arange(count) // LENGTH
    actions = torch.rand(count, 1) * 2 - 1
    paid = 1 - (actions[:, 0] - BEST).abs() + 3.0 * (episode % 2 == 0)
    rewards = torch.cat([torch.zeros(1), paid[:-1]])
    latent = torch.randn(count, 4) * 0.1
    latent[:, 0] = (episode % 2 == 0).float()
    states = Carry(torch.zeros(count, 8), torch.zeros(count, 8), latent, torch.zeros(count, 4), torch.zeros(count, 2))
    sure = torch.ones(count, dtype=torch.bool)
    targets = Targets(sure, sure & known_actions, rewards, sure, ~sure, torch.empty(count, 0))
    return Experience(states, actions, targets, episode)


def silent(stage: str, step: int, total: int, figures: object) -> None:
    assert 0 < step <= total


def networks() -> tuple[Policy, Critic]:
    torch.manual_seed(1)
    return Policy(SMALL, WIDTHS), Critic(SMALL, WIDTHS)


def test_the_critic_learns_recorded_returns_and_the_policy_the_better_actions() -> None:
    experience, (policy, critic) = record(), networks()
    config = WarmStartConfig(critic_steps=300, policy_steps=400, batch=128, temperature=0.3, trace=0.9, expectile=0.5)
    fit_critic(critic, experience, config, 0.5, silent)
    value = values(critic, experience)
    # by the mean reward of an episode's kind over 1 - γ, away from its end
    away = torch.arange(experience.frames) % LENGTH < LENGTH - 6
    even = experience.episode % 2 == 0
    mean = experience.targets.rewards[1:][even[1:] & (torch.arange(1, experience.frames) % LENGTH > 0)].mean()
    assert float(value[away & even].mean()) == pytest.approx(2 * float(mean), rel=0.1)
    assert value[away & even].mean() > value[away & ~even].mean() + 3
    clone_better_actions(policy, critic, experience, config, 0.5, silent)
    states = experience.states
    chosen = policy(states.belief, states.latent, states.step).mode
    assert (chosen - BEST).abs().mean() < 0.15


@pytest.mark.parametrize("expectile", [0.3, 0.9])
def test_the_critic_learns_the_expectile_of_what_came(expectile: float) -> None:
    experience, (_, critic) = record(), networks()
    config = WarmStartConfig(critic_steps=600, batch=512, expectile=expectile, learning_rate=3e-3)
    fit_critic(critic, experience, config, 0.0, silent)
    last = torch.arange(experience.frames) % LENGTH == LENGTH - 1
    reward, value = experience.targets.rewards.roll(-1), values(critic, experience)
    for even in (False, True):  # what the latent tells apart
        kind = (experience.episode % 2 == 0) == even
        expected = expectile_of(reward[kind & ~last], expectile)
        assert float(value[kind & ~last].mean()) == pytest.approx(expected, abs=0.1)


def expectile_of(sample: Tensor, expectile: float) -> float:
    """The m at which expectile · E[(x-m)+] = (1 - expectile) · E[(m-x)+], by bisection."""
    low, high = float(sample.min()), float(sample.max())
    for _ in range(50):
        middle = (low + high) / 2
        above, below = (sample - middle).clamp(min=0).mean(), (middle - sample).clamp(min=0).mean()
        low, high = (middle, high) if expectile * above > (1 - expectile) * below else (low, middle)
    return low


def test_weights_are_those_of_the_advantages() -> None:
    experience, (_, critic) = record(), networks()
    config = WarmStartConfig(temperature=2.0, most=3.0)
    found = advantage_weights(critic, experience, config, 0.0)
    # nothing is learned yet, so that a return without a future is the next reward
    reward = experience.targets.rewards.roll(-1)
    last = torch.arange(experience.frames) % LENGTH == LENGTH - 1
    known = reward[~last]
    expected = ((reward - known.mean()) / (2.0 * known.std())).exp().clamp(max=3.0)
    torch.testing.assert_close(found[~last], expected[~last])
    assert (found[last] == 0).all()


def test_without_actions_the_policy_stays() -> None:
    experience, (policy, critic) = record(known_actions=False), networks()
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    clone_better_actions(policy, critic, experience, WarmStartConfig(), 0.9, silent)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("temperature", 0.0), ("critic_steps", -1), ("trace", 2.0), ("expectile", 1.0)],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(AimeError, match=f"{name} is {value}; expected"):
        WarmStartConfig(**{name: value})  # type: ignore[arg-type]
