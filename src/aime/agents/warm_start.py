"""Before any dream: what the record itself shows of what is worth how much, and of what paid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from aime.agents.descent import descend
from aime.agents.experience import Experience
from aime.agents.policy import Critic, Policy
from aime.agents.recorded import followed, recorded_returns
from aime.errors import AimeError, expect_at_least_zero, expect_positive

Told = Callable[[int, Mapping[str, float]], None]
"""Called with the step and its figures, now and then."""

VALUED_AT_ONCE = 8192
"""Frames, which bounds the memory."""

TOLD_EVERY = 100


@dataclass(frozen=True)
class WarmStartConfig:
    """How policy and critic begin on recorded returns.

    Raises:
        AimeError: if a number is out of its range.
    """

    critic_steps: int = 1000
    """That the critic follows the record's returns for; at 0 it begins knowing nothing, and so does the policy."""
    expectile: float = 0.9
    """Of the returns, that the critic learns: at 0.5 their mean, towards 1 what the best of those who recorded reached
    from there."""
    policy_steps: int = 4000
    """That the policy clones what paid for; at 0 it begins at random."""
    batch: int = 512
    """Frames a step."""
    learning_rate: float = 1e-3
    """Of AdamW; the policy's falls along a half cosine to 0."""
    weight_decay: float = 1e-2
    """Of the policy."""
    trace: float = 0.9
    """λ of the recorded returns: the lower, the sooner the critic stands for the rest; at 1 not before the episode's
    last frame."""
    temperature: float = 0.3
    """In standard deviations of the advantages: the lower, the fewer actions are cloned."""
    most: float = 60.0
    """Largest weight of an action, where the mean advantage has 1."""
    noise: float = 0.05
    """As in `ImitationConfig.noise`."""

    def __post_init__(self) -> None:
        expect_positive(self, "batch", "learning_rate", "temperature", "most")
        expect_at_least_zero(self, "critic_steps", "policy_steps", "weight_decay", "noise")
        if not 0 < self.trace <= 1:
            raise AimeError(f"trace is {self.trace}; expected more than 0 and at most 1")
        if not 0 < self.expectile < 1:
            raise AimeError(f"expectile is {self.expectile}; expected more than 0 and less than 1")


def follow_the_record(
    critic: Critic, experience: Experience, config: WarmStartConfig, discount: float, told: Told
) -> None:
    """Fit a critic to an expectile of the returns that came, by TD(λ): V of the better ones of those who recorded.

    A return above the critic's own mean counts τ, one below it 1 - τ. The mean of the two-hot distribution that is
    likeliest under such weights is the τ-expectile of the returns.

    Args:
        critic: changed in place.
        experience: with rewards.
        config: how.
        discount: γ in [0, 1].
        told: hears of the critic's nats, weighted.

    Reference: Sutton & Barto 2018, chapter 12; the expectile: Kostrikov et al. 2022, "Offline reinforcement learning
    with implicit Q-learning", arXiv 2110.06169, equation 5; the two-hot loss: Hafner et al. 2023, arXiv 2301.04104.
    """
    rows = followed(experience).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(critic.parameters(), config.learning_rate, weight_decay=0.0)
    for step in range(config.critic_steps):
        if step % TOLD_EVERY == 0:
            returns = recorded_returns(experience, values(critic, experience), discount, config.trace)
        drawn = rows[torch.randint(len(rows), (config.batch,), device=rows.device)]
        states = experience.states.pick(drawn)
        believed, came = critic(*states.read), returns[drawn]
        weights = torch.where(came > believed.mean.detach(), config.expectile, 1 - config.expectile)
        loss = -(2 * weights * believed.log_prob(came)).mean()
        descend(optimizer, loss)
        if (step + 1) % TOLD_EVERY == 0:
            told(step + 1, {"recorded_critic": float(loss.detach()), "recorded_return": float(returns[rows].mean())})


def clone_what_paid(
    policy: Policy, critic: Critic, experience: Experience, config: WarmStartConfig, discount: float, told: Told
) -> None:
    """Clone recorded actions, each by exp(advantage / temperature): π ∝ ρ(a) exp(A(a)/τ) fitted by likelihood.

    Args:
        policy: changed in place.
        critic: V of the better ones of those who recorded, of which the advantages are told.
        experience: with rewards; without actions the policy stays as it is.
        config: how.
        discount: γ in [0, 1].
        told: hears of the weighted nats.

    Reference: Peng et al. 2019, "Advantage-weighted regression", arXiv 1910.00177, equation 10.
    """
    rows = (followed(experience) & experience.targets.action_valid).nonzero()[:, 0]
    if not len(rows):
        return
    weights = advantage_weights(critic, experience, config, discount)
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.policy_steps))
    spread = config.noise * experience.states.latent.std(dim=0)
    for step in range(config.policy_steps):
        drawn = rows[torch.randint(len(rows), (config.batch,), device=rows.device)]
        states = experience.states.pick(drawn)
        latent = states.latent + torch.randn_like(states.latent) * spread
        log_prob = policy(states.belief, latent, states.step).log_prob(experience.actions[drawn])
        loss = -(weights[drawn] * log_prob).mean() / weights[rows].mean()
        descend(optimizer, loss)
        schedule.step()
        if (step + 1) % TOLD_EVERY == 0:
            told(step + 1, {"weighted_action": float(loss.detach())})


def advantage_weights(
    critic: Critic, experience: Experience, config: WarmStartConfig, discount: float
) -> Float[Tensor, " N"]:
    """exp((A - mean A) / (τ std A)) of each frame that is followed, at most `config.most`; 0 of the others."""
    value, goes_on = values(critic, experience), followed(experience)
    advantage = recorded_returns(experience, value, discount, config.trace) - value
    known = advantage[goes_on]
    relative = (advantage - known.mean()) / (config.temperature * known.std().clamp(min=1e-6))
    return torch.where(goes_on, relative.clamp(max=math.log(config.most)).exp(), 0.0)


@torch.no_grad()
def values(critic: Critic, experience: Experience) -> Float[Tensor, " N"]:
    """V of each frame, in the environment's units."""
    parts = torch.arange(experience.frames, device=experience.episode.device).split(VALUED_AT_ONCE)
    some = (experience.states.pick(part) for part in parts)
    return torch.cat([critic(*states.read).mean for states in some])
