"""The tasks: every term has its weight, padding is left out, gradients go where they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest
import torch
from tests.models import SIZE, small_config, targets
from torch import Tensor

from aime.attention.schema import Attention
from aime.dynamics.overshooting import imagine_ahead
from aime.objectives.elbo import TERMS, attention_kl
from aime.objectives.ledger import frame_nats, weigh
from aime.objectives.passes import Pass
from aime.objectives.predictive import motion_error
from aime.objectives.tasks import TaskLosses, latent_losses, task_losses
from aime.objectives.weights import (
    ElboWeights,
    LossWeights,
    OvershootConfig,
    PerceiverWeights,
    PredictiveWeights,
)
from aime.primitives.masked_mean import masked_mean
from aime.world_model.model import AIME
from aime.world_model.outputs import LatentClips, SequenceOutput

B, T = 2, 7
OVERSHOOT = OvershootConfig(steps=3)


@pytest.fixture
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config()).train()


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1


def losses_of(
    model: AIME, frames: Tensor, actions: Tensor, valid: Tensor | None = None
) -> tuple[TaskLosses, SequenceOutput]:
    torch.manual_seed(3)
    output = model.forward_sequence(frames, actions)
    valid = torch.ones(B, T, dtype=torch.bool) if valid is None else valid
    return task_losses(model, output, frames, targets(valid), LossWeights(), OVERSHOOT), output


def test_terms_and_weights_have_the_same_names(model: AIME, frames: Tensor, actions: Tensor) -> None:
    losses, _ = losses_of(model, frames, actions)
    for task, weights in zip(losses, (ElboWeights, PerceiverWeights, PredictiveWeights), strict=True):
        # this model observes no state
        expected = {field.name for field in fields(weights)} - {"state_nll"}
        assert {name.split("/")[1] for name, _ in task.named()} == expected
        assert all(torch.isfinite(value) for _, value in task.named())


SUMMED: dict[str, Callable[[float], Tensor | None]] = {
    "vq_commitment": lambda given: torch.tensor(given),
    "tokenizer_reconstruction": lambda given: torch.tensor(-given - 1),
    "token_reconstruction": lambda given: torch.tensor(given + 3),
}


def test_the_total_is_the_sum_of_weight_times_term() -> None:
    loss = weigh("perceiver", SUMMED, 2.0, PerceiverWeights(0.5, 2.0, 0.1))
    assert loss.total == pytest.approx(0.5 * 2 - 2 * 3 + 0.1 * 5)
    assert dict(loss.named())["perceiver/token_reconstruction"] == 5, "the log shows terms before their weights"


def test_a_term_without_a_weight_is_refused() -> None:
    @dataclass(frozen=True)
    class Weights:
        known: float = 1.0

    with pytest.raises(AssertionError, match="forgotten"):
        weigh("task", {"known": torch.ones, "forgotten": torch.ones}, (), Weights())


def test_padding_is_left_out() -> None:
    values, valid = torch.tensor([[1.0, 2.0, 100.0]]), torch.tensor([[True, True, False]])
    assert masked_mean(values, valid) == 1.5


def test_frame_nats_is_the_mean_log_density_of_valid_frames_under_their_own_variance() -> None:
    truth, guess = torch.rand(2, 4, 5), torch.rand(2, 4, 5)
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    variance = (truth - guess)[valid].square().mean()
    expected = -torch.distributions.Normal(guess, variance.sqrt()).log_prob(truth).sum(-1)[valid].mean()
    torch.testing.assert_close(frame_nats((truth - guess).square().mean(-1), valid, 5), expected)


def test_reconstruction_is_the_log_density_of_pixels_whose_precision_differs(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    model.eval()
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 4:] = False
    output = model.forward_sequence(frames, actions)
    sharp = torch.rand(output.attention.fused.shape, generator=torch.Generator().manual_seed(4)) ** 6 + 1e-2
    maps = sharp / sharp.sum((2, 3), keepdim=True)
    output = output._replace(attention=output.attention._replace(fused=maps))
    found = TERMS["reconstruction"](Pass(model, output, frames, targets(valid), OVERSHOOT))
    cells, side = maps[0, 0].numel(), SIZE // maps.shape[-1]
    share = model.config.attention.precision
    # each cell's precision for all of its pixels
    each = 1 - share + share * cells * maps.double()
    precision = each.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, None].expand_as(frames)
    drawn, real = output.reconstructions.double(), frames.double()
    assert precision.std() > 0.2
    variance = (precision * (drawn - real).square())[valid].mean()
    normal = torch.distributions.Normal(drawn, (variance / precision).sqrt())
    expected = -normal.log_prob(real).sum((2, 3, 4))[valid].mean()
    assert found is not None
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_kl_attention_is_the_divergence_of_the_maps_with_half_of_its_gradient() -> None:
    torch.manual_seed(5)
    logits = {name: torch.randn(B, T, 16).double().requires_grad_() for name in ("fused", "prior", "bottom_up")}
    maps = {name: each.softmax(-1).unflatten(-1, (4, 4)) for name, each in logits.items()}
    attention = Attention(**{**dict.fromkeys(Attention._fields, torch.zeros(())), **maps})
    found = attention_kl(attention)
    laws = {name: torch.distributions.Categorical(logits=each) for name, each in logits.items()}
    of_fused, of_seen = (
        torch.distributions.kl_divergence(laws[name], laws["prior"]) for name in ("fused", "bottom_up")
    )
    torch.testing.assert_close(found, of_fused + of_seen)
    mine = dict(zip(logits, torch.autograd.grad(found.sum(), list(logits.values()), allow_unused=True), strict=True))
    fused, prior = torch.autograd.grad(of_fused.sum(), (logits["fused"], logits["prior"]), retain_graph=True)
    (seen,) = torch.autograd.grad(of_seen.sum(), logits["prior"])
    torch.testing.assert_close(mine["fused"], 0.5 * fused)
    torch.testing.assert_close(mine["prior"], 0.5 * prior + seen)
    assert mine["bottom_up"] is None


def moving_maps(velocities: Tensor, size: int = 16) -> Tensor:
    """`[B,T,size,size]`: a square of four cells that moves by each clip's (dx, dy) cells a frame."""
    maps = torch.zeros(len(velocities), T, size, size, dtype=torch.float64)
    for clip, (dx, dy) in enumerate(velocities.tolist()):
        for time in range(T):
            x, y = 7 + dx * (time - 3), 7 + dy * (time - 3)
            maps[clip, time, y : y + 2, x : x + 2] = 0.25
    return maps


