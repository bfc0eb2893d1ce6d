"""Which clips are shown and judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aime.data import Episode, open_dataset, write_shard
from aime.data.clips import read_clips
from aime.inference.loading import moving_clip_starts


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
    dataset = open_dataset(tmp_path)
    clips = read_clips(dataset, moving_clip_starts(dataset, length=10, count=2), 10)
    assert clips.frames.shape[:2] == (2, 10)
    assert clips.actions[:, 0, 0].tolist() == pytest.approx([0.1, 0.4])
    assert (clips.frames[0, 1:] != clips.frames[0, :-1]).any(dim=1).all()
    assert clips.valid.all()


def test_there_are_no_more_pictures_than_episodes(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.h5", [episode(10, None, seed) for seed in range(3)])
    assert len(moving_clip_starts(open_dataset(tmp_path), length=10, count=9).episodes) == 3
