"""Shards: immutable HDF5 files of whole episodes, in stable-worldmodel's flat schema.

A shard holds N frames of E consecutive episodes:

    pixels     [N, H, W, 3]  uint8      action   [N, A]  float32, in [-1, 1]    ep_len     [E]  integer
    reward     [N]           float      state    [N, S]  float, optional        ep_offset  [E]  integer
    terminated [N]           bool       mask     [N, H, W]  uint8, optional     ep_mask    [E]  bool, optional

`reward[t]` and `terminated[t]` arrive with `pixels[t]`. NaN is allowed for the last action and the first reward of an
episode, for all of its actions or rewards, and for any number of a state. `mask` holds instance ids, 0 for the
background; if only some episodes have masks, `ep_mask` is True for these. The attribute `mask_names` names the ids
(`aime.data.mask_names`).
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from aime.data.blocks import FileIdentity
from aime.data.checks import check_actions, check_layout, check_rewards, check_states
from aime.data.episodes import Episode
from aime.data.hdf5_bounds import check_storage, check_whole, own_object, read_rows, scalar_attributes
from aime.data.stored_frames import CHUNK_STEPS, StoredFrames, reading
from aime.errors import AimeError
from aime.primitives.files import write_atomically

Attribute = str | int | float | bool

FORMAT = ("v110", "v110")
"""The first version of HDF5's format with checksums for all metadata."""

CHECKSUM = "attributes_crc32"
"""The attribute with the checksum of all others: HDF5 has none for strings."""

_Layout = tuple[int, tuple[str, ...], str]

_LAYOUT: dict[str, _Layout] = {  # field: (number of axes, kinds of dtype allowed, the dtype to name in a message)
    "pixels": (4, ("uint8",), "uint8"),
    "action": (2, ("float32",), "float32"),
    "reward": (1, ("float32", "float64"), "float32"),
    "terminated": (1, ("bool",), "bool"),
    "ep_len": (1, ("int32", "int64", "uint32", "uint64"), "int64"),
    "ep_offset": (1, ("int32", "int64", "uint32", "uint64"), "int64"),
}
_OPTIONAL_LAYOUT: dict[str, _Layout] = {
    "state": (2, ("float32", "float64"), "float32"),
    "mask": (3, ("uint8",), "uint8 ids of instances"),
    "ep_mask": (1, ("bool",), "bool"),
}

_LARGE = ("pixels", "mask")


def write_shard(
    path: str | Path, episodes: Sequence[Episode], attributes: Mapping[str, Attribute] | None = None
) -> None:
    """Write episodes as one shard, atomically; creates parent directories.

    Args:
        path: must not exist, because shards are immutable.
        episodes: at least one; all with the same image size, action width and state width. Some may have masks.
        attributes: metadata of the recording, such as the task or the seed.

    Raises:
        AimeError: if an episode violates the schema, the file exists, or it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise AimeError(f"{path}: exists already and shards are never overwritten; delete it or choose another name")
    fields = _join(str(path), episodes)
    image = io.BytesIO()
    # built in memory: HDF5 does not reliably report a full disk
    with h5py.File(image, "w", libver=FORMAT) as file:
        _fill(file, episodes, fields)
        file.attrs.update({**(attributes or {}), CHECKSUM: _checksum(attributes or {})})
    write_atomically(path, image.getbuffer())


def _join(source: str, episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """The small fields of all episodes, checked and concatenated, without pixels and masks."""
    if not episodes:
        raise AimeError(f"{source}: no episode to write, expected at least one")
    for number, episode in enumerate(episodes):
        _check_episode(f"{source}: episode {number}", episode, episodes[0])
    lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
    fields = {"ep_len": lengths, "ep_offset": np.cumsum(lengths) - lengths}
    names = ["action", "reward", "terminated"] + ([] if episodes[0].state is None else ["state"])
    for name in names:
        fields[name] = np.concatenate([getattr(episode, name) for episode in episodes])
    has_mask = np.array([episode.mask is not None for episode in episodes])
    if has_mask.any() and not has_mask.all():
        fields["ep_mask"] = has_mask
    _check_values(source, fields, int(lengths.sum()))
    return fields


def _check_episode(source: str, episode: Episode, first: Episode) -> None:
    """Check that every field has the schema's dtype, L rows, and the widths of the first episode."""
    if (episode.state is None) != (first.state is None):
        raise AimeError(f"{source}: 'state' is in some episodes only, expected in all or none; drop or add it")
    layout = _LAYOUT | _OPTIONAL_LAYOUT
    for name in ("pixels", "action", "reward", "terminated", "state", "mask"):
        array = getattr(episode, name)
        if array is None:
            continue
        axes, dtypes, expected = layout[name]
        if array.dtype.name not in dtypes:
            raise AimeError(f"{source}: '{name}' has dtype {array.dtype}, expected {expected}; convert it first")
        widths = first.pixels.shape[1:3] if name == "mask" else getattr(first, name).shape[1:]
        shape = (len(episode), *widths)
        if array.ndim != axes or array.shape != shape:
            raise AimeError(
                f"{source}: '{name}' has shape {array.shape}, expected {shape}; write it to another data set"
            )
    if episode.pixels.shape[-1] != 3:
        raise AimeError(f"{source}: 'pixels' has {episode.pixels.shape[-1]} channels, expected 3; convert it to RGB")


