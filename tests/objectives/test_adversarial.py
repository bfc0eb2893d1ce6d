"""The adversarial game: each side's gradient, its formulas in float64, padding, and that the game is won."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aime.errors import AimeError
from aime.objectives.adversarial import (
    TERMS,
    AdversaryConfig,
    Windows,
    adversarial_loss,
    adversarial_ramp,
    discriminator_loss,
    draw_window_starts,
)
from aime.objectives.weights import AdversarialWeights
from aime.representation.discriminators import Discriminators, Judged

B, T, SIZE = 2, 6, 16
EVERY = 1000
"""Frames to judge, more than there are: all windows are taken."""
WINDOW = 3
WEIGHTS = AdversarialWeights()


@pytest.fixture
def discriminators() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(channels=4, levels=2, window=WINDOW).train()


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reconstructions() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 1.4 - 0.2


@pytest.fixture
def valid() -> Tensor:
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 4:] = False
    return valid


def drawn(reconstructions: Tensor, frames: Tensor, valid: Tensor, judged: int = EVERY) -> Windows:
    places = draw_window_starts(valid, judged, WINDOW)
    return Windows(places.of(frames), places.of(reconstructions), places.of(valid))


def windows_of(frames: Tensor) -> Tensor:
    """All windows of three frames, clip by clip."""
    return torch.stack([frames[row, start : start + 3] for row in range(B) for start in range(T - 2)])


def judged_apart(discriminators: Discriminators, frames: Tensor) -> tuple[Judged, np.ndarray, np.ndarray]:
    """A judgement in eval mode, and its probabilities in float64 by picture."""
    training = discriminators.training
    judged = discriminators.eval()(windows_of(frames))
    discriminators.train(training)
    image, temporal = (
        1 / (1 + np.exp(-each.logits.detach().double().flatten(1).numpy())) for each in (judged.image, judged.temporal)
    )
    return judged, image, temporal


def test_the_generators_terms_are_their_formulas(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    fake, image, temporal = judged_apart(discriminators, reconstructions)
    real, _, _ = judged_apart(discriminators, frames)
    every = windows_of(valid[..., None])[..., 0].all(1).repeat_interleave(3).numpy()
    whole = windows_of(valid[..., None])[..., 0].all(1).numpy()
    distances = [
        np.abs((ours - theirs).detach().double().flatten(1).numpy())[kept].mean()
        for one, other, kept in ((fake.image, real.image, every), (fake.temporal, real.temporal, whole))
        for ours, theirs in zip(one.features, other.features, strict=True)
    ]
    terms = loss.terms
    values = {name: float(value) for name, value in terms.items()}
    assert values["image_generator"] == pytest.approx(-np.log(image[every]).sum(1).mean(), rel=1e-5)
    assert values["temporal_generator"] == pytest.approx(-np.log(temporal[whole]).sum(1).mean(), rel=1e-5)
    assert values["feature_matching"] == pytest.approx(3 * SIZE**2 * np.mean(distances), rel=1e-5)
    total = sum(getattr(WEIGHTS, name) * value for name, value in values.items())
    assert float(loss.total) == pytest.approx(total, rel=1e-5)


def test_the_discriminators_terms_are_their_formulas(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    discriminators.eval()  # else the loss would move the power iteration under the reference
    loss = discriminator_loss(discriminators, drawn(reconstructions, frames, valid))
    _, image_fake, temporal_fake = judged_apart(discriminators, reconstructions)
    _, image_real, temporal_real = judged_apart(discriminators, frames)
    every = windows_of(valid[..., None])[..., 0].all(1).repeat_interleave(3).numpy()
    whole = windows_of(valid[..., None])[..., 0].all(1).numpy()
    image = -np.log(image_real[every]).mean() - np.log(1 - image_fake[every]).mean()
    temporal = -np.log(temporal_real[whole]).mean() - np.log(1 - temporal_fake[whole]).mean()
    expected = {
        "image": image,
        "temporal": temporal,
        "image_real": image_real[every].mean(),
        "image_fake": image_fake[every].mean(),
        "temporal_real": temporal_real[whole].mean(),
        "temporal_fake": temporal_fake[whole].mean(),
    }
    assert {name: float(value.detach()) for name, value in loss.terms.items()} == pytest.approx(expected, rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(image + temporal, rel=1e-5)


def test_terms_and_weights_have_the_same_names() -> None:
    assert [field.name for field in fields(AdversarialWeights)] == list(TERMS)


def test_the_generators_pass_leaves_the_discriminators_alone(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    before = {name: value.clone() for name, value in discriminators.state_dict().items()}
    reconstructions.requires_grad_()
    frames.requires_grad_()
    loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    loss.total.backward()
    assert all(weight.grad is None for weight in discriminators.parameters())
    assert frames.grad is None
    assert reconstructions.grad is not None
    assert reconstructions.grad.any()
    assert discriminators.training
    assert all(torch.equal(before[name], value) for name, value in discriminators.state_dict().items())
    assert all(weight.requires_grad for weight in discriminators.parameters())


def test_each_term_reaches_the_reconstructions(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    reconstructions.requires_grad_()
    loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    for term in loss.terms.values():
        (gradient,) = torch.autograd.grad(term, reconstructions, retain_graph=True)
        assert gradient.any()


def test_the_discriminators_pass_leaves_the_generator_alone(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    reconstructions.requires_grad_()
    discriminator_loss(discriminators, drawn(reconstructions, frames, valid)).total.backward()
    assert reconstructions.grad is None
    assert all(weight.grad is not None and weight.grad.any() for weight in discriminators.parameters())


def test_a_step_of_the_discriminators_between_forward_and_backward_of_the_generator_is_harmless(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    reconstructions.requires_grad_()
    loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    (expected,) = torch.autograd.grad(loss.total, reconstructions, retain_graph=True)
    discriminator_loss(discriminators, drawn(reconstructions, frames, valid))
    (gradient,) = torch.autograd.grad(loss.total, reconstructions)
    torch.testing.assert_close(gradient, expected)


def test_padding_is_not_judged(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    def terms(output: Tensor) -> list[Tensor]:
        copy = Discriminators(channels=4, levels=2, window=WINDOW)
        copy.load_state_dict(discriminators.state_dict())
        theirs = adversarial_loss(copy, drawn(output, frames, valid), WEIGHTS).terms
        return [*theirs.values(), *discriminator_loss(copy, drawn(output, frames, valid)).terms.values()]

    other = reconstructions.clone()
    other[1, 4:] = 5.0
    # windows come in another order each time, and their sums round otherwise
    torch.testing.assert_close(terms(reconstructions), terms(other), rtol=1e-5, atol=1e-6)
    other[1, 3] = 5.0
    assert not torch.allclose(terms(reconstructions)[0], terms(other)[0])
    nothing = adversarial_loss(discriminators, drawn(other, frames, torch.zeros_like(valid)), WEIGHTS)
    assert float(nothing.total) == 0


def test_windows_are_consecutive_frames_at_the_same_places(valid: Tensor) -> None:
    numbers = torch.arange(B * T, dtype=torch.float32).view(B, T, 1, 1, 1).expand(B, T, 3, 4, 4)
    torch.manual_seed(0)
    windows = drawn(numbers + 0.5, numbers, valid, 13)
    assert windows.real.shape == (4, 3, 3, 4, 4), "13 frames hold four windows of three"
    frame = windows.real[..., 0, 0, 0].long()
    assert torch.equal(frame[:, 1:] - frame[:, :-1], torch.ones(4, 2, dtype=torch.long))
    assert torch.equal(frame[:, 0] // T, frame[:, -1] // T), "no window crosses from clip to clip"
    assert torch.equal(windows.fake, windows.real + 0.5)
    assert torch.equal(windows.valid, valid.flatten()[frame])
    every = drawn(numbers, numbers, valid).real[:, 0, 0, 0, 0]
    assert sorted(every.tolist()) == [0, 1, 2, 3, 6, 7, 8, 9], "each start once"


def test_clips_shorter_than_a_window_are_refused(valid: Tensor) -> None:
    with pytest.raises(AimeError, match="clips are 2 frames long; expected 3"):
        draw_window_starts(valid[:, :2], EVERY, WINDOW)


def test_losses_are_fp32_under_autocast(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    exact = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
        other = discriminator_loss(discriminators, drawn(reconstructions, frames, valid))
    assert loss.total.dtype == other.total.dtype == torch.float32
    torch.testing.assert_close(loss.terms["image_generator"], exact.terms["image_generator"], rtol=0.02, atol=0)


def test_the_pull_does_not_fade_where_the_discriminator_is_sure(
    discriminators: Discriminators, reconstructions: Tensor, frames: Tensor, valid: Tensor
) -> None:
    head = discriminators.image.tower.head.conv
    assert isinstance(head.bias, nn.Parameter)
    nn.init.constant_(head.bias, -200.0)  # D(x̂) is 0 in fp32
    reconstructions.requires_grad_()
    loss = adversarial_loss(discriminators, drawn(reconstructions, frames, valid), WEIGHTS)
    (gradient,) = torch.autograd.grad(loss.terms["image_generator"], reconstructions)
    assert torch.isfinite(loss.total)
    assert gradient.norm() > 1e-3


def test_the_game_moves_a_generator_to_the_data() -> None:
    """Grey frames whose brightness is the generator's one parameter; the data are of brightness 0.8."""
    torch.manual_seed(0)
    weights = AdversarialWeights(feature_matching=0.0)
    discriminators = Discriminators(channels=4, levels=1, window=WINDOW)
    brightness = nn.Parameter(torch.tensor(0.2))
    critic = torch.optim.Adam(discriminators.parameters(), lr=0.02, betas=AdversaryConfig.betas)
    model = torch.optim.Adam([brightness], lr=0.02, betas=AdversaryConfig.betas)
    valid = torch.ones(2, 3, dtype=torch.bool)
    path = []
    for _ in range(150):
        noise = 0.05 * torch.randn(2, 2, 3, 3, 8, 8)
        real, fake = 0.8 + noise[0], brightness + noise[1]
        critic.zero_grad()
        discriminator_loss(discriminators, drawn(fake, real, valid)).total.backward()
        critic.step()
        model.zero_grad()
        adversarial_loss(discriminators, drawn(fake, real, valid), weights).total.backward()
        model.step()
        path.append(float(brightness.detach()))
    assert abs(np.mean(path[-50:]) - 0.8) < 0.15


shares = st.floats(0, 1)


@given(warmup=shares, ramp=shares, share=shares, further=shares)
def test_the_ramp_is_off_then_rises_then_stays(warmup: float, ramp: float, share: float, further: float) -> None:
    factor, later = (adversarial_ramp(each, warmup, ramp) for each in (share, min(1.0, share + further)))
    assert 0 <= factor <= later <= 1
    if share < warmup:
        assert factor == 0
    elif share - warmup >= ramp:
        assert factor == 1
    else:
        assert math.isclose(factor * ramp, share - warmup, rel_tol=1e-6, abs_tol=1e-300)


@pytest.mark.parametrize("vote", [-0.1, 1.5])
def test_a_vote_that_is_no_share_is_refused(vote: float) -> None:
    with pytest.raises(AimeError, match=r"adversary\.vote"):
        AdversaryConfig(vote=vote)
