"""Minari's data sets in HDF5: `data/main_data.hdf5` with a group an episode, and `data/metadata.json` with the spaces.

    episode_0/observations        frames, or a group in which some are      T + 1 rows of numbers, or of JPEG files
    episode_0/actions             T rows, or a group                        rewards, terminations: T rows

A reward and an end come of the action of the same row: they are moved to the frame at which it arrived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float

from aime.data.importers.fitting import together
from aime.data.importers.hdf5 import (
    field,
    frame_size,
    is_frames,
    is_pictures,
    opened,
    read_frames,
    read_picture,
    rows,
)
from aime.data.importers.interface import (
    BadEpisode,
    Choice,
    Facts,
    Item,
    Recorded,
    Sources,
    Survey,
    shifted_to_arrival,
)
from aime.data.importers.tfds_features import read_json
from aime.errors import AimeError

MAX_CHOICES = 4096
"""Of a discrete action, which becomes as many numbers."""


def open_source(source: Path, choice: Choice) -> Sources:
    """The one data set of a directory.

    Raises:
        AimeError: if there is none in HDF5, it holds no frames, or the choice does not fit.
    """
    place = next((place for place in (source / "data", source) if (place / "metadata.json").is_file()), None)
    if place is None:
        raise AimeError(f"{source}: holds no data/metadata.json, expected a data set of Minari; check the path")
    metadata = read_json(place / "metadata.json")
    path = place / "main_data.hdf5"
    if metadata.get("data_format", "hdf5") != "hdf5" or not path.is_file():
        raise AimeError(
            f"{source}: is stored as {metadata.get('data_format')!r}, expected hdf5 in {path.name}; take it "
            "from Minari with DataCollector(…, data_format='hdf5')"
        )
    if choice.split:
        raise AimeError(f"{source}: Minari's data sets have no splits; leave --split out")
    space = _space(place / "metadata.json", metadata) if choice.actions else {}
    with opened(path) as file:
        first = _first_episode(path, file)
        cameras = _cameras(path, first["observations"], choice.cameras)
        states = _vectors(first["observations"]) if choice.state else {}
        width = _width(path, first, space) if choice.actions else 0
    return {"": MinariImporter(path, tuple(cameras), tuple(states.items()), width, json.dumps(space))}


def _space(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The space of actions, or nothing where the file leaves it to an environment of Gymnasium."""
    try:
        space = json.loads(metadata.get("action_space", "{}"))
    except (ValueError, TypeError, RecursionError) as error:
        raise AimeError(f"{path}: 'action_space' is no JSON ({error}); download the data set again") from error
    return space if isinstance(space, dict) else {}


def _first_episode(path: Path, file: h5py.File) -> h5py.Group:
    names = sorted(name for name in file if name.startswith("episode_"))
    if not names or "observations" not in file[names[0]]:
        raise AimeError(
            f"{path}: has no group 'episode_0' with observations, found {sorted(file)[:10]}; check the file"
        )
    return file[names[0]]


def _leaves(node: Any, below: str = "") -> dict[str, h5py.Dataset]:
    """All fields of a group by path; a lone field has the path ""."""
    if isinstance(node, h5py.Dataset):
        return {below: node}
    found: dict[str, h5py.Dataset] = {}
    for name in sorted(node):
        found |= _leaves(node[name], f"{below}/{name}" if below else name)
    return found


def _cameras(path: Path, observations: Any, wanted: tuple[str, ...]) -> list[str]:
    leaves = _leaves(observations)
    frames = [name for name, leaf in leaves.items() if is_frames(leaf) or is_pictures(leaf)]
    if [name for name in wanted if name not in frames] or not frames or (len(frames) > 1 and not wanted):
        raise AimeError(
            f"{path}: has frames in observations {frames}, expected {list(wanted) or 'one'}; name some with --camera, "
            "or record the data set with pixels"
        )
    return list(wanted) or frames


def _vectors(observations: Any) -> dict[str, int]:
    leaves = _leaves(observations)
    return {
        name: int(np.prod(leaf.shape[1:])) for name, leaf in leaves.items() if leaf.dtype.kind == "f" and leaf.ndim <= 2
    }


def _width(path: Path, episode: h5py.Group, space: Mapping[str, Any]) -> int:
    if "n" in space:
        choices = int(space["n"])
        if not 2 <= choices <= MAX_CHOICES:
            raise AimeError(
                f"{path}: its actions have {choices} choices, expected 2 to {MAX_CHOICES}; check metadata.json"
            )
        return choices
    return sum(int(np.prod(leaf.shape[1:])) for leaf in _leaves(episode["actions"]).values())


