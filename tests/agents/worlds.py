"""A world that is simple enough to know what is best: the latent is the last action, and 0.5 is worth most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models import small_config
from torch import Tensor

from aime.primitives.distributions import CensoredGaussian, CensoredMixture
from aime.world_model import imagination
from aime.world_model.model import AIME
from aime.world_model.outputs import Dream, DreamState

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


def behave(model: AIME, start: DreamState, act: imagination.Act, count: int, choose: Any) -> Dream:
    state, latents, actions = start, [], []
    for number in range(count):
        actions.append(act(state, number))
        latent = torch.nn.functional.pad(actions[-1], (0, state.latent.shape[-1] - actions[-1].shape[-1]))
        state = state._replace(latent=latent, step=latent - state.latent)
        latents.append(latent)
    beliefs = start.belief[:, None].expand(-1, count, -1)
    nothing = torch.zeros(len(start.latent), count, dtype=torch.long)
    return Dream(torch.stack(latents, 1), beliefs, nothing[..., None], nothing, torch.stack(actions, 1))


def simple_world(monkeypatch: pytest.MonkeyPatch, habit: float = -0.5) -> AIME:
    """A model of 2-number actions whose dreams are those of that world."""
    torch.manual_seed(0)
    model = AIME(small_config()).eval().requires_grad_(False)
    monkeypatch.setattr(imagination, "behave", behave)
    object.__setattr__(model, "control", None)
    model.__dict__["_modules"].pop("control")
    object.__setattr__(model, "control", Control(habit))
    return model


def states(model: AIME, count: int) -> DreamState:
    config = model.config
    widths = (config.belief, config.belief, config.latent, config.latent, config.context_width)
    return DreamState(*(0.3 * torch.randn(count, width) for width in widths))
