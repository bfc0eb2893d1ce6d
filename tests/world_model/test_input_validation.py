"""What may enter the public API: every layout gives the numbers of one, and what is out of range is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import SIZE, small_config
from torch import Tensor

from aime.data.action_scale import ActionScale
from aime.errors import AimeError
from aime.world_model.model import AIME
from aime.world_model.outputs import BeliefState

B, T = 2, 4


@pytest.fixture(scope="module")
def model() -> AIME:
    torch.manual_seed(0)
    return AIME(small_config()).eval()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """`[B,T,H,W,3]`, as a camera or a file gives them."""
    return np.random.default_rng(1).integers(0, 256, (B, T, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def frames(pictures: np.ndarray) -> Tensor:
    """The same as `[B,T,3,H,W]` in [0, 1]."""
    return torch.from_numpy(pictures.transpose(0, 1, 4, 2, 3) / 255).float()


@pytest.fixture(scope="module")
def actions() -> Tensor:
    return torch.rand(B, T, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1


def seen_state(model: AIME, frames: Tensor) -> BeliefState:
    return model.observe(model.initial_state(B), frames[:, 0], torch.zeros(B, 2))[0]


def entry_points(model: AIME, frames: Tensor, actions: Tensor) -> dict[str, Callable[[Any, Any], object]]:
    """Every method that frames and actions enter by, as a function of them."""
    info = {"pixels": frames[:, None], "action": actions[:, None]}
    return {
        "forward_sequence": lambda x, a: model.forward_sequence(x, a),
        "predict_future": lambda x, a: model.predict_future(x[:, :2], a),
        "surprise": lambda x, a: model.surprise(x, a),
        "encode": lambda x, a: model.encode(x),
        "extract_context": lambda x, a: model.extract_context(x),
        "observe": lambda x, a: model.observe(seen_state(model, frames), x[:, 1], a[:, 0]),
        "imagine": lambda x, a: model.imagine(seen_state(model, frames), a[:, 0]),
        "get_cost": lambda x, a: model.get_cost(info | {"goal": x[:, None, -1:]}, a[:, None]),
        "get_cost's pixels": lambda x, a: model.get_cost(
            {"pixels": x[:, None], "action": a[:, None], "goal": frames[:, None]}, actions[:, None]
        ),
    }


FRAME_ENTRIES = ("forward_sequence", "predict_future", "surprise", "encode", "extract_context", "observe", "get_cost")
ACTION_ENTRIES = ("forward_sequence", "predict_future", "surprise", "observe", "imagine", "get_cost")


@pytest.mark.parametrize("entry", [*FRAME_ENTRIES, "get_cost's pixels"])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda x: x * 255, "0 to 255[?] give uint8 or divide by 255"),
        (lambda x: x * 2 - 1, "centred, from -1 to 1[?] add 1 and halve"),
        (lambda x: x - 0.5, "centred on 0[?] add 0.5"),
        (lambda x: (x - 0.45) / 0.22, "standardised"),
        (lambda x: x * 65535, "16 bit"),
        (lambda x: x * 1.1, "clamp"),
        (lambda x: x.masked_fill(torch.arange(SIZE) == 3, torch.nan), "NaN or infinite"),
        (lambda x: x.masked_fill(torch.arange(SIZE) == 3, torch.inf), "NaN or infinite"),
        (lambda x: (x * 255).long(), "uint8"),
        (lambda x: x > 0.5, "bool"),
    ],
)
def test_frames_out_of_range_are_refused_at_every_door(
    model: AIME, frames: Tensor, actions: Tensor, entry: str, wrong: Callable[[Tensor], Tensor], reason: str
) -> None:
    enter = entry_points(model, frames, actions)[entry]
    enter(frames, actions)
    with pytest.raises(AimeError, match=reason) as error:
        enter(wrong(frames), actions)
    assert "expected" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("entry", ACTION_ENTRIES)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda a: a * 180, "in degrees[?]"),
        (lambda a: a * 500, "own units"),
        (lambda a: a.masked_fill(torch.arange(2) == 0, torch.nan), "NaN or infinite"),
        (lambda a: a.masked_fill(torch.arange(2) == 0, -torch.inf), "NaN or infinite"),
        (lambda a: (a > 0).long(), "one number a choice"),
        (lambda a: a > 0, "bool"),
    ],
)
def test_actions_out_of_range_are_refused_at_every_door(
    model: AIME, frames: Tensor, actions: Tensor, entry: str, wrong: Callable[[Tensor], Tensor], reason: str
) -> None:
    enter = entry_points(model, frames, actions)[entry]
    enter(frames, actions)
    with pytest.raises(AimeError, match=reason) as error:
        enter(frames, wrong(actions))
    assert "expected" in str(error.value) and "\n" not in str(error.value)


def test_the_message_names_the_scale_of_the_data(frames: Tensor, actions: Tensor) -> None:
    model = AIME(small_config()).eval()
    model.action_scale = ActionScale((-3.0, 0.0), (3.0, 8.0))
    with pytest.raises(AimeError, match=r"-3 to 3, 0 to 8\? give model.action_scale.to_unit"):
        model.forward_sequence(frames, model.action_scale.to_source(actions))
    model.forward_sequence(frames, model.action_scale.to_unit(model.action_scale.to_source(actions)))


@pytest.mark.parametrize("entry", FRAME_ENTRIES)
def test_rounding_is_no_fault(model: AIME, frames: Tensor, actions: Tensor, entry: str) -> None:
    rounded = (frames * 1.004 - 0.002).half().double()
    assert rounded.min() < 0 and rounded.max() > 1
    entry_points(model, frames, actions)[entry](rounded, (actions / actions.abs().max() * 1.0009).double())


def every_layout(pictures: np.ndarray) -> dict[str, Any]:
    """The same batch in all the ways in which programs hold it."""
    first = np.ascontiguousarray(pictures.transpose(0, 1, 4, 2, 3))
    read_only = pictures.copy()
    read_only.flags.writeable = False
    return {
        "bytes, channels first": torch.from_numpy(first),
        "bytes, channels last": torch.from_numpy(pictures),
        "array, channels first": first,
        "array, channels last": pictures,
        "read-only array": read_only,
        "flipped view": np.ascontiguousarray(pictures[..., ::-1, :])[..., ::-1, :],
        "float64 array": pictures / 255,
        "half precision": torch.from_numpy(first / 255).half(),
        "big-endian array": (pictures / 255).astype(">f4"),
    }


@pytest.mark.parametrize("layout", every_layout(np.zeros((1, 1, 4, 4, 3), np.uint8)))
def test_every_layout_is_prepared_alike(model: AIME, pictures: np.ndarray, frames: Tensor, layout: str) -> None:
    given = every_layout(pictures)[layout]
    prepared = model.prepare(given)
    assert prepared.dtype == torch.float32 and prepared.device == model.device
    tolerance = 1e-3 if layout == "half precision" else 1e-6
    torch.testing.assert_close(prepared, frames, rtol=0, atol=tolerance)
    torch.testing.assert_close(model.prepare(given[1]), frames[1:], rtol=0, atol=tolerance)
    torch.testing.assert_close(model.prepare(given[1, 2]), frames[1:, 2:3], rtol=0, atol=tolerance)
    if layout != "half precision":
        torch.testing.assert_close(model.encode(given), model.encode(frames), rtol=1e-4, atol=1e-5)


def test_one_clip_needs_no_batch_and_arrays_no_torch(
    model: AIME, pictures: np.ndarray, frames: Tensor, actions: Tensor
) -> None:
    expected = model.forward_sequence(frames[1:], actions[1:])
    given = model.forward_sequence(pictures[1], actions[1].numpy().astype(np.float64))
    torch.testing.assert_close(given.latents, expected.latents)
    torch.testing.assert_close(given.beliefs, expected.beliefs)
    predicted = model.predict_future(pictures[1, :2], actions[1].numpy())
    torch.testing.assert_close(predicted.frames, model.predict_future(frames[1:, :2], actions[1:]).frames)
    state, seen = model.observe(model.initial_state(1), pictures[1, 0], np.zeros(2))
    torch.testing.assert_close(seen.latent, expected.latents[:, 0])
    torch.testing.assert_close(
        model.imagine(state, actions[1, 0].numpy())[1].latent, model.imagine(state, actions[1:, 0])[1].latent
    )


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((3, SIZE, 3), "either axis may be the channels"),
        ((2, 3, 64, 64), "resize them to 32 x 32"),
        ((2, 48, 64, 3), "resize them to 32 x 32"),
        ((SIZE, SIZE, 4), "transparent"),
        ((2, 5, 4, SIZE, SIZE), "transparent"),
        ((SIZE, SIZE), "grey"),
        ((7, SIZE, SIZE), "grey"),
        ((7, SIZE, SIZE, 1), "grey"),
        ((0, 3, SIZE, SIZE), "none"),
        ((1, 1, 1, 3, SIZE, SIZE), "too many axes"),
        ((SIZE, 3, SIZE), "order their axes"),
    ],
)
def test_what_is_no_picture_of_the_model_is_refused(model: AIME, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(AimeError, match=reason) as error:
        model.prepare(torch.zeros(shape))
    assert str(list(shape)) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", ["a.png", [[0.0]], None, np.array([["x"]])])
def test_what_is_no_array_is_refused(model: AIME, wrong: Any) -> None:
    with pytest.raises(AimeError, match="expected"):
        model.prepare(wrong)


def test_a_missing_action_may_be_anything_where_it_is_said_to_be_missing(
    model: AIME, frames: Tensor, actions: Tensor
) -> None:
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 1] = False
    unknown = actions.masked_fill(~valid[..., None], torch.nan)
    with pytest.raises(AimeError, match="action_valid=False"):
        model.forward_sequence(frames, unknown)
    given = model.forward_sequence(frames, unknown, valid)
    assert torch.equal(given.beliefs, model.forward_sequence(frames, actions, valid).beliefs)
    with pytest.raises(AimeError, match="expected bool"):
        model.forward_sequence(frames, unknown, valid.float())
    # nothing reads the last action of a prediction, and a recording has none
    ended = actions.masked_fill(torch.arange(T)[:, None] == T - 1, torch.nan)
    assert torch.equal(
        model.predict_future(frames[:, :2], ended).latents, model.predict_future(frames[:, :2], actions).latents
    )


def test_latents_and_states_that_are_not_finite_are_refused(model: AIME, frames: Tensor, actions: Tensor) -> None:
    maps = torch.full((3, SIZE // 4, SIZE // 4), 1 / (SIZE // 4) ** 2)
    assert model.decode(torch.zeros(3, 6), maps).shape == (3, 3, SIZE, SIZE)
    with pytest.raises(AimeError, match="latents hold 1 numbers of 18"):
        model.decode(
            torch.zeros(3, 6).index_fill(0, torch.tensor(1), 0).put(torch.tensor(7), torch.tensor(torch.nan)), maps
        )
    with pytest.raises(AimeError, match=r"latents have shape \[3, 5\]"):
        model.decode(torch.zeros(3, 5), maps)
    state = seen_state(model, frames)
    for name in ("latent", "belief", "context"):
        broken = getattr(state.carry, name).clone()
        broken[1, 0] = torch.inf
        poisoned = state._replace(carry=state.carry._replace(**{name: broken}))
        with pytest.raises(AimeError, match="the state's"):
            model.imagine(poisoned, actions[:, 0])
        with pytest.raises(AimeError, match="the state's"):
            model.observe(poisoned, frames[:, 1], actions[:, 0])


def test_a_state_and_a_frame_of_other_batches_are_refused(model: AIME, frames: Tensor, actions: Tensor) -> None:
    state = seen_state(model, frames)
    with pytest.raises(AimeError, match="one frame for each of the 2 videos"):
        model.observe(state, frames[:1, 1], actions[:, 0])
    with pytest.raises(AimeError, match=r"action has shape \[1, 2\]"):
        model.imagine(state, actions[:1, 0])
    with pytest.raises(AimeError, match="reset is float32"):
        model.observe(state, frames[:, 1], actions[:, 0], torch.ones(B))


@torch.no_grad()
def test_a_reset_forgets_whatever_the_state_was(frames: Tensor, actions: Tensor) -> None:
    model = AIME(small_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = seen_state(model, frames)
    poisoned = torch.utils._pytree.tree_map_only(
        Tensor, lambda each: torch.full_like(each, torch.nan) if each.is_floating_point() else each, state
    )
    everywhere = torch.ones(B, dtype=torch.bool)
    begun, seen = model.observe(poisoned, frames[:, 1], torch.full((B, 2), torch.nan), everywhere)
    fresh, expected = model.observe(model.initial_state(B), frames[:, 1], torch.zeros(B, 2))
    assert torch.equal(seen.latent, expected.latent) and torch.equal(seen.attention, expected.attention)
    for _ in range(4):
        begun, seen = model.observe(begun, frames[:, 2], actions[:, 1])
        fresh, expected = model.observe(fresh, frames[:, 2], actions[:, 1])
        for mine, theirs in zip(
            torch.utils._pytree.tree_leaves(begun), torch.utils._pytree.tree_leaves(fresh), strict=True
        ):
            assert torch.equal(mine, theirs)
        assert torch.equal(seen.prior.mixture.means, expected.prior.mixture.means)
