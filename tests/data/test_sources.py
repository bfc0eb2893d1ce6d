"""Several data sets as one: names, weights and contributions, and mismatches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aime.data import ClipSampler, Episode, load_clips, open_dataset, write_shard
from aime.data.sources import Source, join_sources, parse_sources
from aime.errors import AimeError

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def places(tmp_path: Path, make_episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory `a` with eight episodes of 20 steps and seeds from 0, `b` with four of 10 and seeds from 100."""
    write_shard(tmp_path / "a" / "0.h5", [make_episode(20, seed) for seed in range(5)])
    write_shard(tmp_path / "a" / "1.h5", [make_episode(20, seed) for seed in range(5, 8)])
    write_shard(tmp_path / "b" / "0.h5", [make_episode(10, seed) for seed in range(100, 104)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_and_weights(places: Path) -> None:
    assert parse_sources("a") == (Source("a"),)
    assert parse_sources("a, b=0.3") == parse_sources("a,b=0.3") == (Source("a"), Source("b", 0.3))
    assert parse_sources("bundled:cartpole=2,a=1") == (Source("bundled:cartpole", 2.0), Source("a", 1.0))
    assert parse_sources(join_sources(["a", "b=0.3"])) == (Source("a"), Source("b", 0.3))


@pytest.mark.parametrize("name", ["x,y", "x=0.3", "x=y, z=1"])
def test_a_name_that_exists_is_taken_as_it_stands(places: Path, name: str) -> None:
    (places / name).mkdir()
    assert parse_sources(name) == (Source(name),)


@pytest.mark.parametrize("attribute", ["action_names", "state_names"])
def test_sources_whose_joints_come_in_another_order_are_not_mixed(
    places: Path, make_episode: MakeEpisode, attribute: str
) -> None:
    names = [f"joint_{number}" for number in range(2 if attribute == "action_names" else 3)]
    for place, order in (("one", names), ("same", names), ("swapped", names[::-1]), ("other", ["x", *names[1:]])):
        write_shard(
            places / place / f"{place}.h5", [make_episode(4, 0)], {attribute: json.dumps(dict.fromkeys(order, 1))}
        )
    assert open_dataset("one, same").episodes == 2
    assert open_dataset("one, other").episodes == 2
    with pytest.raises(AimeError, match=r"joint_1.*joint_0, expected the order joint_0.*joint_1") as problem:
        open_dataset("one, swapped")
    assert "swapped.h5" in str(problem.value) and "\n" not in str(problem.value)


def test_many_names_are_longer_together_than_one_can_be() -> None:
    names = [f"a/directory/of/some/data/{number:05d}" for number in range(300)]
    assert parse_sources(join_sources(names)) == tuple(map(Source, names))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a, b=x", "b=x: no such file or directory, and 'x' is no weight; expected NAME or NAME=SHARE"),
        ("a, b=0", "b=0: the weight is 0, expected a number above 0"),
        ("a, b=-1", "the weight is -1, expected a number above 0"),
        ("a, b=nan", "the weight is nan, expected a number above 0"),
        ("a, b=1.5", "the weights sum to 1.5 and leave nothing for the sources without"),
        ("a, ./a=0.5", "names ./a twice, expected each source once"),
        (", ", "expected the name of a directory of shards"),
        ("a, nothing", "nothing: no such file or directory, expected a data set"),
        ("a, a/1.h5", r"1\.h5: is in a and a/1\.h5, expected every shard in one source"),
    ],
)
def test_what_is_no_list_of_sources(places: Path, text: str, words: str) -> None:
    with pytest.raises(AimeError, match=words) as problem:
        open_dataset(text)
    assert "\n" not in str(problem.value)


def test_a_comma_in_one_of_several_names_is_refused(places: Path) -> None:
    (places / "x,y").mkdir()
    with pytest.raises(AimeError, match="x,y: has a comma"):
        join_sources(["a", "x,y"])


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"size": 16}, "16 pixels of image size, expected 8"),
        ({"action_width": 3}, "3 actions, expected 2"),
        ({"state_width": None}, "0 state variables, expected 3"),
    ],
)
def test_sources_must_agree(places: Path, make_episode: MakeEpisode, odd: dict[str, int | None], words: str) -> None:
    write_shard(places / "c" / "0.h5", [make_episode(9, **odd)])
    with pytest.raises(AimeError, match=rf"c/0\.h5: .* has {words} as in a/0\.h5"):
        open_dataset("a, c")


