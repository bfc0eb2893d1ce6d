"""A directory of levels: what is found in it, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aime.benchmarking.dmc_vb.levels import find_level, open_levels
from aime.data import Episode, write_shard
from aime.errors import AimeError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def place(tmp_path: Path, make_episode: MakeEpisode) -> Path:
    """Levels named as `aime collect` and as DMC-VB name them, one of them as an import leaves it."""
    for number, name in enumerate(("none", "static_medium/train", "dynamic")):
        episodes = [make_episode(8 + each, 10 * number + each) for each in range(4)]
        noted = {"distractor": name} if name in ("none", "dynamic") else {}
        write_shard(tmp_path / name / "0.h5", episodes, noted)
    return tmp_path


def test_levels_are_found_under_either_name(place: Path) -> None:
    found = open_levels(place, ("none", "static", "dynamic"), 0.3)
    assert [Path(each.path).relative_to(place) for each in found] == [
        Path("none"),
        Path("static_medium/train"),
        Path("dynamic"),
    ]
    assert [(each.train, each.held_out) for each in found] == [(2, 2)] * 3
    rewards = [found[1].dataset.read(number).reward for number in range(4)]
    np.testing.assert_allclose(found[1].returns, [np.nansum(each, dtype=np.float64) for each in rewards], rtol=1e-6)


def refusal(place: Path, held_out: float = 0.3) -> str:
    with pytest.raises(AimeError) as refused:
        open_levels(place, ("none", "static", "dynamic"), held_out)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_missing_level_names_the_command_that_makes_it(place: Path) -> None:
    (place / "dynamic").rename(place / "elsewhere")
    message = refusal(place)
    assert "has no level dynamic; expected a directory dynamic or dynamic_medium in it" in message
    assert "aime collect --distractor dynamic" in message and "--levels none,static" in message


def test_a_directory_that_is_none_of_these_is_refused(place: Path) -> None:
    assert "is missing; expected a directory" in refusal(place / "nowhere")
    assert "or pass the parent directory" in refusal(place / "none")
    (place / "static").mkdir()
    assert "has both static and static_medium" in refusal(place)
    (place / "static_medium").rename(place / "moved")
    assert "has no shards, nor has train in it" in refusal(place)
    with pytest.raises(AimeError, match="is a file; expected a directory"):
        find_level(place / "none" / "0.h5", "none")


def test_levels_that_differ_in_more_than_distractors_are_refused(place: Path, make_episode: MakeEpisode) -> None:
    (place / "dynamic" / "0.h5").unlink()
    write_shard(place / "dynamic" / "0.h5", [make_episode(9, each, action_width=1) for each in range(4)])
    assert "action width is 1; expected 2" in refusal(place)


def test_a_level_recorded_under_another_distractor_is_refused(place: Path, make_episode: MakeEpisode) -> None:
    (place / "dynamic" / "0.h5").unlink()
    write_shard(place / "dynamic" / "0.h5", [make_episode(9, each) for each in range(4)], {"distractor": "static"})
    assert "was recorded with distractor static; expected dynamic" in refusal(place)


def test_too_few_episodes_and_no_actions_are_refused(place: Path, make_episode: MakeEpisode) -> None:
    assert "leaves 1 of 4 episodes to train on" in refusal(place, 0.9)
    assert "--held-out 0 are held out" in refusal(place, 0)
    videos = [make_episode(9, seed) for seed in range(4)]
    for video in videos:
        video.action[:] = np.nan
    (place / "dynamic" / "0.h5").unlink()
    write_shard(place / "dynamic" / "0.h5", videos)
    assert "its first episode has no actions" in refusal(place)
