"""On a GPU, rollouts that are replayed are the rollouts themselves."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.models import small_config

from aime.world_model import imagination
from aime.world_model.model import AIME

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@torch.no_grad()
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("choose", [imagination.likeliest, imagination.sampled])
def test_a_replayed_rollout_is_the_rollout(choose: imagination.Picker, precise: bool) -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).cuda().eval()
    latent = 0.1 * torch.randn(5, model.config.latent, device="cuda")
    state = model.arrive(*model.dynamics.initial(5), latent, latent)
    with torch.autocast("cuda", torch.bfloat16, enabled=not precise):
        for number in range(8):
            moves = torch.rand(5, 4, 2, device="cuda") * 2 - 1
            torch.manual_seed(number)
            found = imagination.rollout(model, state, moves, choose)
            torch.manual_seed(number)
            expected = imagination._rollout(model, state, moves, choose)
            torch.testing.assert_close(found, expected)
            # a weight that changes where it is is read anew
            next(model.dynamics.lstm.parameters()).mul_(0.9)
    copy.deepcopy(model)


@torch.no_grad()
def test_weights_that_move_are_followed() -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).cuda().eval()
    state = model.arrive(*model.dynamics.initial(2), *2 * [torch.zeros(2, model.config.latent, device="cuda")])
    moves = torch.zeros(2, 3, 2, device="cuda")
    for _ in range(6):
        before = imagination.rollout(model, state, moves, imagination.likeliest)
    for weight in model.parameters():
        weight.data = 1.5 * weight.data
    after = imagination.rollout(model, state, moves, imagination.likeliest)
    torch.testing.assert_close(after, imagination._rollout(model, state, moves, imagination.likeliest))
    assert not torch.equal(before.latents, after.latents)
