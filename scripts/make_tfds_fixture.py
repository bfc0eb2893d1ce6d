"""Write the RLDS data sets that the tests of `aime import dmc-vb` read, with tensorflow-datasets itself.

It needs an environment of its own, because AIME does without TensorFlow:

    python -m venv /tmp/tfds && /tmp/tfds/bin/pip install tensorflow-cpu tensorflow-datasets
    /tmp/tfds/bin/python scripts/make_tfds_fixture.py --out tests/io/importers/rlds

Three data sets come out: in the layouts of DMC-VB a locomotion task whose arrays are compressed with zlib and an ant
maze with two cameras and plain arrays, and one whose frames are PNG files, as other RLDS data sets have them. Beside
each lies `expected.npz`: what tensorflow-datasets reads from it, array by array.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds

Features = tfds.features

STEP_FLAGS = {"is_first": np.bool_, "is_last": np.bool_, "is_terminal": np.bool_}


def tensor(shape: tuple[int, ...], dtype: Any, encoding: str = "none") -> Any:
    """A tensor feature; `encoding` is "none", "bytes" or "zlib"."""
    return Features.Tensor(shape=shape, dtype=dtype, encoding=encoding)


LAYOUTS: dict[str, dict[str, Any]] = {
    "locomotion/walker_walk/expert/none": {
        "observation": {
            "height": tensor((), np.float64, "zlib"),
            "orientations": tensor((14,), np.float64, "zlib"),
            "pixels": tensor((64, 64, 3), np.uint8, "zlib"),
            "velocity": tensor((9,), np.float64, "zlib"),
        },
        "action": tensor((6,), np.float32, "zlib"),
        "reward": tensor((), np.float32),
        "discount": tensor((), np.float32),
        **{name: tensor((), dtype) for name, dtype in STEP_FLAGS.items()},
    },
    "antmaze_random_visible_goal/empty7x7/expert": {
        "observation": {
            "lowres_top_camera": tensor((32, 32, 3), np.uint8, "bytes"),
            "walker/egocentric_camera": tensor((32, 32, 3), np.uint8, "zlib"),
            "target_position": tensor((3,), np.float64),
            "walker/joints_pos": tensor((8,), np.float64),
            "distance_to_target": tensor((), np.float64),
        },
        "action": tensor((8,), np.float32),
        "reward": tensor((), np.float64),
        "discount": tensor((), np.float64),
        **{name: tensor((), dtype) for name, dtype in STEP_FLAGS.items()},
    },
    "robot/pictures": {
        "observation": {
            "image": Features.Image(shape=(48, 64, 3), dtype=np.uint8, encoding_format="png"),
            "state": tensor((4,), np.float32),
            "instruction": Features.Text(),
        },
        "action": tensor((3,), np.float32),
        "reward": tensor((), np.float32),
        "discount": tensor((), np.float32),
        **{name: tensor((), dtype) for name, dtype in STEP_FLAGS.items()},
    },
}
"""Where each data set goes, and the features of one of its steps."""

LENGTHS = {"train": (9, 4, 7), "test": (5, 3)}


def value(name: str, feature: Any, step: int, length: int, random: np.random.Generator) -> Any:
    """One feature of one step."""
    flags = {"is_first": step == 0, "is_last": step == length - 1, "is_terminal": step == length - 1 and length < 6}
    if name in flags:
        return flags[name]
    if isinstance(feature, Features.Text):
        return f"step {step}"
    shape, dtype = feature.shape, feature.np_dtype
    if dtype == np.uint8:  # a ramp with a square: it compresses well
        frame = np.broadcast_to(np.arange(shape[1], dtype=np.uint8)[None, :, None] * 3, shape).copy()
        row, column = random.integers(0, shape[0] - 8), random.integers(0, shape[1] - 8)
        frame[row : row + 8, column : column + 8] = random.integers(0, 256, 3)
        return frame
    return np.asarray(random.uniform(-1, 1, shape), dtype)


def builder_of(layout: dict[str, Any]) -> type[Any]:
    """A tensorflow-datasets builder of synthetic episodes with some features."""
    step_features = Features.FeaturesDict(layout)

    class Fixture(tfds.core.GeneratorBasedBuilder):
        """Synthetic episodes."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = Features.FeaturesDict({"steps": Features.Dataset(step_features), "episode_id": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, manager: Any) -> Any:
            return {split: self._generate_examples(split) for split in LENGTHS}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
            for number, length in enumerate(LENGTHS[split]):
                random = np.random.default_rng([number, len(split)])
                yield number, {"steps": [_step(step, length, random) for step in range(length)], "episode_id": number}

    def _step(step: int, length: int, random: np.random.Generator) -> dict[str, Any]:
        return {
            name: {key: value(key, inner, step, length, random) for key, inner in feature.items()}
            if isinstance(feature, dict)
            else value(name, feature, step, length, random)
            for name, feature in layout.items()
        }

    return Fixture


def expected(directory: Path) -> dict[str, np.ndarray]:
    """All that tensorflow-datasets reads from a directory: "SPLIT/EPISODE/FEATURE" -> `[steps, …]`."""
    builder = tfds.builder_from_directory(str(directory))
    arrays: dict[str, np.ndarray] = {}
    for split in LENGTHS:
        for number, episode in enumerate(builder.as_dataset(split=split)):
            steps = list(tfds.as_numpy(episode["steps"]))
            for name in steps[0]:
                inner = steps[0][name]
                for key in inner if isinstance(inner, dict) else [None]:
                    path = f"{split}/{number}/{name}" + (f"/{key}" if key else "")
                    column = np.stack([step[name] if key is None else step[name][key] for step in steps])
                    arrays[path] = column.astype("S") if column.dtype == object else column
    return arrays


def main() -> None:
    """Write all data sets and what they hold."""
    parser = argparse.ArgumentParser(description="Write the RLDS fixtures of the tests.")
    parser.add_argument("--out", type=Path, required=True, help="the directory to fill; it must not exist")
    out = parser.parse_args().out
    out.mkdir(parents=True)
    for place, layout in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as scratch:
            with tfds.core.registered.skip_registration():  # three classes have one name
                builder = builder_of(layout)(data_dir=scratch)
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(builder.data_dir, out / place)
        arrays: dict[str, Any] = dict(expected(out / place))
        np.savez_compressed(out / place / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
