from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from tests.conftest import synthetic_episode
from tests.inference.runs import Run, write_run

from aime.data import write_shard
from aime.dynamics.choices import likeliest
from aime.environments.dream_env import DreamEnv, DreamVectorEnv
from aime.errors import AimeError
from aime.inference.learned_data import open_experience
from aime.primitives.config_io import to_yaml
from aime.primitives.distributions.two_hot import symlog
from aime.primitives.tensor_files import save_weights
from aime.world_model.model import AIME
from aime.world_model.saved import read_run

SINGLE = "aime.environments:aime/Dream-v0"
SETTINGS: dict[str, Any] = {"context": 3, "starts": 32, "horizon": 6}


def eager_run(place: Path) -> Run:
    """A run whose heads have opinions: rewards that differ, and a continuation that lies near one half."""
    run = write_run(place)
    model = AIME.from_pretrained(run.path)
    assert model.dynamics.control is not None
    torch.manual_seed(1)
    torch.nn.init.normal_(model.dynamics.control.reward.logits.weight, std=0.5)
    model.dynamics.control.rewards_seen.fill_(1)
    torch.nn.init.normal_(model.dynamics.control.continuation.logit.weight, std=2.0)
    torch.nn.init.zeros_(model.dynamics.control.continuation.logit.bias)
    save_weights(model.state_dict(), run.path / "checkpoint" / "ema.safetensors")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eager_run(tmp_path_factory.mktemp("world")).path


def make(run: Path, **settings: Any) -> DreamEnv:
    environment = gymnasium.make(SINGLE, run=run, **(SETTINGS | settings)).unwrapped
    assert isinstance(environment, DreamEnv)
    return environment


def make_many(run: Path, number: int, **settings: Any) -> DreamVectorEnv:
    environment = gymnasium.make_vec(
        SINGLE, number, vectorization_mode="vector_entry_point", run=run, **(SETTINGS | settings)
    ).unwrapped
    assert isinstance(environment, DreamVectorEnv)
    return environment


def actions(steps: int, number: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, number, 2)).astype(np.float32)


def episode(environment: DreamEnv, seed: int | None, steps: int = 5) -> list[Any]:
    observation, _ = environment.reset(seed=seed)
    return [observation, *(environment.step(action) for action in actions(steps)[:, 0])]


def assert_same(first: Any, second: Any) -> None:
    for one, other in zip(first, second, strict=True):
        if isinstance(one, tuple | list):
            assert_same(one, other)
        elif isinstance(one, dict):
            assert_same(one.values(), other.values())
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("observations", ["latents", "frames"])
def test_gymnasium_s_checker_passes(run: Path, observations: str) -> None:
    environment = make(run, observations=observations, terminate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a belief has no bounds
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity")
        check_env(environment)


def test_the_spaces_are_those_of_the_model(run: Path) -> None:
    model = read_run(run).model
    latents, frames = make(run), make(run, observations="frames")
    assert latents.observation_space.shape == (model.belief + model.latent,)
    assert frames.observation_space == gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
    assert latents.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def test_a_seed_and_the_actions_determine_an_episode_and_touch_no_generator(run: Path) -> None:
    environment = make(run)
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)
    first = episode(environment, seed=7)
    following = episode(environment, seed=None)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_equal(before[1], np.random.get_state(legacy=False))
    torch.rand(5)
    again = make(run)
    assert_same(first, episode(again, seed=7))
    assert_same(following, episode(again, seed=None))
    assert not np.array_equal(first[-1][0], following[-1][0])
    assert not np.array_equal(first[-1][0], episode(environment, seed=8)[-1][0])


def test_an_episode_begins_at_a_real_frame(run: Path) -> None:
    known = np.concatenate([each.pixels[2:] for each in open_experience(read_run(run), None)])
    environment = make(run, observations="frames")
    for seed in range(5):
        frame, _ = environment.reset(seed=seed)
        assert (known == frame).all(axis=(1, 2, 3)).any()


