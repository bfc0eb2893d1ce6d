"""Masks of DeepMind Control: they lie where the bodies are, and change nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aime.data import Episode, open_dataset
from aime.io.collect import Recording, collect, record_episode
from aime.io.collect.environment import RENDERER_FLAGS, ControlSuite
from aime.io.collect.plan import plan

CARTPOLE = Recording("cartpole", "swingup", 12, "smooth", 3, "none", action_repeat=4, image_size=64, camera=0)

FIELDS = ("pixels", "action", "reward", "terminated", "state")


def centre(mask: np.ndarray, instance: int) -> np.ndarray:
    """Mean row and column of an instance in each mask, `[L, 2]`."""
    return np.array([np.argwhere(frame == instance).mean(axis=0) for frame in mask])


@pytest.mark.usefixtures("rendering")
def test_cart_and_pole_lie_where_the_state_says_and_all_else_is_as_without_masks() -> None:
    recording = replace(CARTPOLE, masks=True)
    world = recording.build()
    assert world.notes()["mask_names"] == '{"1": "cart", "2": "pole"}'
    seen = [record_episode(world, recording, number) for number in range(3)]
    bare = record_episode(CARTPOLE.build(), CARTPOLE, 0)
    assert bare.mask is None
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(seen[0], name), getattr(bare, name))
    masks = np.concatenate([episode.mask for episode in seen if episode.mask is not None])
    states = np.concatenate([episode.state for episode in seen if episode.state is not None])
    assert masks.shape == (36, 64, 64) and set(np.unique(masks)) == {0, 1, 2}
    cart = centre(masks, 1)
    per_metre, middle = np.polyfit(states[:, 0], cart[:, 1], 1)
    assert per_metre > 10  # the camera sees the track from the front
    np.testing.assert_allclose(cart[:, 1], middle + per_metre * states[:, 0], atol=0.6)
    # the bodies of this task are painted in warm colours, and sky and floor are blue
    pixels = np.concatenate([episode.pixels for episode in seen]).astype(int)
    warmth = pixels[..., 0] - pixels[..., 2]
    assert min(warmth[masks == 1].mean(), warmth[masks == 2].mean()) > 20 > 0 > warmth[masks == 0].mean()


@pytest.mark.usefixtures("rendering")
def test_the_pole_points_where_its_angle_says() -> None:
    world = ControlSuite("cartpole", "swingup", 4, 64, 0, masks=True)
    angles = np.linspace(-2.5, 2.5, 9)
    masks = []
    for angle in angles:
        with world._physics.reset_context():
            world._physics.data.qpos[:] = 0.3, angle
        masks.append(world._arrive(0.0, False).mask)
    found = np.stack([mask for mask in masks if mask is not None])
    reach = centre(found, 2) - centre(found, 1)
    assert np.corrcoef(reach[:, 1], np.sin(angles))[0, 1] > 0.98
    assert np.corrcoef(-reach[:, 0], np.cos(angles))[0, 1] > 0.98


@pytest.mark.usefixtures("rendering")
def test_frames_are_those_of_the_simulator_s_own_renderer_and_floor_and_goal_are_background() -> None:
    world = ControlSuite("reacher", "easy", 4, 64, 0, segment=True, masks=True)
    for move in (lambda: world.reset(1), lambda: world.step(np.ones(2, np.float32))):
        arrival = move()
        expected = world._physics.render(64, 64, camera_id=0, render_flag_overrides=dict(RENDERER_FLAGS))
        np.testing.assert_array_equal(arrival.pixels, expected)
        objects = world._physics.render(64, 64, camera_id=0, segmentation=True)
        names = np.array([*(world._physics.model.id2name(number, "geom") for number in range(10)), ""])
        shown = names[np.where(objects[..., 1] == 5, objects[..., 0], -1)]
        assert arrival.mask is not None and arrival.background is not None
        for number, name in enumerate(("arm", "hand", "finger"), 1):
            np.testing.assert_array_equal(arrival.mask == number, shown == name)
        assert (shown == "target").any() and (arrival.mask[shown == "target"] == 0).all()
        assert (arrival.background[arrival.mask > 0] < 1).all()


@pytest.mark.usefixtures("rendering")
def test_masks_are_recorded_bit_by_bit_again_and_an_older_recording_goes_on(tmp_path: Path) -> None:
    quiet, recording = Console(quiet=True), replace(CARTPOLE, length=4, image_size=16, masks=True)
    collect([replace(recording, masks=False)], tmp_path, 1, 1, console=quiet)
    collect([recording], tmp_path, 3, 1, console=quiet)
    dataset = open_dataset(tmp_path)
    assert dataset.has_mask.tolist() == [False, True, True]
    assert dataset.mask_names == {1: "cart", 2: "pole"}
    assert plan(recording, tmp_path, 3, 1) == []
    last = max(tmp_path.iterdir())
    before = last.read_bytes()
    last.unlink()
    collect([recording], tmp_path, 3, 1, console=quiet)
    assert last.read_bytes() == before
    expected: Episode = record_episode(recording.build(), recording, 2)
    np.testing.assert_array_equal(open_dataset(tmp_path).masks(2), expected.mask)
