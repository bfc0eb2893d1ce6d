"""The table in docs/architecture.md of the parts that each task trains, compared with the gradients."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models import SIZE, small_config, targets

from aime.objectives.adversarial import AdversaryConfig, Windows, discriminator_loss, draw_window_starts
from aime.objectives.tasks import task_losses
from aime.objectives.weights import AdversarialWeights, LossWeights, OvershootConfig
from aime.perception.state_reader import StateConfig
from aime.training.adversary import Adversary
from aime.world_model.model import AIME

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
TASKS = ("elbo", "perceiver", "predictive", "adversarial", "discriminator")
B, T = 4, 7
STATE = 3
COMPLETE = replace(small_config(), state=StateConfig(width=STATE))

Reach = dict[str, set[str]]
"""The tasks that reach a parameter, by its name."""


def stated() -> Reach:
    """The table: tasks by the beginnings of parameters' names."""
    section = ARCHITECTURE.read_text(encoding="utf-8").split("## Which task teaches which part")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert [cell.strip("`") for cell in rows[0][2:]] == list(TASKS)
    reach: Reach = {}
    for _, beginnings, *marks in rows[2:]:
        assert set(marks) <= {"✓", ""}
        for beginning in re.findall(r"`([^`]+)`", beginnings):
            reach[beginning] = {task for task, mark in zip(TASKS, marks, strict=True) if mark}
    return reach


@pytest.fixture(scope="module")
def measured() -> Reach:
    """Over a few draws of what a step leaves to chance: dropped contexts, maps to decode with, frames to judge."""
    reach: Reach = defaultdict(set)
    for seed in range(3):
        for task, names in reached(seed).items():
            for name in names:
                reach[name].add(task)
    return reach


def reached(seed: int) -> dict[str, set[str]]:
    """The parameters of the complete model, and of the discriminators, that each task's gradient reaches."""
    torch.manual_seed(seed)
    model = AIME(COMPLETE).train()
    adversary = Adversary(AdversaryConfig(), AdversarialWeights())
    named = {**dict(model.named_parameters()), **dict(adversary.named_parameters())}
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(0.1 * torch.randn_like(parameter))  # what starts at zero would hide what lies behind it
    frames, actions = torch.rand(B, T, 3, SIZE, SIZE), torch.rand(B, T, 2)
    valid, missing = torch.ones(B, T, dtype=torch.bool), torch.ones(B, T, dtype=torch.bool)
    missing[:, 2] = False  # so that the null action is used
    states = torch.randn(B, T, STATE)
    states[:, 2] = torch.nan
    output = model.forward_sequence(frames, actions, missing, states)
    overshoot = OvershootConfig(steps=3)
    places = draw_window_starts(valid, B * T, adversary.discriminators.window)
    windows = Windows(*(places.of(each) for each in (frames, output.reconstructions, valid)))
    losses = [
        *task_losses(model, output, frames, targets(valid, states), LossWeights(), overshoot),
        adversary.generator_loss(model, output, frames, valid),
        discriminator_loss(adversary.discriminators, windows),
    ]
    assert tuple(loss.task for loss in losses) == TASKS
    found = {}
    for loss in losses:
        gradients = torch.autograd.grad(loss.total, list(named.values()), retain_graph=True, allow_unused=True)
        pairs = zip(named, gradients, strict=True)
        found[loss.task] = {name for name, gradient in pairs if gradient is not None and gradient.any()}
    return found


def test_the_table_says_what_the_gradients_do(measured: Reach) -> None:
    table = stated()
    names = [name for name, _ in AIME(COMPLETE).named_parameters()]
    names += [name for name in measured if name.startswith("discriminators.")]
    wrong = {}
    for name in names:
        beginnings = [beginning for beginning in table if name.startswith(beginning)]
        assert beginnings, f"{name} is in no row of the table"
        expected = table[max(beginnings, key=len)]
        if measured[name] != expected:
            wrong[name] = {"measured": sorted(measured[name]), "table": sorted(expected)}
    assert wrong == {}


def test_every_row_of_the_table_is_about_something() -> None:
    model = AIME(COMPLETE)
    names = [*model.state_dict(), "discriminators."]
    assert [beginning for beginning in stated() if not any(name.startswith(beginning) for name in names)] == []


def test_the_codebook_is_no_parameter() -> None:
    model = AIME(COMPLETE)
    assert not any(name.startswith("tokenizer.quantizer") for name, _ in model.named_parameters())
    assert stated()["tokenizer.quantizer."] == set()