def test_the_vector_form_is_the_single_form_side_by_side(run: Path) -> None:
    """Rows that end begin the episodes that a single dream begins next, one step later, whatever the others do."""
    number, steps, seed = 4, 17, 20
    many = make_many(run, number)
    alone = [make(run) for _ in range(number)]
    chosen = actions(steps, number)
    observed, _ = many.reset(seed=seed)
    expected = [each.reset(seed=seed + row)[0] for row, each in enumerate(alone)]
    np.testing.assert_allclose(observed, expected, atol=1e-6)
    over, ends = np.zeros(number, bool), np.zeros(number, int)
    for step in range(steps):
        observed, reward, terminated, truncated, info = many.step(chosen[step])
        for row, each in enumerate(alone):
            if over[row]:
                single: Any = (each.reset()[0], 0.0, False, False, {})
            else:
                single = each.step(chosen[step, row])
                assert info["continuation"][row] == pytest.approx(single[4]["continuation"], abs=1e-5)
            assert info["_continuation"][row] == (not over[row])
            np.testing.assert_allclose(observed[row], single[0], atol=1e-5)
            # what the untrained head hopes for is an exponential, of 13 or so: rounding there is a factor here
            many_hope, one_hope = symlog(torch.tensor([reward[row], single[1]], dtype=torch.float64)).tolist()
            assert many_hope == pytest.approx(one_hope, rel=2e-5, abs=1e-5)
            assert (terminated[row], truncated[row]) == single[2:4]
        over = terminated | truncated
        ends += over
    assert ends.min() >= 2 and many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_starting_again_in_the_same_step_leaves_out_the_step_between(run: Path) -> None:
    """One row's episodes, in both modes: the same observations, rewards and ends."""
    settled = make_many(run, 1, autoreset_mode=AutoresetMode.NEXT_STEP)
    quick = make_many(run, 1, autoreset_mode=AutoresetMode.SAME_STEP)
    assert quick.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    np.testing.assert_array_equal(settled.reset(seed=3)[0], quick.reset(seed=3)[0])
    ends = 0
    for action in actions(20):
        expected, reward, terminated, truncated, _ = settled.step(action)
        observed, *same, info = quick.step(action)
        assert_same([reward, terminated, truncated], same)
        if terminated[0] or truncated[0]:
            np.testing.assert_array_equal(info["final_obs"], expected)
            expected = settled.step(action)[0]
            ends += 1
        assert ("final_obs" in info) == bool(terminated[0] or truncated[0])
        np.testing.assert_array_equal(observed, expected)
    assert ends >= 3


def test_an_episode_is_truncated_at_the_horizon_and_terminated_by_the_model(run: Path) -> None:
    patient = make_many(run, 16, terminate=False)
    patient.reset(seed=0)
    ends = [patient.step(action)[2:4] for action in actions(6, 16)]
    assert not np.stack([terminated for terminated, _ in ends]).any()
    assert [bool(truncated.all()) for _, truncated in ends] == [False] * 5 + [True]
    mortal = make_many(run, 16)
    mortal.reset(seed=0)
    _, _, terminated, _, info = mortal.step(actions(1, 16)[0])
    assert terminated.any() and not terminated.all()
    np.testing.assert_array_equal(terminated, info["continuation"] < 0.5)


def test_the_dream_is_the_model_s(run: Path) -> None:
    """A deterministic dream is what the model itself imagines from the same frames, step by step."""
    model = AIME.from_pretrained(run)
    environment = make_many(run, 3, deterministic=True, observations="frames", terminate=False)
    environment.reset(seed=0)
    now = environment.snapshot()
    state, last_map, _ = now.states
    assert model.dynamics.control is not None
    for action in actions(4, 3):
        frames, reward, *_ = environment.step(action)
        with torch.no_grad():
            state, prior, _ = model.dynamics.step(state, torch.from_numpy(action), likeliest)
            torch.testing.assert_close(state.latent, prior.mixture.mode().value)
            last_map = model.attention.expect(state.belief, state.latent, last_map).map
            expected = model.decode(state.latent, last_map)
        np.testing.assert_allclose(frames, 255 * expected.permute(0, 2, 3, 1).numpy(), atol=0.51)
        told = model.dynamics.control.reward(*state.read).mean.detach().numpy()
        np.testing.assert_allclose(reward, told, rtol=1e-4)


def test_samples_follow_the_prior(run: Path) -> None:
    """Over many seeds from one start, components are chosen by their weights and latents scatter by their spreads."""
    number = 4000
    environment = make_many(run, number, starts=1, terminate=False)
    environment.reset(seed=0)
    model, now = AIME.from_pretrained(run), environment.snapshot().states.carry
    chosen = np.zeros((number, 2), np.float32)
    environment.step(chosen)
    latents = environment.snapshot().states.carry.latent
    with torch.no_grad():
        mixture = model.dynamics.step(now, torch.from_numpy(chosen), likeliest)[1].mixture
    spread = ((mixture.weights[0, :, None] * (mixture.stds[0].square() + mixture.means[0].square())).sum(0)) - (
        mixture.mean[0].square()
    )
    standard_error = (spread / number).sqrt()
    assert ((latents.mean(0) - mixture.mean[0]).abs() < 5 * standard_error).all()
    np.testing.assert_allclose(latents.var(0), spread, rtol=0.15)


