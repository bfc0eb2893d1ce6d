"""An episode's digest depends on its content and determines its half and whether it is held out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import MakeEpisode, synthetic_episode

from aime.data import Episode, Shard, open_dataset, write_shard
from aime.data.identity import episode_digest, half_of
from aime.data.splitting import Rule, SourceDigests, count_held_out


def digest_of(episode: Episode) -> str:
    return episode_digest(episode.pixels, episode.action, episode.state)


def test_a_file_gives_the_digest_of_its_content(shard_directory: Path, make_episode: MakeEpisode) -> None:
    expected = tuple(digest_of(make_episode(length, seed)) for seed, length in enumerate((40, 7, 23, 64, 16)))
    assert open_dataset(shard_directory).digests == expected
    assert open_dataset(shard_directory).select([4, 0, 4]).digests == (expected[4], expected[0], expected[4])
    assert len(set(expected)) == 5


def test_another_layout_and_other_notes_are_the_same_episode(tmp_path: Path, make_episode: MakeEpisode) -> None:
    episode = make_episode(40)
    write_shard(tmp_path / "a.h5", [make_episode(3, 9), episode], {"seed": 3})
    assert episode.state is not None
    action = episode.action.copy()
    action[0, 0] = 0.0
    zero = replace(episode, action=action.copy())
    action[0, 0] = -0.0
    action[-1].view(np.uint32)[:] = 0x7FC00001  # another NaN
    fields = {"pixels": episode.pixels, "action": action, "reward": np.zeros(40), "terminated": np.zeros(40, bool)}
    fields |= {"state": episode.state.astype(np.float64), "ep_len": np.array([40]), "ep_offset": np.array([0])}
    with h5py.File(tmp_path / "b.h5", "w") as file:  # neither chunks nor compression
        for name, array in fields.items():
            file[name] = array
    assert open_dataset(tmp_path / "b.h5").digests == (digest_of(zero),)
    assert open_dataset(tmp_path / "a.h5").digests[1] == digest_of(episode)


def changed(episode: Episode, field: str) -> Episode:
    array = getattr(episode, field).copy()
    array[3, 0] = array[3, 0] * 0.5 if field == "action" else array[3, 0] + 1
    return replace(episode, **{field: array})


@pytest.mark.parametrize("field", ["pixels", "action", "state"])
def test_another_content_is_another_episode(make_episode: MakeEpisode, field: str) -> None:
    episode = make_episode(12)
    assert digest_of(changed(episode, field)) != digest_of(episode)


def test_shapes_count(make_episode: MakeEpisode) -> None:
    """The same bytes in another shape, and no state beside one of width 0, are other episodes."""
    pixels, action = np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 2), np.float32)
    found = {
        episode_digest(pixels, action),
        episode_digest(pixels.reshape(16, 4, 4, 3), action),
        episode_digest(pixels, action.reshape(2, 4)),
        episode_digest(pixels, action, np.zeros((4, 0), np.float32)),
        episode_digest(pixels, action, np.zeros((4, 1), np.float32)),
    }
    assert len(found) == 5


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path, make_episode: MakeEpisode) -> None:
    path = tmp_path / "0.h5"
    write_shard(path, [make_episode(5, 0)])
    before = open_dataset(path).digests
    path.unlink()
    write_shard(path, [make_episode(5, 1)])
    assert open_dataset(path).digests == (digest_of(make_episode(5, 1)),) != before


def test_what_is_known_is_not_read_again(shard_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = open_dataset(shard_directory).digests
    monkeypatch.setattr(Shard, "read_pixels", None)
    assert open_dataset(shard_directory).digests == digests


def names(count: int, salt: int = 0) -> list[str]:
    """Digests of made-up episodes."""
    return [hashlib.sha256(f"{salt} {number}".encode()).hexdigest() for number in range(count)]


def test_halves_are_of_about_one_size() -> None:
    share = np.mean([half_of(each) == "test" for each in names(4000)])
    assert abs(share - 0.5) < 0.03  # 4 standard deviations of a fair coin


@pytest.mark.parametrize(
    ("episodes", "share", "count"),
    [
        (1, 0.5, 0),
        (2, 0.05, 1),
        (3, 0.05, 2),
        (20, 0.05, 2),
        (100, 0.07, 7),
        (100, 0.071, 8),
        (5, 0.99, 4),
        (5, 0.0, 0),
    ],
)
def test_how_many_are_held_out(episodes: int, share: float, count: int) -> None:
    assert count_held_out(episodes, share) == count


@given(st.integers(3, 60), st.floats(0.01, 0.9), st.integers(0, 100), st.randoms())
def test_the_rule(episodes: int, share: float, salt: int, random: object) -> None:
    """Any order and any number of copies give the same; halves are both there where the data has both; never all."""
    digests = names(episodes, salt)
    held = Rule(share).choose([SourceDigests(tuple(digests), bundled=False)])
    shuffled = digests * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Rule(share).choose([SourceDigests(tuple(shuffled), bundled=False)]) == held
    assert 2 <= len(held) < episodes
    if len({half_of(each) for each in digests}) == 2:
        assert len({half_of(each) for each in held}) == 2


@settings(max_examples=30)
@given(st.integers(3, 40), st.floats(0.0, 0.9), st.floats(0.01, 0.9), st.integers(0, 40), st.integers(0, 100))
def test_going_on_keeps_roles(first: int, share: float, later: float, added: int, salt: int) -> None:
    """Whatever is added or removed and however much is asked for, what was learned from is never held out."""
    digests = names(first + added, salt)
    before = SourceDigests(tuple(digests[:first]), bundled=False)
    held = Rule(share).choose([before])
    learned = frozenset(before.digests) - held
    after = SourceDigests(tuple(digests[first // 3 :]), bundled=False)
    again = Rule(later, learned, held, keep=True).choose([after])
    assert not again & learned
    assert again >= held & frozenset(after.digests)
    assert Rule(later, frozenset(digests) - again, again, keep=True).choose([after]) == again  # of a second process


def test_synthetic_episodes_differ() -> None:
    assert len({digest_of(synthetic_episode(8, seed)) for seed in range(100)}) == 100