def test_attention_dynamics_asks_for_the_velocity_of_the_map() -> None:
    velocities = torch.tensor([[1, 0], [0, -2], [2, 1]])
    maps, blank = moving_maps(velocities), torch.zeros(())
    expected = velocities.double()[:, None].expand(-1, T, -1)
    motion = expected.clone().requires_grad_()
    maps.requires_grad_()
    attention = Attention(**{**dict.fromkeys(Attention._fields, blank), "bottom_up": maps, "motion": motion})
    valid = torch.ones(3, T, dtype=torch.bool)
    assert float(motion_error(attention, valid).detach()) == pytest.approx(0, abs=1e-20)
    off = attention._replace(motion=motion + torch.tensor([3.0, 4.0], dtype=torch.float64))
    loss = motion_error(off, valid)
    assert float(loss.detach()) == pytest.approx(12.5), "in cells"
    of_motion, of_maps = torch.autograd.grad(loss, (motion, maps), allow_unused=True)
    assert of_maps is None and not of_motion[:, 0].any(), "no target at a clip's first frame"
    # a map that jumps on padding, and back
    jumped = maps.detach().clone()
    jumped[1, 3] = jumped[1, 0]
    valid[1, 3] = False
    assert float(motion_error(attention._replace(bottom_up=jumped), valid).detach()) == pytest.approx(0, abs=1e-20)


def test_padded_frames_move_no_loss(model: AIME, frames: Tensor, actions: Tensor) -> None:
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, -1] = False
    other = frames.clone()
    other[:, -1] = 1 - other[:, -1]
    model.eval()  # no sampled posterior, codebook or dropout: what differs can only be the padding
    first, _ = losses_of(model, frames, actions, valid)
    second, _ = losses_of(model, other, actions, valid)
    for mine, theirs in zip(first, second, strict=True):
        for (name, value), (_, same) in zip(mine.named(), theirs.named(), strict=True):
            assert torch.allclose(value, same, rtol=1e-5), name


def test_the_predictive_task_teaches_no_perception(model: AIME, frames: Tensor, actions: Tensor) -> None:
    losses, _ = losses_of(model, frames, actions)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(losses.predictive.total, list(weights.values()), allow_unused=True)
    taught = {
        name.split(".")[0] for name, each in zip(weights, gradients, strict=True) if each is not None and each.any()
    }
    assert taught == {"attention", "dynamics"}, (
        "latents and contexts are its targets: with a gradient they would be pulled to what is easily guessed"
    )


@pytest.mark.parametrize("term", ["action", "inverse_dynamics"])
def test_actions_teach_the_action_schema_and_not_the_belief(
    model: AIME, frames: Tensor, actions: Tensor, term: str
) -> None:
    losses, _ = losses_of(model, frames, actions)
    weights = dict(model.named_parameters())
    nats = losses.predictive.terms[term]
    gradients = torch.autograd.grad(nats, list(weights.values()), allow_unused=True)
    taught = {name for name, each in zip(weights, gradients, strict=True) if each is not None and each.any()}
    assert taught, "something learns of it"
    assert all(name.startswith("dynamics.control.action_schema.") for name in taught)


