"""The world model as a whole: one function in two forms, causal, differentiable everywhere, inputs validated."""

from __future__ import annotations

import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor, nn

from aime.dynamics.choices import Choice, Picker, likeliest, sampled
from aime.dynamics.states import Carry, Track
from aime.errors import AimeError
from aime.perception.perceiver import CausalPerceiver
from aime.primitives.distributions import Pickable
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState, Observation, SequenceOutput
from aime.world_model.presets import PRESETS, tiny

B, T = 2, 6


@pytest.fixture
def model() -> AIME:
    """A model in float64 whose every parameter is away from its start, so that no term is silently zero."""
    torch.manual_seed(0)
    model = AIME(small_config()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1


def tensors(output: SequenceOutput) -> dict[str, Tensor]:
    """All tensors of an output by name, those inside its distributions too."""
    found: dict[str, Tensor] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, tuple):
            for inner, each in value._asdict().items():  # type: ignore[attr-defined]
                walk(f"{name}.{inner}", each)
        else:
            for inner, each in vars(value).items():
                walk(f"{name}.{inner}", each)

    walk("output", output)
    return found


def watch(model: AIME, frames: Tensor, actions: Tensor) -> tuple[list[Observation], list[BeliefState]]:
    """Step through a video frame by frame."""
    state, observations, states = model.initial_state(frames.shape[0]), [], []
    for t in range(frames.shape[1]):
        previous = actions[:, t - 1] if t else torch.zeros_like(actions[:, 0])
        state, observation = model.observe(state, frames[:, t], previous)
        observations.append(observation)
        states.append(state)
    return observations, states


@torch.no_grad()
def test_stepping_gives_the_numbers_of_the_parallel_pass(model: AIME, frames: Tensor, actions: Tensor) -> None:
    output = model.forward_sequence(frames, actions)
    observations, states = watch(model, frames, actions)
    for t, (seen, state) in enumerate(zip(observations, states, strict=True)):
        carry = model.dynamics.states_at(output.track, t)
        pairs = {
            "latent": (seen.latent, output.latents[:, t]),
            "posterior std": (seen.posterior.std, output.posterior.std[:, t]),
            "context": (seen.context, output.contexts[:, t]),
            **{f"carried {name}": pair for name, *pair in zip(Carry._fields, state.carry, carry, strict=True)},
            "prior means": (seen.prior.mixture.means, output.prior.mixture.means[:, t]),
            "prior weights": (seen.prior.mixture.log_weights, output.prior.mixture.log_weights[:, t]),
            "attention": (seen.attention, output.attention.fused[:, t]),
            "bottom-up map": (seen.seen.map, output.attention.bottom_up[:, t]),
            "prior map": (seen.expected.map, output.attention.prior[:, t]),
            "motion": (seen.expected.motion, output.attention.motion[:, t]),
        }
        for name, (stepped, parallel) in pairs.items():
            assert torch.allclose(stepped, parallel, rtol=1e-9, atol=1e-9), f"{name}, frame {t}"
        assert torch.equal(seen.tokens, output.tokens[:, t])


@torch.no_grad()
def test_every_output_has_its_map_at_the_frame_s_resolution(model: AIME, frames: Tensor, actions: Tensor) -> None:
    passed = model.forward_sequence(frames, actions)
    state, seen = model.observe(model.initial_state(B), frames[:, 0], actions[:, 0])
    dreamt = model.imagine(state, actions[:, 0])[1]
    future = model.predict_future(frames[:, :2], actions, samples=3)
    for shown, cells, shape in (
        (passed.frame_attention, passed.attention.fused, (B, T)),
        (seen.frame_attention, seen.attention, (B,)),
        (dreamt.frame_attention, dreamt.expected.map, (B,)),
        (future.frame_attention, future.attention, (B, 3, T - 2)),
    ):
        assert shown.shape == (*shape, SIZE, SIZE)
        torch.testing.assert_close(shown.sum((-2, -1)), torch.ones(shape, dtype=torch.float64))
        assert torch.equal(shown[..., 1::4, 2::4] * 16, cells)