def _check_values(source: str, fields: Mapping[str, np.ndarray], frames: int) -> None:
    """Check the values, for reader and writer."""
    lengths, offsets = fields["ep_len"], fields["ep_offset"]
    check_layout(source, lengths, offsets, frames)
    check_actions(source, fields["action"], lengths, offsets)
    check_rewards(source, fields["reward"], lengths, offsets)
    if "state" in fields:
        check_states(source, fields["state"], offsets)


def _fill(file: h5py.File, episodes: Sequence[Episode], fields: Mapping[str, np.ndarray]) -> None:
    """Write the fields with a checksum per chunk: frames and masks in compressed chunks, others in one chunk."""
    frames, image = int(fields["ep_len"].sum()), episodes[0].pixels.shape[1:]
    _fill_frames(file, "pixels", (frames, *image), fields["ep_offset"], [episode.pixels for episode in episodes])
    if any(episode.mask is not None for episode in episodes):
        masks = [np.zeros_like(each.pixels[..., 0]) if each.mask is None else each.mask for each in episodes]
        _fill_frames(file, "mask", (frames, *image[:2]), fields["ep_offset"], masks)
    for name, array in fields.items():
        kept = _canonical(array)
        file.create_dataset(name, data=kept, chunks=tuple(max(size, 1) for size in kept.shape), fletcher32=True)


def _fill_frames(
    file: h5py.File, name: str, shape: tuple[int, ...], offsets: np.ndarray, episodes: Sequence[np.ndarray]
) -> None:
    chunks = (min(CHUNK_STEPS, shape[0]), *shape[1:])
    gzip = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    field = file.create_dataset(name, shape, "uint8", chunks=chunks, fletcher32=True, **gzip)
    for offset, rows in zip(offsets, episodes, strict=True):
        field[offset : offset + len(rows)] = rows


class Shard:
    """A validating reader of one shard.

    Small fields are checked on opening and read again on first use, so that only shards in use occupy memory. A shard
    can be read from several threads, pickled, and used after a fork.

    Attributes:
        path: the file.
        lengths: `[E]` int64, steps of each episode.
        offsets: `[E]` int64, first row of each episode.
        action_width: A, the number of actuators.
        state_width: S, or 0 if no state was recorded.
        has_mask: `[E]` bool, True for episodes with masks.
        frames: N, the total number of frames.
        image_size: height and width of a frame, in pixels.
        block: frames per compressed block, which is always decoded as a whole.
        attributes: metadata from the writer.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check a file without reading pixels or masks.

        Raises:
            AimeError: if the file is missing, empty, truncated or no shard, or a field violates the schema.
        """
        self.path = Path(path)
        _check_file(self.path)
        status = self.path.stat()
        self._identity: FileIdentity = FileIdentity(self.path.absolute(), status.st_ino, status.st_mtime_ns)
        with reading(self.path, "it"), h5py.File(self.path, "r") as file:
            fields = _read_small_fields(self.path, file)
            self.attributes: dict[str, Attribute] = _read_attributes(file.attrs)
            self._pixels = StoredFrames(self._identity, file["pixels"])
            self._masks = StoredFrames(self._identity, file["mask"]) if "mask" in file else None
        frames, self.image_size = self._pixels.shape[:2]
        self.block = self._pixels.block
        _check_values(str(self.path), fields, frames)
        self.lengths, self.offsets, self.frames = fields["ep_len"], fields["ep_offset"], frames
        self.action_width = int(fields["action"].shape[1])
        self.state_width = int(fields["state"].shape[1]) if "state" in fields else 0
        all_or_none = np.full(len(self.lengths), self._masks is not None)
        self.has_mask: Bool[np.ndarray, " E"] = fields.get("ep_mask", all_or_none)
        self._fields: dict[str, np.ndarray] | None = None

    @property
    def identity(self) -> FileIdentity:
        """The identity of the opened file."""
        return self._identity

    @property
    def action(self) -> Float32[np.ndarray, "N A"]:
        """Actions in [-1, 1]; the last one of an episode, or all of them, may be NaN."""
        return self._small_fields["action"]

    @property
    def reward(self) -> Float32[np.ndarray, " N"]:
        """Rewards; the first one of an episode, or all of them, may be NaN."""
        return self._small_fields["reward"]

    @property
    def terminated(self) -> Bool[np.ndarray, " N"]:
        """True if the episode terminated with the frame."""
        return self._small_fields["terminated"]

    @property
    def state(self) -> Float32[np.ndarray, "N S"] | None:
        """The state of simulator or robot; None if none was recorded."""
        return self._small_fields.get("state")

    @property
    def _small_fields(self) -> dict[str, np.ndarray]:
        if self._fields is None:
            with reading(self.path, "it"), h5py.File(self.path, "r") as file:
                self._fields = _read_small_fields(self.path, file)
        return self._fields

    def read_pixels(self, start: int, stop: int) -> UInt8[np.ndarray, "L H W 3"]:
        """Rows `start` to `stop` (exclusive, clamped to N) of the pixel array.

        Raises:
            AimeError: if the file is damaged; names the episode.
        """
        return self._pixels.read(start, stop, f"'pixels' of episode {self._episode_at(start)}")

    def read_masks(self, start: int, stop: int) -> UInt8[np.ndarray, "L H W"] | None:
        """Rows `start` to `stop` (exclusive, clamped to N) of the masks, within one episode.

        Returns:
            Instance ids, 0 for the background; None if the episode of `start` has no masks.

        Raises:
            AimeError: if the file is damaged; names the episode.
        """
        episode = self._episode_at(start)
        if self._masks is None or not self.has_mask[episode]:
            return None
        return self._masks.read(start, stop, f"'mask' of episode {episode}")

    def _episode_at(self, row: int) -> int:
        return int(np.searchsorted(self.offsets, row, side="right")) - 1


