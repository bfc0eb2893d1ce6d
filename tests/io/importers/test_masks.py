"""Masks through importers and exporters: they stay ids, and stay with their frames."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from tests.conftest import synthetic_episode
from tests.io.importers.test_hdf5_kinds import complaint, run

from aime.cli.main import main
from aime.data import Episode, open_dataset, write_shard
from aime.data.action_scale import ActionScale
from aime.data.mask_names import note_mask_names
from aime.io.importers.assemble import Form, episodes_of
from aime.io.importers.fitting import fit_masks
from aime.io.importers.interface import BadEpisode, Recorded, arriving

NAMES = {1: "square", 2: "edge"}


@pytest.fixture
def episodes(tmp_path: Path) -> list[Episode]:
    """Those of the data set `tmp_path / "data"`; the second has no masks."""
    found = [synthetic_episode(length, seed, 16, masked=seed != 1) for seed, length in enumerate((5, 4, 3))]
    write_shard(tmp_path / "data/0.h5", found, note_mask_names(NAMES))
    return found


def check(place: Path, episodes: list[Episode], names: dict[int, str]) -> None:
    dataset = open_dataset(place)
    assert dataset.has_mask.tolist() == [True, False, True] and dataset.mask_names == names
    for number, episode in enumerate(episodes):
        np.testing.assert_array_equal(dataset.read(number).pixels, episode.pixels)
        if episode.mask is not None:
            np.testing.assert_array_equal(dataset.masks(number), episode.mask)


def test_stable_worldmodel_and_back(
    tmp_path: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "stable-worldmodel", str(tmp_path / "data"), "--out", str(tmp_path / "a.h5")]) == 0
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["mask"].shape == (12, 16, 16) and file["ep_mask"][:].tolist() == [True, False, True]
        np.testing.assert_array_equal(file["mask"][9:], episodes[2].mask)
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    assert "not imported" not in capsys.readouterr().out
    check(tmp_path / "out", episodes, NAMES)


def test_what_is_no_mask_of_the_frames_is_named_and_not_taken(
    tmp_path: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "stable-worldmodel", str(tmp_path / "data"), "--out", str(tmp_path / "a.h5")]) == 0
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["mask"]
        file["mask"] = np.zeros((12, 8, 8), np.uint8)
    assert run("stable-worldmodel", tmp_path / "a.h5", tmp_path / "out") == 0
    assert "fields not imported: ep_mask, mask\n" in capsys.readouterr().out
    assert not open_dataset(tmp_path / "out").has_mask.any()


def test_a_folder_of_pictures_and_back(tmp_path: Path, episodes: list[Episode]) -> None:
    flags = ["--out", str(tmp_path / "a"), "--pictures"]
    assert main(["export", "folder", str(tmp_path / "data"), *flags]) == 0
    assert not (tmp_path / "a/episode-000001/masks").exists()
    assert episodes[2].mask is not None
    for step, mask in enumerate(episodes[2].mask):
        with Image.open(tmp_path / f"a/episode-000002/masks/{step:06d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), mask)
    assert run("folder", tmp_path / "a", tmp_path / "out") == 0
    check(tmp_path / "out", episodes, {})


def test_films_leave_masks_out_and_say_so(
    tmp_path: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "folder", str(tmp_path / "data"), "--out", str(tmp_path / "a")]) == 0
    assert "masks are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("size", "000001.png: is 8x8 of mode L, expected ids of 16x16"),
        ("colour", "is 16x16 of mode RGB"),
        ("bytes", "000001.png: cannot be decoded"),
        ("missing", "000001.png"),
    ],
)
def test_masks_of_pictures_that_do_not_fit_are_refused(
    tmp_path: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str], damage: str, words: str
) -> None:
    assert main(["export", "folder", str(tmp_path / "data"), "--out", str(tmp_path / "a"), "--pictures"]) == 0
    path = tmp_path / "a/episode-000000/masks/000001.png"
    if damage == "size":
        Image.new("L", (8, 8)).save(path)
    elif damage == "colour":
        Image.new("RGB", (16, 16)).save(path)
    elif damage == "bytes":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.unlink()
    assert words in complaint(capsys, "folder", tmp_path / "a", tmp_path / "out")


def test_masks_are_resized_to_the_nearest_neighbour() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    large = ids.repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_array_equal(fit_masks([large], 16, "stretch"), ids)
    wide = np.concatenate([np.full((2, 48, 24), 9, np.uint8), large, np.full((2, 48, 24), 9, np.uint8)], axis=2)
    np.testing.assert_array_equal(fit_masks([wide], 16, "crop"), ids)
    padded = fit_masks([wide], 16, "pad")
    assert not padded[:, :4].any() and not padded[:, 12:].any() and (padded[:, 4:12, :3] == 9).all()
    assert fit_masks([large, large], 32, "stretch")[:, 16:].any() == np.False_


def recorded(length: int, masks: int) -> Recorded:
    """Frames and masks in blocks of other sizes; both show the number of the step."""
    steps = np.arange(length, dtype=np.uint8)
    pixels = np.broadcast_to(steps[:, None, None, None], (length, 16, 16, 3))
    ids = np.broadcast_to(np.arange(masks, dtype=np.uint8)[:, None, None], (masks, 16, 16))
    return Recorded(
        ([pixels[at : at + 3]] for at in range(0, length, 3)),
        action=np.zeros((length, 1)),
        reward=np.ones(length),
        masks=([ids[at : at + 2]] for at in range(0, masks, 2)),
    )


def test_masks_follow_their_frames_when_an_episode_is_cut_and_its_last_frame_repeated() -> None:
    form = replace(Form.sized(16, "stretch", ActionScale.identity(1), 0), most_frames=4)
    parts = list(episodes_of(arriving(recorded(10, 10)), form, Counter()))
    assert [len(part) for part in parts] == [4, 4, 3]
    for part in parts:
        assert part.mask is not None
        np.testing.assert_array_equal(part.mask, part.pixels[..., 0])
    for masks, words in ((9, "fewer masks than frames"), (11, "more masks than frames")):
        with pytest.raises(BadEpisode, match=words):
            list(episodes_of(recorded(10, masks), form, Counter()))


def test_a_frame_that_a_table_leaves_out_takes_its_mask_along(tmp_path: Path, episodes: list[Episode]) -> None:
    assert main(["export", "folder", str(tmp_path / "data"), "--out", str(tmp_path / "a"), "--pictures"]) == 0
    for number in (1, 2):
        shutil.rmtree(tmp_path / f"a/episode-{number:06d}")
        (tmp_path / f"a/episode-{number:06d}.csv").unlink()
    table = tmp_path / "a/episode-000000.csv"
    rows = table.read_text().splitlines()
    times = ["time", "0", "0.2", "0.4"]
    table.write_text(
        "".join(f"{row},{at}\n" for row, at in zip([rows[0], rows[1], rows[3], rows[5]], times, strict=True))
    )
    assert run("folder", tmp_path / "a", tmp_path / "out", "--fps", "10", "--time-column", "time") == 0
    (episode,) = open_dataset(tmp_path / "out")
    assert episodes[0].mask is not None and episode.mask is not None
    kept = [int(np.flatnonzero((episodes[0].pixels == frame).all(axis=(1, 2, 3)))[0]) for frame in episode.pixels]
    np.testing.assert_array_equal(episode.mask, episodes[0].mask[kept])
