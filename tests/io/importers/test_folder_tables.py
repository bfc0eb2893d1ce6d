"""Frames and rows of a folder by time, tables of every dialect, several cameras."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from tests.io.importers.films import coded, numbers, write_film
from tests.io.importers.test_folder import complaint, run

from aime.data import Episode, open_dataset
from aime.io.importers.interface import BadEpisode
from aime.io.importers.tables import matrix, read_table

pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")


def write_csv(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]) + "\n")


def log(frames: int, rate: float, film_rate: float, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Rows at some rate while a film runs; the action tells the frame that is shown, in hundredths."""
    times = np.arange(round(frames / film_rate * rate)) / rate
    shown = np.minimum(np.floor(times * film_rate + 1e-9), frames - 1)
    return {"t": times, "action": shown / 100, **more}


def only(out: Path) -> Episode:
    dataset = open_dataset(out)
    assert dataset.episodes == 1
    return dataset.read(0)


def check_pairs(episode: Episode, expected: list[int]) -> None:
    """Each frame tells its number, and so does its action."""
    assert numbers(episode.pixels) == expected
    np.testing.assert_allclose(episode.action[:, 0] * 100, expected, atol=1e-3)


def test_a_log_at_100_hz_and_a_film_at_25(tmp_path: Path) -> None:
    table = log(40, 100, 25)
    reward = np.zeros(160)
    reward[[6, 7, 159]] = (1, 2, 5)  # rows 6 and 7 come after frame 1, at row 4, and before frame 2, at row 8
    for name, flags in (("time", ("--time-column", "t")), ("every", ("--every", 4))):
        source = tmp_path / name
        write_film(source / "a.mkv", coded(40), "ffv1", 25)
        write_csv(source / "a.csv", {**table, "reward": reward})
        assert run(source, tmp_path / f"{name}-out", *flags) == 0
        episode = only(tmp_path / f"{name}-out")
        assert len(episode) == 41  # the last reward came after the last frame
        check_pairs(Episode(episode.pixels[:40], episode.action[:40], *([episode.reward] * 2)), list(range(40)))
        assert episode.reward[2] == 3 and episode.reward[40] == 5 and np.nansum(episode.reward) == 8
        assert open_dataset(tmp_path / f"{name}-out").attributes["fps"] == pytest.approx(25)


def test_milliseconds_and_pictures_with_a_rate(tmp_path: Path) -> None:
    table = log(30, 50, 10)
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    for number, frame in enumerate(coded(30)):
        Image.fromarray(frame).save(source / "a" / f"{number}.png")
    write_csv(source / "a.csv", {"ms": table["t"] * 1000, "action": table["action"]})
    flags = ("--time-column", "ms", "--time-unit", "ms", "--fps", 10)
    assert run(source, tmp_path / "out", *flags) == 0
    check_pairs(only(tmp_path / "out"), list(range(30)))
    assert open_dataset(tmp_path / "out").attributes["fps"] == 10


