"""Exporter to LeRobot 2.1: a Parquet file and an MP4 file per episode. LeRobot converts this format to version 3.

`next.reward` and `next.done` of a row describe the arrival at the next frame. In the last row the reward is 0, done is
true, and an unknown action repeats the previous one, as in LeRobot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aime.data.dataset import Dataset
from aime.io.exporters.films import write_film
from aime.io.exporters.interface import Original, Settings, named_numbers, originals, whole
from aime.io.importers.tables import pyarrow

CAMERA = "observation.images.main"
CHUNK = 1000
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
NOTE = (
    "in the last row of each episode, an unknown action repeats the previous one and next.reward is 0, because LeRobot "
    "has no value for unknown numbers"
)
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def export(dataset: Dataset, out: Path, settings: Settings) -> None:
    """Write the directory `out`, which must not exist.

    Raises:
        AimeError: if it exists, a frame cannot be read, or PyAV or pyarrow is not installed.
    """
    pyarrow("pyarrow.parquet")
    task = str(dataset.attributes.get("task", "unnamed"))
    features: dict[str, Any] = {}
    episodes: list[dict[str, Any]] = []
    stats: list[dict[str, Any]] = []
    first = 0
    with whole(out) as place:
        for number, episode in enumerate(originals(dataset)):
            columns = _columns(episode, number, first, settings.fps)
            features = _features(dataset, columns, _number(settings.fps))
            words = {"episode_chunk": number // CHUNK, "episode_index": number, "video_key": CAMERA}
            _write_parquet(place / DATA.format(**words), columns)
            write_film(place / VIDEO.format(**words), episode.pixels, settings.fps)
            episodes.append({"episode_index": number, "tasks": [task], "length": len(episode.pixels)})
            stats.append({"episode_index": number, "stats": _stats(columns, episode)})
            first += len(episode.pixels)
            settings.progress(len(episode.pixels))
        _write_meta(place / "meta", _info(dataset, features, _number(settings.fps)), episodes, stats, task)


def _number(fps: float) -> int | float:
    """An integer if the rate is one, as LeRobot writes it."""
    return int(fps) if fps == int(fps) else fps


def _columns(episode: Original, number: int, first: int, fps: float) -> dict[str, np.ndarray]:
    length = len(episode.pixels)
    columns: dict[str, np.ndarray] = {}
    if episode.action is not None:
        action = episode.action.copy()
        if np.isnan(action[-1]).any():
            action[-1] = action[-2] if length > 1 else 0
        columns["action"] = action
    if episode.state is not None:
        columns["observation.state"] = episode.state
    if episode.reward is not None:
        columns["next.reward"] = np.append(episode.reward[1:], np.float32(0)).astype(np.float32)
    return columns | {
        "next.done": np.append(episode.terminated[1:], True),
        "timestamp": (np.arange(length) / fps).astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, number),
        "index": np.arange(first, first + length),
        "task_index": np.zeros(length, np.int64),
    }


def _features(dataset: Dataset, columns: dict[str, np.ndarray], fps: float) -> dict[str, Any]:
    size = dataset.image_size
    film = {
        "dtype": "video",
        "shape": [size, size, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.fps": fps, "video.height": size, "video.width": size, "video.channels": 3, "has_audio": False},
    }
    vectors = {"action": named_numbers(dataset, "action", dataset.action_width)}
    if dataset.has_state:
        vectors["observation.state"] = named_numbers(dataset, "state", dataset.state_width)
    plain = {
        name: {"dtype": str(column.dtype), "shape": list(column.shape[1:]) or [1], "names": vectors.get(name)}
        for name, column in columns.items()
    }
    return {CAMERA: film, **plain}


def _write_parquet(path: Path, columns: dict[str, np.ndarray]) -> None:
    arrow, parquet = pyarrow("pyarrow"), pyarrow("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, column in columns.items():
        flat = arrow.array(column.reshape(-1))
        arrays[name] = flat if column.ndim == 1 else arrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
    parquet.write_table(arrow.table(arrays), path)


def _stats(columns: dict[str, np.ndarray], episode: Original) -> dict[str, Any]:
    found = {name: _spread(column.reshape(len(column), -1).astype(np.float64)) for name, column in columns.items()}
    pixels = episode.pixels.reshape(-1, 3) / 255.0
    frames = {name: np.reshape(value, (3, 1, 1)).tolist() for name, value in _spread(pixels).items() if name != "count"}
    return {**found, CAMERA: {**frames, "count": [len(episode.pixels)]}}


def _spread(rows: np.ndarray) -> dict[str, list[float]]:
    return {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
    }


def _info(dataset: Dataset, features: dict[str, Any], fps: float) -> dict[str, Any]:
    return {
        "codebase_version": "v2.1",
        "robot_type": "unknown",
        "total_episodes": dataset.episodes,
        "total_frames": dataset.frames,
        "total_tasks": 1,
        "total_videos": dataset.episodes,
        "total_chunks": -(-dataset.episodes // CHUNK),
        "chunks_size": CHUNK,
        "fps": fps,
        "splits": {"train": f"0:{dataset.episodes}"},
        "data_path": DATA,
        "video_path": VIDEO,
        "features": features,
    }


def _write_meta(place: Path, info: dict[str, Any], episodes: list[Any], stats: list[Any], task: str) -> None:
    place.mkdir()
    (place / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    tasks = [{"task_index": 0, "task": task}]
    for name, lines in (("episodes", episodes), ("episodes_stats", stats), ("tasks", tasks)):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
