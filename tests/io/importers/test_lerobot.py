"""LeRobot's two layouts: 2.1 and 3.0 as written by hand, and 3.0 as LeRobot itself writes it."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.io.importers.films import coded, moving_square, numbers, write_film

from aime.cli.main import main
from aime.data import open_dataset

pytest.importorskip("av", reason="films need PyAV: pip install 'aime[import]'")
pyarrow = pytest.importorskip("pyarrow", reason="tables need pyarrow: pip install 'aime[import]'")
parquet = pytest.importorskip("pyarrow.parquet")

LENGTHS, SIZE, FPS = (30, 12, 25), 32, 10
CAMERAS = ("observation.images.top", "observation.images.wrist")


def rows_of(number: int, first: int) -> dict[str, Any]:
    length, random = LENGTHS[number], np.random.default_rng(number)
    return {
        "action": random.uniform(-90, 90, (length, 2)).tolist(),
        "observation.state": random.uniform(-90, 90, (length, 3)).tolist(),
        "next.reward": random.uniform(size=length).tolist(),
        "next.done": (np.arange(length) == length - 1).tolist(),
        "timestamp": (np.arange(length) / FPS).tolist(),
        "episode_index": [number] * length,
        "index": list(range(first, first + length)),
    }


def film_of(number: int, camera: int) -> np.ndarray:
    return moving_square(LENGTHS[number], SIZE, width=48, seed=5 * number + camera)


def info(version: str, data: str, video: str) -> dict[str, Any]:
    frames = {"dtype": "video", "shape": [SIZE, 48, 3], "names": ["height", "width", "channels"]}
    vectors = {"action": 2, "observation.state": 3}
    features = {name: {"dtype": "float32", "shape": [width]} for name, width in vectors.items()}
    return {
        "codebase_version": version,
        "fps": FPS,
        "chunks_size": 2,
        "data_path": data,
        "video_path": video,
        "features": {**features, **{camera: frames for camera in CAMERAS}},
    }


def write(path: Path, table: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(table), path)


def write_2(place: Path) -> Path:
    (place / "meta").mkdir(parents=True)
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (place / "meta/info.json").write_text(json.dumps(info("v2.1", data, video)))
    lines = [
        json.dumps({"episode_index": number, "tasks": [], "length": length}) for number, length in enumerate(LENGTHS)
    ]
    (place / "meta/episodes.jsonl").write_text("\n".join(lines))
    for number in range(len(LENGTHS)):
        chunk = f"chunk-{number // 2:03d}"
        write(place / f"data/{chunk}/episode_{number:06d}.parquet", rows_of(number, 0))
        for camera, name in enumerate(CAMERAS):
            write_film(place / f"videos/{chunk}/{name}/episode_{number:06d}.mp4", film_of(number, camera), "mpeg4", FPS)
    return place


def write_3(place: Path) -> Path:
    (place / "meta").mkdir(parents=True)
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    (place / "meta/info.json").write_text(json.dumps(info("v3.0", data, video)))
    starts = np.cumsum([0, *LENGTHS])
    parts = [rows_of(number, int(starts[number])) for number in range(len(LENGTHS))]
    whole = {name: [row for part in parts for row in part[name]] for name in parts[0]}
    write(place / "data/chunk-000/file-000.parquet", whole)
    episodes: dict[str, Any] = {"episode_index": list(range(len(LENGTHS))), "length": list(LENGTHS)}
    for prefix in ("data", *(f"videos/{name}" for name in CAMERAS)):
        episodes |= {f"{prefix}/chunk_index": [0] * len(LENGTHS), f"{prefix}/file_index": [0] * len(LENGTHS)}
    for camera, name in enumerate(CAMERAS):
        episodes[f"videos/{name}/from_timestamp"] = (starts[:-1] / FPS).tolist()
        films = [film_of(number, camera) for number in range(len(LENGTHS))]
        write_film(place / f"videos/{name}/chunk-000/file-000.mp4", np.concatenate(films), "mpeg4", FPS)
    write(place / "meta/episodes/chunk-000/file-000.parquet", episodes)
    return place


def run(source: Path, out: Path, *flags: object) -> int:
    fixed = ["--out", str(out), "--image-size", "64", "--workers", "1"]
    return main(["import", "lerobot", str(source), *fixed, *map(str, flags)])


def complaint(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *flags: object) -> str:
    assert run(source, out, *flags) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("writer", [write_2, write_3])
def test_frames_and_rows_of_both_versions(tmp_path: Path, writer: Any) -> None:
    assert run(writer(tmp_path / "source"), tmp_path / "out", "--camera", *CAMERAS, "--fit", "pad") == 0
    dataset = open_dataset(tmp_path / "out")
    assert dataset.lengths.tolist() == [length + 1 for length in LENGTHS], "a frame for the last row's reward"
    truth = [rows_of(number, 0) for number in range(len(LENGTHS))]
    actions = np.concatenate([part["action"] for part in truth])
    low, high = actions.min(axis=0), actions.max(axis=0)
    for number, (episode, part) in enumerate(zip(dataset, truth, strict=True)):
        for camera in range(2):  # 32x48 pads to 21x32 in a tile of 32x32
            tile = episode.pixels[:, 5:26, 32 * camera : 32 * camera + 32].astype(float)
            frames = [np.asarray(Image.fromarray(frame).resize((32, 21), 2)) for frame in film_of(number, camera)]
            assert np.abs(tile[:-1] - np.stack(frames)).mean() < 5, "the film is lossy, but not another one"
            np.testing.assert_array_equal(tile[-1], tile[-2])
        scaled = (np.array(part["action"]) - low) / (high - low) * 2 - 1
        np.testing.assert_allclose(episode.action[:-1], scaled, atol=1e-5)
        np.testing.assert_allclose(np.array(episode.state)[:-1], part["observation.state"], rtol=1e-5)
        np.testing.assert_allclose(episode.reward[1:], part["next.reward"], rtol=1e-5)
        assert np.isnan(episode.reward[0]) and np.isnan(episode.action[-1]).all()
        assert episode.state is not None and np.isnan(episode.state[-1]).all()
        assert episode.terminated.tolist() == [False, *part["next.done"]]


@pytest.mark.parametrize("kind", ["films", "pictures"])
def test_what_lerobot_itself_wrote(tmp_path: Path, kind: str) -> None:
    source = Path(__file__).parent / "lerobot" / kind  # scripts/make_lerobot_fixture.py
    assert run(source, tmp_path / "out", "--camera", "wrist", "--action-range", "-90", "90", "--fit", "crop") == 0
    dataset = open_dataset(tmp_path / "out")
    assert json.loads(str(dataset.attributes["action_names"])) == {"shoulder": 1, "elbow": 1}
    assert json.loads(str(dataset.attributes["state_names"])) == {"a": 1, "b": 1, "c": 1}
    assert dataset.attributes["fps"] == 10
    with np.load(source / "expected.npz") as truth:
        for number, episode in enumerate(dataset):
            rows = truth["episode_index"] == number
            frames = truth["frames"][rows, 1, :, 16:80].astype(float)  # 64x96: the middle 64 columns
            error = np.abs(episode.pixels[:-1] - frames).mean(axis=(1, 2, 3))
            assert error.max() < (3 if kind == "films" else 1e-9)
            if kind == "films":
                beside = np.abs(episode.pixels[:-2] - frames[1:]).mean(axis=(1, 2, 3))
                assert (error[:-1] < beside).all(), "the frames of their own rows"
            np.testing.assert_allclose(90 * episode.action[:-1], truth["action"][rows], atol=1e-4)
            np.testing.assert_array_equal(np.array(episode.state)[:-1], truth["observation.state"][rows])
            np.testing.assert_array_equal(episode.reward[1:], truth["next.reward"][rows])
        assert (dataset.lengths - 1).tolist() == np.bincount(truth["episode_index"]).tolist()


def test_pictures_in_the_table(tmp_path: Path) -> None:
    source = write_2(tmp_path / "source")
    path = source / "meta/info.json"
    described = json.loads(path.read_text())
    described["features"][CAMERAS[0]]["dtype"] = "image"
    path.write_text(json.dumps(described))
    for number in range(len(LENGTHS)):
        cells = []
        for frame in film_of(number, 0):
            content = io.BytesIO()
            Image.fromarray(frame).resize((64, 64)).save(content, "PNG")
            cells.append({"bytes": content.getvalue(), "path": ""})
        write(next(source.glob(f"data/*/episode_{number:06d}.parquet")), {**rows_of(number, 0), CAMERAS[0]: cells})
    assert run(source, tmp_path / "out", "--camera", "top") == 0
    expected = [np.asarray(Image.fromarray(frame).resize((64, 64))) for frame in film_of(1, 0)]
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").read(1).pixels[:-1], np.stack(expected))


def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_2(tmp_path / "source")
    assert "has cameras ['observation.images.top'" in complaint(capsys, source, tmp_path / "out")
    film = next(source.glob("videos/*/*top/episode_000001.mp4"))
    write_film(film, film_of(1, 0)[:-3], "mpeg4", FPS)
    message = complaint(capsys, source, tmp_path / "short", "--camera", "top")
    assert "row 9 at 0.900 s has no frame of its own within 0.050 s (it has ended)" in message
    film.write_bytes(film.read_bytes()[:700])
    assert "cannot be decoded" in complaint(capsys, source, tmp_path / "corrupt", "--camera", "top")
    assert run(source, tmp_path / "corrupt", "--camera", "top", "--skip-bad") == 0
    assert open_dataset(tmp_path / "corrupt").lengths.tolist() == [31, 26]
    table = rows_of(2, 0)
    del table["action"]
    write(next(source.glob("data/*/episode_000002.parquet")), table)
    assert "has no column 'action'" in complaint(capsys, source, tmp_path / "none", "--camera", "wrist")


@pytest.mark.parametrize("line", ["[]", "3", '{"episode_index": 1e400, "length": 5}', '{"length": 5}', "{", "[" * 9999])
def test_lists_of_episodes_of_other_types_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    source = write_2(tmp_path / "source")
    (source / "meta/episodes.jsonl").write_text(line)
    assert "episodes.jsonl: cannot be read" in complaint(capsys, source, tmp_path / "out", "--camera", "top")


def test_paths_stay_in_the_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_2(tmp_path / "source")
    path = source / "meta/info.json"
    (tmp_path / "secret.parquet").write_bytes(b"secret")
    for template in ("../secret.parquet", "{episode_index.__class__}", str(tmp_path / "secret.parquet")):
        path.write_text(json.dumps({**json.loads(path.read_text()), "data_path": template}))
        assert "no such file in the data set" in complaint(capsys, source, tmp_path / "out", "--camera", "top")
    path.write_text(path.read_text().replace("v2.1", "v1.6"))
    assert "has version v1.6" in complaint(capsys, source, tmp_path / "out", "--camera", "top")


def filmed(place: Path, frames: list[int], times: list[float], rate: int = FPS, **described: object) -> Path:
    """A data set of version 2.1 with one episode of 20 rows and a film of some numbered frames at some times."""
    source = write_2(place)
    (source / "meta/episodes.jsonl").write_text(json.dumps({"episode_index": 0, "length": 20}))
    rows = {
        "action": [[row / 20, 0.0] for row in range(20)],
        "timestamp": [row / FPS for row in range(20)],
        "episode_index": [0] * 20,
    }
    write(next(source.glob("data/*/episode_000000.parquet")), rows)
    film = next(source.glob("videos/*/*top/episode_000000.mp4"))
    write_film(film, coded(40)[frames], "libx264", rate, times=times)
    path = source / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **described}))
    return source


def test_frames_belong_to_rows_by_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = list(range(20))
    flags = ("--camera", "top", "--no-state")
    sound = filmed(tmp_path / "sound", every, [frame / 10 for frame in every])
    assert run(sound, tmp_path / "out", *flags) == 0
    assert numbers(open_dataset(tmp_path / "out").read(0).pixels) == every
    # twice the rate: number 2 k is shown when row k is
    faster = filmed(tmp_path / "faster", list(range(40)), [frame / 20 for frame in range(40)], 20)
    assert run(faster, tmp_path / "out-2", *flags) == 0
    assert numbers(open_dataset(tmp_path / "out-2").read(0).pixels) == [2 * row for row in every]
    lacking = [frame for frame in every if frame != 8]
    for name, frames, times, words in (
        ("lacks one", lacking, [frame / 10 for frame in lacking], "row 8 at 0.800 s has no frame of its own"),
        ("lacks one and was timed again", lacking, [frame / 10 for frame in range(19)], "row 19 at 1.900 s has no"),
        ("starts later", every, [frame / 10 + 0.5 for frame in every], "row 0 at 0.000 s has no frame of its own"),
        ("is slower", every, [frame / 5 for frame in every], "row 1 at 0.100 s has no frame of its own"),
        (
            "is longer",
            list(range(25)),
            [frame / 10 for frame in range(25)],
            "goes on after the last row at 1.900 s with 5",
        ),
    ):
        source = filmed(tmp_path / name, frames, times)
        assert words in complaint(capsys, source, tmp_path / f"{name}-out", *flags)
    source = filmed(tmp_path / "rate", every, [frame / 10 for frame in every], fps=30)
    assert "rows are 0.1000 s apart, expected 0.0333 s" in complaint(capsys, source, tmp_path / "rate-out", *flags)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": "ten"}, "has fps 'ten'"),
        ({"fps": 0}, "has fps 0"),
        ({"chunks_size": "many"}, "has chunks_size 'many'"),
        ({"features": {"action": 3}}, "has no valid 'features', expected objects"),
        ({"features": []}, "has no valid 'features', expected objects"),
        ({"video_path": None}, "no such file"),
    ],
)
def test_descriptions_of_other_types_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], words: str
) -> None:
    source = write_2(tmp_path / "source")
    path = source / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert words in complaint(capsys, source, tmp_path / "out", "--camera", "top")


def test_whole_numbers_are_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As gymnasium's discrete actions are recorded: one number a choice of those that occur in any episode."""
    source = write_2(tmp_path / "source")
    path = source / "meta/info.json"
    described = json.loads(path.read_text())
    described["features"]["action"] = {"dtype": "int64", "shape": [1], "names": None}
    path.write_text(json.dumps(described))
    chosen = [np.arange(length) % (3 + number) for number, length in enumerate(LENGTHS)]
    for number, actions in enumerate(chosen):
        table = {**rows_of(number, 0), "action": actions[:, None].tolist()}
        write(next(source.glob(f"data/*/episode_{number:06d}.parquet")), table)
    assert run(source, tmp_path / "out", "--camera", "top", "--action-range", "-90", "90") == 0
    for episode, actions in zip(open_dataset(tmp_path / "out"), chosen, strict=True):
        np.testing.assert_array_equal(episode.action[:-1], 2 * np.eye(5)[actions] - 1)
    assert "'action' is taken as a choice of 0 to 4" in capsys.readouterr().out
    message = complaint(capsys, source, tmp_path / "b", "--camera", "top", "--action-columns", "action")
    assert "--action-columns does not apply to data sets of this kind" in message


