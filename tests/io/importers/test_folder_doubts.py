"""Folders from which an import could make wrong numbers: each is read right, refused, or named in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.io.importers.films import coded, numbers, write_film
from tests.io.importers.test_folder import complaint, run
from tests.io.importers.test_folder_tables import only, write_csv

from aime.data import open_dataset
from aime.data.action_scale import ActionScale

pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")

FIVE = "action_x\n" + "".join(f"0.{row}\n" for row in range(5))


def folder(tmp_path: Path, table: str, suffix: str = ".csv", frames: int = 5, name: str = "a") -> Path:
    source = tmp_path / "source"
    write_film(source / f"{name}.mkv", coded(frames), "ffv1", 25)
    (source / f"{name}{suffix}").write_text(table)
    return source


def pictures(directory: Path, names: list[str]) -> None:
    directory.mkdir(parents=True)
    for name, frame in zip(names, coded(len(names)), strict=True):
        Image.fromarray(frame).save(directory / name)


@pytest.mark.parametrize("factor", [1000, 0.001])
def test_times_in_another_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float) -> None:
    source = tmp_path / "source"
    write_film(source / "a.mkv", coded(50), "ffv1", 25)
    times = np.arange(210) / 100
    write_csv(source / "a.csv", {"t": times * factor, "action": times / 10})
    assert "with --time-unit" in complaint(capsys, source, tmp_path / "out", "--time-column", "t")


def test_the_rate_is_that_of_the_pairs(tmp_path: Path) -> None:
    source = tmp_path / "slow"
    write_film(source / "a.mkv", coded(50), "ffv1", 25)
    write_csv(source / "a.csv", {"t": np.arange(20) / 10, "action": np.arange(20) / 100})
    assert run(source, tmp_path / "slow-out", "--time-column", "t") == 0
    assert open_dataset(tmp_path / "slow-out").attributes["fps"] == 10
    # GIF counts hundredths: 30 frames a second are 3, 3 and 4 of them, which FFmpeg's header takes for 33.3
    gif = tmp_path / "gif"
    gif.mkdir()
    first, *others = [Image.fromarray(frame) for frame in coded(31)]
    durations = [30, 30, 40] * 10 + [30]
    first.save(gif / "a.gif", save_all=True, append_images=others, duration=durations, optimize=False)
    assert run(gif, tmp_path / "gif-out", "--no-actions") == 0
    assert open_dataset(tmp_path / "gif-out").attributes["fps"] == pytest.approx(30, abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "table"),
    [
        (".tsv", "action_x\taction_y\n" + "".join(f"{row + 1},234\t1\n" for row in range(5))),
        (".csv", "action_x;action_y\n950;1\n980;1\n1,010;1\n1,040;1\n1,070;1\n"),
        (".csv", "action_x;action_y\n950;1\n980;1\n1.010;1\n1.040;1\n1.070;1\n"),
    ],
)
def test_marks_that_may_divide_thousands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, table: str
) -> None:
    assert "may be a decimal or a thousands separator" in complaint(
        capsys, folder(tmp_path, table, suffix), tmp_path / "out"
    )


def test_decimal_commas_beside_numbers_that_could_be_thousands(tmp_path: Path) -> None:
    source = folder(tmp_path, "action_x;action_y\n" + "".join(f"1,23{row};0,5\n" for row in range(5)))
    assert run(source, tmp_path / "out") == 0
    dataset = open_dataset(tmp_path / "out")
    scale = ActionScale.of_attributes(dataset.attributes)
    assert scale is not None
    expected = [(1.23 + row / 1000, 0.5) for row in range(5)]
    np.testing.assert_allclose(scale.to_source(dataset.read(0).action), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("terminated", (0, 0, 0, 0, 2), "'terminated' holds 2.0"),
        ("terminated", (0, 0, 0, 0, ""), "'terminated' holds nan"),
        ("", (0, 1, 2, 4, 5), "goes from 2 to 4"),
        ("Unnamed: 0", (0, 1, 2, 4, 5), "goes from 2 to 4"),
        ("step", (0, 4, 8, 16, 20), "goes from 8 to 16"),
        ("elapsed_time [s]", (0, 0.04, 0.08, 0.16, 0.2), "row 3 is 0.16 after the first"),
        ("action_x_prev", (0, 0, 0, 0, 0), "may not be one"),
    ],
)
def test_columns_that_say_that_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, values: tuple[object, ...], words: str
) -> None:
    table = f"{column},action_x\n" + "".join(f"{value},0.{row}\n" for row, value in enumerate(values))
    assert words in complaint(capsys, folder(tmp_path, table), tmp_path / "out")


@pytest.mark.parametrize("column", ["", "Unnamed: 0", "step"])
def test_columns_that_count_rows(tmp_path: Path, column: str) -> None:
    table = f"{column},action_x\n" + "".join(f"{4 * row},0.{row}\n" for row in range(5))
    assert run(folder(tmp_path, table), tmp_path / "out") == 0
    np.testing.assert_allclose(only(tmp_path / "out").action[:, 0], np.arange(5) / 10, atol=1e-6)


def test_a_column_has_one_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path, FIVE)
    twice = complaint(capsys, source, tmp_path / "out", "--action-columns", "action_x", "action_x")
    assert "'action_x' is named twice" in twice


def test_whole_numbers_are_amounts_unless_the_user_says_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(tmp_path, "action_gear,action_steer\n0,1.5\n1,2.5\n2,3.5\n0,4.5\n,\n")
    folder(tmp_path, "action_steer,action_gear\n5.5,1\n6.5,3\n7.5,2\n8.5,0\n9.5,1\n", name="b")
    assert run(source, tmp_path / "amounts") == 0
    assert "'action_gear' has integers from 0 to 3 and is read as continuous" in capsys.readouterr().out
    assert run(source, tmp_path / "choices", "--discrete-actions", "action_gear") == 0
    dataset = open_dataset(tmp_path / "choices")
    assert json.loads(str(dataset.attributes["action_names"])) == {"gear": 4, "steer": 1}
    gears = [[0, 1, 2, 0], [1, 3, 2, 0, 1]]
    for episode, expected in zip(dataset, gears, strict=True):
        np.testing.assert_array_equal(episode.action[: len(expected), :4], 2 * np.eye(4)[expected] - 1)
    assert np.isnan(dataset.read(0).action[-1]).all()
    steers = ActionScale.of_attributes(dataset.attributes)
    assert steers is not None
    np.testing.assert_allclose(steers.to_source(dataset.read(1).action)[:, 4], np.arange(5.5, 10), atol=1e-6)
    message = complaint(capsys, source, tmp_path / "out-2", "--discrete-actions", "action_steer")
    assert "'action_steer' holds [1.5], expected whole numbers" in message
    message = complaint(capsys, source, tmp_path / "out-3", "--discrete-actions", "gear")
    assert "names 'gear', expected columns of actions" in message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0.png", "1.png", "2.png", "4.png", "5.png"], "2.png: is followed by '4.png'"),
        (["1.png", "01.png", "2.png"], "has the number of"),
        (["1.jpg", "1.png", "2.png"], "has the number of"),
        (["rgb_0.png", "rgb_1.png", "depth_0.png", "depth_1.png"], "names like 'depth_0.png' and 'rgb_0.png'"),
    ],
)
def test_pictures_whose_order_is_unknown_or_has_a_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], words: str
) -> None:
    pictures(tmp_path / "source" / "a", names)
    assert words in complaint(capsys, tmp_path / "source", tmp_path / "out", "--no-actions")


@pytest.mark.parametrize(
    "names",
    [
        ["8.png", "9.png", "010.png", "11.png"],
        ["0.25.png", "0.5.png", "1.0.png", "10.125.png"],
        ["f_1000.png", "f_1039.png", "f_1081.png", "f_1120.png"],
        ["a2_9.png", "a2_10.png", "a10_1.png", "a10_2.png"],
        ["0.png", "4.jpg", "8.png", "12.png"],
    ],
)
def test_pictures_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    directory = tmp_path / "source" / "a"
    pictures(directory, names)
    assert run(tmp_path / "source", tmp_path / "out", "--no-actions") == 0
    assert numbers(only(tmp_path / "out").pixels) == list(range(len(names)))


def test_other_files_among_the_pictures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "source" / "a"
    pictures(directory, ["0.png", "1.png"])
    for name in ("2.tiff", "3.tiff"):
        Image.fromarray(coded(1)[0]).save(directory / name)
    (directory / "actions.csv").write_text("action\n0\n1\n")
    assert run(tmp_path / "source", tmp_path / "out") == 0
    assert "files not read: a/2.tiff and 1 more" in capsys.readouterr().out


def test_an_import_does_not_go_on_with_other_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path, FIVE)
    out = source / "shards"  # in the source, whose own files then do not count
    assert run(source, out) == 0
    assert run(source, out) == 0, "nothing has changed"
    (source / "a.csv").write_text(FIVE.replace("0.3", "0.8"))
    assert "the source has changed since" in complaint(capsys, source, out)


def test_columns_of_another_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, row = folder(tmp_path, FIVE), np.arange(5.0)
    (source / "a.csv").unlink()
    np.savez(source / "a.npz", action_a=np.stack([row, row], 1), action_b=row)
    folder(tmp_path, FIVE, name="b")
    (source / "b.csv").unlink()
    np.savez(source / "b.npz", action_a=row, action_b=np.stack([row, row], 1))
    assert "'action_a' has 1 numbers a row, expected 2" in complaint(capsys, source, tmp_path / "out")
    (source / "b.npz").unlink()
    (source / "b.mkv").unlink()
    np.savez(source / "a.npz", action=row, reward=np.stack([row, row], 1))
    assert "'reward' has 2 numbers a row, expected one" in complaint(capsys, source, tmp_path / "out")
