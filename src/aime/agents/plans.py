"""A policy that learns to do at once what a planner finds by searching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aime.agents.experience import Experience
from aime.agents.planner import Planner, PlannerConfig
from aime.agents.recorded import followed
from aime.agents.warm_start import TOLD_EVERY, Told, update
from aime.control.policy import Critic, Policy
from aime.errors import AimeError
from aime.training.hardware import Hardware
from aime.world_model.model import AIME

PLANNED_AT_ONCE = 64
"""Frames, which bounds the memory."""

TOLD_EVERY_PARTS = 16


@dataclass(frozen=True)
class PlansConfig:
    """How a policy learns from plans.

    Raises:
        AimeError: if a number is out of its range.
    """

    frames: int = 8192
    """Of the record, at which plans are made; at 0 the policy stays as it is."""
    steps: int = 1500
    batch: int = 512
    """Frames a step."""
    learning_rate: float = 1e-3
    """Of AdamW; falls along a half cosine to 0."""
    weight_decay: float = 1e-2
    noise: float = 0.05
    """As in `ImitationConfig.noise`."""
    planner: PlannerConfig = field(default_factory=lambda: PlannerConfig(candidates=128, iterations=2, elite=16))

    def __post_init__(self) -> None:
        for name in ("batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise AimeError(f"{name} is {getattr(self, name)}; expected a positive number")
        for name in ("frames", "steps", "weight_decay", "noise"):
            if not getattr(self, name) >= 0:
                raise AimeError(f"{name} is {getattr(self, name)}; expected 0 or more")


class Plans(NamedTuple):
    """What M plans begin with."""

    rows: Int[Tensor, " M"]
    """Of the experience: the frames at which they were made."""
    actions: Float[Tensor, "M A"]
    """In [-1, 1]."""


@torch.no_grad()
def make_plans(
    policy: Policy,
    critic: Critic,
    model: AIME,
    experience: Experience,
    config: PlansConfig,
    hardware: Hardware,
    told: Callable[[int, int], None],
) -> Plans | None:
    """Plan at recorded frames, from what a policy would do there; None where nothing is asked for.

    Args:
        policy: proposes, with the action schema, and holds the plans by their leash.
        critic: what lies beyond the plans.
        model: with reward heads, in eval mode.
        experience: plans are made at random frames of it that are followed by another.
        config: how.
        hardware: where, and how precisely plans are imagined.
        told: hears how many are made, of how many.
    """
    rows = followed(experience).nonzero()[:, 0]
    drawn = rows[torch.randperm(len(rows), device=rows.device)[: config.frames]]
    if not len(drawn) or not config.steps:
        return None
    assert model.control is not None, "checked before anything was perceived"
    planner = Planner(model, config.planner, critic, (policy, model.control.action_schema))
    actions: list[Tensor] = []
    for part in drawn.split(PLANNED_AT_ONCE):
        planner.reset(len(part))
        with hardware.autocast():
            actions.append(planner.decide(experience.states.pick(part)).float())
        if len(actions) % TOLD_EVERY_PARTS == 0:
            told(PLANNED_AT_ONCE * len(actions), len(drawn))
    return Plans(drawn, torch.cat(actions))


def clone_plans(policy: Policy, experience: Experience, plans: Plans, config: PlansConfig, told: Told) -> None:
    """Teach a policy what plans begin with, by likelihood.

    Args:
        policy: changed in place.
        experience: at whose frames the plans were made.
        plans: one or more.
        config: how.
        told: hears of the nats.

    Reference: expert iteration, Anthony et al. 2017, "Thinking fast and slow with deep learning and tree search", arXiv
    1705.08439, section 3.
    """
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    spread = config.noise * experience.states.latent.std(dim=0)
    for step in range(config.steps):
        chosen = torch.randint(len(plans.rows), (config.batch,), device=plans.rows.device)
        states = experience.states.pick(plans.rows[chosen])
        latent = states.latent + torch.randn_like(states.latent) * spread
        loss = -policy(states.belief, latent, states.step).log_prob(plans.actions[chosen]).mean()
        update(optimizer, policy, loss)
        schedule.step()
        if (step + 1) % TOLD_EVERY == 0:
            told(step + 1, {"planned_action": float(loss.detach())})
