"""Importer of stable-worldmodel's HDF5 files: AIME's schema, with frames of any size and actions in any units.

One file, or a directory of files, with `pixels`, `action`, `ep_len` and `ep_offset`; optionally `reward`, `terminated`,
a state and `mask`. The time convention is AIME's: the action of a row follows its frame, reward and termination
describe the arrival at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float, Int64, UInt8

from aime.data.hdf5_bounds import own_object, read_rows, scalar_attributes
from aime.data.mask_names import ATTRIBUTE as MASK_NAMES
from aime.data.shards import Attribute
from aime.data.source_range import read_range
from aime.data.state_names import read_action_names, read_state_names
from aime.errors import AimeError
from aime.io.importers.action_parts import ActionPart, Quantities, discrete_columns, joined_bounds, observed
from aime.io.importers.files import is_litter
from aime.io.importers.hdf5 import field, frame_size, is_frames, opened, read_frames, rows
from aime.io.importers.interface import (
    MAX_FRAME_BYTES,
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
    truths,
)

SUFFIXES = (".h5", ".hdf5")
STATES = ("state", "proprio", "observation")
"""Possible names of the state; the first that exists is used."""

MAX_FLOAT_CHOICES = 64
"""Integers below this are discrete actions, although stored as floats."""

_BOOKKEEPING = ("reward", "terminated", "truncated", "ep_len", "ep_offset", "step_idx", "id")
"""Fields that are always imported, or redundant."""


def open_source(source: Path, choice: Choice) -> Sources:
    """The data set of a file or directory.

    Raises:
        AimeError: if there is no file, or the first lacks frames, episodes or actions.
    """
    found = [source] if source.is_file() else in_order(source.iterdir())
    found = [path for path in found if path == source or (path.suffix in SUFFIXES and not is_litter(path))]
    refuse_others(source, choice, ("cameras", "state", "actions", "fps"))
    if not found:
        raise AimeError(
            f"{source}: {_layout(source)}, expected *.h5 or *.hdf5 files; write HDF5 with stable-worldmodel"
        )
    if len(choice.cameras) > 1:
        raise AimeError(f"{source}: only one camera can be imported; name one --camera")
    camera = choice.cameras[0] if choice.cameras else "pixels"
    path = found[0]
    with opened(path) as file:
        if not is_frames(own_object(file, camera)):
            raise AimeError(f"{path}: '{camera}' is no field of frames, found {sorted(file)}; name one with --camera")
        states = _state(file) if choice.state else {}
        noted = tuple(scalar_attributes(file.attrs).items())
        success = () if "reward" in file else ("success",)
        masks = ("mask", "ep_mask") if _has_masks(file, camera) else ()
        unused = sorted(set(file) - {camera, "action", *states, *success, *masks, *_BOOKKEEPING})
    part, notes = _action_part(found) if choice.actions else (None, ())
    notes = (*notes, *([f"fields not imported: {', '.join(unused)}"] if unused else []))
    return {"": StableWorldmodelImporter(tuple(map(str, found)), camera, part, tuple(states.items()), notes, noted)}


def _layout(source: Path) -> str:
    """The other format of a directory, as text to follow its name and a colon."""
    if (source / "_versions").is_dir() or any(source.glob("*.lance")):
        return "is in the Lance format, which is not supported"
    if (source / "ep_len.npz").is_file():
        return "is in the folder or the video format, which is not supported"
    return "has no file of stable-worldmodel"


def _state(file: h5py.File) -> dict[str, int]:
    """Name and width of the state, if there is one."""
    for name in STATES:
        found = own_object(file, name)
        if isinstance(found, h5py.Dataset) and found.ndim == 2:
            return {name: int(found.shape[1])}
    return {}


def _has_masks(file: h5py.File, camera: str) -> bool:
    """Whether `mask` has instance ids, a byte per pixel."""
    mask, pixels = own_object(file, "mask"), own_object(file, camera)
    if not isinstance(mask, h5py.Dataset) or mask.dtype != np.uint8 or not is_frames(pixels):
        return False
    return bool(mask.shape == (len(pixels), *frame_size(pixels)))


def _action_part(paths: Sequence[Path]) -> tuple[ActionPart, tuple[str, ...]]:
    """The kind of the action: floats are continuous, integers are discrete.

    stable-worldmodel stores NaN as the last action of an episode, so discrete actions are floats as well. A single
    action that is always a small integer is discrete, unless the file has a range, as AIME's exports have.
    """
    with opened(paths[0]) as file:
        first = _action_field(paths[0], file)
        width, is_float = int(np.prod(first.shape[1:])), first.dtype.kind == "f"
        has_range = read_range(scalar_attributes(file.attrs), width) is not None
    if is_float and (has_range or width != 1 or not _are_small_whole_numbers(_actions_of(paths))):
        return Quantities.unbounded(width), ()
    part, note = observed("action", (rows.astype(np.int64) for rows in _actions_of(paths)))
    return part, (note,)


def _are_small_whole_numbers(parts: Iterator[np.ndarray]) -> bool:
    found = [np.unique(part) for part in parts]
    values = np.unique(np.concatenate(found)) if found else np.zeros(0)
    return len(values) > 1 and bool(np.isin(values, np.arange(MAX_FLOAT_CHOICES)).all())


def _actions_of(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """The actions `[L, A]` of each readable file, without NaN."""
    for path in paths:
        with suppress(BadEpisode), opened(path) as file:  # reported when the episodes are read
            values = rows(path, field(path, file, "action"))
            flat = values.reshape(len(values), -1)
            yield flat[np.isfinite(flat).all(axis=1)]


def _action_field(path: Path, file: h5py.File) -> h5py.Dataset:
    found = field(path, file, "action")
    if found.ndim not in (1, 2) or found.dtype.kind not in "fiub" or 0 in found.shape[1:]:
        raise BadEpisode(f"{path}: 'action' is {found.dtype} {found.shape}, expected numbers [N, A]; convert it")
    return found


@dataclass(frozen=True)
class StableWorldmodelImporter:
    """Files of one data set.

    Attributes:
        files: their paths.
        camera: name of the field of frames.
        part: kind of the action; None if actions are not imported.
        states: name and width of the state, if any.
        notes: for the report.
        noted: attributes of the first file; those that `aime export` writes are used.
    """

    files: tuple[str, ...]
    camera: str
    part: ActionPart | None
    states: tuple[tuple[str, int], ...]
    notes: tuple[str, ...] = ()
    noted: tuple[tuple[str, Attribute], ...] = ()

    @property
    def facts(self) -> Facts:
        """Widths from the first file."""
        noted, states = dict(self.noted), dict(self.states)
        states = read_state_names(noted, sum(states.values())) or states
        attributes: dict[str, Attribute] = {name: noted[name] for name in noted if name in ("fps", "task", MASK_NAMES)}
        if self.part is None:
            return Facts(0, states, attributes=attributes, notes=self.notes)
        parts, width = (self.part,), self.part.width
        bounds = read_range(noted, width) or joined_bounds(parts)
        names = read_action_names(noted, width)
        return Facts(width, states, bounds, discrete_columns(parts), attributes, self.notes, names)

    def survey(self) -> Survey:
        """Read the lengths of the episodes."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        for number, name in enumerate(self.files):
            try:
                items += self._episodes(number, Path(name))
            except BadEpisode as error:
                bad.append(error)
        return Survey(items, bad)

    def _episodes(self, number: int, path: Path) -> list[Item]:
        with opened(path) as file:
            lengths, offsets = (
                _whole_numbers(path, field(path, file, name, axes=1)) for name in ("ep_len", "ep_offset")
            )
            pixels = field(path, file, self.camera, axes=4)
            frames, size = pixels.shape[0], frame_size(pixels)
        if (
            len(lengths) != len(offsets)
            or (lengths < 1).any()
            or (lengths > frames).any()
            or (offsets < 0).any()
            or (offsets > frames).any()
            or (offsets + lengths > frames).any()
        ):
            raise BadEpisode(f"{path}: 'ep_len' and 'ep_offset' do not fit {frames} frames, expected stretches of them")
        weight = size[0] * size[1] * 3
        return [
            Item(f"{path}, episode {episode} at row {offset}", int(length) * weight, (number, int(offset), int(length)))
            for episode, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True))
        ]

    def read(self, item: Item) -> Recorded:
        """The rows of one episode."""
        number, start, length = map(int, item.place)
        path, stop = Path(self.files[number]), start + length
        with opened(path) as file:
            known = {
                name: rows(path, field(path, file, name), start, stop)
                for name in self._small()
                if own_object(file, name)
            }
            action = self._encoded(path, rows(path, _action_field(path, file), start, stop)) if self.part else None
            has_masks = _has_masks(file, self.camera) and _is_masked(path, file, start)
        return Recorded(
            ([block] for block in read_frames(path, self.camera, start, stop)),
            action=action,
            reward=_reward(known, length),
            terminated=truths("terminated", known["terminated"], length) if "terminated" in known else None,
            state=known[self.states[0][0]] if self.states and self.states[0][0] in known else None,
            masks=_read_masks(path, start, stop) if has_masks else None,
        )

    def _small(self) -> list[str]:
        return ["reward", "success", "terminated", *dict(self.states)]

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one episode."""
        number, start, length = map(int, item.place)
        path = Path(self.files[number])
        with opened(path) as file:
            return self._encoded(path, rows(path, _action_field(path, file), start, start + length))

    def _encoded(self, path: Path, action: np.ndarray) -> Float[np.ndarray, "L A"]:
        assert self.part is not None
        action = action.reshape(len(action), -1)
        if action.shape[1] != self.part.size or (action.dtype.kind != "f" and not self.part.is_discrete):
            raise BadEpisode(
                f"{path}: 'action' is {action.dtype} and {action.shape[1]} wide, expected it as in the first file; "
                "import it separately"
            )
        known = ~np.isnan(action).all(axis=1)
        encoded = np.full((len(action), self.part.width), np.nan)
        encoded[known] = self.part.encode(action[known], f"{path}: 'action'")
        return encoded


def _is_masked(path: Path, file: h5py.File, start: int) -> bool:
    """Whether the episode at a row has masks; without `ep_mask` all have."""
    if own_object(file, "ep_mask") is None:
        return True
    masked, offsets = (rows(path, field(path, file, name, axes=1)) for name in ("ep_mask", "ep_offset"))
    if masked.dtype != np.bool_ or masked.shape != offsets.shape:
        raise BadEpisode(f"{path}: 'ep_mask' is {masked.dtype} {masked.shape}, expected bool {offsets.shape}; fix it")
    return bool(masked[offsets == start].any())


def _read_masks(path: Path, start: int, stop: int) -> Iterator[list[UInt8[np.ndarray, "n h w"]]]:
    with opened(path) as file:
        mask = field(path, file, "mask", axes=3)
        height, width = mask.shape[1:]
        if height * width * 3 > MAX_FRAME_BYTES:
            raise BadEpisode(f"{path}: 'mask' has masks of {height}x{width}, expected 64 MB at most")
        step = block_length(height, width)
        for at in range(start, stop, step):
            yield [read_rows(mask, at, min(at + step, stop))]


def _whole_numbers(path: Path, values: h5py.Dataset) -> Int64[np.ndarray, " E"]:
    if values.dtype.kind not in "iu":
        raise BadEpisode(f"{path}: '{values.name}' is {values.dtype}, expected whole numbers; convert it")
    return rows(path, values).astype(np.int64)


def _reward(known: Mapping[str, np.ndarray], length: int) -> np.ndarray | None:
    """Rewards as one column, or success without rewards; None if no value is a number."""
    for name in ("reward", "success"):
        if name in known and not np.isnan(flat := one_number(name, known[name], length)).all():
            return flat
    return None
