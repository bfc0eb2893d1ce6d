"""What acts on rewards refuses a model whose reward head never saw one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.models import SIZE, small_config

from aime.agents.actor_critic import ActorCritic, ActorCriticConfig
from aime.agents.planner import Planner, PlannerConfig
from aime.agents.policy import PolicyConfig
from aime.errors import AimeError
from aime.primitives.hardware import Hardware
from aime.primitives.tensor_files import fill
from aime.world_model.model import AIME

CPU = Hardware(torch.device("cpu"), torch.float32)
FRAMES = torch.zeros(1, 1, 1, 3, SIZE, SIZE, dtype=torch.uint8)


ACTING: dict[str, Callable[[AIME], object]] = {
    "planner": lambda model: Planner(model.dynamics, PlannerConfig()),
    "actor and critic": lambda model: ActorCritic(
        ActorCriticConfig(policy=PolicyConfig(hidden=8, bins=11)), model.dynamics, CPU
    ),
    "cost": lambda model: model.get_cost(
        {"pixels": torch.zeros(1, 1, 1, 3, model.config.image_size, model.config.image_size)},
        torch.zeros(1, 1, 2, model.config.action_width),
    ),
}


@pytest.mark.parametrize("acting", ACTING)
def test_a_head_without_rewards_is_refused(acting: str) -> None:
    model = AIME(small_config()).eval()
    assert model.dynamics.control is not None
    with pytest.raises(AimeError, match=r"never seen a reward.*train on data that has them") as error:
        ACTING[acting](model)
    assert "\n" not in str(error.value)
    one = torch.tensor([[0.0, 2.0]])
    model.dynamics.control.count_rewards(one, torch.tensor([[True, False]]))
    model.dynamics.control.count_rewards(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(AimeError, match="never seen a reward"):
        ACTING[acting](model)
    model.dynamics.control.count_rewards(one, torch.tensor([[True, True]]))
    assert model.dynamics.control.rewards_seen == 1
    ACTING[acting](model)


@pytest.mark.parametrize("acting", ACTING)
def test_the_bundled_model_has_no_reward_head(acting: str) -> None:
    with pytest.raises(AimeError, match=r"no reward head .*expected one that has learned from rewards"):
        ACTING[acting](AIME.from_pretrained("bundled:cartpole"))


def test_a_goal_needs_no_rewards() -> None:
    info = {"pixels": FRAMES, "goal": FRAMES}
    assert AIME(small_config()).eval().get_cost(info, torch.zeros(1, 1, 2, 2)).shape == (1, 1)


def test_weights_of_before_the_count_are_judged_by_whether_their_head_has_learned() -> None:
    old = AIME(small_config()).eval()
    assert old.dynamics.control is not None
    for learned in (False, True):
        if learned:
            torch.nn.init.normal_(old.dynamics.control.reward.logits.weight)
        weights = {name: each for name, each in old.state_dict().items() if name != "dynamics.control.rewards_seen"}
        model = AIME(small_config()).eval()
        fill(model, weights, Path("old.safetensors"))
        assert model.dynamics.control is not None and model.dynamics.control.rewards_seen == -1
        assert bool(model.dynamics.control.knows_rewards()) is learned
        model.dynamics.control.count_rewards(torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
        assert model.dynamics.control.rewards_seen == 3
