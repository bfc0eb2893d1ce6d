from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.models import SIZE, small_config

from aime.errors import AimeError
from aime.world_model.model import AIME

BATCH, SAMPLES, HORIZON = 2, 5, 4


@pytest.fixture(scope="module")
def model() -> AIME:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    assert model.dynamics.control is not None
    torch.nn.init.normal_(model.dynamics.control.reward.logits.weight, std=0.5)
    model.dynamics.control.rewards_seen.fill_(1)
    return model


def known(frames: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (BATCH, 1, frames, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return pixels.expand(-1, SAMPLES, -1, -1, -1, -1)


def candidates(seed: int = 0) -> torch.Tensor:
    return torch.rand(BATCH, SAMPLES, HORIZON, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_cost_of_a_goal_is_the_distance_of_the_likeliest_future_s_last_latent(model: AIME) -> None:
    pixels, goal, plans = known(), known(seed=1), candidates()
    cost = model.get_cost({"pixels": pixels, "goal": goal}, plans)
    assert cost.shape == (BATCH, SAMPLES)
    target = model.encode(goal[:, 0])[:, -1]
    for sample in range(SAMPLES):
        unused = torch.zeros(BATCH, 1, 2)
        future = model.predict_future(pixels[:, 0], torch.cat([plans[:, sample], unused], dim=1))
        expected = (future.latents[:, -1] - target).square().sum(-1)
        torch.testing.assert_close(cost[:, sample], expected, rtol=1e-4, atol=1e-4)


def test_without_a_goal_the_cost_is_minus_the_rewards_on_the_way(model: AIME) -> None:
    pixels, plans = known(), candidates()
    cost = model.get_cost({"pixels": pixels}, plans)
    assert model.dynamics.control is not None
    state, total = model.initial_state(BATCH), torch.zeros(BATCH, SAMPLES)
    state, _ = model.observe(state, pixels[:, 0, 0], torch.zeros(BATCH, 2))
    for sample in range(SAMPLES):
        now = state
        for step in range(HORIZON):
            now, _ = model.imagine(now, plans[:, sample, step])
            total[:, sample] += model.dynamics.control.reward(*now.carry.read).mean.detach()
    torch.testing.assert_close(cost, -total, rtol=1e-3, atol=1e-3)
    assert cost.std() > 0


def test_the_past_is_read_with_the_actions_that_led_through_it(model: AIME) -> None:
    pixels, goal, plans = known(frames=3), known(seed=1), candidates()
    led_here = torch.rand(BATCH, 1, 3, 2, generator=torch.Generator().manual_seed(7)) * 2 - 1
    led_here[:, :, 0] = torch.nan
    action = led_here.expand(-1, SAMPLES, -1, -1)
    cost = model.get_cost({"pixels": pixels, "goal": goal, "action": action}, plans)
    steps = torch.cat([led_here[:, 0, 1:], plans[:, 0], torch.zeros(BATCH, 1, 2)], dim=1)
    future = model.predict_future(pixels[:, 0], steps)
    expected = (future.latents[:, -1] - model.encode(goal[:, 0])[:, -1]).square().sum(-1)
    torch.testing.assert_close(cost[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_layouts_of_frames_and_blocks_of_actions_say_the_same(model: AIME) -> None:
    pixels, plans = known(), candidates()
    expected = model.get_cost({"pixels": pixels, "goal": pixels}, plans)
    last = np.ascontiguousarray(pixels.movedim(-3, -1).numpy())
    blocks = plans.reshape(BATCH, SAMPLES, HORIZON // 2, 4)
    torch.testing.assert_close(model.get_cost({"pixels": last, "goal": last}, blocks), expected)
    floats = pixels / 255
    torch.testing.assert_close(model.get_cost({"pixels": floats, "goal": floats}, plans), expected)


def test_actions_can_be_improved_by_their_gradient(model: AIME) -> None:
    plans = candidates().mul(0.5).requires_grad_()
    info = {"pixels": known(), "goal": known(seed=1)}
    cost = model.get_cost(info, plans)
    (slope,) = torch.autograd.grad(cost.sum(), plans)
    assert slope[:, :, 0].abs().min() > 0
    better = model.get_cost(info, (plans - 1e-2 * slope / slope.norm()).detach())
    assert better.sum() < cost.sum()


@pytest.mark.parametrize(
    ("info", "plans", "message"),
    [
        ({}, candidates(), "info has no 'pixels', only nothing"),
        ({"pixels": known()[:, 0]}, candidates(), r"info\['pixels'\] has shape \[2, 1, 3, 32, 32\]; expected"),
        ({"pixels": known(), "goal": torch.zeros(2, 3)}, candidates(), r"info\['goal'\] has shape \[2, 3\]"),
        ({"pixels": known()}, candidates()[..., :1], r"action_candidates have shape \[2, 5, 4, 1\]"),
        ({"pixels": known()[:1]}, candidates(), "shows 1 environments, expected 2"),
        ({"pixels": known(2), "action": torch.zeros(2, 5, 2, 3)}, candidates(), r"info\['action'\] has shape"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: AIME, info: dict[str, torch.Tensor], plans: torch.Tensor, message: str
) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        model.get_cost(info, plans)
    assert "\n" not in str(refusal.value)


def test_a_model_without_heads_needs_a_goal() -> None:
    config = small_config()
    blind = AIME(dataclasses.replace(config, control=dataclasses.replace(config.control, kind="none"))).eval()
    with pytest.raises(AimeError, match=r"no 'goal', and the model has no reward head"):
        blind.get_cost({"pixels": known()}, candidates())
    assert blind.get_cost({"pixels": known(), "goal": known()}, candidates()).shape == (BATCH, SAMPLES)
