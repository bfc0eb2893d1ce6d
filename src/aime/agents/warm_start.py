"""Offline learning before any dream: a critic of recorded returns, and a clone of the actions that it finds better."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from aime.agents.experience import Experience, OnProgress
from aime.agents.imitation import CloningConfig, clone, descend
from aime.agents.policy import Critic, Policy
from aime.agents.returns import followed, recorded_returns
from aime.errors import AimeError, expect_at_least_zero, expect_positive

STAGE = "learning from recorded data"
UPDATE_EVERY = 100
"""Steps from one computation of the recorded returns, and from one report of progress, to the next."""
BATCH_VALUES = 8192
"""Frames that a critic values in one pass, which bounds the memory."""


@dataclass(frozen=True)
class WarmStartConfig(CloningConfig):
    """How policy and critic start from recorded data."""

    noise: float = 0.05
    """Noise on the latents in training, in standard deviations of the data."""
    critic_steps: int = 1000
    """Optimizer steps of the critic on recorded returns; 0 disables the warm start."""
    expectile: float = 0.9
    """Expectile of the returns that the critic estimates: 0.5 is the mean, 1 the largest return."""
    policy_steps: int = 4000
    """Optimizer steps of cloning the better actions; with 0 the policy starts untrained."""
    trace: float = 0.9
    """λ of the recorded λ-returns; lower values rely more on the critic."""
    temperature: float = 0.3
    """Temperature in standard deviations of the advantages; lower values clone fewer actions."""
    most: float = 60.0
    """Maximum weight of an action; an action of mean advantage has the weight 1."""

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        super().__post_init__()
        expect_positive(self, "temperature", "most")
        expect_at_least_zero(self, "critic_steps", "policy_steps")
        if not 0 < self.trace <= 1:
            raise AimeError(f"trace is {self.trace}; expected more than 0 and at most 1")
        if not 0 < self.expectile < 1:
            raise AimeError(f"expectile is {self.expectile}; expected more than 0 and less than 1")


def fit_critic(
    critic: Critic, experience: Experience, config: WarmStartConfig, discount: float, on_progress: OnProgress
) -> None:
    """Fit a critic, in place, to an expectile τ of the recorded returns, by TD(λ).

    A return above the critic's own mean has the weight τ, one below it 1 - τ. Under these weights, the mean of the
    likeliest two-hot distribution is the τ-expectile of the returns.
    Reference: Sutton & Barto 2018, chapter 12; the expectile: Kostrikov et al. 2022, "Offline reinforcement learning
    with implicit Q-learning", arXiv 2110.06169, equation 5; the two-hot loss: Hafner et al. 2023, arXiv 2301.04104.
    """
    rows = followed(experience).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(critic.parameters(), config.learning_rate, weight_decay=0.0)
    for step in range(config.critic_steps):
        if step % UPDATE_EVERY == 0:
            returns = recorded_returns(experience, values(critic, experience), discount, config.trace)
        drawn = rows[torch.randint(len(rows), (config.batch,), device=rows.device)]
        predicted, target = critic(*experience.states.pick(drawn).read), returns[drawn]
        weights = torch.where(target > predicted.mean.detach(), config.expectile, 1 - config.expectile)
        loss = -(2 * weights * predicted.log_prob(target)).mean()
        descend(optimizer, loss)
        if (step + 1) % UPDATE_EVERY == 0:
            figures = {"recorded_critic": float(loss.detach()), "recorded_return": float(returns[rows].mean())}
            on_progress(STAGE, step + 1, config.critic_steps, figures)


def clone_better_actions(
    policy: Policy,
    critic: Critic,
    experience: Experience,
    config: WarmStartConfig,
    discount: float,
    on_progress: OnProgress,
) -> None:
    """Clone recorded actions, in place, with the weight exp(A / temperature): π ∝ ρ(a) exp(A(a)/τ), by likelihood.

    The advantages A are relative to the critic. Without recorded actions the policy stays as it is.
    Reference: Peng et al. 2019, "Advantage-weighted regression", arXiv 1910.00177, equation 10.
    """
    chosen = followed(experience) & experience.targets.action_valid
    if not bool(chosen.any()):
        return
    weights = advantage_weights(critic, experience, config, discount)[chosen]
    std = experience.states.latent.std(dim=0)
    for step, loss in clone(policy, experience.rows(chosen), weights, std, config.policy_steps, config):
        if step % UPDATE_EVERY == 0:
            on_progress(STAGE, step, config.policy_steps, {"weighted_action": float(loss)})


def advantage_weights(
    critic: Critic, experience: Experience, config: WarmStartConfig, discount: float
) -> Float[Tensor, " N"]:
    """exp((A - mean A) / (τ std A)), at most `config.most`; 0 for the last frame of an episode."""
    value, goes_on = values(critic, experience), followed(experience)
    advantage = recorded_returns(experience, value, discount, config.trace) - value
    known = advantage[goes_on]
    relative = (advantage - known.mean()) / (config.temperature * known.std().clamp(min=1e-6))
    return torch.where(goes_on, relative.clamp(max=math.log(config.most)).exp(), 0.0)


@torch.no_grad()
def values(critic: Critic, experience: Experience) -> Float[Tensor, " N"]:
    """V of each frame, in the environment's units."""
    parts = torch.arange(experience.frames, device=experience.episode.device).split(BATCH_VALUES)
    return torch.cat([critic(*experience.states.pick(part).read).mean for part in parts])
