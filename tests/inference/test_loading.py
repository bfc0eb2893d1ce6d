"""Which clips are shown and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import synthetic_episode
from tests.models import SIZE, small_config

from aime.data import Episode, open_dataset, write_shard
from aime.errors import AimeError
from aime.inference.loading import lively_clips, open_unseen, same_source
from aime.world_model.saved import RunInfo


def episode(length: int, lively_from: int | None, seed: int) -> Episode:
    """Still frames, that flicker from one step on."""
    pixels = np.full((length, 8, 8, 3), 100, np.uint8)
    if lively_from is not None:
        pixels[lively_from::2] = 200
    action = np.full((length, 1), seed / 10, np.float32)
    return Episode(pixels, action, np.zeros(length, np.float32), np.zeros(length, bool))


def test_pictures_show_the_liveliest_clip_of_each_stretch(tmp_path: Path) -> None:
    episodes = [episode(20, start, seed) for seed, start in enumerate([None, 10, None, None, 0, None])]
    write_shard(tmp_path / "0.h5", episodes)
    clips = lively_clips(open_dataset(tmp_path), length=10, count=2)
    assert clips.frames.shape[:2] == (2, 10)
    assert clips.actions[:, 0, 0].tolist() == pytest.approx([0.1, 0.4])
    assert (clips.frames[0, 1:] != clips.frames[0, :-1]).any(dim=1).all()
    assert clips.valid.all()


def test_there_are_no_more_pictures_than_episodes(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.h5", [episode(10, None, seed) for seed in range(3)])
    assert lively_clips(open_dataset(tmp_path), length=10, count=9).frames.shape[0] == 3


def test_sources_are_one_however_they_are_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert same_source("data", tmp_path / "data")
    assert same_source("link/", str(tmp_path / "data"))
    assert not same_source("data", tmp_path)
    assert same_source("bundled:cartpole", "bundled:cartpole")
    assert not same_source("bundled:cartpole", tmp_path / "bundled:cartpole")
    assert same_source("link, bundled:cartpole=0.5", "bundled:cartpole,data")


def test_a_run_on_several_sources_is_judged_on_what_each_holds_out(tmp_path: Path) -> None:
    for place in ("one", "other", "third"):
        write_shard(tmp_path / place / "0.h5", [synthetic_episode(20, seed, SIZE) for seed in range(2)])
    one, other, third = (tmp_path / place for place in ("one", "other", "third"))
    info = RunInfo(tmp_path, "small", small_config(), {"data": f"{one}, {other}=0.2", "seed": 0, "held_out": 0.5})
    assert open_unseen(info, None, 5, 5).dataset.episodes == 2
    assert (open_unseen(info, other, 5, 5).split, open_unseen(info, other, 5, 5).dataset.episodes) == ("held-out", 1)
    assert open_unseen(info, third, 5, 5).split == "all"
    with pytest.raises(AimeError, match="trained on some of these sources only"):
        open_unseen(info, f"{other}, {third}", 5, 5)
    with pytest.raises(AimeError, match=r"0\.h5: is a part of .*other, which"):
        open_unseen(info, other / "0.h5", 5, 5)
