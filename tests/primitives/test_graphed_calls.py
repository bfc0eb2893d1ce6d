"""On a GPU, rollouts and steps as CUDA graphs give the same results."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace

import pytest
import torch
from tests.models import SIZE, small_config

from aime.dynamics.choices import Picker, likeliest, sampled
from aime.dynamics.latent_dynamics import _rollout
from aime.perception.state_reader import StateConfig
from aime.world_model.model import AIME

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@torch.no_grad()
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("choose", [likeliest, sampled])
def test_a_replayed_rollout_is_the_rollout(choose: Picker, precise: bool) -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).cuda().eval()
    latent = 0.1 * torch.randn(5, model.config.latent, device="cuda")
    state = model.dynamics.start(5)._replace(latent=latent)
    with torch.autocast("cuda", torch.bfloat16, enabled=not precise):
        for number in range(8):
            moves = torch.rand(5, 4, 2, device="cuda") * 2 - 1
            torch.manual_seed(number)
            found = model.dynamics.rollout(state, moves, choose)
            torch.manual_seed(number)
            expected = _rollout(model.dynamics, (state, moves), choose)
            torch.testing.assert_close(found, expected)
            # a weight that changes where it is is read again
            next(model.dynamics.recurrence.parameters()).mul_(0.9)
    copy.deepcopy(model)


@torch.no_grad()
def test_weights_that_move_are_followed() -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).cuda().eval()
    state = model.dynamics.start(2)
    moves = torch.zeros(2, 3, 2, device="cuda")
    for _ in range(6):
        before = model.dynamics.rollout(state, moves, likeliest)
    for weight in model.parameters():
        weight.data = 1.5 * weight.data
    after = model.dynamics.rollout(state, moves, likeliest)
    torch.testing.assert_close(after, _rollout(model.dynamics, (state, moves), likeliest))
    assert not torch.equal(before.latents, after.latents)


@torch.no_grad()
@pytest.mark.parametrize("sample", [True, False])
@pytest.mark.parametrize("state_width", [0, 3])
def test_replayed_steps_are_the_steps(state_width: int, sample: bool) -> None:
    torch.manual_seed(0)
    model = AIME(replace(small_config(), state=StateConfig(width=state_width))).cuda().eval()
    state = kept = model.initial_state(2)
    for number in range(9):
        frame = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
        action = torch.rand(2, 2) * 2 - 1
        reset = torch.tensor([number == 6, False])
        own = torch.randn(2, state_width) if state_width else None
        state, seen = model.observe(state, frame, action, reset, own)
        torch.manual_seed(number)
        dreamt, imagined = model.imagine(state, action, sample)
        with torch.enable_grad():  # with gradients nothing is replayed
            kept, expected = inspect.unwrap(AIME.observe)(model, kept, frame, action, reset, own)
            torch.manual_seed(number)
            after, expected_dream = inspect.unwrap(AIME.imagine)(model, kept, action, sample)
        torch.testing.assert_close((state, seen, dreamt, imagined), (kept, expected, after, expected_dream))
        kept = state