@pytest.mark.parametrize("observations", ["latents", "frames"])
def test_a_snapshot_can_be_gone_back_to_again_and_again(run: Path, observations: str) -> None:
    environment = make(run, observations=observations, terminate=False)
    episode(environment, seed=1, steps=2)
    kept = environment.snapshot()
    first = [environment.step(action) for action in actions(6, seed=5)[:, 0]]
    for _ in range(2):
        environment.restore(kept)
        assert_same(first, [environment.step(action) for action in actions(6, seed=5)[:, 0]])
    other = make(run, observations=observations, terminate=False)
    np.testing.assert_array_equal(other.restore(kept), environment.restore(kept))
    with pytest.raises(AimeError, match="holds 1 dreams, expected 2"):
        make_many(run, 2, observations=observations).restore(kept)


def test_what_is_rendered_is_what_is_observed(run: Path) -> None:
    environment = make(run, observations="frames", render_mode="rgb_array")
    observation, _ = environment.reset(seed=0)
    np.testing.assert_array_equal(environment.render(), observation)
    observation = environment.step(actions(1)[0, 0])[0]
    np.testing.assert_array_equal(environment.render(), observation)
    latents = make(run, render_mode="rgb_array")
    latents.reset(seed=0)
    latents.step(actions(1)[0, 0])
    np.testing.assert_array_equal(latents.render(), observation)
    assert make(run).render() is None


def test_actions_beyond_their_range_count_as_its_ends(run: Path) -> None:
    environment = make(run)
    environment.reset(seed=0)
    kept = environment.snapshot()
    beyond = environment.step(np.array([3.0, -7.0]))[0]
    environment.restore(kept)
    np.testing.assert_array_equal(beyond, environment.step(np.array([1.0, -1.0]))[0])


def test_actions_that_are_none_are_refused_in_one_line(run: Path) -> None:
    environment = make_many(run, 2)
    environment.reset(seed=0)
    with pytest.raises(AimeError, match="an action is NaN or infinite"):
        environment.step(np.full((2, 2), np.nan))
    with pytest.raises(AimeError, match=r"shape \[2, 3\], expected \[2, 2\]"):
        environment.step(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observations": "pixels"}, "observations is 'pixels'"),
        ({"horizon": 0}, "horizon is 0, expected 1 or more"),
        ({"context": 0}, "context is 0"),
        ({"starts": 0}, "starts is 0"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"autoreset_mode": AutoresetMode.DISABLED}, "autoreset_mode is DISABLED"),
        ({"context": 21}, "longest episode has 20 frames, expected 21"),
    ],
)
def test_settings_out_of_range_are_refused(run: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AimeError, match=message) as refusal:
        DreamVectorEnv(run=run, **({"num_envs": 2} | SETTINGS | settings))
    assert "\n" not in str(refusal.value)


def test_a_run_without_a_reward_head_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    run = write_run(tmp_path).path
    info = read_run(run)
    model = dataclasses.replace(info.model, control=dataclasses.replace(info.model.control, kind="none"))
    (run / "config.yaml").write_text(to_yaml({"preset": "small", "model": model, "train": dict(info.train)}))
    (run / "checkpoint" / "ema.safetensors").unlink()
    with pytest.raises(AimeError, match=r"no reward head \(model.control.kind is none\)"):
        DreamEnv(run)


def test_a_reward_head_that_never_saw_a_reward_is_refused(tmp_path: Path) -> None:
    untaught = write_run(tmp_path).path
    model = AIME.from_pretrained(untaught)
    assert model.dynamics.control is not None
    model.dynamics.control.rewards_seen.fill_(0)
    save_weights(model.state_dict(), untaught / "checkpoint" / "ema.safetensors")
    with pytest.raises(AimeError, match="never seen a reward"):
        DreamEnv(untaught, **SETTINGS)


def test_data_without_rewards_or_of_another_world_is_refused(run: Path, tmp_path: Path) -> None:
    bare = dataclasses.replace(synthetic_episode(10, 0, 32), reward=np.zeros(10, np.float32))
    write_shard(tmp_path / "bare" / "0.h5", [bare])
    with pytest.raises(AimeError, match="every reward is 0 or missing"):
        DreamEnv(run, data=tmp_path / "bare")
    write_shard(tmp_path / "wide" / "0.h5", [synthetic_episode(10, 0, 32, action_width=3)])
    with pytest.raises(AimeError, match="action: width is 3, expected 2"):
        DreamEnv(run, data=tmp_path / "wide")