def test_replayed_clips_teach_the_belief_beside_the_batch(model: AIME, frames: Tensor, actions: Tensor) -> None:
    output = model.forward_sequence(frames, actions)
    valid = torch.ones(B, T, dtype=torch.bool)
    model.eval()  # no dropped contexts, no sampled sticks: what differs can only be the clips
    alone = task_losses(model, output, frames, targets(valid), LossWeights(), OVERSHOOT).predictive
    own = output.clips(targets(valid))
    twice = task_losses(model, output, frames, targets(valid), LossWeights(), OVERSHOOT, replayed=own).predictive
    turned = own._replace(latents=own.latents.flip(1))
    other = task_losses(model, output, frames, targets(valid), LossWeights(), OVERSHOOT, replayed=turned).predictive
    unseen = own._replace(latents=own.latents.flip(1), targets=targets(torch.zeros_like(valid)))
    padding = task_losses(model, output, frames, targets(valid), LossWeights(), OVERSHOOT, replayed=unseen).predictive
    terms = [dict(each.named())["predictive/one_step_latent"] for each in (alone, twice, padding)]
    torch.testing.assert_close(terms[0], terms[1])
    torch.testing.assert_close(terms[0], terms[2])
    assert not torch.isclose(terms[0], dict(other.named())["predictive/one_step_latent"])


def test_of_clips_elsewhere_the_latents_alone_are_learned(model: AIME, frames: Tensor, actions: Tensor) -> None:
    model.eval()  # no dropped contexts, no sampled sticks: what differs can only be the clips
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # heads that start at zero tell no clips apart
    valid = torch.ones(B, T, dtype=torch.bool)
    clips = model.forward_sequence(frames, actions).clips(targets(valid))

    def terms(clips: LatentClips, elsewhere: Tensor | None = None) -> dict[str, Tensor]:
        losses = latent_losses(model.dynamics, clips, LossWeights(), elsewhere)
        return {name: value.detach() for loss in losses for name, value in loss.named()}

    here = LatentClips(clips.latents[:1], clips.contexts[:1], clips.actions[:1], targets(valid[:1]))
    second = torch.tensor([False, True])
    both, alone, mixed = terms(clips), terms(here), terms(clips, second)
    assert terms(clips, torch.zeros_like(second)) == both
    of_latents = {"predictive/one_step_latent", "elbo/kl_hierarchical", "elbo/entropy"}
    assert {"elbo/reward", "predictive/action", "predictive/expected_context"} | of_latents <= mixed.keys()
    for name, value in mixed.items():
        torch.testing.assert_close(value, both[name] if name in of_latents else alone[name], msg=name)
        assert not torch.isclose(alone[name], both[name]), "the two clips differ in every term"


def test_overshooting_lines_up_times_actions_and_targets(model: AIME, frames: Tensor, actions: Tensor) -> None:
    torch.manual_seed(0)
    output = model.forward_sequence(frames, actions)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 5:] = False
    overshot = imagine_ahead(model.dynamics, output.track, valid, OVERSHOOT.steps, OVERSHOOT.starts)
    flat = output.latents.detach().flatten(0, 1)
    assert torch.equal(overshot.targets, flat[overshot.times])
    assert torch.equal(overshot.times[:, 1:] - overshot.times[:, :-1], torch.ones_like(overshot.times[:, 1:]))
    assert torch.equal(overshot.valid, valid.flatten()[overshot.times]), "a step is real where its frame is"


def test_overshooting_follows_the_component_most_responsible(model: AIME, frames: Tensor, actions: Tensor) -> None:
    output = model.forward_sequence(frames, actions)
    valid = torch.ones(B, T, dtype=torch.bool)
    overshot = imagine_ahead(model.dynamics, output.track, valid, OVERSHOOT.steps, OVERSHOOT.starts)
    means, stds = overshot.priors.means, overshot.priors.stds
    spread = (overshot.targets[..., None, :] - means) / stds
    log_joint = overshot.priors.log_weights - 0.5 * spread.square().sum(-1) - stds.log().sum(-1)
    chosen = torch.take_along_dim(means, log_joint.argmax(-1)[..., None, None], dim=-2).squeeze(-2)
    assert torch.equal(overshot.latents, chosen)


def test_clips_shorter_than_the_overshooting_still_train(model: AIME, frames: Tensor, actions: Tensor) -> None:
    output = model.forward_sequence(frames[:, :2], actions[:, :2])
    losses = task_losses(
        model,
        output,
        frames[:, :2],
        targets(torch.ones(B, 2, dtype=torch.bool)),
        LossWeights(),
        OvershootConfig(steps=15),
    )
    assert torch.isfinite(losses.predictive.total)


def test_what_weighs_nothing_is_neither_computed_nor_logged() -> None:
    def never(given: float) -> Tensor:
        raise AssertionError

    table = {"vq_commitment": SUMMED["vq_commitment"], "tokenizer_reconstruction": never, "token_reconstruction": never}
    loss = weigh("perceiver", table, 2.0, PerceiverWeights(0.5, 0.0, 0.0))
    assert (loss.off, float(loss.total), [name for name, _ in loss.named()]) == (
        False,
        1.0,
        ["perceiver/vq_commitment"],
    )
    without = dict.fromkeys(table, lambda given: None)
    for nothing in (
        weigh("perceiver", table, 2.0, PerceiverWeights(0, 0, 0)),
        weigh("perceiver", without, 2.0, PerceiverWeights()),
    ):
        assert (nothing.off, float(nothing.total), list(nothing.named())) == (True, 0.0, [])
