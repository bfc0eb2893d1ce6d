"""Behaviour cloning: a policy that does what the data did, on the state of the belief."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aime.agents.descent import descend
from aime.agents.experience import Experience
from aime.agents.policy import ClonedPolicy, PolicyConfig
from aime.errors import AimeError, expect_at_least_zero, expect_positive
from aime.world_model.model import AIME


@dataclass(frozen=True)
class ImitationConfig:
    """How behaviour is cloned.

    Raises:
        AimeError: if a number is out of its range.
    """

    steps: int = 3000
    batch: int = 512
    """Frames a step."""
    learning_rate: float = 1e-3
    """Of AdamW; falls along a half cosine to 0."""
    weight_decay: float = 1e-2
    noise: float = 0.02
    """Standard deviation of noise on the latents, in units of each one's own over the data: what is done in a state is
    done in its neighbourhood, where errors lead."""
    held_out: float = 0.1
    """Share of the episodes that only choose which step's policy is kept."""
    check_every: int = 100
    frames: int = 65536
    """The most frames that are learned from."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        expect_positive(self, "steps", "batch", "learning_rate", "check_every", "frames")
        expect_at_least_zero(self, "weight_decay", "noise")
        if not 0 < self.held_out < 1:
            raise AimeError(f"held_out is {self.held_out}; expected a share between 0 and 1")


class Cloned(NamedTuple):
    """What cloning came to."""

    policy: ClonedPolicy
    error: float
    """Mean distance of a held-out action from the policy's mode, at the step whose policy is kept; actions span 2."""
    nats: float
    """-log π(a) of a held-out action there."""
    step: int


def imitate(
    model: AIME,
    experience: Experience,
    config: ImitationConfig,
    told: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> Cloned:
    """Fit π(a_t | h_{t-1}, z_t, z_t - z_{t-1}) to the actions of the experience by likelihood; the model stays.

    Args:
        model: what the experience was perceived with; gives the sizes.
        experience: of two episodes or more.
        config: how.
        told: is called at every check with the step and its figures: nats of training and held-out actions.

    Raises:
        AimeError: if there are fewer than two episodes, or no actions.
    """
    known = experience.rows(experience.targets.action_valid)
    episodes = int(experience.episode.max()) + 1
    if episodes < 2 or not known.frames:
        raise AimeError(
            f"the data has {episodes} episode(s) and {known.frames} actions; expected 2 episodes or more with actions: "
            "take more by --data"
        )
    held_out = known.episode >= episodes - max(1, round(config.held_out * episodes))
    taught, unseen = known.rows(~held_out), known.rows(held_out)
    sizes = model.config.belief, model.config.latent, model.config.action_width
    policy = ClonedPolicy(config.policy, *sizes).to(known.actions.device)
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    spread = config.noise * taught.states.latent.std(dim=0)
    best = Cloned(policy, float("inf"), float("inf"), 0)
    for step in range(1, config.steps + 1):
        rows = taught.rows(torch.randint(taught.frames, (config.batch,), device=known.actions.device))
        loss = _nats(policy, rows, torch.randn_like(rows.states.latent) * spread)
        descend(optimizer, loss)
        schedule.step()
        if step % config.check_every == 0 or step == config.steps:
            error, nats = judge(policy, unseen)
            told(step, {"action": float(loss.detach()), "validation_action": nats, "validation_error": error})
            # not by nats: a few actions that came as a surprise outweigh all others
            if error < best.error:
                best = Cloned(copy.deepcopy(policy), error, nats, step)
    best.policy.eval().requires_grad_(False)
    return best


@torch.no_grad()
def judge(policy: ClonedPolicy, unseen: Experience) -> tuple[float, float]:
    """How near a policy is to recorded actions that it has not learned from.

    Args:
        policy: the clone.
        unseen: frames with actions.

    Returns:
        The mean distance of an action from the policy's mode (actions span 2), and -log π(a) in nats.
    """
    states = unseen.states
    modes = policy(*states.read).mode
    return float((modes - unseen.actions).abs().mean()), float(_nats(policy, unseen))


def _nats(policy: ClonedPolicy, rows: Experience, noise: Float[Tensor, "M latent"] | float = 0.0) -> Float[Tensor, ""]:
    states = rows.states
    return -policy(states.belief, states.latent + noise, states.step).log_prob(rows.actions).mean()