def test_a_reset_row_starts_over_and_leaves_the_others_alone(model: AIME, frames: Tensor, actions: Tensor) -> None:
    _, states = watch(model, frames[:, :4], actions[:, :4])
    reset = torch.tensor([False, True])
    continued, seen = model.observe(states[-1], frames[:, 4], actions[:, 3], reset)
    straight = model.forward_sequence(frames[:, :5], actions[:, :5])
    again = model.forward_sequence(frames[:, 4:5], actions[:, 4:5])
    torch.testing.assert_close(seen.latent[0], straight.latents[0, 4], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(seen.latent[1], again.latents[1, 0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(continued.carry.belief[1], again.beliefs[1, 0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("changed", [1, 3, 5])
def test_a_changed_frame_changes_nothing_before_it(model: AIME, frames: Tensor, actions: Tensor, changed: int) -> None:
    before = tensors(model.forward_sequence(frames, actions))
    other = frames.clone()
    other[:, changed] = 1 - other[:, changed]
    after = tensors(model.forward_sequence(other, actions))
    for name, value in before.items():
        assert torch.equal(value[:, :changed], after[name][:, :changed]), name
    assert not torch.equal(before["output.contexts"][:, changed], after["output.contexts"][:, changed])
    assert not torch.equal(before["output.track.latents"][:, changed], after["output.track.latents"][:, changed])


@torch.no_grad()
def test_the_prior_has_not_seen_its_own_frame_nor_its_action(model: AIME, frames: Tensor, actions: Tensor) -> None:
    before = model.forward_sequence(frames, actions)
    other_frames, other_actions = frames.clone(), actions.clone()
    other_frames[:, 3], other_actions[:, 3] = 1 - other_frames[:, 3], -other_actions[:, 3]
    after = model.forward_sequence(other_frames, other_actions)
    assert torch.equal(before.prior.mixture.means[:, :4], after.prior.mixture.means[:, :4])
    assert torch.equal(before.track.expected_contexts[:, :4], after.track.expected_contexts[:, :4])
    assert not torch.equal(before.prior.mixture.means[:, 4], after.prior.mixture.means[:, 4])


def read_by_control(model: AIME, track: Track) -> Tensor:
    assert model.dynamics.control is not None
    read = track.beliefs, track.latents, track.steps
    # logits that start at 0 for every input pass nothing on
    torch.nn.init.normal_(model.dynamics.control.reward.logits.weight)
    past = model.dynamics.control.action_schema.inverse(
        track.beliefs[:, :-1], track.latents[:, :-1], track.latents[:, 1:]
    )
    done = track.actions.clamp(-0.9, 0.9)
    likelihoods = model.dynamics.control.action_schema(*read).log_prob(done).sum() + past.log_prob(done[:, :-1]).sum()
    return (
        likelihoods
        + model.dynamics.control.continuation(*read).sum()
        + model.dynamics.control.reward(*read).logits.square().sum()
    )


def test_every_parameter_is_reached_by_the_outputs_that_the_losses_read(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    assert isinstance(model.perceiver, CausalPerceiver)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 2] = False  # a missing action, so that the null action is used
    output = model.forward_sequence(frames, actions, valid)
    everything = [value for value in tensors(output).values() if value.is_floating_point() and value.requires_grad]
    total = sum((value * torch.randn_like(value)).sum() for value in everything)
    total = total + model.tokenizer.reconstruct(output.codes).square().sum()
    total = total + model.perceiver.token_logits(output.perceiver_latents.flatten(0, 1)).square().sum()
    total = total + read_by_control(model, output.track)
    total.backward()
    unreached = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert unreached == []


def test_eval_is_deterministic_and_training_samples(model: AIME, frames: Tensor, actions: Tensor) -> None:
    first, second = model.forward_sequence(frames, actions), model.forward_sequence(frames, actions)
    assert torch.equal(first.reconstructions, second.reconstructions)
    model.train()
    assert not torch.equal(
        model.forward_sequence(frames, actions).latents, model.forward_sequence(frames, actions).latents
    )


@torch.no_grad()
def test_imagination_runs_no_convolution_and_no_perceiver(model: AIME, frames: Tensor, actions: Tensor) -> None:
    state, _ = model.observe(model.initial_state(B), frames[:, 0], actions[:, 0])
    called: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) or module is model.perceiver:
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    for t in range(4):
        state, _ = model.imagine(state, actions[:, t])
    assert called == []
    model.observe(state, frames[:, 1], actions[:, 0])
    assert called, "the hooks count: observing does run convolutions"


@torch.no_grad()
def test_imagining_steps_is_predicting_the_future(model: AIME, frames: Tensor, actions: Tensor) -> None:
    predicted = model.predict_future(frames[:, :3], actions)
    _, states = watch(model, frames[:, :3], actions[:, :3])
    state = states[-1]
    for future in range(3):
        state, imagined = model.imagine(state, actions[:, 2 + future])
        torch.testing.assert_close(imagined.latent, predicted.latents[:, future], rtol=1e-9, atol=1e-9)
        assert torch.equal(imagined.component, predicted.components[:, future])


@pytest.mark.parametrize("choose", [likeliest, sampled])
@pytest.mark.parametrize("rows", [2, 64])
def test_a_rollout_is_its_steps_with_less_work(
    model: AIME, frames: Tensor, actions: Tensor, choose: Picker, rows: int
) -> None:
    model.requires_grad_(True)
    carry = model.dynamics.states_at(model.forward_sequence(frames, actions).track, -1)
    state = carry.map(lambda each: each.detach()[:1].expand(rows, -1))
    moves = torch.rand(rows, 4, 2, dtype=torch.float64) * 2 - 1
    torch.manual_seed(7)
    dreamt = model.dynamics.rollout(state, moves, choose)
    torch.manual_seed(7)
    for number, move in enumerate(moves.unbind(1)):
        state, prior, choice = model.dynamics.step(state, move, choose, number)
        assert torch.equal(dreamt.components[:, number], choice.component)
        torch.testing.assert_close(dreamt.latents[:, number], state.latent, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dreamt.beliefs[:, number], state.belief, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(dreamt.log_weights[:, number], prior.mixture.log_weights, rtol=1e-10, atol=1e-10)
    weights = [weight for name, weight in model.dynamics.recurrence.named_parameters() if name.startswith("lstm.")]
    pairs = [torch.autograd.grad(end.square().sum(), weights) for end in (dreamt.beliefs[:, -1], state.belief)]
    for mine, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("rows", [2, 64])
def test_a_rollout_in_bf16_is_that_of_its_steps(model: AIME, rows: int) -> None:
    model.float()
    latent, moves = 0.1 * torch.randn(rows, 6), torch.rand(rows, 3, 2) * 2 - 1
    state = model.dynamics.start(rows)._replace(latent=latent)
    component = torch.arange(rows) % 4

    def given(mixture: Pickable, number: int) -> Choice:
        return Choice(mixture.pick(component).mean, component)

    with torch.autocast("cpu", torch.bfloat16):
        dreamt = model.dynamics.rollout(state, moves, given)
        for number, move in enumerate(moves.unbind(1)):
            state, _, _ = model.dynamics.step(state, move, given, number)
            torch.testing.assert_close(dreamt.latents[:, number], state.latent, rtol=0.05, atol=0.05)
            torch.testing.assert_close(dreamt.beliefs[:, number], state.belief, rtol=0.05, atol=0.05)
    assert dreamt.latents.dtype == torch.float32


@torch.no_grad()
def test_the_last_action_of_a_prediction_is_unused_and_the_others_are_not(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    straight = model.predict_future(frames[:, :3], actions).latents
    for changed, same in ((5, True), (4, False), (2, False), (0, False)):
        other = actions.clone()
        other[:, changed] *= -1
        assert torch.equal(model.predict_future(frames[:, :3], other).latents, straight) is same


@torch.no_grad()
def test_without_actions_the_action_schema_acts(model: AIME, frames: Tensor, actions: Tensor) -> None:
    assert model.dynamics.control is not None
    predicted = model.predict_future(frames[:, :3], actions[:, :3], horizon=4)
    assert predicted.frames.shape == (B, 4, 3, SIZE, SIZE)
    torch.testing.assert_close(predicted.actions[:, 0], actions[:, 2])
    _, states = watch(model, frames[:, :3], actions[:, :3])
    state, action = states[-1], actions[:, 2]
    for future in range(4):
        state, imagined = model.imagine(state, action)
        torch.testing.assert_close(imagined.latent, predicted.latents[:, future], rtol=1e-9, atol=1e-9)
        action = model.dynamics.control.action_schema(*state.carry.read).mode
        if future < 3:
            torch.testing.assert_close(action, predicted.actions[:, future + 1].to(action.dtype))
    alone = model.predict_future(frames[:, :3], samples=3, seed=5, horizon=2)
    assert alone.actions.shape == (B, 3, 2, 2) and alone.actions.abs().max() <= 1
    assert torch.equal(alone.actions, model.predict_future(frames[:, :3], samples=3, seed=5, horizon=2).actions)
    given = model.predict_future(frames[:, :3], actions, horizon=3)
    assert torch.equal(given.latents, model.predict_future(frames[:, :3], actions).latents)


@torch.no_grad()
def test_sampled_futures_are_seeded_and_leave_the_global_generator_alone(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    state = torch.get_rng_state()
    first = model.predict_future(frames[:, :3], actions, samples=4, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.frames.shape == (B, 4, 3, 3, SIZE, SIZE)
    assert first.mixture_weights.shape == (B, 4, 3, 4)
    torch.testing.assert_close(first.mixture_weights.sum(-1), torch.ones(B, 4, 3, dtype=torch.float64))
    assert first.frames.min() >= 0
    assert first.frames.max() <= 1
    assert torch.equal(first.latents, model.predict_future(frames[:, :3], actions, samples=4, seed=1).latents)
    assert not torch.equal(first.latents, model.predict_future(frames[:, :3], actions, samples=4, seed=2).latents)


@torch.no_grad()
def test_uint8_frames_mean_the_same_as_their_floats(model: AIME, actions: Tensor) -> None:
    frames = torch.randint(0, 256, (B, T, 3, SIZE, SIZE), dtype=torch.uint8)
    torch.testing.assert_close(model.encode(frames), model.encode(frames.double() / 255), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.encode(frames), model.forward_sequence(frames, actions).latents)
    torch.testing.assert_close(model.extract_context(frames), model.forward_sequence(frames, actions).contexts)


def test_actions_that_do_not_fit_are_refused(model: AIME, frames: Tensor, actions: Tensor) -> None:
    with pytest.raises(AimeError, match=r"actions have shape \[2, 6, 1\].*\[2, 6, 2\]"):
        model.forward_sequence(frames, actions[..., :1])
    with pytest.raises(AimeError, match="more than 3"):
        model.predict_future(frames[:, :3], actions[:, :3])
    with pytest.raises(AimeError, match="actions are None"):
        model.predict_future(frames[:, :3])
    with pytest.raises(AimeError, match="horizon is 0"):
        model.predict_future(frames[:, :3], horizon=0)
    model.dynamics.control = None
    with pytest.raises(AimeError, match="no action schema"):
        model.predict_future(frames[:, :3], horizon=1)
    with pytest.raises(AimeError, match="observe"):
        model.imagine(model.initial_state(B), actions[:, 0])


def test_video_without_actions_uses_the_null_action(model: AIME, frames: Tensor) -> None:
    absent = model.forward_sequence(frames)
    null = model.null_action.expand(B, T, -1)
    assert torch.equal(absent.latents, model.forward_sequence(frames, null).latents)
    assert torch.equal(absent.beliefs, model.forward_sequence(frames, null).beliefs)


def test_presets_have_the_stated_sizes() -> None:
    config = tiny(1)
    assert (config.latent, config.prior.components, config.context, config.belief) == (36, 15, 64, 256)
    assert (config.tokenizer.codes, config.tokenizer.code_width) == (256, 64)
    assert (config.perceiver.latents, config.perceiver.width) == (32, 64)
    assert config.tokenizer.channels == config.encoder.channels == config.decoder.channels == 24
    base = PRESETS["base"](6, 64)
    assert (base.latent, base.prior.components, base.context, base.belief) == (36, 15, 256, 512)
    assert (base.tokenizer.codes, base.tokenizer.code_width) == (1024, 256)
    assert (base.perceiver.latents, base.perceiver.width) == (128, 256)
    assert base.tokenizer.channels == base.encoder.channels == base.decoder.channels == 64


@pytest.mark.parametrize("field", [{"image_size": 40}, {"image_size": 512}, {"latent": 0}, {"context_dropout": 1.5}])
def test_sizes_that_cannot_be_are_refused(field: dict[str, int]) -> None:
    with pytest.raises(AimeError, match=next(iter(field))):
        ModelConfig(**field)  # type: ignore[arg-type]


def test_what_is_carried_is_vectors_only(model: AIME) -> None:
    state = model.initial_state(3)
    assert all(field.shape[0] == 3 and field.ndim == 2 for field in state.carry)


@torch.no_grad()
def test_a_prediction_draws_no_frame_of_its_context(model: AIME, frames: Tensor, actions: Tensor) -> None:
    drawn: list[int] = []
    model.decoder.register_forward_hook(lambda module, given, frames: drawn.append(len(frames)))
    model.predict_future(frames[:, :3], actions[:, :5])
    assert drawn == [B * 2]
