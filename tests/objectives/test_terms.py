"""A loss term is added as CONTRIBUTING.md says."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models import SIZE, small_config, targets

from aime.objectives import elbo
from aime.objectives.ledger import Scalar
from aime.objectives.passes import Pass
from aime.objectives.tasks import task_losses
from aime.objectives.weights import ElboWeights, LossWeights, OvershootConfig
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME

B, T = 2, 5


@dataclass(frozen=True)
class MoreWeights(ElboWeights):
    smooth_latents: float = 2.0


def example() -> Any:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(def smooth_latents.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, {"Pass": Pass, "Scalar": Scalar, "masked_mean": masked_mean}, found)
    return found["smooth_latents"]


def test_the_example_of_a_loss_term_is_weighed_logged_and_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = AIME(small_config()).eval()
    frames, valid = torch.rand(B, T, 3, SIZE, SIZE), torch.ones(B, T, dtype=torch.bool)
    valid[1, 3:] = False
    output = model.run_sequence(frames)
    nothing = ElboWeights(*[0.0] * len(fields(ElboWeights)))
    weights, overshoot = (
        replace(LossWeights(), elbo=MoreWeights(*[0.0] * len(fields(ElboWeights)))),
        OvershootConfig(steps=2),
    )
    monkeypatch.setitem(elbo.TERMS, "smooth_latents", example())
    with pytest.raises(AssertionError, match="smooth_latents"):
        task_losses(model, output, frames, targets(valid), replace(LossWeights(), elbo=nothing), overshoot)
    loss = task_losses(model, output, frames, targets(valid), weights, overshoot).elbo
    z = output.latents.detach().double()
    bends = [z[clip, t + 1] - 2 * z[clip, t] + z[clip, t - 1] for clip, t in ((0, 1), (0, 2), (0, 3), (1, 1))]
    expected = sum(float(bend.square().sum()) / 2 for bend in bends) / 4
    assert {name: float(value) for name, value in loss.named()} == {
        "elbo/smooth_latents": pytest.approx(expected, rel=1e-4)
    }
    assert loss.total.item() == pytest.approx(2 * expected, rel=1e-4)
    gradients = torch.autograd.grad(loss.total, list(model.encoder.parameters()))
    assert all(bool(each.any()) for each in gradients)
