"""Importer of V-D4RL (Lu et al. 2022, arXiv 2206.04779): NPZ files with frames of 64x64, or HDF5 files of 84x84.

| | frames | episodes |
|---|---|---|
| `*.npz` | `image [T, 64, 64, 3]` | one per file |
| `*.hdf5` | `observation [N, 3, 84, 84]` | several per file; `step_type` is 0 at first steps and 2 at last steps |

A row has a frame and the action that *led* to it, with `reward`, `discount` (0 at a termination) or `is_terminal`. So
the actions are moved one step back.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from aime.data.hdf5_bounds import own_object
from aime.errors import AimeError
from aime.io.importers import tables
from aime.io.importers.files import is_litter
from aime.io.importers.hdf5 import field, frame_size, opened, read_frames, rows
from aime.io.importers.interface import (
    BadEpisode,
    Choice,
    Facts,
    Item,
    Recorded,
    Sources,
    Survey,
    block_length,
    in_order,
    one_number,
    refuse_others,
    shifted_to_departure,
    truths,
)

FILES = {".npz": "image", ".hdf5": "observation"}
"""The field of frames by file suffix."""

FIRST = 0
"""The `step_type` of an episode's first step, as in dm_env."""


def open_source(source: Path, choice: Choice) -> Sources:
    """The data sets of a tree: every directory with NPZ or HDF5 files.

    Raises:
        AimeError: if there is none, or an option does not apply.
    """
    refuse_others(source, choice, ("state", "actions", "fps"))
    paths = (
        [source]
        if source.is_file()
        else in_order(path for path in source.rglob("*") if path.is_file() and not is_litter(path))
    )
    paths = [path for path in paths if path.suffix in FILES]
    if not paths:
        raise AimeError(f"{source}: has no *.npz or *.hdf5 file, expected files of V-D4RL; check the path")
    places = sorted({path.parent for path in paths})
    importers = {}
    for place in places:
        files = tuple(path.name for path in paths if path.parent == place)
        importer = VD4rlImporter(place, files, 0)
        width = importer.find_width() if choice.actions else 0
        importers["" if len(places) == 1 else str(place.relative_to(source))] = VD4rlImporter(place, files, width)
    return importers


@dataclass(frozen=True)
class VD4rlImporter:
    """The files of one directory.

    Attributes:
        place: the directory.
        files: their names.
        action_width: A, or 0 if actions are not imported.
    """

    place: Path
    files: tuple[str, ...]
    action_width: int

    @property
    def facts(self) -> Facts:
        """Actions are in [-1, 1]; there are no states."""
        width = self.action_width
        return Facts(width, action_range=((-1.0,) * width, (1.0,) * width) if width else None)

    def find_width(self) -> int:
        """A, from the first file.

        Raises:
            AimeError: if it cannot be read.
        """
        survey = self.survey()
        if not survey.items:
            raise survey.bad[0]
        return int(self.actions(survey.items[0]).shape[1])

    def survey(self) -> Survey:
        """The episodes: one per file, or from the first steps in a file."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        for name in self.files:
            path = self.place / name
            try:
                items += _npz_item(path) if path.suffix == ".npz" else _hdf5_items(path)
            except BadEpisode as error:
                bad.append(error)
        return Survey(items, bad)

    def read(self, item: Item) -> Recorded:
        """One episode."""
        name, start, stop = str(item.place[0]), int(item.place[1]), int(item.place[2])
        path = self.place / name
        known = _small(path, start, stop)
        length = len(_action_rows(path, known)) if self.action_width else _length(known)
        if path.suffix == ".npz":
            frames: Iterator[UInt8[np.ndarray, "n h w 3"]] = _npz_frames(path)
        else:
            frames = read_frames(path, "observation", start, stop, transpose=True)
        end = truths("is_terminal", known["is_terminal"], length) if "is_terminal" in known else None
        if end is None and "discount" in known:
            end = one_number("discount", known["discount"], length) == 0
            end[:1] = False  # some writers store 0 for the missing discount of the first step
        reward = one_number("reward", known["reward"], length) if "reward" in known else None
        return Recorded(
            ([block] for block in frames),
            action=_moved(path, known) if self.action_width else None,
            reward=None if reward is None else _first_unknown(reward),
            terminated=end,
        )

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one episode."""
        path = self.place / str(item.place[0])
        return _moved(path, _small(path, int(item.place[1]), int(item.place[2])))


def _npz_item(path: Path) -> list[Item]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo("image.npy").file_size
    except (OSError, LookupError, ValueError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
        raise BadEpisode(f"{path}: has no readable array 'image' ({error}), expected one; download it") from error
    return [Item(str(path), size, (path.name, 0, 0))]


def _hdf5_items(path: Path) -> list[Item]:
    with opened(path) as file:
        frames = field(path, file, "observation", axes=4)
        count, size = frames.shape[0], frame_size(frames)
        kinds = rows(path, field(path, file, "step_type")).reshape(-1)
    starts = np.flatnonzero(kinds == FIRST).tolist()
    if len(kinds) != count or not starts or starts[0] != 0:
        raise BadEpisode(
            f"{path}: 'step_type' has no valid episode starts in {count} frames, expected 0 at each first step"
        )
    return [
        Item(f"{path}, rows {start} to {stop}", (stop - start) * size[0] * size[1] * 3, (path.name, start, stop))
        for start, stop in zip(starts, [*starts[1:], count], strict=True)
    ]


def _small(path: Path, start: int, stop: int) -> tables.Columns:
    names = ("action", "reward", "discount", "is_terminal")
    if path.suffix == ".npz":
        return tables.read_table(path, names)
    with opened(path) as file:
        return {name: rows(path, field(path, file, name), start, stop) for name in names if own_object(file, name)}


def _npz_frames(path: Path) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    image = tables.read_table(path, ("image",)).get("image")
    if image is None or image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] != 3:
        found = None if image is None else (image.dtype, image.shape)
        raise BadEpisode(f"{path}: 'image' is {found}, expected uint8 [T, H, W, 3]; download it again")
    step = block_length(*image.shape[1:3])
    yield from (image[start : start + step] for start in range(0, len(image), step))


def _length(known: tables.Columns) -> int:
    """Number of rows of the first field, which all fields must have; 0 without fields."""
    return next((len(values) for values in known.values() if values.ndim), 0)


def _moved(path: Path, known: tables.Columns) -> Float[np.ndarray, "L A"]:
    return shifted_to_departure(_action_rows(path, known))


def _action_rows(path: Path, known: tables.Columns) -> Float[np.ndarray, "L A"]:
    action = known.get("action")
    if action is None or action.ndim != 2 or action.dtype.kind != "f" or action.size == 0:
        found = None if action is None else (action.dtype, action.shape)
        raise BadEpisode(f"{path}: 'action' is {found}, expected floats [T, A]; check it, or import with --no-actions")
    return action


def _first_unknown(reward: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full(1, np.nan, np.float32), reward[1:]])