def seeds_of(source: str, split: str) -> list[int]:
    return [int(episode.state[0, 1]) for episode in open_dataset(source, split, 0.25) if episode.state is not None]  # type: ignore[arg-type]


def test_each_source_is_split_by_itself(places: Path) -> None:
    both, kept, unseen = (seeds_of("a, b", split) for split in ("all", "train", "held-out"))
    assert [seed >= 100 for seed in sorted(unseen)] == [False, False, True, True]
    assert sorted(unseen) == sorted(seeds_of("a", "held-out") + seeds_of("b", "held-out"))
    assert sorted(kept + unseen) == sorted(both) == [*range(8), *range(100, 104)]


def test_any_first_few_episodes_are_of_all_sources(places: Path) -> None:
    assert [seed >= 100 for seed in seeds_of("a, b", "all")[:6]].count(True) == 2
    clips = load_clips("a, b", length=5, count=3, split="all")
    assert clips.states is not None
    assert {int(seed) // 100 for seed in clips.states[:, 0, 1]} == {0, 1}


def test_of_a_source_with_one_episode_nothing_is_held_out(places: Path, make_episode: MakeEpisode) -> None:
    write_shard(places / "c" / "0.h5", [make_episode(9, 200)])
    assert sorted(seeds_of("b, c", "train")) == sorted([*seeds_of("b", "train"), 200])
    assert sorted(seeds_of("b, c", "held-out")) == sorted(seeds_of("b", "held-out"))


def test_what_one_source_trains_on_no_other_holds_out(places: Path, make_episode: MakeEpisode) -> None:
    write_shard(places / "copies" / "0.h5", [make_episode(20, seed) for seed in (*range(4), *range(300, 310))])
    train, held_out = seeds_of("a, copies", "train"), seeds_of("a, copies", "held-out")
    assert held_out and not set(train) & set(held_out)


def drawn(source: str, batch: int = 4000) -> np.ndarray:
    """Seeds and first steps of drawn clips of five steps."""
    clips = ClipSampler(open_dataset(source), batch, 5, seed=0).sample(0)
    assert clips.states is not None
    return clips.states[:, 0, :2].numpy()


@pytest.mark.parametrize(
    ("text", "share"),
    # a has 8 x 16 clips of five steps, and b 4 x 6
    [("a, b", 24 / 152), ("a, b=0.5", 0.5), ("a=3, b=1", 0.25), ("b=0.05, a", 0.05)],
)
def test_shares_of_the_clips(places: Path, text: str, share: float) -> None:
    of_b = drawn(text)[:, 1] >= 100
    deviation = np.sqrt(share * (1 - share) / len(of_b))
    assert abs(of_b.mean() - share) < 4 * deviation


def test_within_a_weighted_source_every_clip_is_equally_likely(places: Path) -> None:
    clips, counts = np.unique(drawn("a, b=0.6"), axis=0, return_counts=True)
    of_b = counts[clips[:, 1] >= 100]
    assert len(of_b) == 24 and len(counts) == 24 + 128
    assert ((of_b - of_b.mean()) ** 2 / of_b.mean()).sum() < 52  # chi-square, 23 degrees of freedom: p = 5e-4


def test_what_each_source_contributes(places: Path) -> None:
    first, second = open_dataset("a, b=0.3").contributions
    assert (first.name, first.episodes, first.frames) == ("a", 8, 160)
    assert (second.name, second.episodes, second.frames) == ("b", 4, 40)
    assert [first.share, second.share] == pytest.approx([0.7, 0.3])
    assert [each.share for each in open_dataset("a, b").contributions] == pytest.approx([0.8, 0.2])
    assert open_dataset("a, b=0.3").select([0]).contributions[0].share == 1
