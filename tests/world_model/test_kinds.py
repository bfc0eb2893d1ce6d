"""Every pillar is chosen by name from its registry, and an encoder is added as CONTRIBUTING.md says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.models import SIZE, small_config, targets
from torch import nn

from aime.errors import AimeError
from aime.objectives.tasks import task_losses
from aime.objectives.weights import LossWeights, OvershootConfig
from aime.primitives.distributions import DiagonalGaussian
from aime.representation.encoder import Encoder, EncoderConfig
from aime.representation.kinds import ENCODERS
from aime.world_model.config import KINDS
from aime.world_model.model import AIME

B, T = 2, 4


def example() -> type[Encoder]:
    """The encoder that CONTRIBUTING.md adds."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(class PlainEncoder.*?)```", text, re.DOTALL)
    found: dict[str, type[Encoder]] = {}
    given = {"torch": torch, "nn": nn, "F": F, "Encoder": Encoder, "DiagonalGaussian": DiagonalGaussian}
    exec(code, given | {"__name__": __name__}, found)
    return found["PlainEncoder"]


@pytest.fixture(params=[*ENCODERS, "plain"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AIME:
    if request.param not in ENCODERS:
        monkeypatch.setitem(ENCODERS, request.param, example())
    monkeypatch.setattr(EncoderConfig, "kind", request.param)
    torch.manual_seed(0)
    return AIME(small_config())


@pytest.mark.parametrize("part", KINDS)
def test_another_name_is_refused_with_those_there_are(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    monkeypatch.setattr(type(getattr(config, part)), "kind", "none such")
    other = type(getattr(config, part))()
    object.__setattr__(other, "kind", "none such")
    with pytest.raises(AimeError, match=rf"^{part}.kind is 'none such'; expected one of {', '.join(KINDS[part])}$"):
        replace(config, **{part: other})


def test_every_encoder_learns_all_its_parameters_and_steps_as_it_scans(model: AIME) -> None:
    frames, actions = torch.rand(B, T, 3, SIZE, SIZE), torch.rand(B, T, 2)
    valid = torch.ones(B, T, dtype=torch.bool)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    output = model.train().run_sequence(frames, actions)
    losses = task_losses(model, output, frames, targets(valid), LossWeights(), OvershootConfig(steps=2))
    torch.stack([task.total for task in losses]).sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.encoder.parameters())
    latents = model.eval().encode(frames)
    state = model.initial_state(B)
    for t in range(T):
        state, seen = model.observe(state, frames[:, t], actions[:, t - 1])
        torch.testing.assert_close(seen.latent, latents[:, t], rtol=1e-4, atol=1e-4)
