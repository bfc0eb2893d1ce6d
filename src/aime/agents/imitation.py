"""Behaviour cloning: a policy fitted to recorded actions, on the states of the world model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from aime.agents.experience import Experience, OnProgress, no_progress
from aime.agents.policy import ClonedPolicy, Policy, PolicyConfig
from aime.dynamics.states import Widths
from aime.errors import AimeError, expect_at_least_zero, expect_positive


@dataclass(frozen=True)
class CloningConfig:
    """How a policy is fitted to recorded actions."""

    batch: int = 512
    """Frames per step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW. For a policy it falls to 0 along a half cosine."""
    weight_decay: float = 1e-2
    """Weight decay of the policy."""
    noise: float = 0.02
    """Noise on the latents in training, in standard deviations of the data. It makes the clone robust to its errors."""

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        expect_positive(self, "batch", "learning_rate")
        expect_at_least_zero(self, "weight_decay", "noise")


@dataclass(frozen=True)
class ImitationConfig(CloningConfig):
    """How behaviour is cloned."""

    steps: int = 3000
    """Optimizer steps."""
    held_out: float = 0.1
    """Share of the episodes in the validation set, which selects the best step."""
    check_every: int = 100
    """Steps between validations."""
    frames: int = 65536
    """Maximum number of frames to train on."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        """Refuse a number out of its range by an `AimeError`."""
        super().__post_init__()
        expect_positive(self, "steps", "check_every", "frames")
        if not 0 < self.held_out < 1:
            raise AimeError(f"held_out is {self.held_out}; expected a share between 0 and 1")


class Cloned(NamedTuple):
    """A clone, its scores on the validation set (see `score_clone`), and the step whose policy is kept."""

    policy: ClonedPolicy
    error: float
    nats: float
    step: int


def imitate(
    widths: Widths, experience: Experience, config: ImitationConfig, on_progress: OnProgress = no_progress
) -> Cloned:
    """Fit π(a_t | h_{t-1}, z_t, z_t - z_{t-1}) to recorded actions by likelihood, for dynamics of these widths.

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
    training, validation = known.rows(~held_out), known.rows(held_out)
    policy = ClonedPolicy(config.policy, widths).to(known.actions.device)
    best = Cloned(policy, float("inf"), float("inf"), 0)
    std, equal = training.states.latent.std(dim=0), torch.ones_like(training.actions[:, 0])
    for step, loss in clone(policy, training, equal, std, config.steps, config):
        if step % config.check_every == 0 or step == config.steps:
            error, nats = score_clone(policy, validation)
            figures = {"action": float(loss), "validation_action": nats, "validation_error": error}
            on_progress("cloning", step, config.steps, figures)
            # not by nats: a few surprising actions outweigh all others
            if error < best.error:
                best = Cloned(copy.deepcopy(policy), error, nats, step)
    best.policy.eval().requires_grad_(False)
    return best


def clone(
    policy: Policy | ClonedPolicy,
    experience: Experience,
    weights: Float[Tensor, " N"],
    std: Float[Tensor, " latent"],
    steps: int,
    config: CloningConfig,
) -> Iterator[tuple[int, Float[Tensor, ""]]]:
    """Fit a policy, in place, to known actions by weighted likelihood; after each step, its number from 1 and its loss.

    The unit of `config.noise` is `std`, of each latent.
    """
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = CosineAnnealingLR(optimizer, max(1, steps))
    noise, mean_weight = config.noise * std, weights.mean()
    for step in range(1, steps + 1):
        drawn = torch.randint(experience.frames, (config.batch,), device=weights.device)
        states = experience.states.pick(drawn)
        latent = states.latent + torch.randn_like(states.latent) * noise
        log_prob = policy(states.belief, latent, states.step).log_prob(experience.actions[drawn])
        loss = -(weights[drawn] * log_prob).mean() / mean_weight
        descend(optimizer, loss)
        schedule.step()
        yield step, loss.detach()


def descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], clip: float = 10.0) -> None:
    """One optimizer step, with the norm of the whole gradient clipped to `clip`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], clip)
    optimizer.step()


@torch.no_grad()
def score_clone(policy: ClonedPolicy, unseen: Experience) -> tuple[float, float]:
    """The mean distance of known actions from the policy's mode, in units of [-1, 1], and their -log π(a) in nats."""
    distribution = policy(*unseen.states.read)
    error = (distribution.mode - unseen.actions).abs().mean()
    return float(error), float(-distribution.log_prob(unseen.actions).mean())
