"""The observed state: read where it belongs, hidden where it is, missing where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor

from aime.dynamics.heads.state import StateHead
from aime.errors import AimeError
from aime.perception.state_reader import StateConfig
from aime.primitives.standardise import Standardise
from aime.world_model.config import ModelConfig
from aime.world_model.model import AIME
from aime.world_model.outputs import SequenceOutput

B, T, S = 2, 5, 3


def config_with_state() -> ModelConfig:
    return replace(small_config(), state=StateConfig(width=S))


@pytest.fixture
def model() -> AIME:
    """In float64, every parameter away from its start, and states in units of their own."""
    torch.manual_seed(0)
    model = AIME(config_with_state()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    head_of(model).scale.fit(torch.tensor([10.0, -1.0, 0.0]), torch.tensor([4.0, 0.5, 1.0]))
    return model


def head_of(model: AIME) -> StateHead:
    assert model.dynamics.state_head is not None
    return model.dynamics.state_head


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(B, T, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1


@pytest.fixture
def states() -> Tensor:
    """With a number missing here, and a whole state there."""
    states = torch.randn(B, T, S, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 4
    states[0, 1, 2], states[1, 2] = torch.nan, torch.nan
    return states


def read(output: SequenceOutput) -> dict[str, Tensor]:
    """All that may depend on the states, `[B,T,·]`."""
    return {
        "contexts": output.contexts,
        "latents": output.latents,
        "beliefs": output.beliefs,
        "prior": output.prior.mixture.means,
        "reconstructions": output.reconstructions,
        "fused map": output.attention.fused,
    }


@torch.no_grad()
@pytest.mark.parametrize("changed", [0, 2, 4])
def test_a_changed_state_changes_nothing_before_it_nor_what_was_expected(
    model: AIME, frames: Tensor, actions: Tensor, states: Tensor, changed: int
) -> None:
    other = states.clone()
    other[:, changed] = 7.0
    before = read(model.forward_sequence(frames, actions, None, states))
    after = read(model.forward_sequence(frames, actions, None, other))
    for name, value in before.items():
        assert torch.equal(value[:, :changed], after[name][:, :changed]), name
    for name in ("beliefs", "prior"):
        assert torch.equal(before[name][:, changed], after[name][:, changed]), f"{name} has seen its own state"
    for name in ("contexts", "latents"):
        assert not torch.equal(before[name][:, changed], after[name][:, changed])
    assert changed == T - 1 or not torch.equal(before["prior"][:, changed + 1], after["prior"][:, changed + 1])


@torch.no_grad()
@pytest.mark.parametrize("given", [True, False])
def test_stepping_gives_the_numbers_of_the_parallel_pass(
    model: AIME, frames: Tensor, actions: Tensor, states: Tensor, given: bool
) -> None:
    output = model.forward_sequence(frames, actions, None, states if given else None)
    track = output.track
    predicted = head_of(model).predict(*track.read)
    state = model.initial_state(B)
    for t in range(T):
        now = states[:, t] if given else None
        state, seen = model.observe(state, frames[:, t], actions[:, t - 1], own_state=now)
        assert seen.state is not None
        pairs = {
            "context": (seen.context, output.contexts[:, t]),
            "latent": (seen.latent, output.latents[:, t]),
            "belief": (state.carry.belief, output.beliefs[:, t]),
            "prior": (seen.prior.mixture.means, output.prior.mixture.means[:, t]),
            "predicted state": (seen.state, predicted[:, t]),
        }
        for name, (stepped, parallel) in pairs.items():
            assert torch.allclose(stepped, parallel, rtol=1e-9, atol=1e-9), f"{name}, frame {t}"


@torch.no_grad()
def test_the_other_doors_take_the_states_too(model: AIME, frames: Tensor, actions: Tensor, states: Tensor) -> None:
    output = model.forward_sequence(frames, actions, None, states)
    torch.testing.assert_close(model.encode(frames, states), output.latents)
    torch.testing.assert_close(model.extract_context(frames, states), output.contexts)
    assert not torch.equal(model.encode(frames), output.latents)
    assert not torch.equal(model.surprise(frames, actions, states=states), model.surprise(frames, actions))


@torch.no_grad()
def test_no_state_is_a_state_of_which_nothing_is_known(model: AIME, frames: Tensor) -> None:
    nothing = torch.full((B, T, S), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(model.encode(frames), model.encode(frames, nothing), rtol=1e-12, atol=1e-12)
    partly = nothing.clone()
    partly[..., 0] = 1.0
    assert model.encode(frames, partly).isfinite().all()
    assert not torch.equal(model.encode(frames, partly), model.encode(frames))


@torch.no_grad()
def test_predictions_come_with_the_states_of_imagined_steps(
    model: AIME, frames: Tensor, actions: Tensor, states: Tensor
) -> None:
    predicted = model.predict_future(frames[:, :3], actions, states=states[:, :3])
    assert predicted.states is not None and predicted.states.shape == (B, T - 3, S)
    state = model.initial_state(B)
    for t in range(3):
        state, _ = model.observe(state, frames[:, t], actions[:, t - 1], own_state=states[:, t])
    for future in range(T - 3):
        state, imagined = model.imagine(state, actions[:, 2 + future])
        assert imagined.state is not None
        torch.testing.assert_close(imagined.state, predicted.states[:, future], rtol=1e-9, atol=1e-9)
    sampled = model.predict_future(frames[:, :3], actions, samples=4)
    assert sampled.states is not None and sampled.states.shape == (B, 4, T - 3, S)


@torch.no_grad()
def test_predicted_states_are_in_their_own_units(model: AIME) -> None:
    head, like = head_of(model), torch.zeros((), dtype=torch.float64)
    read = torch.randn(4, 16).to(like), torch.randn(4, 6).to(like), torch.randn(4, 6).to(like)
    standardised = head(*read).mean
    expected = standardised * torch.tensor([4.0, 0.5, 1.0]) + torch.tensor([10.0, -1.0, 0.0])
    torch.testing.assert_close(head.predict(*read), expected)


def test_a_number_that_never_varies_keeps_its_unit() -> None:
    scale = Standardise(3)
    scale.fit(torch.tensor([1e6, 0.0, 5.0]), torch.tensor([0.5, 0.0, 2.0]))
    assert scale(torch.tensor([1e6 + 3, 0.25, 9.0])).tolist() == [3.0, 0.25, 2.0]
    assert scale.restore(torch.tensor([3.0, 0.25, 2.0])).tolist() == [1e6 + 3, 0.25, 9.0]


def test_training_hides_states_and_evaluation_does_not(model: AIME) -> None:
    torch.manual_seed(0)
    contexts, states = torch.zeros(400, T, 8, dtype=torch.float64), torch.ones(400, T, S, dtype=torch.float64)
    assert model.state_reader is not None
    shown, nothing = model.read_states(contexts[:1], states[:1])[0, 0], model.state_reader.unknown
    assert torch.allclose(model.read_states(contexts, states), shown)
    added = model.train().read_states(contexts, states)
    hidden = torch.isclose(added, nothing).all(-1)
    assert (hidden | torch.isclose(added, shown).all(-1)).all()
    assert 0.2 < hidden.any(1).double().mean() < 0.3
    assert 0.1 < hidden.all(1).double().mean() < 0.2


@torch.no_grad()
def test_a_model_of_frames_that_goes_on_with_a_state_begins_as_it_was(frames: Tensor, states: Tensor) -> None:
    torch.manual_seed(0)
    alone = AIME(small_config()).eval()
    both = AIME(config_with_state()).eval()
    both.load_state_dict({**both.state_dict(), **alone.state_dict()})
    torch.testing.assert_close(both.encode(frames.float(), states.float()), alone.encode(frames.float()))


@torch.no_grad()
def test_without_a_context_the_state_is_predicted_and_not_read(frames: Tensor, actions: Tensor, states: Tensor) -> None:
    config = config_with_state()
    model = AIME(replace(config, perceiver=replace(config.perceiver, kind="none"))).double().eval()
    assert torch.equal(model.encode(frames, states), model.encode(frames))
    predicted = model.predict_future(frames[:, :3], actions, states=states[:, :3])
    assert predicted.states is not None and predicted.states.shape == (B, T - 3, S)


@torch.no_grad()
def test_models_of_frames_alone_have_no_states_and_ignore_them(frames: Tensor, actions: Tensor) -> None:
    model = AIME(small_config()).double().eval()
    assert not [name for name in model.state_dict() if "state_" in name]
    assert model.predict_future(frames[:, :3], actions).states is None
    state, seen = model.observe(model.initial_state(B), frames[:, 0], actions[:, 0])
    assert seen.state is None and model.imagine(state, actions[:, 0])[1].state is None
    assert torch.equal(model.encode(frames, torch.ones(B, T, S)), model.encode(frames))


@pytest.mark.parametrize("shape", [(B, T, S + 1), (B, T - 1, S), (T, S)])
def test_states_of_another_shape_are_refused(model: AIME, frames: Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(AimeError, match=r"states have shape .*; expected \[2, 5, 3\]"):
        model.encode(frames, torch.zeros(shape))


@pytest.mark.parametrize("change", [{"width": -1}, {"withheld": 1.5}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(AimeError, match=rf"state\..*{next(iter(change))}"):
        StateConfig(**change)  # type: ignore[arg-type]