def test_a_table_that_is_slower_than_its_film(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_film(source / "a.mkv", coded(40), "ffv1", 20)
    write_csv(source / "a.csv", {"t": np.arange(20) / 10, "action": np.arange(0, 40, 2) / 100})
    assert run(source, tmp_path / "out", "--time-column", "t") == 0
    check_pairs(only(tmp_path / "out"), list(range(0, 40, 2)))
    assert open_dataset(tmp_path / "out").attributes["fps"] == pytest.approx(10)
    report = json.loads((tmp_path / "out" / "import.json").read_text())
    assert report["left_out"]["frames between rows left out"] == 19


def test_films_that_lack_frames_or_start_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = [frame for frame in range(30) if frame != 12]
    for name, frames, times, flags, words in (
        ("by time", lacking, [f / 10 for f in lacking], ("--time-column", "t"), "1.100 s to the next are 0.200 s"),
        ("by number", lacking, [f / 10 for f in lacking], (), "has 29 frames but 30 rows"),
        ("one action fewer", lacking, [f / 10 for f in lacking], (), "1.100 s to the next are 0.200 s"),
        ("later", list(range(30)), [f / 10 + 0.5 for f in range(30)], ("--time-column", "t"), "is at 0.500 s of its"),
        ("other rate", list(range(30)), [f / 25 for f in range(30)], (), "in 't', its frame"),
    ):
        source = tmp_path / name
        write_film(source / "a.mkv", coded(40)[frames], "ffv1", 10, times=times)
        rows = 29 if name == "one action fewer" else 30
        table = {"action": np.arange(rows) / 100} | ({} if rows == 29 else {"t": np.arange(rows) / 10})
        write_csv(source / "a.csv", table)
        assert words in complaint(capsys, source, tmp_path / f"{name}-out", *flags), name


def test_a_log_with_a_hole_and_times_of_another_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = log(30, 100, 10)
    inside = (table["t"] < 1.0) | (table["t"] > 1.2)
    for name, times, words in (
        ("hole", table["t"][inside], "a.csv: frame 11 at 1.100 s has no row within 0.050 s (the nearest is row 100 at"),
        ("epoch", table["t"] + 1.7e9, "has no row within 0.050 s"),
        ("back", np.where(np.arange(300) == 40, 0.0, table["t"]), "row 40 is at 0.000 s, not after"),
    ):
        source = tmp_path / name
        write_film(source / "a.mkv", coded(30), "ffv1", 10)
        action = table["action"][inside] if name == "hole" else table["action"]
        write_csv(source / "a.csv", {"clock": times, "action": action})
        assert words in complaint(capsys, source, tmp_path / f"{name}-out", "--time-column", "clock"), name


def test_one_action_fewer_than_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    write_film(source / "a.mkv", coded(20), "ffv1")
    write_csv(source / "a.csv", {"action": np.arange(19) / 100})
    assert run(source, tmp_path / "out") == 0
    episode = only(tmp_path / "out")
    assert np.isnan(episode.action[19]).all()
    np.testing.assert_allclose(episode.action[:19, 0] * 100, range(19), atol=1e-3)
    write_csv(source / "a.csv", {"action": np.arange(19) / 100, "reward": np.zeros(19)})
    assert "has 20 frames but 19 rows" in complaint(capsys, source, tmp_path / "out-2")


def pictures(place: Path, length: int = 6) -> None:
    place.mkdir(parents=True)
    for number, frame in enumerate(coded(length)):
        Image.fromarray(frame).save(place / f"{number}.png")


TWO = [[step / 10, -step / 10] for step in range(6)]


def rows(pattern: str) -> str:
    return "".join(pattern.format(x=x, y=y) for x, y in TWO)


def commas(text: str) -> str:
    return text.replace(".", ",")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ("action_x,action_y\n" + rows("{x},{y}\n")).encode("utf-8-sig")),
        ("a.csv", ("action_x,action_y\r\n" + rows("{x},{y}\r\n")).encode("utf-16")),
        ("a.CSV", ("action_x,action_y\n" + rows("{x},{y}\n") + "\n\n").encode()),
        ("a.csv", ("action_x;action_y\n" + commas(rows("{x};{y}\n"))).encode()),
        ("a.csv", ("sep=;\naction_x;action_y\n" + rows("{x};{y}\n")).encode()),
        ("a.csv", ("action_x\taction_y\n" + commas(rows("{x}\t{y}\n"))).encode()),
        ("a.tsv", ("action_x\taction_y\n" + rows("{x}\t{y}\n")).encode()),
        ("a.csv", ('" action_x", "action_y"\n' + rows('"{x}", "{y}"\n')).encode()),
        ("a.csv", ("Action_x,ACTION_y\n" + rows("{x},{y}\n")).encode()),
        ("a.csv", ("# by hand\naction_x,action_y,\n" + rows("{x},{y},\n")).encode()),
        ("a.csv", ("frame,action_x,action_y\n" + "".join(f"{i},{x},{y}\n" for i, (x, y) in enumerate(TWO))).encode()),
    ],
)
def test_tables_of_every_dialect(tmp_path: Path, name: str, content: bytes) -> None:
    pictures(tmp_path / "source" / "a")
    (tmp_path / "source" / name).write_bytes(content)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    np.testing.assert_allclose(only(tmp_path / "out").action, TWO, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("action,action\n" + rows("{x},{y}\n"), "two columns of the name 'action'"),
        ("reward,action_x,Reward\n" + rows("1,{x},{y}\n"), "expected one of 'reward'"),
        (rows("{x},{y}\n"), "holds numbers, expected the names"),
        ("action_x;action_y\n" + commas(rows("{x};{y}\n"))[:-4] + "0.5\n", "numbers with points and numbers with"),
        ("action_x\n" + rows("{x}\n").replace("0.2", "1_000"), "holds '1_000' on line 4"),
        ("action_x\n" + rows("{x}\n").replace("0.2", "٣"), "holds '٣' on line 4"),
        ("action_x\n" + rows("{x}\n").replace("0.2", "nan"), "'action' at step 2 is no finite number"),
        ("action_x\n" + rows("{x}\n").replace("0.2", "1e400"), "'action' at step 2 is no finite number"),
        ("action_x\n" + rows("{x}\n").replace("0.2\n", "0.2\n\n"), "line 5 is empty"),
        ("action_x\n" + rows("{x}\n").replace("0.2", "0.2,7"), "line 4 has 2 fields, expected 1"),
        ("action_time,action_x\n" + rows("{x},{y}\n"), "'action_time' begins with 'action' but may not be one"),
        ("frame,action_x\n" + "".join(f"{5 - i},{i}\n" for i in range(6)), "'frame' goes from 5 to 4 at row 1"),
        ("frame,action_x\n" + "".join(f"{i + (i > 3)},{i}\n" for i in range(6)), "'frame' goes from 3 to 5 at row 4"),
        ("action_x\n", "no line of numbers"),
        ("", "no line of names"),
        ("ação\n" + rows("{x}\n"), "save it as UTF-8"),
        (",".join(f"action_{n}" for n in range(5000)) + "\n", "has 5000 columns"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    pictures(tmp_path / "source" / "a")
    (tmp_path / "source" / "a.csv").write_bytes(text.encode("latin-1" if "ç" in text else "utf-8"))
    assert words in complaint(capsys, tmp_path / "source", tmp_path / "out")


def test_columns_that_only_other_tables_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in ("a", "b"):
        pictures(source / name)
    (source / "a.csv").write_text("action_x\n" + rows("{x}\n"))
    (source / "b.csv").write_text("action_x,action_y\n" + rows("{x},{y}\n"))
    message = complaint(capsys, source, tmp_path / "out")
    assert "b.csv: has the action columns ['action_x', 'action_y'] and a.csv has ['action_x']" in message
    assert run(source, tmp_path / "out", "--action-columns", "action_x") == 0
    assert "columns not imported: action_y" in capsys.readouterr().out
    (source / "b.csv").write_text("action_x,reward\n" + rows("{x},{y}\n"))
    assert "b.csv: has the reward columns ['reward'] and a.csv has []" in complaint(capsys, source, tmp_path / "out-2")


def test_columns_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "source" / "a")
    (tmp_path / "source" / "a.csv").write_text("torque,joint,gain\n" + rows("{x},{y},1\n"))
    flags = ("--action-columns", "torque", "--state-columns", "joint", "--reward-column", "gain")
    assert run(tmp_path / "source", tmp_path / "out", *flags) == 0
    episode = only(tmp_path / "out")
    np.testing.assert_allclose(np.array(episode.state)[:, 0], [y for _, y in TWO], atol=1e-6)
    assert (episode.reward == 1).all()
    attributes = open_dataset(tmp_path / "out").attributes
    assert attributes["action_names"] == '{"torque": 1}' and attributes["state_names"] == '{"joint": 1}'
    message = complaint(capsys, tmp_path / "source", tmp_path / "out-2", *flags[:-1], "loss")
    assert "a.csv: has no column 'loss'" in message


def test_one_array_is_the_actions(tmp_path: Path) -> None:
    pictures(tmp_path / "source" / "a")
    np.save(tmp_path / "source" / "a.npy", np.array(TWO))
    assert run(tmp_path / "source", tmp_path / "out") == 0
    np.testing.assert_allclose(only(tmp_path / "out").action, TWO, atol=1e-6)


def test_what_is_not_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in ("a", "b"):
        pictures(source / name)
    (source / "a.xlsx").write_text("")
    assert "a.xlsx is no table of a video" in complaint(capsys, source, tmp_path / "out")
    (source / "a.xlsx").rename(source / "readme.txt")
    for litter in ("._a.csv", ".DS_Store", "Thumbs.db", "a/._0.png", "a/Thumbs.db", "._c.mp4"):
        (source / litter).write_text("")
    assert run(source, tmp_path / "out") == 0
    assert "files not read: readme.txt" in capsys.readouterr().out
    (source / "A.csv").write_text("action\n" + rows("{x}\n"))
    assert "A.csv is no table of a video" in complaint(capsys, source, tmp_path / "out-2")
    (source / "A.csv").rename(source / "a.csv")
    (source / "a.tsv").write_text("action\n" + rows("{x}\n"))
    assert "the episode 'a' has the tables ['a.csv', 'a.tsv']" in complaint(capsys, source, tmp_path / "out-3")


@pytest.mark.parametrize("layout", ["{camera}/{episode}.mkv", "{episode}/{camera}.mkv", "{episode}_{camera}.mkv"])
def test_several_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str) -> None:
    source = tmp_path / "source"
    for number, episode in enumerate(("ep1", "ep2")):
        for brightness, camera in enumerate(("top", "wrist")):
            film = coded(12) if brightness == 0 else 255 - coded(12)
            write_film(source / layout.format(camera=camera, episode=episode), film)
        write_csv(source / f"{episode}.csv", {"action": np.arange(12) / 100 + number / 2})
    message = complaint(capsys, source, tmp_path / "none")
    assert "--camera" in message and "wrist" in message
    assert run(source, tmp_path / "top", "--camera", "top") == 0
    dataset = open_dataset(tmp_path / "top")
    assert dataset.episodes == 2
    for number, found in enumerate(dataset):
        assert numbers(found.pixels) == list(range(12))
        np.testing.assert_allclose(found.action[:, 0], np.arange(12) / 100 + number / 2, atol=1e-5)
    assert run(source, tmp_path / "both", "--camera", "top", "wrist") == 0
    tiles = open_dataset(tmp_path / "both").read(0).pixels.astype(int)
    assert np.abs(tiles[:, 4:12, 4:12] + tiles[:, 4:12, 20:28] - 255).max() < 8
    assert "has no camera 'left'" in complaint(capsys, source, tmp_path / "left", "--camera", "left")


