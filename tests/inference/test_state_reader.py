"""A reader of states: it reads true frames, leaves out what they do not show, and sees a lost body."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.inference.carts import carts, scenery
from torch import Tensor

from aime.data import Dataset, Episode, open_dataset, write_shard
from aime.data.state_names import note_state_names
from aime.inference.state_reader import FrameStateReader, fit_reader

LENGTH, SIZE = 16, 32
BACKGROUND = scenery()[:, :SIZE, :SIZE]


def swinging(seed: int) -> Episode:
    """A bar that drives and turns, several times round; the state is its place, its angle and a number unseen."""
    random = np.random.default_rng(seed)
    time = np.arange(LENGTH)
    place = np.sin(random.uniform(0, 6.28) + time / 5)
    angle = random.uniform(-12, 12) + 0.3 * time
    pixels = np.repeat((BACKGROUND.permute(1, 2, 0).numpy() * 255).astype(np.uint8)[None], LENGTH, axis=0)
    for row in range(LENGTH):
        for step in np.arange(0, 8, 0.5):
            x = round(16 + 6 * place[row] + step * math.sin(angle[row]))
            y = round(16 - step * math.cos(angle[row]))
            pixels[row, y - 1 : y + 2, x - 1 : x + 2] = 220
    state = np.stack([place, angle, random.normal(size=LENGTH)], axis=1).astype(np.float32)
    zeros = np.zeros((LENGTH, 1), np.float32)
    return Episode(pixels, zeros, zeros[:, 0], np.zeros(LENGTH, bool), state)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("reader") / "0.h5"
    names = note_state_names({"place": 1, "angle": 1, "luck": 1})
    write_shard(path, [swinging(seed) for seed in range(70)], names)
    return open_dataset(path)


@pytest.fixture(scope="module")
def reader(dataset: Dataset) -> FrameStateReader:
    found = fit_reader(dataset)
    assert isinstance(found, FrameStateReader), found
    return found


def test_it_reads_what_frames_show_and_leaves_out_the_rest(reader: FrameStateReader) -> None:
    assert reader.entries == ("place", "angle")
    assert [column.form for column in reader.columns] == ["value", "cos", "sin"]
    assert min(reader.scores) > 0.8
    assert "luck" not in reader.title and "place 0.9" in reader.title


def test_a_dream_without_the_body_is_misread(reader: FrameStateReader) -> None:
    episode = swinging(1000)
    assert episode.state is not None
    frames = torch.from_numpy(episode.pixels).permute(0, 3, 1, 2)[None].float() / 255
    states = torch.from_numpy(episode.state)[None]
    states[0, -1, 1] = torch.nan
    truth = frames[:, 4:]
    empty = BACKGROUND.expand_as(truth)
    errors = reader.judge(truth, torch.stack([truth, truth], dim=1), frames, states)
    torch.testing.assert_close(errors.likeliest, errors.true_frames, equal_nan=True)
    torch.testing.assert_close(errors.samples, errors.likeliest, equal_nan=True)
    assert bool(errors.likeliest[0, -1, 1].isnan()) and int(errors.likeliest.isnan().sum()) == 1
    lost = reader.judge(empty, empty[:, None], frames, states)
    assert _mean(lost.likeliest) > 5 * _mean(errors.likeliest)
    assert _mean(errors.persistence) > 2 * _mean(errors.true_frames)


def _mean(errors: Tensor) -> float:
    return float(errors.nanmean())


def test_the_same_episodes_give_the_same_reader(dataset: Dataset) -> None:
    some = dataset.select(np.arange(40))
    torch.manual_seed(5)
    first = fit_reader(some)
    drawn = torch.rand(1)
    second = fit_reader(some)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the global generator is left alone"
    assert isinstance(first, FrameStateReader) and isinstance(second, FrameStateReader)
    assert first.scores == second.scores


def test_why_there_is_no_reader_is_said_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    assert fit_reader(None) == "none: the data has no other episodes to fit a reader to"
    few = fit_reader(dataset.select([0, 1]))
    assert isinstance(few, str) and "have 32 frames with known states" in few
    place = tmp_path / "0.h5"
    frames = carts(torch.full((1, LENGTH), 20)).frames[0].permute(0, 2, 3, 1).numpy()
    zeros = np.zeros((LENGTH, 1), np.float32)
    write_shard(place, [Episode(np.ascontiguousarray(frames), zeros, zeros[:, 0], np.zeros(LENGTH, bool))])
    assert fit_reader(open_dataset(place)) == "none: the data has no states"
