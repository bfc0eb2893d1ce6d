"""Packs are lossless, verified, and unpacked once, also by several processes."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

import aime.data
from aime.data import Dataset, Episode, Shard, Split, bundled_names, bundled_path, open_dataset, pack, write_shard
from aime.data.bundled import PARTS, Part, bundled_digests, unpack
from aime.data.identity import episode_digest, half_of
from aime.errors import AimeError

MakeEpisode = Callable[..., Episode]


def parts_of(dataset: Dataset) -> dict[Part, Dataset]:
    """Three episodes to train on, one for validation and one for the test."""
    return {"train": dataset.select([0, 1, 2]), "validation": dataset.select([3]), "test": dataset.select([4])}


@pytest.fixture
def packs(tmp_path_factory: pytest.TempPathFactory, shard_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with one pack, "square", in place of the package's own, and an empty cache."""
    directory = tmp_path_factory.mktemp("packs")
    pack(parts_of(open_dataset(shard_directory)), directory / "square.npy.xz")
    monkeypatch.setattr("aime.data.bundled.installed._PACKS", directory)
    monkeypatch.setenv("AIME_CACHE", str(directory / "cache"))
    return directory


def assert_same_episodes(one: Dataset, other: Dataset) -> None:
    assert one.lengths.tolist() == other.lengths.tolist()
    for left, right in zip(one, other, strict=True):
        for field in ("pixels", "action", "reward", "terminated", "state", "mask"):
            np.testing.assert_array_equal(getattr(left, field), getattr(right, field))


def test_packing_is_lossless(packs: Path, shard_directory: Path) -> None:
    assert bundled_names() == ["square"]
    shards = open_dataset(shard_directory)
    whole = open_dataset("bundled:square")
    assert_same_episodes(whole, shards)
    assert (whole.name, whole.attributes) == ("bundled:square", {"task": "square"})
    splits: dict[Split, list[int]] = {"train": [0, 1, 2], "validation": [3], "test": [4], "held-out": [3, 4]}
    for split, expected in splits.items():
        assert_same_episodes(open_dataset("bundled:square", split), shards.select(expected))


