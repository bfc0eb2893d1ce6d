"""Data sets: many shards as one list of episodes, with disjoint splits."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from aime.data import Dataset, Episode, Split, open_dataset, write_shard
from aime.data.cache import FrameCache
from aime.data.identity import episode_digest, half_of
from aime.data.shards import Shard
from aime.errors import AimeError

MakeEpisode = Callable[..., Episode]

LENGTHS = [40, 7, 23, 64, 16]


def digest_of(episode: Episode) -> str:
    return episode_digest(episode.pixels, episode.action, episode.state)


def test_shards_become_one_list(shard_directory: Path, make_episode: MakeEpisode) -> None:
    dataset = open_dataset(shard_directory)
    assert dataset.lengths.tolist() == LENGTHS
    assert (dataset.episodes, dataset.frames) == (5, sum(LENGTHS))
    assert (dataset.image_size, dataset.action_width, dataset.state_width, dataset.has_state) == (8, 2, 3, True)
    assert dataset.attributes == {"task": "square"}  # the seeds differ
    assert dataset.name == str(shard_directory)
    for number, episode in enumerate(dataset):
        expected = make_episode(LENGTHS[number], number)
        for field in ("pixels", "action", "reward", "terminated", "state"):
            np.testing.assert_array_equal(getattr(episode, field), getattr(expected, field))


def test_stretches_are_cut_exactly(shard_directory: Path, make_episode: MakeEpisode) -> None:
    dataset = open_dataset(shard_directory)
    for start, stop in [(0, 1), (15, 17), (10, 60), (63, 64)]:
        stretch, whole = dataset.read(3, start, stop), make_episode(64, 3)
        assert len(stretch) == stop - start
        np.testing.assert_array_equal(stretch.pixels, whole.pixels[start:stop])
        np.testing.assert_array_equal(stretch.action, whole.action[start:stop])
        np.testing.assert_array_equal(stretch.terminated, whole.terminated[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (60, 65), (5, 5), (6, 2)])
def test_stretch_outside_an_episode_is_an_error(shard_directory: Path, start: int, stop: int) -> None:
    with pytest.raises(AimeError, match="episode 3, expected a stretch within 0 to 64"):
        open_dataset(shard_directory).read(3, start, stop)


def test_missing_episode_is_an_error(shard_directory: Path) -> None:
    with pytest.raises(AimeError, match="has no episode 5, expected 0 to 4"):
        open_dataset(shard_directory).read(5)


def test_what_is_left_out_comes_from_everywhere(tmp_path: Path, make_episode: MakeEpisode) -> None:
    write_shard(tmp_path / "data.h5", [make_episode(4, seed) for seed in range(20)])
    dataset = open_dataset(tmp_path)

    def seeds(part: Dataset | None) -> list[int]:
        return [] if part is None else [int(episode.state[0, 1]) for episode in part if episode.state is not None]

    assert dataset.leave_out(0.0) == (dataset, None)
    for share, left_out in ((0.1, [5, 15]), (0.2, [2, 7, 12, 17]), (0.24, [2, 6, 10, 14, 18])):
        rest, left = dataset.leave_out(share)
        assert seeds(left) == left_out
        assert sorted(seeds(rest) + left_out) == list(range(20))
    rest, left = dataset.leave_out(0.99)
    assert (rest.episodes, len(seeds(left))) == (1, 19)


def test_no_copy_of_what_is_left_out_is_kept(tmp_path: Path, make_episode: MakeEpisode) -> None:
    for number, seeds in enumerate((range(10), range(5, 15))):
        write_shard(tmp_path / f"{number}.h5", [make_episode(4, seed) for seed in seeds])
    dataset = open_dataset(tmp_path)
    rest, left = dataset.leave_out(0.5)
    assert left is not None
    assert len(set(left.digests)) == left.episodes == 8
    assert not set(left.digests) & set(rest.digests)
    assert set(left.digests) | set(rest.digests) == set(dataset.digests)


def test_one_file_is_a_data_set(shard_directory: Path) -> None:
    assert open_dataset(shard_directory / "001.h5").lengths.tolist() == [64, 16]


def test_other_files_of_a_directory_are_left_alone(shard_directory: Path, make_episode: MakeEpisode) -> None:
    (shard_directory / "notes.txt").write_text("x")
    (shard_directory / ".002.h5.7.tmp").write_text("a writer was killed")
    (shard_directory / ".hidden.h5").write_text("x")
    write_shard(shard_directory / "002.hdf5", [make_episode(3)])
    assert open_dataset(shard_directory).lengths.tolist() == [*LENGTHS, 3]


@pytest.mark.parametrize(("share", "held_out"), [(0.05, 2), (0.2, 2), (0.4, 2), (0.41, 3), (0.6, 3), (0.99, 4)])
def test_splits_share_no_episode_and_miss_none(shard_directory: Path, share: float, held_out: int) -> None:
    found: dict[Split, list[str]] = {}
    for split in ("train", "held-out", "validation", "test"):
        found[split] = list(open_dataset(shard_directory, split, share).digests)
    assert len(found["held-out"]) == held_out
    assert sorted(found["train"] + found["held-out"]) == sorted(open_dataset(shard_directory).digests)
    assert sorted(found["validation"] + found["test"]) == sorted(found["held-out"])


def test_nothing_to_hold_out_is_an_error(shard_directory: Path, tmp_path: Path, make_episode: MakeEpisode) -> None:
    assert open_dataset(shard_directory, "train", 0).episodes == 5
    with pytest.raises(AimeError, match=r"of 5 episodes none is in the split 'held-out'.* not 0"):
        open_dataset(shard_directory, "held-out", 0)
    write_shard(tmp_path / "one.h5", [make_episode(5)])
    assert open_dataset(tmp_path / "one.h5", "train").episodes == 1
    with pytest.raises(AimeError, match="expected 2 or more different episodes"):
        open_dataset(tmp_path / "one.h5", "held-out")


def test_an_empty_half_is_said(tmp_path: Path, make_episode: MakeEpisode) -> None:
    alike = [each for each in (make_episode(5, seed) for seed in range(20)) if half_of(digest_of(each)) == "test"]
    write_shard(tmp_path / "data.h5", alike[:4])
    assert open_dataset(tmp_path, "test").episodes == 2
    with pytest.raises(AimeError, match="of 4 episodes 2 are held out, and none of them is of the validation part"):
        open_dataset(tmp_path, "validation")


def test_wrong_arguments_are_errors(shard_directory: Path) -> None:
    with pytest.raises(AimeError, match="split is 'half', expected"):
        open_dataset(shard_directory, "half")  # type: ignore[arg-type]
    with pytest.raises(AimeError, match="held_out is 1"):
        open_dataset(shard_directory, "train", 1.0)


def test_sources_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match=r"missing: no such file or directory.*aime collect"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(AimeError, match=r"holds no shard, expected files named \*\.h5"):
        open_dataset(tmp_path)
    with pytest.raises(AimeError, match="bundled:moon: no such bundled data set"):
        open_dataset("bundled:moon")


def test_a_directory_of_data_sets_names_them(tmp_path: Path, make_episode: MakeEpisode) -> None:
    (tmp_path / "empty").mkdir()
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        write_shard(tmp_path / part / "one.h5", [make_episode(5)])
    with pytest.raises(AimeError, match=r"holds no shard, expected files named .*; take one of its test, train$"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"size": 9}, "'pixels' has 9 pixels of image size, expected 8 as in"),
        ({"action_width": 3}, "'action' has 3 actions, expected 2 as in"),
        ({"state_width": None}, "'state' has 0 state variables, expected 3 as in"),
    ],
)
def test_shards_of_different_worlds_do_not_mix(
    shard_directory: Path, make_episode: MakeEpisode, shape: dict[str, int | None], words: str
) -> None:
    write_shard(shard_directory / "002.h5", [make_episode(5, **shape)])
    with pytest.raises(AimeError, match=rf"002\.h5: {words}.*000\.h5"):
        open_dataset(shard_directory)


def test_selection_is_a_view_in_the_order_given(shard_directory: Path) -> None:
    dataset = open_dataset(shard_directory)
    view = dataset.select([4, 0]).select([1, 0, 1])
    assert view.lengths.tolist() == [40, 16, 40]
    np.testing.assert_array_equal(view.read(1).pixels, dataset.read(4).pixels)
    for wrong in ([], [5], [-1]):
        with pytest.raises(AimeError, match="expected some of 0 to 4"):
            dataset.select(wrong)


def test_mean_image_is_the_mean_of_all_frames(shard_directory: Path) -> None:
    dataset = open_dataset(shard_directory)
    pixels = np.concatenate([episode.pixels for episode in dataset])
    mean = dataset.mean_image()
    assert (mean.shape, mean.dtype.name) == ((3, 8, 8), "float32")
    np.testing.assert_allclose(mean, pixels.mean(axis=0).transpose(2, 0, 1) / 255, rtol=1e-6)


def test_mean_image_of_a_few_frames_is_spread_and_repeats(shard_directory: Path) -> None:
    dataset = open_dataset(shard_directory)
    pixels = np.concatenate([episode.pixels for episode in dataset])
    rows = [0, 49, 99, 149]  # linspace(0, 149, 4), rounded down
    np.testing.assert_allclose(dataset.mean_image(4), pixels[rows].mean(axis=0).transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(dataset.mean_image(4), open_dataset(shard_directory).mean_image(4))


def test_opening_reads_no_pixels(shard_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr(Shard, "read_pixels", fail)
    open_dataset(shard_directory)
    open_dataset(shard_directory, "train", 0)


def test_damaged_pixels_name_file_and_episode(shard_directory: Path) -> None:
    path = shard_directory / "001.h5"
    with h5py.File(path) as file:
        chunk = file["pixels"].id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(AimeError, match=r"001\.h5: 'pixels' of episode 1 cannot be read"):
        open_dataset(shard_directory).read(4)


@pytest.mark.parametrize("limit", [0, 3 * 16 * 8 * 8 * 3, 10**9])
def test_cache_keeps_its_bound_and_changes_no_pixel(shard_directory: Path, limit: int) -> None:
    shards = [Shard(path) for path in sorted(shard_directory.iterdir())]
    cache = FrameCache(limit)
    generator = np.random.default_rng(0)
    for _ in range(50):
        shard = shards[generator.integers(2)]
        start, stop = sorted(generator.choice(len(shard.action) + 1, size=2, replace=False).tolist())
        frames = np.zeros((stop - start, 8, 8, 3), dtype=np.uint8)
        cache.copy_into(frames, shard, start)
        np.testing.assert_array_equal(frames, shard.read_pixels(start, stop))
        assert cache.bytes <= limit
    assert cache.bytes == min(limit, sum(LENGTHS) * 8 * 8 * 3)


def test_cache_serves_from_memory(shard_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(shard_directory)
    first = dataset.read(0)
    monkeypatch.setattr(Shard, "read_pixels", None)
    np.testing.assert_array_equal(dataset.read(0, 3, 9).pixels, first.pixels[3:9])
    np.testing.assert_array_equal(dataset.select([0]).read(0).pixels, first.pixels)


def test_what_is_read_may_be_written_to(shard_directory: Path) -> None:
    """A reader that edits its pixels must not change what the next one sees."""
    dataset = open_dataset(shard_directory)
    before = dataset.read(0).pixels.copy()
    dataset.read(0).pixels[:] = 0
    np.testing.assert_array_equal(dataset.read(0).pixels, before)


def test_pickled_data_set_carries_no_pixels(shard_directory: Path) -> None:
    dataset = open_dataset(shard_directory)
    pixels = dataset.read(3).pixels
    content = pickle.dumps(dataset)
    assert len(content) < pixels.nbytes
    np.testing.assert_array_equal(pickle.loads(content).read(3).pixels, pixels)


def test_moments_of_states_leave_out_what_is_not_known_and_other_episodes(
    tmp_path: Path, make_episode: MakeEpisode
) -> None:
    episodes = [make_episode(10, seed) for seed in range(3)]
    for number, episode in enumerate(episodes):
        assert episode.state is not None
        episode.state[:, 0] = np.random.default_rng(number).normal(50, 3, 10)
        episode.state[2, 0], episode.state[:, 2] = np.nan, np.nan
    write_shard(tmp_path / "a.h5", episodes[:2])
    write_shard(tmp_path / "b.h5", episodes[2:])
    mean, std = open_dataset(tmp_path).select([2, 0]).state_moments()
    known = np.concatenate([episodes[each].state for each in (2, 0)])
    np.testing.assert_allclose(mean[:2], np.nanmean(known[:, :2].astype(np.float64), axis=0), rtol=1e-5)
    np.testing.assert_allclose(std[:2], np.nanstd(known[:, :2].astype(np.float64), axis=0), rtol=1e-5)
    assert (mean[2], std[2]) == (0, 0)


def test_its_length_is_the_number_of_episodes_that_it_gives(shard_directory: Path) -> None:
    dataset = open_dataset(shard_directory)
    assert len(dataset) == len(list(dataset)) == dataset.episodes > 0