def _check_file(path: Path) -> None:
    """Refuse missing and empty files, which HDF5 does not distinguish in its errors."""
    if not path.exists():
        raise AimeError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise AimeError(f"{path}: is not a file, expected an HDF5 shard; give the path of a file")
    if path.stat().st_size == 0:
        raise AimeError(f"{path}: is empty (0 bytes), expected an HDF5 shard; delete it, then copy or record it again")


def _read_small_fields(path: Path, file: h5py.File) -> dict[str, np.ndarray]:
    """All fields except pixels and masks, with checked presence, dtypes and shapes."""
    layout = _LAYOUT | {name: each for name, each in _OPTIONAL_LAYOUT.items() if name in file}
    for name, (axes, dtypes, expected) in layout.items():
        _check_field(path, own_object(file, name), name, axes, dtypes, expected)
    shape = file["pixels"].shape
    if shape[3] != 3 or shape[1] != shape[2] or shape[1] < 1:
        raise AimeError(f"{path}: 'pixels' has shape {shape}, expected [N, H, H, 3]; crop or resize the frames")
    for name in layout.keys() - {"pixels", "ep_len", "ep_offset", "ep_mask"}:
        if len(file[name]) != shape[0]:
            raise AimeError(
                f"{path}: '{name}' has {len(file[name])} rows and 'pixels' {shape[0]}, expected as many; "
                "the file was cut or written wrongly, write it again"
            )
    _check_masks(path, file, shape)
    return {name: _canonical(_read_whole(file[name])) for name in layout if name not in _LARGE}


def _check_masks(path: Path, file: h5py.File, pixels: tuple[int, ...]) -> None:
    if "mask" in file and file["mask"].shape != pixels[:3]:
        raise AimeError(
            f"{path}: 'mask' has shape {file['mask'].shape}, expected {pixels[:3]} as 'pixels'; resize the masks, or "
            "rename the field"
        )
    if "ep_mask" in file and ("mask" not in file or file["ep_mask"].shape != file["ep_len"].shape):
        raise AimeError(
            f"{path}: 'ep_mask' has {len(file['ep_mask'])} entries and 'ep_len' {len(file['ep_len'])}, expected as "
            "many, and a field 'mask'; write the file again"
        )


def _read_whole(field: h5py.Dataset) -> np.ndarray:
    check_whole(field)
    return read_rows(field)


def _check_field(path: Path, field: Any, name: str, axes: int, dtypes: Sequence[str], expected: str) -> None:
    if not isinstance(field, h5py.Dataset):
        raise AimeError(f"{path}: has no field '{name}', expected {expected} with {axes} axes; add it")
    if field.dtype.name not in dtypes:
        raise AimeError(f"{path}: '{name}' has dtype {field.dtype}, expected {expected}; convert it with .astype")
    if field.ndim != axes:
        raise AimeError(f"{path}: '{name}' has shape {field.shape}, expected {axes} axes; reshape it")
    check_storage(field)


def _canonical(array: np.ndarray) -> np.ndarray:
    """Convert to int64, float32 or bool."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    with np.errstate(over="ignore"):  # infinity is refused later
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _read_attributes(stored: h5py.AttributeManager) -> dict[str, Attribute]:
    """The attributes, verified by their checksum if there is one.

    Raises:
        ValueError: if the checksum is wrong.
    """
    attributes = scalar_attributes(stored)
    expected = attributes.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(attributes):
        raise ValueError("the checksum of its attributes is wrong")
    return attributes


def _checksum(attributes: Mapping[str, Attribute]) -> int:
    return zlib.crc32(json.dumps(dict(attributes), sort_keys=True, default=np.generic.item).encode())