def test_its_digests_are_known_without_reading_it_and_are_those_of_its_content(
    packs: Path, shard_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = open_dataset(shard_directory).digests
    bundled_path("square", "train")
    monkeypatch.setattr(Shard, "read_pixels", None)
    assert open_dataset("bundled:square").digests == digests
    assert [half_of(each) for each in digests[3:]] == ["validation", "test"]


def test_a_copy_of_a_bundled_part_is_of_that_part(packs: Path, tmp_path: Path) -> None:
    for number, episode in enumerate(open_dataset("bundled:square", "held-out")):
        write_shard(tmp_path / "copy" / f"{number}.h5", [episode], {"renamed": True})
    assert [half_of(each) for each in open_dataset(tmp_path / "copy").digests] == ["validation", "test"]


def test_an_episode_in_two_parts_is_refused(tmp_path: Path, shard_directory: Path) -> None:
    parts = parts_of(open_dataset(shard_directory))
    with pytest.raises(AimeError, match="train and test share an episode"):
        pack(parts | {"test": parts["train"].select([1])}, tmp_path / "p.npy.xz")


@pytest.mark.parametrize("state_width", [None, 2])
@pytest.mark.parametrize("masked", [3, 2])
def test_any_pixels_survive(tmp_path: Path, make_episode: MakeEpisode, state_width: int | None, masked: int) -> None:
    """Noise, where nothing repeats, and a still picture, where nothing changes."""
    generator = np.random.default_rng(0)
    episodes = [make_episode(9, seed, state_width=state_width, masked=seed < masked) for seed in range(3)]
    episodes[1].pixels[:] = generator.integers(0, 256, episodes[1].pixels.shape)
    episodes[2].pixels[:] = episodes[2].pixels[0]
    write_shard(tmp_path / "s.h5", episodes)
    dataset = open_dataset(tmp_path / "s.h5")
    parts: dict[Part, Dataset] = {
        "train": dataset.select([1]),
        "validation": dataset.select([2]),
        "test": dataset.select([0]),
    }
    pack(parts, tmp_path / "p.npy.xz")
    unpack(tmp_path / "p.npy.xz", tmp_path / "out")
    for part in parts:
        found = open_dataset(tmp_path / "out" / part)
        if masked < 3:  # masks of some are left out
            assert not found.has_mask.any()
            (episode,) = parts[part]
            np.testing.assert_array_equal(found.read(0).pixels, episode.pixels)
        else:
            assert_same_episodes(found, parts[part])


def test_memory_is_bounded_by_several_shards(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aime.data.bundled.packing._FRAMES_PER_SHARD", 45)
    directory = bundled_path("square", "train")
    assert len(list(directory.iterdir())) == 2  # 40 + 7, then 23
    assert open_dataset(directory).lengths.tolist() == [40, 7, 23]


def test_unpacked_once_and_kept(packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bundled_path("square", "train")
    monkeypatch.setattr("aime.data.bundled.installed.unpack", None)
    assert bundled_path("square", "train") == first
    assert bundled_path("square", "test").is_dir()
    assert first.is_relative_to(packs / "cache")


@pytest.mark.parametrize("damage", ["delete", "truncate", "sums"])
def test_damaged_cache_is_unpacked_again(packs: Path, shard_directory: Path, damage: str) -> None:
    (shard,) = bundled_path("square", "train").iterdir()
    if damage == "delete":
        shard.unlink()
    elif damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        (shard.parent.parent / "SHA256SUMS").write_text("nonsense")
    assert_same_episodes(open_dataset("bundled:square", "train"), open_dataset(shard_directory).select([0, 1, 2]))


def test_racing_processes_agree(packs: Path, shard_directory: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: bundled_path("square", "train"), range(4)))
    assert len(set(paths)) == 1
    assert_same_episodes(open_dataset(paths[0]), open_dataset(shard_directory).select([0, 1, 2]))
    assert [path.name for path in (packs / "cache").iterdir()] == [paths[0].parent.name]


def test_new_pack_under_an_old_name_is_unpacked_again(packs: Path, shard_directory: Path) -> None:
    old = bundled_path("square", "train")
    (packs / "square.npy.xz").unlink()
    dataset = open_dataset(shard_directory)
    pack(parts_of(dataset.select([4, 3, 2, 1, 0])), packs / "square.npy.xz")
    assert bundled_path("square", "train") != old
    assert open_dataset("bundled:square").lengths.tolist() == [16, 64, 23, 7, 40]


def test_unwritable_cache_falls_back(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIME_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert bundled_path("square", "train").is_relative_to(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(AimeError, match="set AIME_CACHE to a directory that can"):
        bundled_path("square", "train")


def test_unknown_name_lists_the_known(packs: Path) -> None:
    with pytest.raises(AimeError, match="bundled:circle: no such bundled data set, expected one of: bundled:square"):
        bundled_path("circle", "train")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.98])
def test_truncated_pack_is_an_error_and_leaves_nothing(packs: Path, share: float) -> None:
    path = packs / "square.npy.xz"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AimeError, match=r"square\.npy\.xz: is damaged .*install aime again"):
        bundled_path("square", "train")
    assert list((packs / "cache").iterdir()) == []


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_flipped_bit_is_found(packs: Path, place: float) -> None:
    path = packs / "square.npy.xz"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(AimeError, match=r"square\.npy\.xz: is damaged"):
        bundled_path("square", "train")
    assert list((packs / "cache").iterdir()) == []


def test_other_versions_and_other_files_are_refused(packs: Path) -> None:
    path = packs / "square.npy.xz"
    content = lzma.decompress(path.read_bytes())
    path.write_bytes(lzma.compress(content.replace(b'"version": 3', b'"version": 9')))
    with pytest.raises(AimeError, match="has format aime-pack 9, expected aime-pack 3"):
        bundled_path("square", "train")
    path.write_bytes(lzma.compress(b"a letter to a friend"))
    with pytest.raises(AimeError, match=r"square\.npy\.xz: is no pack"):
        bundled_path("square", "train")


def test_pickled_objects_are_refused(packs: Path) -> None:
    path = packs / "square.npy.xz"
    with lzma.open(path, "wb") as stream:
        np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(AimeError, match="is no pack"):
        bundled_path("square", "train")


def test_packing_refuses_what_does_not_fit(tmp_path: Path, shard_directory: Path, make_episode: MakeEpisode) -> None:
    write_shard(tmp_path / "other.h5", [make_episode(5, action_width=1)])
    train, other = open_dataset(shard_directory), open_dataset(tmp_path / "other.h5")
    with pytest.raises(AimeError, match="action_width is 1, expected 2"):
        pack(parts_of(train) | {"test": other}, tmp_path / "p.npy.xz")
    (tmp_path / "p.npy.xz").write_text("precious")
    with pytest.raises(AimeError, match="exists already"):
        pack(parts_of(train), tmp_path / "p.npy.xz")
    assert (tmp_path / "p.npy.xz").read_text() == "precious"


def test_cartpole_comes_with_the_package() -> None:
    parts = {part: open_dataset("bundled:cartpole", part) for part in PARTS}
    assert {part: data.episodes for part, data in parts.items()} == {"train": 200, "validation": 24, "test": 28}
    for data in parts.values():
        assert (data.image_size, data.action_width, data.frames) == (64, 1, 100 * data.episodes)
        assert data.attributes["environment"] == "dmc:cartpole_swingup"


def test_the_table_of_cartpoles_digests_is_true() -> None:
    for part in ("validation", "test"):
        data = open_dataset("bundled:cartpole", part)
        found = tuple(episode_digest(each.pixels, each.action, each.state) for each in data)
        assert found == data.digests == bundled_digests("cartpole")[part]


def test_all_packs_together_fit_in_the_wheel() -> None:
    packs = list(Path(aime.data.__file__).parent.glob("bundled/*.npy.xz"))
    assert [path.name.removesuffix(".npy.xz") for path in sorted(packs)] == bundled_names()
    assert sum(path.stat().st_size for path in packs) <= 8e6


def test_cartpole_holds_out_what_it_does_not_train_on() -> None:
    train, held_out = open_dataset("bundled:cartpole", "train"), open_dataset("bundled:cartpole", "held-out")
    known = {episode.action.tobytes() for episode in train}
    assert len(known) == train.episodes
    assert all(episode.action.tobytes() not in known for episode in held_out)


def test_cartpole_moves_and_is_lit() -> None:
    """Real pictures: neither black nor still, with rewards and states that vary."""
    episode = open_dataset("bundled:cartpole", "held-out").read(0)
    assert 20 < episode.pixels.mean() < 235
    changed = (np.diff(episode.pixels.astype(int), axis=0) != 0).any(axis=(1, 2, 3))
    assert changed.mean() > 0.9
    assert np.nanstd(episode.reward) > 0
    assert episode.state is not None
    assert (episode.state.std(axis=0) > 0).all()


def test_cartpole_has_masks_of_cart_and_pole_where_frames_differ_from_the_background() -> None:
    dataset = open_dataset("bundled:cartpole", "validation")
    assert all(open_dataset("bundled:cartpole", part).has_mask.all() for part in PARTS)
    assert dataset.mask_names == {1: "cart", 2: "pole"}
    episodes = [dataset.read(number) for number in (0, 11)]
    for number, each in zip((0, 11), episodes, strict=True):
        digest = episode_digest(each.pixels, each.action, each.state)
        assert digest == bundled_digests("cartpole")["validation"][number], (
            "pixels as they were before there were masks"
        )
    frames = np.concatenate([each.pixels for each in episodes])
    masks = np.concatenate([each.mask for each in episodes if each.mask is not None])
    assert masks.shape == frames.shape[:3] and np.unique(masks).tolist() == [0, 1, 2]
    body = masks > 0
    assert 0.005 < body.mean() < 0.03
    background = np.median(list(dataset.spread_frames(256)), axis=0)
    differs = (frames != background).any(axis=-1)
    assert differs[body].mean() > 0.99
    # anti-aliased edges reach two pixels beyond the masks
    assert not differs[~binary_dilation(body, np.ones((1, 5, 5)))].any()