def test_stable_worldmodels_own_folders_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    pictures(source / "pixels")
    for name in ("ep_len", "ep_offset", "action"):
        np.savez(source / f"{name}.npz", np.zeros(3))
    message = complaint(capsys, source, tmp_path / "out")
    assert "is in stable-worldmodel's format" in message and "aime import stable-worldmodel" in message


def test_tables_that_would_not_fit_into_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    zeros = pyarrow.array(np.zeros(40_000_000, np.int8)).cast(pyarrow.float64())
    parquet.write_table(pyarrow.table({"action": zeros}), tmp_path / "zeros.parquet")
    assert (tmp_path / "zeros.parquet").stat().st_size < 200_000
    with pytest.raises(BadEpisode, match="MB of memory"):
        read_table(tmp_path / "zeros.parquet")
    with pytest.raises(BadEpisode, match="have 20000 numbers a row"):
        matrix(tmp_path / "wide.npz", {"action": np.zeros((4, 20_000))}, ["action"])
    (tmp_path / "rows.csv").write_text("action\n" + "1\n" * 2_000_001)
    with pytest.raises(BadEpisode, match="more than 2000000 rows"):
        read_table(tmp_path / "rows.csv")
    with (tmp_path / "sparse.csv").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(BadEpisode, match="has 65 MB, expected 64 of text at most"):
        read_table(tmp_path / "sparse.csv")
    (tmp_path / "line.csv").write_text("action" + ",0" * 2**20)
    with pytest.raises(BadEpisode, match="a line of 1048576 characters"):
        read_table(tmp_path / "line.csv")
    described = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }".ljust(117) + b"\n"
    header = b"\x93NUMPY\x01\x00v\x00" + described
    (tmp_path / "large.npy").write_bytes(header)
    with pytest.raises(BadEpisode, match="does not fit its 128 bytes"):
        read_table(tmp_path / "large.npy")