@dataclass(frozen=True)
class MinariImporter:
    """The episodes of one file.

    Attributes:
        path: the file.
        cameras: paths of frames below `observations`; "" is that itself.
        states: paths and widths of vectors there.
        action_width: A, or 0 where actions are not wanted. A discrete action is one of A, 1 where the others are -1.
        space: the space of actions, in JSON.
    """

    path: Path
    cameras: tuple[str, ...]
    states: tuple[tuple[str, int], ...]
    action_width: int
    space: str

    @property
    def facts(self) -> Facts:
        """The space says the range, unless it is unbounded."""
        space, width = json.loads(self.space), self.action_width
        names = {name or "observation": size for name, size in self.states}
        if not width:
            return Facts(0, names)
        if "n" in space:
            return Facts(width, names, ((-1.0,) * width, (1.0,) * width))
        bounds = [np.ravel(np.array(space.get(side, np.nan), np.float64)) for side in ("low", "high")]
        if any(len(bound) != width or not np.isfinite(bound).all() or (np.abs(bound) > 1e6).any() for bound in bounds):
            return Facts(width, names)
        return Facts(width, names, (tuple(bounds[0].tolist()), tuple(bounds[1].tolist())))

    def survey(self) -> Survey:
        """List the groups of episodes, in the order of their numbers."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        with opened(self.path) as file:
            numbers = sorted(int(name[8:]) for name in file if name.startswith("episode_") and name[8:].isdecimal())
            for number in numbers:
                try:
                    frames = field(self.path, file, self._name(number, "observations", self.cameras[0]))
                    weight = len(frames) * self._frame_bytes(frames) * len(self.cameras)
                    items.append(Item(f"{self.path}, episode_{number}", max(weight, 1), (number, len(frames))))
                except BadEpisode as error:
                    bad.append(error)
        return Survey(items, bad)

    def _frame_bytes(self, frames: h5py.Dataset) -> int:
        if is_pictures(frames):
            return read_picture(self.path, frames, 0).nbytes if len(frames) else 0
        if not is_frames(frames):
            raise BadEpisode(
                f"{self.path}: '{frames.name}' is {frames.dtype} {frames.shape}, expected frames; drop the episode"
            )
        height, width = frame_size(frames)
        return 3 * height * width

    def _name(self, number: int, *parts: str) -> str:
        return "/".join([f"episode_{number}", *(part for part in parts if part)])

    def read(self, item: Item) -> Recorded:
        """One group."""
        number, length = map(int, item.place)
        with opened(self.path) as file:
            after = {name: self._after(file, number, name, length) for name in ("rewards", "terminations")}
            observed = [
                rows(self.path, field(self.path, file, self._name(number, "observations", name)))
                for name, _ in self.states
            ]
            action = self._actions(file, number, length) if self.action_width else None
        reward, end = after["rewards"], after["terminations"]
        return Recorded(
            together(
                [read_frames(self.path, self._name(number, "observations", name), 0, length) for name in self.cameras]
            ),
            action,
            None if reward is None else shifted_to_arrival(reward.astype(np.float32)),
            None if end is None else shifted_to_arrival(end.astype(bool)),
            np.concatenate([part.reshape(len(part), -1) for part in observed], axis=1) if observed else None,
        )

    def _after(self, file: h5py.File, number: int, name: str, length: int) -> np.ndarray | None:
        if self._name(number, name) not in file:
            return None
        found = rows(self.path, field(self.path, file, self._name(number, name), axes=1))
        if len(found) != length - 1:
            raise BadEpisode(
                f"{self.path}: episode_{number} has {len(found)} {name} and {length} observations, expected one fewer"
            )
        return found

    def _actions(self, file: h5py.File, number: int, length: int) -> Float[np.ndarray, "L A"]:
        group = file.get(self._name(number, "actions"))
        if group is None:
            raise BadEpisode(f"{self.path}: episode_{number} has no actions, expected them; drop it, or --no-actions")
        names = list(_leaves(group))
        parts = [rows(self.path, field(self.path, file, self._name(number, "actions", name))) for name in names]
        if {len(part) for part in parts} != {length - 1}:
            raise BadEpisode(
                f"{self.path}: episode_{number} has {[len(part) for part in parts]} actions and {length} observations, "
                "expected one fewer"
            )
        space = json.loads(self.space)
        if "n" in space:
            action = _one_of(parts[0].reshape(-1).astype(np.int64) - int(space.get("start", 0)), self.action_width)
        else:
            action = np.concatenate([part.reshape(length - 1, -1).astype(np.float64) for part in parts], axis=1)
        return np.concatenate([action, np.full((1, action.shape[1]), np.nan)])

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one group."""
        number, length = map(int, item.place)
        with opened(self.path) as file:
            return self._actions(file, number, length)


def _one_of(chosen: np.ndarray, choices: int) -> Float[np.ndarray, "L A"]:
    if ((chosen < 0) | (chosen >= choices)).any():
        raise BadEpisode(f"has action {int(chosen.max())} of {choices}, expected 0 to {choices - 1}; drop the episode")
    return np.where(np.arange(choices) == chosen[:, None], 1.0, -1.0)
