from __future__ import annotations

import pytest
import torch
from tests.agents.worlds import states
from tests.models import small_config

from aime.agents.experience import Experience
from aime.agents.imitation import ImitationConfig, imitate
from aime.agents.policy import PolicyConfig
from aime.data.clips import Targets
from aime.errors import AimeError
from aime.world_model.model import AIME

QUICK = ImitationConfig(steps=300, batch=128, learning_rate=5e-3, check_every=50, policy=PolicyConfig(hidden=32))


def habit(latents: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.tanh(2 * latents[:, 0]), latents[:, 1].sign()], dim=1)


def experience(model: AIME, count: int, episodes: int = 10) -> Experience:
    there = states(model.dynamics, count)
    known = torch.ones(count, dtype=torch.bool)
    targets = Targets(known, known, torch.zeros(count), known, ~known, torch.zeros(count, 0))
    return Experience(there, habit(there.latent), targets, torch.arange(count) * episodes // count)


def test_a_clone_does_what_was_done() -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    told: list[dict[str, float]] = []
    cloned = imitate(
        model.dynamics.widths,
        experience(model, 2000),
        QUICK,
        lambda stage, step, total, figures: told.append(dict(figures)),
    )
    unseen = states(model.dynamics, 500)
    chosen, wanted = cloned.policy(unseen.belief, unseen.latent, unseen.step).mode, habit(unseen.latent)
    assert (chosen[:, 0] - wanted[:, 0]).abs().mean() < 0.12
    assert (chosen[:, 1].sign() == wanted[:, 1]).float().mean() > 0.9
    assert cloned.error == min(figures["validation_error"] for figures in told) < told[0]["validation_error"]
    assert cloned.nats < told[0]["validation_action"]
    assert not cloned.policy.training


def test_actions_that_nobody_took_teach_nothing() -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    seen = experience(model, 400)
    unknown = torch.rand(400) < 0.3
    actions = seen.actions.masked_fill(unknown[:, None], float("nan"))
    targets = seen.targets._replace(action_valid=~unknown)
    cloned = imitate(model.dynamics.widths, seen._replace(actions=actions, targets=targets), QUICK)
    assert torch.tensor(cloned.nats).isfinite()


def test_one_episode_is_too_few() -> None:
    model = AIME(small_config()).eval()
    with pytest.raises(AimeError, match=r"1 episode\(s\).*expected 2 episodes"):
        imitate(model.dynamics.widths, experience(model, 10, episodes=1), QUICK)
