"""One small valid example of every format that AIME reads, and the command that reads it."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from reliability import encoding
from reliability.encoding import frames_of, tensor, write_csv, write_film, write_parquet

LENGTH, SIZE = 6, 32

Make = Callable[[Path], None]


@dataclass(frozen=True)
class Example:
    """A format.

    Attributes:
        make: writes a small valid source into a directory that is there.
        command: the words that read it, with {source} and {out} where the paths go.
    """

    make: Make
    command: str


def rows_of(seed: int = 0, length: int = LENGTH) -> dict[str, list[float]]:
    """Two actions and a state for each frame."""
    random = np.random.default_rng(seed)
    names = ("action_0", "action_1", "state_0")
    return {name: [round(float(value), 4) for value in random.uniform(-1, 1, length)] for name in names}


def films(place: Path) -> None:
    """A folder of two films with CSV tables."""
    for number in range(2):
        write_film(place / f"{number}.mp4", frames_of(LENGTH, SIZE, number))
        write_csv(place / f"{number}.csv", rows_of(number))


def pictures(place: Path) -> None:
    """A folder of pictures of four kinds, with tables of two kinds."""
    for number, suffix in enumerate((".png", ".jpg", ".webp", ".bmp")):
        directory = place / str(number)
        directory.mkdir()
        for step, frame in enumerate(frames_of(LENGTH, SIZE, number)):
            Image.fromarray(frame).save(directory / f"{step}{suffix}")
        arrays = {name: np.array(values) for name, values in rows_of(number).items()}
        if number % 2:
            np.savez(place / f"{number}.npz", **arrays)  # type: ignore[arg-type]
        else:
            write_parquet(place / f"{number}.parquet", arrays)


def shard(place: Path, numbers: Sequence[int] = (0, 1)) -> None:
    """AIME's own shard of two episodes, or of those with the given numbers, by AIME's writer."""
    from aime.data import Episode, write_shard

    episodes = []
    for number in numbers:
        random = np.random.default_rng(number)
        action = random.uniform(-1, 1, (LENGTH, 2)).astype(np.float32)
        reward, end = random.uniform(size=LENGTH).astype(np.float32), np.arange(LENGTH) == LENGTH - 1
        state = random.normal(size=(LENGTH, 3)).astype(np.float32)
        episodes.append(Episode(frames_of(LENGTH, SIZE, number), action, reward, end, state))
    write_shard(place / "0.h5", episodes, {"task": "square", "seed": 3})


def stable_worldmodel(place: Path) -> None:
    """An HDF5 file of two episodes."""
    random = np.random.default_rng(0)
    with h5py.File(place / "data.h5", "w") as file:
        file.create_dataset("pixels", data=frames_of(2 * LENGTH, SIZE), chunks=(4, SIZE, SIZE, 3), compression="gzip")
        file["action"] = random.uniform(-3, 3, (2 * LENGTH, 2)).astype(np.float32)
        file["reward"] = random.uniform(size=2 * LENGTH).astype(np.float32)
        file["proprio"] = random.uniform(size=(2 * LENGTH, 3)).astype(np.float32)
        file["ep_len"], file["ep_offset"] = np.array([LENGTH, LENGTH]), np.array([0, LENGTH])


def minari(place: Path) -> None:
    """Two episodes of frames with a box of actions."""
    (place / "data").mkdir()
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
    metadata = {"data_format": "hdf5", "action_space": json.dumps(space), "total_episodes": 2}
    (place / "data" / "metadata.json").write_text(json.dumps(metadata))
    random = np.random.default_rng(0)
    with h5py.File(place / "data" / "main_data.hdf5", "w") as file:
        for number in range(2):
            group = file.create_group(f"episode_{number}")
            group["observations/pixels"] = frames_of(LENGTH + 1, SIZE, number)
            group["observations/position"] = random.normal(size=(LENGTH + 1, 3))
            group["actions"] = random.uniform(-1, 1, (LENGTH, 2)).astype(np.float32)
            group["rewards"] = random.uniform(size=LENGTH)
            group["terminations"] = np.arange(LENGTH) == LENGTH - 1
            group["truncations"] = np.zeros(LENGTH, bool)


def lerobot_info(version: str, data: str, video: str, frames: str = "video") -> dict[str, Any]:
    """What `meta/info.json` says of one camera, two actions and three states."""
    features = {
        "action": {"dtype": "float32", "shape": [2]},
        "observation.state": {"dtype": "float32", "shape": [3]},
        "observation.images.top": {"dtype": frames, "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]},
    }
    return {
        "codebase_version": version,
        "fps": 10,
        "chunks_size": 1000,
        "data_path": data,
        "video_path": video,
        "features": features,
    }


def lerobot_rows(number: int) -> dict[str, Any]:
    """The table of an episode."""
    random = np.random.default_rng(number)
    return {
        "action": random.uniform(-90, 90, (LENGTH, 2)).tolist(),
        "observation.state": random.uniform(-90, 90, (LENGTH, 3)).tolist(),
        "next.reward": random.uniform(size=LENGTH).tolist(),
        "timestamp": (np.arange(LENGTH) / 10).tolist(),
        "episode_index": [number] * LENGTH,
    }


def lerobot_2(place: Path) -> None:
    """Version 2.1: a Parquet file and a film an episode."""
    data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (place / "meta").mkdir()
    (place / "meta/info.json").write_text(json.dumps(lerobot_info("v2.1", data, video)))
    lines = [json.dumps({"episode_index": number, "tasks": [], "length": LENGTH}) for number in range(2)]
    (place / "meta/episodes.jsonl").write_text("\n".join(lines))
    for number in range(2):
        write_parquet(place / f"data/chunk-000/episode_{number:06d}.parquet", lerobot_rows(number))
        film = place / f"videos/chunk-000/observation.images.top/episode_{number:06d}.mp4"
        write_film(film, frames_of(LENGTH, SIZE, number))


def lerobot_3(place: Path) -> None:
    """Version 3: files of several episodes; frames as PNG files in the Parquet file."""
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    (place / "meta").mkdir()
    (place / "meta/info.json").write_text(json.dumps(lerobot_info("v3.0", data, "", "image")))
    rows = [lerobot_rows(number) for number in range(2)]
    whole: dict[str, Any] = {name: [value for part in rows for value in part[name]] for name in rows[0]}
    cells = []
    for number in range(2):
        for frame in frames_of(LENGTH, SIZE, number):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": None})
    write_parquet(place / "data/chunk-000/file-000.parquet", {**whole, "observation.images.top": cells})
    episodes: dict[str, Any] = {"episode_index": [0, 1], "length": [LENGTH, LENGTH]}
    episodes |= {"data/chunk_index": [0, 0], "data/file_index": [0, 0]}
    write_parquet(place / "meta/episodes/chunk-000/file-000.parquet", episodes)


def rlds(place: Path) -> None:
    """Two records in the layout of tensorflow-datasets: zlib, PNG and plain features."""
    observation = {
        "pixels": tensor((SIZE, SIZE, 3), "uint8", "zlib"),
        "position": tensor((8,), "float64"),
        "velocity": tensor((9,), "float64", "zlib"),
    }
    rlds_description(place, observation)
    bodies = []
    for number in range(2):
        random = np.random.default_rng(number)
        features: dict[str, encoding.Values] = {
            "steps/observation/pixels": [zlib.compress(frame.tobytes()) for frame in frames_of(LENGTH, SIZE, number)],
            "steps/observation/position": random.normal(size=8 * LENGTH),
            "steps/observation/velocity": [zlib.compress(random.normal(size=9).tobytes()) for _ in range(LENGTH)],
        }
        bodies.append(encoding.example({**features, **rlds_numbers(random, LENGTH)}))
    (place / "rlds-train.tfrecord-00000-of-00001").write_bytes(b"".join(map(encoding.record, bodies)))


def rlds_numbers(random: np.random.Generator, length: int) -> dict[str, encoding.Values]:
    """Actions, rewards and ends of an episode."""
    return {
        "steps/action": random.uniform(-1, 1, 2 * length),
        "steps/reward": random.uniform(size=length),
        "steps/is_terminal": (np.arange(length) == length - 1).astype(np.int64),
    }


def rlds_description(place: Path, observation: dict[str, Any]) -> None:
    """`features.json` and `dataset_info.json` of one split in one file."""
    step = {
        "observation": {"featuresDict": {"features": observation}},
        "action": tensor((2,), "float32"),
        "reward": tensor((), "float32"),
        "is_terminal": tensor((), "bool"),
    }
    steps = {"sequence": {"feature": {"featuresDict": {"features": step}}}}
    (place / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    split = {"name": "train", "shardLengths": ["2"]}
    (place / "dataset_info.json").write_text(json.dumps({"name": "rlds", "fileFormat": "tfrecord", "splits": [split]}))


def v_d4rl_npz(place: Path) -> None:
    """An episode a file."""
    random = np.random.default_rng(0)
    action = random.uniform(-1, 1, (LENGTH, 2)).astype(np.float32)
    reward, end = random.uniform(size=LENGTH).astype(np.float32), np.zeros(LENGTH, bool)
    np.savez_compressed(place / "0.npz", image=frames_of(LENGTH, 64), action=action, reward=reward, is_terminal=end)


def v_d4rl_hdf5(place: Path) -> None:
    """Two episodes in a file, channels first."""
    random = np.random.default_rng(0)
    with h5py.File(place / "0.hdf5", "w") as file:
        file["observation"] = frames_of(2 * LENGTH, 84).transpose(0, 3, 1, 2)
        file["action"] = random.uniform(-1, 1, (2 * LENGTH, 2)).astype(np.float32)
        file["reward"] = random.uniform(size=2 * LENGTH).astype(np.float32)
        file["discount"] = np.ones(2 * LENGTH, np.float32)
        file["step_type"] = np.array([0, *[1] * (LENGTH - 2), 2] * 2)


def _imports(kind: str) -> str:
    return f"import {kind} {{source}} --out {{out}} --image-size 32 --workers 1"


FORMATS = {
    "shard": Example(shard, "data {source} --picture {out}/sheet.png"),
    "films": Example(films, _imports("folder")),
    "pictures": Example(pictures, _imports("folder")),
    "lerobot-2": Example(lerobot_2, _imports("lerobot")),
    "lerobot-3": Example(lerobot_3, _imports("lerobot")),
    "minari": Example(minari, _imports("minari")),
    "rlds": Example(rlds, _imports("dmc-vb")),
    "stable-worldmodel": Example(stable_worldmodel, _imports("stable-worldmodel")),
    "v-d4rl-npz": Example(v_d4rl_npz, _imports("v-d4rl")),
    "v-d4rl-hdf5": Example(v_d4rl_hdf5, _imports("v-d4rl")),
}
"""Every format of data; runs, which are made by training, are added by `tiny_run`."""
