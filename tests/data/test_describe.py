from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aime.data.describe import Spread, contact_sheet, describe
from aime.data.episodes import Episode
from aime.data.opening import open_dataset
from aime.data.shards import write_shard
from aime.errors import AimeError


def episode(length: int, shade: int, ends: bool = False) -> Episode:
    action = np.stack([np.linspace(-0.5, 0.25, length), np.full(length, 0.1)], axis=1).astype(np.float32)
    action[-1] = np.nan
    reward = np.arange(length, dtype=np.float32)
    reward[0] = np.nan
    terminated = np.zeros(length, bool)
    terminated[-1] = ends
    pixels = np.full((length, 16, 16, 3), shade, np.uint8)
    return Episode(pixels, action, reward, terminated, np.zeros((length, 5), np.float32))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_shard(tmp_path / "a.h5", [episode(4, 10), episode(8, 40, ends=True)], {"task": "push", "part": 1})
    write_shard(tmp_path / "b.h5", [episode(6, 100)], {"task": "push", "part": 2})
    return tmp_path


def test_a_summary_counts(source: Path) -> None:
    seen: list[int] = []
    summary = describe(open_dataset(source), seen.append)
    assert seen == [4, 8, 6]
    assert (summary.episodes, summary.frames) == (3, 18)
    assert (summary.shortest, summary.median, summary.longest) == (4, 6, 8)
    assert (summary.image_size, summary.state_width, summary.terminated) == (16, 5, 1)
    assert summary.attributes == {"task": "push"}
    assert summary.bytes_on_disk == sum(path.stat().st_size for path in source.glob("*.h5"))
    assert (summary.brightness.least, summary.brightness.greatest) == (10, 100)
    assert summary.brightness.mean == pytest.approx((4 * 10 + 8 * 40 + 6 * 100) / 18)


def test_a_long_episode_is_read_in_parts(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = describe(open_dataset(source))
    seen: list[int] = []
    monkeypatch.setattr("aime.data.describe._BYTES_AT_ONCE", 3 * 3 * 16**2)
    parts = describe(open_dataset(source), seen.append)
    assert seen == [3, 1, 3, 3, 2, 3, 3]
    assert parts.brightness.mean == pytest.approx(whole.brightness.mean)
    assert (parts.actions, parts.terminated, parts.longest) == (whole.actions, whole.terminated, whole.longest)


def test_a_summary_leaves_out_the_legal_nans(source: Path) -> None:
    summary = describe(open_dataset(source))
    moving, still = summary.actions
    assert moving.least == -0.5 and moving.greatest < 0.25  # the last one of an episode is NaN
    assert still.least == still.greatest == pytest.approx(0.1)
    assert (summary.reward.least, summary.reward.greatest) == (1, 7)
    assert summary.reward.mean == pytest.approx((6 + 28 + 15) / 15)


def test_the_spread_of_nothing_is_unknown() -> None:
    spread = Spread.of(np.array([np.nan, np.nan], np.float32))
    assert np.isnan([spread.least, spread.mean, spread.greatest]).all()


def test_a_frame_that_cannot_be_read_is_found(source: Path) -> None:
    path = source / "b.h5"
    rng = np.random.default_rng(0)
    path.unlink()
    noisy = episode(64, 0)
    noisy.pixels[:] = rng.integers(0, 256, noisy.pixels.shape, dtype=np.uint8)
    write_shard(path, [noisy])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(AimeError, match=r"b\.h5.*'pixels' of episode 0"):
        describe(open_dataset(source))


def test_a_contact_sheet_shows_the_frames(source: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out" / "sheet.png"
    contact_sheet(open_dataset(source), picture)
    sheet = np.asarray(Image.open(picture).convert("RGB"))
    assert sheet.shape == (24 + 3 * 98, 24 + 10 * 98, 3)
    rows = [sheet[24 + row * 98 + 48] for row in range(3)]
    assert [int(row[24 + 48, 0]) for row in rows] == [10, 40, 100]
    assert int(rows[0][24 + 3 * 98 + 48, 0]) == 10 and int(rows[0][24 + 4 * 98 + 48, 0]) == 255  # four frames only


def test_a_contact_sheet_is_a_png(source: Path, tmp_path: Path) -> None:
    with pytest.raises(AimeError, match=r"sheet\.jpg: has suffix '\.jpg', expected \.png"):
        contact_sheet(open_dataset(source), tmp_path / "sheet.jpg")


def test_the_bundled_data_are_described() -> None:
    summary = describe(open_dataset("bundled:cartpole", "validation"))
    assert (summary.episodes, summary.frames, summary.image_size) == (24, 2400, 64)
    assert summary.attributes["action_repeat"] == 4
    assert summary.bytes_on_disk > 1_000_000
    assert len(summary.actions) == 1 and -1 <= summary.actions[0].least < -0.99
