"""Films and pictures with tables, and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.io.importers.films import moving_square, write_film

from aime.cli.main import main
from aime.data import load_clips, open_dataset

pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
SIZE = 32


def run(source: Path, out: Path, *flags: object) -> int:
    return main(
        ["import", "folder", str(source), "--out", str(out), "--image-size", "32", "--workers", "1", *map(str, flags)]
    )


def complaint(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *flags: object) -> str:
    assert run(source, out, *flags) == 2
    return capsys.readouterr().err.splitlines()[-1]


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        lines = [
            ",".join(columns),
            *(",".join("" if np.isnan(cell) else repr(float(cell)) for cell in row) for row in rows),
        ]
        path.write_text("\n".join(lines))
    elif path.suffix == ".npz":
        np.savez(path, **columns)  # type: ignore[arg-type]
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({name: column.tolist() for name, column in columns.items()}), path)


def table(length: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    columns = {name: random.uniform(-3, 7, length) for name in ("noise", "action_x", "action_y", "state", "reward")}
    columns["action_x"][-1] = columns["action_y"][-1] = np.nan
    return columns | {"terminated": (np.arange(length) == length - 1).astype(float)}


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_films_and_pictures_with_tables(tmp_path: Path, suffix: str) -> None:
    source, frames = tmp_path / "source", [moving_square(70, SIZE), moving_square(11, SIZE), moving_square(9, SIZE)]
    write_film(source / "a 2.mkv", frames[0])
    for name, pictures in (("b", frames[1]), ("c", frames[2])):
        (source / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(source / name / f"{number}.png")
    tables = [table(len(part), seed) for seed, part in enumerate(frames)]
    for path, columns in zip(("a 2", "b", "c/actions"), tables, strict=True):
        write_table(source / f"{path}{suffix}", columns)
    assert run(source, tmp_path / "out") == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths.tolist() == [70, 11, 9] and dataset.action_width == 2 and dataset.state_width == 1
    actions = np.concatenate([np.stack([t["action_x"], t["action_y"]], axis=1) for t in tables])
    low, high = np.nanmin(actions, axis=0), np.nanmax(actions, axis=0)
    for episode, part, columns in zip(dataset, frames, tables, strict=True):
        np.testing.assert_array_equal(episode.pixels, part)
        unit = (np.stack([columns["action_x"], columns["action_y"]], axis=1) - low) / (high - low) * 2 - 1
        np.testing.assert_allclose(episode.action, unit, atol=1e-5)
        np.testing.assert_allclose(episode.reward, columns["reward"], rtol=1e-6)
        assert episode.terminated[-1] and not episode.terminated[:-1].any()


def test_video_alone_trains_on_masked_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_film(tmp_path / "source" / "a.mkv", moving_square(20, 48, width=64))
    write_film(tmp_path / "source" / "b.mkv", moving_square(9, 48, width=64))
    out = tmp_path / "out"
    assert run(tmp_path / "source", out) == 0
    assert "no actions: video only" in capsys.readouterr().out
    clips = load_clips(out, 10, split="all")
    assert not clips.action_valid.any() and not clips.reward_valid.any() and clips.valid.any()
    flags = "--steps 2 --batch 2 --length 6 --overshoot.steps 3 --device cpu --precision fp32"
    assert main(["train", "tiny", "--data", str(out), "--out", str(tmp_path / "run"), *flags.split()]) == 0
    assert main(["data", str(out)]) == 0
    assert "not recorded" in capsys.readouterr().out


def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_film(source / "a.mkv", moving_square(9, SIZE))
    write_film(source / "b.mkv", moving_square(9, SIZE))
    write_table(source / "a.csv", {"time": np.arange(9.0), "gripper": np.arange(9.0)})
    assert "has no action column, found ['gripper', 'time']" in complaint(capsys, source, out)
    assert "has no column 'arm'" in complaint(capsys, source, out, "--action-columns", "arm")
    message = complaint(capsys, source, out, "--action-columns", "gripper")
    assert "b.mkv" in message and "has no table of its name" in message
    write_table(source / "b.csv", {"gripper": np.arange(7.0)})
    message = complaint(capsys, source, tmp_path / "short", "--action-columns", "gripper")
    assert "has 9 frames but 7 rows, expected as many, or one fewer if it has actions only" in message
    write_table(source / "b.csv", {"gripper": np.arange(12.0)})
    message = complaint(capsys, source, tmp_path / "long", "--action-columns", "gripper")
    assert "has 9 frames but 12 rows" in message
    assert run(source, tmp_path / "long", "--action-columns", "gripper", "--skip-bad") == 0
    assert open_dataset(tmp_path / "long").episodes == 1
    (source / "b.csv").write_text("gripper\n1\n2,3\n")
    assert "b.csv: cannot be read (line 3 has 2 fields, expected 1)" in complaint(
        capsys, source, tmp_path / "odd", "--action-columns", "gripper"
    )


def test_a_corrupt_film_is_told_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    write_film(source / "a.mp4", moving_square(40, SIZE), codec="mpeg4")
    write_film(source / "b.mp4", moving_square(40, SIZE), codec="mpeg4")
    content = bytearray((source / "b.mp4").read_bytes())
    start = content.index(b"moov")
    content[start : start + 400] = bytes(400)
    (source / "b.mp4").write_bytes(content)
    assert "b.mp4: cannot be decoded" in complaint(capsys, source, tmp_path / "out")
    assert run(source, tmp_path / "out", "--skip-bad") == 0
    assert open_dataset(tmp_path / "out").lengths.tolist() == [40]
    (source / "b.mp4").write_bytes(b"")
    assert "b.mp4: cannot be decoded" in complaint(capsys, source, tmp_path / "empty")


def test_tables_that_hold_objects_run_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    source = tmp_path / "source"
    write_film(source / "a.mkv", moving_square(3, SIZE))
    np.savez(source / "a.npz", action=np.array([Bomb()] * 3, dtype=object))
    assert "a.npz: cannot be read" in complaint(capsys, source, tmp_path / "out")
    assert not (tmp_path / "exploded").exists()
