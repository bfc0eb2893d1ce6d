"""Padding counts nowhere: a batch with frames and clips of padding more has the same losses, gradients and buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from tests.models import SIZE, small_config, targets
from torch import Tensor

from aime.data.clips import Targets
from aime.dynamics.choices import likeliest
from aime.objectives import passes
from aime.objectives.adversarial import (
    Windows,
    adversarial_loss,
    discriminator_loss,
    draw_window_starts,
)
from aime.objectives.ledger import TaskLoss
from aime.objectives.tasks import task_losses
from aime.objectives.weights import AdversarialWeights, LossWeights, OvershootConfig
from aime.perception.state_reader import StateConfig
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.quantize import codebook_perplexity
from aime.representation.discriminators import Discriminators
from aime.representation.divergences import effective_components
from aime.training.calibration import fit_spread
from aime.training.latent_augmentation import static_projection
from aime.training.replay import LatentReplay
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips

B, T, STATE = 3, 5, 2
CONFIG = replace(small_config(), state=StateConfig(width=STATE))
EVERY = 1000
"""Frames, more than there are: all count, since what is drawn at random, a test could not compare."""


class Batch(NamedTuple):
    """Clips and all that is known of them."""

    frames: Tensor
    actions: Tensor
    known: Targets

    def padded(self, frames: int, clips: int) -> Batch:
        """With padding behind each clip and behind the last clip, of noise that has nothing to do with the clips."""
        generator = torch.Generator().manual_seed(9)

        def longer(field: Tensor) -> Tensor:
            shape = (field.shape[0] + clips, field.shape[1] + frames, *field.shape[2:])
            noise = torch.rand(shape, generator=generator, dtype=torch.float64)
            wider = torch.zeros(shape, dtype=torch.bool) if field.dtype == torch.bool else noise.to(field.dtype)
            wider[: field.shape[0], : field.shape[1]] = field
            return wider

        known = Targets(*(longer(field) for field in self.known))
        # an end on padding is none
        ends = known.terminated | ~known.valid
        return Batch(longer(self.frames), longer(self.actions), known._replace(terminated=ends))


class Result(NamedTuple):
    """All that a step computes of a batch, by name."""

    terms: dict[str, Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    figures: dict[str, Tensor]


@pytest.fixture(autouse=True)
def every_pair_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("starts", "frames"):
        monkeypatch.setattr(OvershootConfig, name, EVERY)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(B, T, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    actions = torch.rand(B, T, 2, generator=generator, dtype=torch.float64) * 2 - 1
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 4:] = False
    states = torch.randn(B, T, STATE, generator=generator, dtype=torch.float64)
    return Batch(frames, actions, targets(valid, states))


def world() -> tuple[AIME, Discriminators]:
    torch.manual_seed(0)
    model, discriminators = AIME(CONFIG), Discriminators(channels=4, levels=2, window=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    # no sampled latents, sticks and spans: only codebook, decoder and discriminators are in training
    model.double().eval().tokenizer.quantizer.train()
    model.decoder.train()  # whose variance follows the batch's error
    return model, discriminators.double().train()


def results(given: Batch) -> Result:
    model, discriminators = world()
    torch.manual_seed(3)
    valid = given.known.valid
    output = model.run_sequence(given.frames, given.actions, valid, given.known.states, valid)
    places = draw_window_starts(valid, EVERY, window=3)
    windows = Windows(*(places.of(each) for each in (given.frames, output.reconstructions, valid)))
    losses: list[TaskLoss] = [
        *task_losses(model, output, given.frames, given.known, LossWeights(), OvershootConfig(steps=1)),
        adversarial_loss(discriminators, windows, AdversarialWeights()),
        discriminator_loss(discriminators, windows),
    ]
    weights = {**dict(model.named_parameters()), **dict(discriminators.named_parameters())}
    total = torch.stack([loss.total for loss in losses]).sum()
    gradients = torch.autograd.grad(total, list(weights.values()), materialize_grads=True, allow_unused=True)
    return Result(
        {name: value for loss in losses for name, value in loss.named()},
        dict(zip(weights, gradients, strict=True)),
        dict(model.named_buffers()),
        {
            "effective_components": effective_components(output.prior.mixture.weights.detach(), valid),
            "codebook_perplexity": codebook_perplexity(output.tokens, valid, CONFIG.tokenizer.codes),
        },
    )


@pytest.mark.parametrize(("frames", "clips"), [(3, 0), (0, 2), (2, 1)])
def test_padding_changes_no_loss_no_gradient_no_buffer_and_no_figure(
    monkeypatch: pytest.MonkeyPatch, frames: int, clips: int
) -> None:
    monkeypatch.setattr(passes, "REDRAWN_SHARE", 1.0)
    bare, padded = results(batch()), results(batch().padded(frames, clips))
    assert len(bare.terms) == 9 + 3 + 10 + 3 + 6, "every term of every task"
    for mine, theirs in zip(bare, padded, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert torch.allclose(theirs[name], value, rtol=1e-5, atol=1e-6), name


def changed(alter: Callable[[Batch], Batch]) -> set[str]:
    bare, other = results(batch()).terms, results(alter(batch())).terms
    return {name for name, value in bare.items() if not torch.isclose(value, other[name], rtol=1e-8, atol=1e-10)}


def test_a_frame_that_counts_changes_them() -> None:
    """The property above could hold of a loss that looks at nothing."""

    def brighter(given: Batch) -> Batch:
        frames = given.frames.clone()
        frames[0] = frames[0].square()
        return given._replace(frames=frames)

    unmoved = set(results(batch()).terms) - changed(brighter)
    assert unmoved <= {"predictive/slot_overlap"}


def clips_of(given: Batch) -> tuple[DiagonalGaussian, LatentClips]:
    model, _ = world()
    with torch.no_grad():
        output = model.eval().forward_sequence(given.frames, given.actions, given.known.valid, given.known.states)
    return output.posterior, output.clips(given.known)


def test_padding_is_neither_remembered_nor_counted_as_still() -> None:
    replays = []
    for given in (batch(), batch().padded(0, 3)):
        replays.append(LatentReplay(2, 8, T, CONFIG))
        replays[-1].add(*clips_of(given))
    assert replays[0].seen == replays[1].seen == B
    for name, value in replays[0].state_dict().items():
        torch.testing.assert_close(replays[1].state_dict()[name], value)
    for frames, clips in ((3, 0), (0, 2)):
        posteriors = [(*clips_of(given)[0], given.known.valid) for given in (batch(), batch().padded(frames, clips))]
        torch.testing.assert_close(static_projection(*posteriors[0]), static_projection(*posteriors[1]))


def test_padding_does_not_tell_how_wide_the_prior_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aime.training.calibration.CONTEXT", 2)
    # futures without noise: samples of a batch of another shape are other samples
    monkeypatch.setattr("aime.training.calibration.sampled", likeliest)
    model, _ = world()
    fits = [
        fit_spread(model.dynamics.eval(), clips_of(given)[1])
        for given in (batch(), batch().padded(0, 2), batch().padded(2, 0))
    ]
    assert fits[0].energy_before > 0
    for fit in fits[1:]:
        assert fit == pytest.approx(fits[0], rel=1e-8)
