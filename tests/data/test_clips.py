"""Clips are a pure function of (seed, step, rank), uniform, masked, and never cross an episode's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import synthetic_episode

from aime.data import Clips, ClipSampler, Dataset, Episode, load_clips, open_dataset, prefetch, write_shard
from aime.data.clips import clip_seeds, clip_starts
from aime.errors import AimeError

LENGTHS = [40, 7, 23, 64, 16]


@pytest.fixture
def dataset(shard_directory: Path) -> Dataset:
    return open_dataset(shard_directory)


def places(clips: Clips) -> list[tuple[int, int]]:
    """The (episode, start) of each clip, which the synthetic states spell out."""
    assert clips.states is not None
    return [(int(state[0, 1]), int(state[0, 0])) for state in clips.states]


def assert_same(one: Clips, other: Clips) -> None:
    for name, left, right in zip(Clips._fields, one, other, strict=True):
        assert left is not None, name
        assert right is not None, name
        assert torch.equal(left, right), name


def assert_is_stretch(dataset: Dataset, clips: Clips, row: int, episode: int, start: int) -> None:
    """One row of a batch against the episode itself, padding and masks included."""
    length = clips.frames.shape[1]
    whole = dataset.read(episode)
    steps = min(length, len(whole) - start)
    clip = dataset.read(episode, start, start + steps)
    padded = np.concatenate([clip.pixels, np.repeat(clip.pixels[-1:], length - steps, axis=0)])
    np.testing.assert_array_equal(clips.frames[row].permute(0, 2, 3, 1), padded)
    assert clips.valid[row].tolist() == [True] * steps + [False] * (length - steps)
    np.testing.assert_array_equal(clips.actions[row, :steps], np.nan_to_num(clip.action))
    np.testing.assert_array_equal(clips.rewards[row, :steps], np.nan_to_num(clip.reward))
    np.testing.assert_array_equal(clips.terminated[row, :steps], clip.terminated)
    np.testing.assert_array_equal(clips.action_valid[row, :steps], ~np.isnan(clip.action[:, 0]))
    np.testing.assert_array_equal(clips.reward_valid[row, :steps], ~np.isnan(clip.reward))
    for field in (clips.actions, clips.rewards, clips.terminated, clips.action_valid, clips.reward_valid):
        assert not field[row, steps:].any()
    assert clips.states is not None
    assert clip.state is not None
    np.testing.assert_array_equal(clips.states[row, :steps], clip.state)
    np.testing.assert_array_equal(clips.states[row, steps:], np.repeat(clip.state[-1:], length - steps, axis=0))


def test_shapes_and_dtypes(dataset: Dataset) -> None:
    clips = ClipSampler(dataset, batch=3, length=10, seed=0).sample(0)
    assert clips.frames.shape == (3, 10, 3, 8, 8)
    assert clips.frames.dtype == torch.uint8
    assert clips.frames[0].is_contiguous(memory_format=torch.channels_last)
    assert clips.actions.shape == (3, 10, 2)
    assert clips.actions.dtype == clips.rewards.dtype == torch.float32
    for mask in (clips.terminated, clips.valid, clips.action_valid, clips.reward_valid):
        assert (mask.shape, mask.dtype) == ((3, 10), torch.bool)
    assert clips.states is not None
    assert clips.states.shape == (3, 10, 3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 2**40), rank=st.integers(0, 7), length=st.integers(1, 80))
def test_every_clip_is_a_stretch_of_one_episode(dataset: Dataset, seed: int, step: int, rank: int, length: int) -> None:
    clips = ClipSampler(dataset, 4, length, seed, rank, ranks=8).sample(step)
    for row, (episode, start) in enumerate(places(clips)):
        assert start + length <= LENGTHS[episode] or start == 0
        assert_is_stretch(dataset, clips, row, episode, start)
    for field in (clips.actions, clips.rewards):
        assert torch.isfinite(field).all()


def test_sampling_is_pure(dataset: Dataset, shard_directory: Path) -> None:
    sampler = ClipSampler(dataset, 8, 5, seed=7, rank=1, ranks=2)
    forwards = [sampler.sample(step) for step in range(5)]
    backwards = [sampler.sample(step) for step in reversed(range(5))][::-1]
    fresh = ClipSampler(open_dataset(shard_directory), 8, 5, seed=7, rank=1, ranks=2).sample(3)
    for one, other in zip(forwards, backwards, strict=True):
        assert_same(one, other)
    assert_same(forwards[3], fresh)


def test_the_draws_of_a_seed_never_change(dataset: Dataset) -> None:
    """A run that is resumed under a later version must see the clips that it would have seen."""
    assert places(ClipSampler(dataset, 4, 5, seed=1).sample(0)) == [(2, 8), (0, 35), (3, 50), (3, 18)]
    later = ClipSampler(dataset, 4, 5, seed=1, rank=1, ranks=2).sample(1000)
    assert places(later) == [(3, 43), (3, 30), (3, 19), (3, 17)]


def test_seed_step_and_rank_each_change_the_draw(dataset: Dataset) -> None:
    drawn = {
        tuple(places(ClipSampler(dataset, 16, 5, seed, rank, ranks=4).sample(step)))
        for seed in (0, 1, 2**63)
        for step in (0, 1, 2)
        for rank in (0, 1, 3)
    }
    assert len(drawn) == 27


def test_every_legal_start_is_equally_likely(dataset: Dataset) -> None:
    """Chi-square against the uniform law over the 36 + 3 + 19 + 60 + 12 starts of clips of five steps."""
    sampler = ClipSampler(dataset, 500, 5, seed=3)
    drawn = [place for step in range(20) for place in places(sampler.sample(step))]
    legal = [(episode, start) for episode, length in enumerate(LENGTHS) for start in range(length - 4)]
    assert set(drawn) == set(legal)
    expected = len(drawn) / len(legal)
    counts = np.array([drawn.count(place) for place in legal])
    assert ((counts - expected) ** 2 / expected).sum() < 190  # 129 degrees of freedom: p = 4e-4


def test_no_clip_is_drawn_by_two_ranks(dataset: Dataset) -> None:
    one, two = (set(places(ClipSampler(dataset, 300, 5, 0, rank, ranks=2).sample(0))) for rank in (0, 1))
    assert not one & two


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": 0}, "batch is 0, expected at least 1"),
        ({"length": 0}, "length is 0, expected at least 1"),
        ({"seed": -1}, "seed is -1, expected 0 to 18446744073709551615"),
        ({"rank": 2, "ranks": 2}, "rank is 2, expected 0 to 1"),
    ],
)
def test_wrong_numbers_are_errors(dataset: Dataset, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(AimeError, match=words):
        ClipSampler(dataset, **{"batch": 1, "length": 1, "seed": 0} | arguments)


def test_prefetch_changes_no_batch(dataset: Dataset) -> None:
    sampler = ClipSampler(dataset, 4, 6, seed=2)
    ahead = list(prefetch(sampler, 3, 12, depth=3))
    assert len(ahead) == 9
    for step, clips in enumerate(ahead, start=3):
        assert_same(clips, sampler.sample(step))
    assert list(prefetch(sampler, 5, 5)) == []


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aime-prefetch")]


def test_prefetch_without_end_stops_when_closed(dataset: Dataset) -> None:
    batches = prefetch(ClipSampler(dataset, 2, 6, seed=2), 0)
    for _ in range(10):
        next(batches)
    assert len(readers()) == 1
    batches.close()
    assert readers() == []


def test_prefetch_reads_no_further_than_its_depth(dataset: Dataset) -> None:
    seen: list[int] = []

    class Recorder(ClipSampler):
        def sample(self, step: int) -> Clips:
            seen.append(step)
            return super().sample(step)

    batches = prefetch(Recorder(dataset, 2, 6, seed=2), 0, depth=3)
    next(batches)
    next(batches)
    batches.close()
    assert seen == list(range(len(seen)))
    assert len(seen) <= 5


def test_prefetch_hands_errors_over_at_their_step(dataset: Dataset) -> None:
    class Failing(ClipSampler):
        def sample(self, step: int) -> Clips:
            if step == 2:
                raise AimeError("the disk fell over")
            return super().sample(step)

    batches = prefetch(Failing(dataset, 2, 6, seed=2), 0)
    next(batches)
    next(batches)
    with pytest.raises(AimeError, match="the disk fell over"):
        next(batches)
    assert readers() == []


def test_evaluation_clips_are_fixed_and_do_not_overlap(dataset: Dataset, shard_directory: Path) -> None:
    clips = load_clips(dataset, length=20)
    expected = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 20), (3, 20), (3, 40)]
    assert places(clips) == expected
    for row, (episode, start) in enumerate(expected):
        assert_is_stretch(dataset, clips, row, episode, start)
    assert_same(clips, load_clips(shard_directory, length=20, split="all"))


def test_evaluation_clips_by_count_stride_and_split(dataset: Dataset, shard_directory: Path) -> None:
    assert places(load_clips(dataset, length=20, count=6)) == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 20)]
    assert places(load_clips(dataset.select([3]), length=20, stride=12)) == [(3, 0), (3, 12), (3, 24), (3, 36)]
    test, held_out = open_dataset(shard_directory, "test"), open_dataset(shard_directory, "held-out")
    assert places(load_clips(shard_directory, length=7)) == places(load_clips(test, length=7))
    assert places(load_clips(shard_directory, length=7, split="held-out")) == places(load_clips(held_out, length=7))
    for name in ("length", "stride", "count"):
        with pytest.raises(AimeError, match=f"{name} is 0, expected 1 or more"):
            load_clips(dataset, **{name: 0})  # type: ignore[arg-type]


def test_data_without_states_gives_none(tmp_path: Path, make_episode: Callable[..., Episode]) -> None:
    write_shard(tmp_path / "s.h5", [make_episode(9, state_width=None)])
    clips = load_clips(tmp_path / "s.h5", length=5, split="all")
    assert clips.states is None
    assert clips.to("cpu").states is None


def test_some_clips_and_some_steps_keep_every_field(dataset: Dataset) -> None:
    clips = load_clips(dataset, length=5)
    for name, field in clips.rows(slice(1, 3)).steps(slice(2, 4))._asdict().items():
        assert torch.equal(field, getattr(clips, name)[1:3, 2:4])
    without = clips._replace(states=None)
    assert without.rows(torch.tensor([1])).states is None and without.steps(slice(1)).states is None


def test_moving_keeps_every_field(dataset: Dataset) -> None:
    clips = load_clips(dataset, length=5)
    assert_same(clips.to("cpu"), clips)
    moved = clips.to("meta")
    assert {field.device.type for field in moved if field is not None} == {"meta"}


def test_a_clip_has_a_seed_of_its_own_wherever_its_episode_lies(tmp_path: Path) -> None:
    episodes = [synthetic_episode(20, seed) for seed in range(3)]
    write_shard(tmp_path / "all" / "0.h5", episodes)
    write_shard(tmp_path / "other" / "b.h5", episodes[2:0:-1])
    everything, other = open_dataset(tmp_path / "all"), open_dataset(tmp_path / "other")
    places = clip_starts(everything, 5)
    seeds = clip_seeds(everything, places)
    assert len(set(seeds)) == 12
    assert clip_seeds(everything, places.take(np.arange(12)[::-1])) == seeds[::-1]
    of_copy = dict(zip(zip(*clip_starts(other, 5), strict=True), clip_seeds(other, clip_starts(other, 5)), strict=True))
    for episode, start, seed in zip(*places, seeds, strict=True):
        if episode:
            assert of_copy[2 - episode, start] == seed
    assert not set(clip_seeds(everything, places, seed=1)) & set(seeds)