def test_names_that_are_no_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in ("5²", "\x1b[31mred", "b\udce9"):
        pictures(source / name)
    assert run(source, tmp_path / "out") == 0
    assert open_dataset(tmp_path / "out").episodes == 3
    (source / "\x1b[31mred" / "0.png").write_bytes(b"")
    message = complaint(capsys, source, tmp_path / "out-2")
    assert "\x1b" not in message and r"\x1b[31mred/0.png" in message
    (source / "b\udce9" / "0.png").write_bytes(b"")
    assert run(source, tmp_path / "out-2", "--skip-bad") == 0
    printed = capsys.readouterr()
    assert "\x1b[31m" not in printed.out and r"b\udce9/0.png" in printed.out
    assert len(json.loads((tmp_path / "out-2" / "import.json").read_text())["dropped"]) == 2


def test_shards_know_the_rate(tmp_path: Path) -> None:
    write_film(tmp_path / "source" / "a.mp4", coded(10), "mpeg4", 25)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    with h5py.File(next((tmp_path / "out").glob("*.h5"))) as file:
        assert file.attrs["fps"] == 25


def test_films_of_other_rates_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_film(tmp_path / "source" / "a.mp4", coded(10), "mpeg4", 25)
    write_film(tmp_path / "source" / "b.mp4", coded(10), "mpeg4", 30)
    assert "b.mp4: has 30 frames per second, the first video 25" in complaint(
        capsys, tmp_path / "source", tmp_path / "o"
    )
    assert run(tmp_path / "source", tmp_path / "out", "--fps", 20) == 0
    assert open_dataset(tmp_path / "out").attributes["fps"] == 20


