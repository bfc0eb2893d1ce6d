"""A world that is simple enough to know what is best: the latent is the last action, and 0.5 is worth most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models import small_config
from torch import Tensor

from aime.dynamics.latent_dynamics import Act, LatentDynamics
from aime.dynamics.states import Carry, Dream
from aime.primitives.distributions import CensoredGaussian, CensoredMixture
from aime.world_model.model import AIME

BEST = 0.5


class Exactly:
    """What stands for a distribution whose mean alone is read."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean


class Control:
    """Rewards of the arrival at a latent, no end, and a behaviour that always does `habit`."""

    def __init__(self, habit: float) -> None:
        self.habit = habit

    def knows_rewards(self) -> Tensor:
        return torch.tensor(True)

    def reward(self, belief: Tensor, latent: Tensor, step: Tensor) -> Exactly:
        return Exactly(1 - (latent[..., :2] - BEST).square().sum(-1))

    def continuation(self, belief: Tensor, latent: Tensor, step: Tensor) -> Tensor:
        return torch.full(belief.shape[:-1], 20.0)

    def action_schema(self, belief: Tensor, latent: Tensor, step: Tensor) -> CensoredMixture:
        shape = *belief.shape[:-1], 1
        each = CensoredGaussian(torch.full((*shape, 2), self.habit), torch.full((*shape, 2), 0.2))
        return CensoredMixture(torch.zeros(shape), each)


def behave(dynamics: LatentDynamics, start: Carry, act: Act, count: int, choose: Any) -> Dream:
    state, latents, steps, actions = start, [], [], []
    for number in range(count):
        actions.append(act(state, number))
        latent = torch.nn.functional.pad(actions[-1], (0, state.latent.shape[-1] - actions[-1].shape[-1]))
        state = state._replace(latent=latent, step=latent - state.latent)
        latents.append(latent)
        steps.append(state.step)
    beliefs = start.belief[:, None].expand(-1, count, -1)
    nothing = torch.zeros(len(start.latent), count, dtype=torch.long)
    came, moved, done = (torch.stack(each, 1) for each in (latents, steps, actions))
    return Dream(came, moved, beliefs, nothing[..., None], nothing, done)


def simple_world(monkeypatch: pytest.MonkeyPatch, habit: float = -0.5) -> LatentDynamics:
    """Dynamics of 2-number actions whose dreams are those of that world."""
    torch.manual_seed(0)
    dynamics = AIME(small_config()).dynamics.eval().requires_grad_(False)
    monkeypatch.setattr(LatentDynamics, "behave", behave)
    dynamics.__dict__["_modules"].pop("control")
    object.__setattr__(dynamics, "control", Control(habit))
    return dynamics


def states(dynamics: LatentDynamics, count: int) -> Carry:
    """Random states of an LSTM's dynamics."""
    latent, context, _, belief = dynamics.widths
    return Carry(*(0.3 * torch.randn(count, width) for width in (belief, belief, latent, latent, context)))