def test_lists_in_the_place_of_an_episode_s_number_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_2(tmp_path / "source")
    path = source / "data/chunk-000/episode_000000.parquet"
    write(path, {**rows_of(0, 0), "episode_index": [[0, 1]] * LENGTHS[0]})
    said = complaint(capsys, source, tmp_path / "out", "--camera", "top")
    assert "'episode_index' holds lists" in said


def test_files_that_a_desktop_left_are_ignored(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(Path(__file__).parent / "lerobot" / "success", source)
    for place in ("meta/episodes/chunk-000", "data/chunk-000"):
        (source / place / "._file-000.parquet").write_bytes(b"\x00\x05\x16\x07")
    assert run(source, tmp_path / "out") == 0
    assert open_dataset(tmp_path / "out").episodes == 3


def in_the_hubs_cache(source: Path, cache: Path) -> Path:
    """The layout of `huggingface_hub`: a snapshot of links into a directory of blobs, which have no suffix."""
    snapshot, blobs = cache / "snapshots" / "0123abcd", cache / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        path.rename(blobs / f"{number:040x}")
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / f"{number:040x}", link.parent))
    return snapshot


@pytest.mark.parametrize("writer", [write_2, write_3])
def test_the_local_cache_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str], writer: Any) -> None:
    assert run(writer(tmp_path / "plain"), tmp_path / "plain-out", "--camera", "top") == 0
    snapshot = in_the_hubs_cache(writer(tmp_path / "source"), tmp_path / "hub" / "datasets--me--set")
    assert run(snapshot, tmp_path / "out", "--camera", "top") == 0
    for one, other in zip(open_dataset(tmp_path / "out"), open_dataset(tmp_path / "plain-out"), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.action, other.action)
    film = next(snapshot.rglob("*top/**/*.mp4"))
    (tmp_path / "other.mp4").write_bytes(film.read_bytes())
    film.unlink()
    film.symlink_to(tmp_path / "other.mp4")
    assert "no such file in the data set" in complaint(capsys, snapshot, tmp_path / "out-2", "--camera", "top")
    elsewhere = in_the_hubs_cache(writer(tmp_path / "source-2"), tmp_path / "hub" / "no-cache")
    assert "no such file in the data set" in complaint(capsys, elsewhere, tmp_path / "out-3", "--camera", "top")


def test_ends_that_are_none_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_2(tmp_path / "source")
    for number, length in enumerate(LENGTHS):
        rows = {**rows_of(number, 0), "next.reward": [0.0] * length, "next.done": [False] * (length - 1) + [True]}
        write(next(source.glob(f"data/*/episode_{number:06d}.parquet")), rows)
    assert run(source, tmp_path / "out", "--camera", "top") == 0
    assert f"{len(LENGTHS)} episodes whose last row is done without success" in capsys.readouterr().out
    assert not any(episode.terminated.any() for episode in open_dataset(tmp_path / "out"))


def test_rewards_of_several_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_2(tmp_path / "source")
    rows = rows_of(0, 0)
    rows["next.reward"] = [[0.0, 1.0]] * LENGTHS[0]
    write(next(source.glob("data/*/episode_000000.parquet")), rows)
    assert "'next.reward' has 2 numbers a row" in complaint(capsys, source, tmp_path / "out", "--camera", "top")
