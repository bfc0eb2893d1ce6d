"""Every weight has one optimizer, and Muon has the hidden matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import small_config
from torch import nn

from aime.errors import AimeError
from aime.optimization import Muon
from aime.perception.state_reader import StateConfig
from aime.primitives.boundary_layers import BoundaryLinear
from aime.training.optimizers import OptimizerConfig, make_optimizers, scale_learning_rates
from aime.world_model.model import AIME


@pytest.fixture(scope="module")
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config())


def names(model: AIME, optimizer: torch.optim.Optimizer) -> list[str]:
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return [name for name, weight in model.named_parameters() if id(weight) in held]


def test_each_weight_has_one_optimizer(model: AIME) -> None:
    adamw, muon = make_optimizers(model, OptimizerConfig())
    assert isinstance(muon, Muon)
    held = [*names(model, adamw), *names(model, muon)]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    prior, recurrence = "dynamics.prior", "dynamics.recurrence"
    hidden = {f"{recurrence}.lstm.weight_hh_l0", "decoder.levels.0.0.conv_out.weight", f"{prior}.trunk.hidden.0.weight"}
    ends = {"encoder.stem.weight", "encoder.head.weight", f"{prior}.head.weight", f"{prior}.linear_step.weight"}
    learned = {"perceiver.latents", "attention.bottom_up.places", f"{recurrence}.initial_belief", "decoder.spread.bias"}
    assert hidden <= set(names(model, muon))
    assert ends | learned <= set(names(model, adamw))


def renamed(module: nn.Module) -> nn.Module:
    """The same modules under other names."""
    for number, (name, child) in enumerate(list(module._modules.items())):
        del module._modules[name]
        if child is not None:
            module._modules[("head", "stem", "logits", "project")[number % 4] + str(number)] = renamed(child)
    return module


def test_a_layers_name_decides_nothing() -> None:
    torch.manual_seed(0)
    config = replace(small_config(), state=StateConfig(width=9))
    model = AIME(config)
    before = [{id(weight) for group in each.param_groups for weight in group["params"]} for each in optimizers(model)]
    again = optimizers(renamed(model))
    assert [{id(weight) for group in each.param_groups for weight in group["params"]} for each in again] == before
    hidden, end = nn.Linear(16, 16, bias=False), BoundaryLinear(16, 16, bias=False)
    adamw, muon = optimizers(nn.ModuleDict({"head": hidden, "middle": end}))
    assert muon.param_groups[0]["params"] == [hidden.weight]
    assert [weight for group in adamw.param_groups for weight in group["params"]] == [end.weight]


def optimizers(model: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    return make_optimizers(model, OptimizerConfig())


def test_of_weights_that_are_named_no_other_is_taught(model: AIME) -> None:
    wanted = [
        "dynamics.initial_latent",
        *(f"dynamics.prior.{name}" for name, _ in model.dynamics.prior.named_parameters()),
    ]
    given = dict(model.named_parameters())
    adamw, muon = make_optimizers(model, OptimizerConfig(), [given[name] for name in wanted])
    layers = ("0", "4.inner", "4.outer")
    assert names(model, muon) == [f"dynamics.prior.trunk.hidden.{layer}.weight" for layer in layers]
    assert sorted([*names(model, adamw), *names(model, muon)]) == sorted(wanted)


def test_adamw_alone(model: AIME) -> None:
    (adamw,) = make_optimizers(model, OptimizerConfig(kind="adamw"))
    assert names(model, adamw) == [name for name, _ in model.named_parameters()]


def test_rates_are_factors_of_their_peaks_and_only_matrices_of_weights_decay(model: AIME) -> None:
    optimizers = make_optimizers(model, OptimizerConfig(learning_rate=1e-2, weight_decay=0.1))
    for factor in (0.5, 0.25):
        scale_learning_rates(optimizers, factor)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    assert rates == [[pytest.approx(2.5e-3)] * 2, [pytest.approx(2.5e-3 * OptimizerConfig.muon_factor)]]
    assert [[group["weight_decay"] for group in each.param_groups] for each in optimizers] == [[0.1, 0.0], [0.1]]


def test_rates_below_zero_are_refused() -> None:
    with pytest.raises(AimeError, match=r"^optimizer\.learning_rate is -1\.0; expected 0 or more$"):
        OptimizerConfig(learning_rate=-1.0)
