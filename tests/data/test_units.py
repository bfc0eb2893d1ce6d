"""Shards with different action scales are read in one scale, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import synthetic_episode

from aime.data import Episode, open_dataset, write_shard
from aime.data.action_scale import ActionScale
from aime.data.units import Line
from aime.errors import AimeError
from aime.io.exporters.interface import originals

RADIANS, DEGREES = ActionScale((-3.0, 0.0), (3.0, 1.0)), ActionScale((-90.0, 0.5), (180.0, 0.5))


def imported(path: Path, scale: ActionScale | None, seed: int = 0) -> Episode:
    """An episode on disk as an importer leaves it: unit actions, and the scale beside them."""
    episode = synthetic_episode(9, seed)
    write_shard(path, [episode], {} if scale is None else scale.attributes())
    return episode


@given(
    st.tuples(st.floats(-100, 100), st.floats(0.01, 100)),
    st.tuples(st.floats(0, 50), st.floats(0, 50)),
    st.floats(-1, 1),
)
def test_a_line_keeps_what_an_action_means(
    inner: tuple[float, float], more: tuple[float, float], action: float
) -> None:
    own = ActionScale((inner[0],), (inner[0] + inner[1],))
    target = ActionScale((own.low[0] - more[0],), (own.high[0] + more[1],))
    line = Line.between(own, target)
    moved = np.float32(action) * line.gain + line.offset
    assert np.abs(moved) <= 1 + 1e-6
    expected = own.to_source(np.array([[action]]))
    np.testing.assert_allclose(target.to_source(moved[None]), expected, atol=1e-4 * (abs(expected).max() + 1))


def test_shards_of_different_scales_are_read_in_the_least_that_holds_all(tmp_path: Path) -> None:
    one, two = imported(tmp_path / "a.h5", RADIANS), imported(tmp_path / "b.h5", DEGREES, 1)
    dataset = open_dataset(tmp_path)
    assert dataset.action_scale == ActionScale((-90.0, 0.0), (180.0, 1.0))
    assert ActionScale.of_attributes(dataset.attributes) == dataset.action_scale
    for found, episode, scale in zip(originals(dataset), (one, two), (RADIANS, DEGREES), strict=True):
        assert found.action is not None
        np.testing.assert_allclose(found.action, scale.to_source(episode.action), atol=1e-4)
    assert all(np.nanmax(np.abs(episode.action)) <= 1 for episode in dataset)


def test_one_scale_changes_no_number(tmp_path: Path) -> None:
    for name in ("a", "b"):
        episode = imported(tmp_path / f"{name}.h5", RADIANS)
    for read in open_dataset(tmp_path):
        np.testing.assert_array_equal(read.action, episode.action)


def test_actions_in_unknown_units_are_not_mixed(tmp_path: Path) -> None:
    imported(tmp_path / "a" / "0.h5", RADIANS)
    imported(tmp_path / "b" / "0.h5", None)
    with pytest.raises(AimeError, match=r"b/0\.h5: does not say in which units .* where they are -3 to 3, 0 to 1; imp"):
        open_dataset(f"{tmp_path / 'a'}, {tmp_path / 'b'}")
    imported(tmp_path / "c" / "0.h5", ActionScale.identity(2))
    mixed = open_dataset(f"{tmp_path / 'b'}, {tmp_path / 'c'}")
    assert mixed.action_scale == ActionScale.identity(2)


def test_video_without_actions_fits_any_scale(tmp_path: Path) -> None:
    imported(tmp_path / "a.h5", RADIANS)
    video = synthetic_episode(9)
    video.action[:] = np.nan
    write_shard(tmp_path / "b.h5", [video])
    assert open_dataset(tmp_path).action_scale == RADIANS


def test_a_scale_that_is_asked_for(tmp_path: Path) -> None:
    episode = imported(tmp_path / "a.h5", RADIANS)
    wide = ActionScale((-30.0, -9.0), (30.0, 11.0))
    read = open_dataset(tmp_path).in_scale(wide)
    assert read.select([0]).action_scale == wide
    np.testing.assert_allclose(read.read(0).action[:, 0], episode.action[:, 0] / 10, rtol=1e-5)
    assert open_dataset(tmp_path).in_scale(None).action_scale == RADIANS
    with pytest.raises(
        AimeError, match=r"a\.h5: has actions of -3 to 3, 0 to 1, of which some lie outside of the run's"
    ):
        open_dataset(tmp_path).in_scale(ActionScale((-1.0, 0.0), (1.0, 1.0)))


def test_a_scale_of_another_width_is_damage(tmp_path: Path) -> None:
    imported(tmp_path / "a.h5", ActionScale.identity(3))
    with pytest.raises(AimeError, match="are 3 wide, expected 2 as 'action'"):
        open_dataset(tmp_path)


def test_an_action_that_the_run_knows_as_one_number_must_be_that_number(tmp_path: Path) -> None:
    run = ActionScale((-1.0, 0.3), (1.0, 0.3))
    actions = np.array([[0.5, 0.3], [-0.5, 0.3], [0.0, 0.3]], np.float32)
    for name, second, own in (
        ("same", 0.3, ActionScale((-1.0, -1.0), (1.0, 1.0))),
        ("constant", 0.0, run),
        ("moves", 0.31, ActionScale((-1.0, -1.0), (1.0, 1.0))),
        ("elsewhere", 0.0, ActionScale((-1.0, 0.4), (1.0, 0.4))),
    ):
        episode = synthetic_episode(3)
        episode = Episode(episode.pixels, actions.copy(), episode.reward, episode.terminated, episode.state)
        episode.action[1, 1] = second
        episode.action[[0, 2], 1] = 0.0 if own.low[1] == own.high[1] else 0.3
        write_shard(tmp_path / f"{name}.h5", [episode], own.attributes())
        if name in ("moves", "elsewhere"):
            with pytest.raises(AimeError, match=r"some lie outside of the run's -1 to 1, 0\.3 to 0\.3"):
                open_dataset(tmp_path / f"{name}.h5").in_scale(run)
        else:
            read = open_dataset(tmp_path / f"{name}.h5").in_scale(run).read(0).action
            np.testing.assert_allclose(read, [[0.5, 0.0], [-0.5, 0.0], [0.0, 0.0]], atol=1e-6)
