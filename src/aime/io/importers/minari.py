"""Importer of Minari: `data/main_data.hdf5` with a group per episode, and `data/metadata.json` with the spaces.

    episode_0/observations        frames, or a group with frames            T + 1 rows of numbers, or of JPEG files
    episode_0/actions             T rows, or a group                        rewards, terminations: T rows

Reward and termination result from the action of the same row, and are moved to the next frame.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from aime.data.hdf5_bounds import own_object
from aime.errors import AimeError
from aime.io.importers.action_parts import ActionPart, Quantities, discrete_columns, joined_bounds, observed
from aime.io.importers.fitting import together
from aime.io.importers.hdf5 import (
    field,
    fields_below,
    frame_size,
    is_frames,
    is_pictures,
    opened,
    read_frames,
    read_picture,
    rows,
)
from aime.io.importers.interface import (
    BadEpisode,
    Choice,
    Facts,
    Item,
    Recorded,
    Sources,
    Survey,
    refuse_others,
    shifted_to_arrival,
    truths,
)
from aime.io.importers.minari_spaces import action_parts
from aime.io.importers.tfds_features import read_json


def open_source(source: Path, choice: Choice) -> Sources:
    """The data set of a directory.

    Raises:
        AimeError: if there is none in HDF5, it has no frames, or an option does not apply.
    """
    refuse_others(source, choice, ("cameras", "state", "actions", "fps"))
    place = next((place for place in (source / "data", source) if (place / "metadata.json").is_file()), None)
    if place is None:
        raise AimeError(f"{source}: has no data/metadata.json, expected a data set of Minari; check the path")
    metadata = read_json(place / "metadata.json")
    path = place / "main_data.hdf5"
    if metadata.get("data_format", "hdf5") != "hdf5" or not path.is_file():
        raise AimeError(
            f"{source}: is stored as {metadata.get('data_format')!r}, expected hdf5 in {path.name}; take it "
            "from Minari with DataCollector(…, data_format='hdf5')"
        )
    declared = action_parts(place / "metadata.json", metadata) if choice.actions else {}
    with opened(path) as file:
        first = _first_episode(path, file)
        observations = fields_below(path, first, "observations")
        cameras = _cameras(path, observations, choice.cameras)
        states = _vectors(observations) if choice.state else {}
        parts, notes = _parts(path, file, first, declared) if choice.actions else ({}, [])
        others = sorted({*first} - {"observations", "actions", "rewards", "terminations", "truncations"})[:20]
    unused = [name for name in observations if name not in (*cameras, *states)] if choice.state else []
    if unused:
        notes.append(
            f"observations not imported, because they are neither frames nor vectors of floats: {', '.join(unused)}"
        )
    if others:
        notes.append(f"fields not imported: {', '.join(others)}")
    return {"": MinariImporter(path, tuple(cameras), tuple(states.items()), tuple(parts.items()), tuple(notes))}


def _numbers(file: h5py.File) -> list[int]:
    """The numbers of the episodes, in order."""
    matches = [re.fullmatch(r"episode_(0|[1-9][0-9]{0,17})", name, re.ASCII) for name in file]
    return sorted(int(match[1]) for match in matches if match)


def _first_episode(path: Path, file: h5py.File) -> h5py.Group:
    numbers = _numbers(file)
    first = own_object(file, f"episode_{numbers[0]}") if numbers else None
    if not isinstance(first, h5py.Group) or "observations" not in first:
        raise AimeError(
            f"{path}: has no group 'episode_0' with observations, found {sorted(file)[:10]}; check the file"
        )
    return first


def _cameras(path: Path, observations: Mapping[str, h5py.Dataset], wanted: tuple[str, ...]) -> list[str]:
    frames = [name for name, leaf in observations.items() if is_frames(leaf) or is_pictures(leaf)]
    if [name for name in wanted if name not in frames] or not frames or (len(frames) > 1 and not wanted):
        raise AimeError(
            f"{path}: has frames in observations {frames}, expected {list(wanted) or 'one'}; name some with --camera, "
            "or record the data set with pixels"
        )
    return list(wanted) or frames


def _vectors(observations: Mapping[str, h5py.Dataset]) -> dict[str, int]:
    return {
        name: int(np.prod(leaf.shape[1:]))
        for name, leaf in observations.items()
        if leaf.dtype.kind == "f" and leaf.ndim <= 2
    }


def _parts(
    path: Path, file: h5py.File, first: h5py.Group, declared: dict[str, ActionPart]
) -> tuple[dict[str, ActionPart], list[str]]:
    """The parts of the action: from the metadata, or else from the file, where integers are discrete."""
    fields = fields_below(path, first, "actions")
    if declared:
        if set(declared) != set(fields):
            raise AimeError(
                f"{path}: has actions {sorted(fields)}, expected {sorted(declared)} as in metadata.json; check it"
            )
        return declared, []
    parts: dict[str, ActionPart] = {}
    notes = []
    for name, leaf in fields.items():
        if leaf.dtype.kind in "iub":
            columns = (
                _flat(rows(path, field(path, file, "/".join(filter(None, (f"episode_{number}", "actions", name))))))
                for number in _numbers(file)
            )
            parts[name], note = observed(name or "actions", columns)
            notes.append(note)
        else:
            parts[name] = Quantities.unbounded(int(np.prod(leaf.shape[1:])))
    return parts, notes


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


@dataclass(frozen=True)
class MinariImporter:
    """The episodes of one file.

    Attributes:
        path: the file.
        cameras: paths of frames below `observations`; "" for `observations`.
        states: paths and widths of vectors below `observations`.
        parts: paths below `actions` and kinds; empty if actions are not imported.
        notes: for the report.
    """

    path: Path
    cameras: tuple[str, ...]
    states: tuple[tuple[str, int], ...]
    parts: tuple[tuple[str, ActionPart], ...]
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> Facts:
        """The range is that of the space, unless it is unbounded."""
        names = {name or "observation": size for name, size in self.states}
        if not self.parts:
            return Facts(0, names, notes=self.notes)
        parts = [part for _, part in self.parts]
        width = sum(part.width for part in parts)
        return Facts(
            width,
            names,
            joined_bounds(parts),
            discrete_columns(parts),
            notes=self.notes,
            action_names={name: part.width for name, part in self.parts if name},
        )

    def survey(self) -> Survey:
        """List the groups of episodes by number."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        with opened(self.path) as file:
            for number in _numbers(file):
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
        """Read one group."""
        number, length = map(int, item.place)
        with opened(self.path) as file:
            after = {name: self._after(file, number, name, length) for name in ("rewards", "terminations")}
            observed = [
                rows(self.path, field(self.path, file, self._name(number, "observations", name)))
                for name, _ in self.states
            ]
            action = self._actions(file, number, length) if self.parts else None
        if any(len(part) != length for part in observed):
            raise BadEpisode(f"{item.name}: has {[len(part) for part in observed]} states, expected {length} of each")
        reward, end = after["rewards"], after["terminations"]
        return Recorded(
            together(
                [read_frames(self.path, self._name(number, "observations", name), 0, length) for name in self.cameras]
            ),
            action,
            None if reward is None else shifted_to_arrival(reward.astype(np.float64)),
            None if end is None else shifted_to_arrival(truths("terminations", end, length - 1)),
            np.concatenate([part.reshape(len(part), -1) for part in observed], axis=1) if observed else None,
        )

    def _after(self, file: h5py.File, number: int, name: str, length: int) -> np.ndarray | None:
        if own_object(file, self._name(number, name)) is None:
            return None
        found = rows(self.path, field(self.path, file, self._name(number, name), axes=1))
        if len(found) != length - 1:
            raise BadEpisode(
                f"{self.path}: episode_{number} has {len(found)} {name} and {length} observations, expected one fewer"
            )
        return found

    def _actions(self, file: h5py.File, number: int, length: int) -> Float[np.ndarray, "L A"]:
        if own_object(file, self._name(number, "actions")) is None:
            raise BadEpisode(f"{self.path}: episode_{number} has no actions, expected them; drop it, or --no-actions")
        found = []
        for name, part in self.parts:
            values = _flat(rows(self.path, field(self.path, file, self._name(number, "actions", name))))
            if values.shape != (length - 1, part.size):
                raise BadEpisode(
                    f"{self.path}: episode_{number} has {values.shape[0]} actions of {values.shape[1]} numbers and "
                    f"{length} observations, expected one fewer, of {part.size}; drop the episode"
                )
            found.append(part.encode(values, f"{self.path}: '{name or 'actions'}' of episode_{number}"))
        action = np.concatenate(found, axis=1)
        return np.concatenate([action, np.full((1, action.shape[1]), np.nan)])

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one group."""
        number, length = map(int, item.place)
        with opened(self.path) as file:
            return self._actions(file, number, length)