def pictures_and(source: Path, suffix: str, frames: int = 6) -> Path:
    """Pictures in `source`/a, and the path of their table."""
    (source / "a").mkdir(parents=True)
    for number, frame in enumerate(coded(frames, 16, 16)):
        Image.fromarray(frame).save(source / "a" / f"{number}.png")
    return source / f"a{suffix}"


@pytest.mark.parametrize("name", ["reward", "terminated", "state", "action_b", "t"])
@pytest.mark.parametrize("rows", [5, 7])
def test_arrays_of_other_lengths_are_refused(
    tmp_path: Path, name: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pictures_and(tmp_path / "source", ".npz")
    columns = {key: np.zeros(6) for key in ("action_a", "action_b", "reward", "terminated", "state")}
    columns |= {"t": np.arange(6) / 10, name: np.arange(rows) / 10}
    np.savez(table, **columns)  # type: ignore[arg-type]
    flags = ("--time-column", "t", "--fps", 10) if name == "t" else ()
    assert "differ in their numbers of rows" in complaint(capsys, tmp_path / "source", tmp_path / "out", *flags)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet"])
def test_a_table_without_rows_is_refused(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = pictures_and(tmp_path / "source", suffix)
    if suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"action": pyarrow.array([], pyarrow.float64())}), table)
    elif suffix == ".npz":
        np.savez(table, action=np.zeros((0, 2)))
    else:
        np.save(table, np.zeros((0, 2)))
    assert "column 'action' has no rows" in complaint(capsys, tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ((0, 5, 4, 3, 2, 1), "goes from 5 to 4 at row 2"),  # DataFrame.sample(frac=1)
        ((0, 1, 2, 4, 5, 6), "goes from 2 to 4 at row 3"),  # dropna()
        ((0, 1, 2, 0, 1, 2), ""),  # concat()
        ((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), ""),  # seconds
        ((0.0, 0.1, 0.2, 0.7, 0.8, 0.9), "after the first in"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_index_of_pandas_says_which_rows_are_there(
    tmp_path: Path, suffix: str, index: tuple[float, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, action = tmp_path / "source", np.arange(6) / 100
    table = source / f"a{suffix}"
    write_film(source / "a.mkv", coded(6), "ffv1", 10)
    if suffix == ".csv":
        table.write_text(",action\n" + "".join(f"{at},{value}\n" for at, value in zip(index, action, strict=True)))
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"action": action, "__index_level_0__": list(index)}), table)
    if words:
        assert words in complaint(capsys, source, tmp_path / "out")
    else:
        assert run(source, tmp_path / "out") == 0


def test_a_film_alone_with_a_gap_is_told(tmp_path: Path) -> None:
    for name, times in (("even", [0, 0.1, 0.2, 0.3]), ("gap", [0, 0.1, 0.5, 0.6])):
        write_film(tmp_path / "source" / f"{name}.mkv", coded(4), "ffv1", 10, times)
    assert run(tmp_path / "source", tmp_path / "out", "--no-actions") == 0
    left_out = json.loads((tmp_path / "out" / "import.json").read_text())["left_out"]
    assert left_out == {"videos with unevenly spaced frames, imported as if evenly spaced": 1}
