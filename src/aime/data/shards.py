"""Shards: immutable HDF5 files of whole episodes, in stable-worldmodel's flat schema.

A shard holds N frames of E episodes that lie one after the other:

    pixels     [N, H, W, 3]  uint8      action   [N, A]  float32, in [-1, 1]    ep_len     [E]  integer
    reward     [N]           float      state    [N, S]  float, optional        ep_offset  [E]  integer
    terminated [N]           bool

`reward[t]` and `terminated[t]` describe the arrival at `pixels[t]`. The last action of an episode and its first reward
may be NaN, and so may all of its actions or all of its rewards, where none were recorded, and any number of a state;
nothing else may.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from aime.data.blocks import Blocks, FileIdentity, OpenFiles
from aime.data.checks import check_actions, check_layout, check_rewards, check_states
from aime.data.episodes import Episode
from aime.data.hdf5_bounds import (
    UNREADABLE,
    check_storage,
    check_whole,
    complaint,
    own_object,
    read_rows,
    scalar_attributes,
)
from aime.errors import AimeError
from aime.primitives.files import write_atomically

Attribute = str | int | float | bool

CHUNK_STEPS = 16
"""Frames per HDF5 chunk: long enough to compress, short enough that a clip decodes little that it does not need."""

FORMAT = ("v110", "v110")
"""Since this version of HDF5's format all that describes the data carries a checksum of its own."""

CHECKSUM = "attributes_crc32"
"""The attribute that holds the checksum of all others: HDF5 has none for texts."""

MAX_OPEN_FILES = 64
"""Per thread; operating systems commonly allow a process 1024."""

_Layout = tuple[int, tuple[str, ...], str]

_LAYOUT: dict[str, _Layout] = {  # field: (number of axes, kinds of dtype allowed, the dtype to name in a message)
    "pixels": (4, ("uint8",), "uint8"),
    "action": (2, ("float32",), "float32"),
    "reward": (1, ("float32", "float64"), "float32"),
    "terminated": (1, ("bool",), "bool"),
    "ep_len": (1, ("int32", "int64", "uint32", "uint64"), "int64"),
    "ep_offset": (1, ("int32", "int64", "uint32", "uint64"), "int64"),
}
_STATE_LAYOUT: _Layout = (2, ("float32", "float64"), "float32")


def write_shard(
    path: str | Path, episodes: Sequence[Episode], attributes: Mapping[str, Attribute] | None = None
) -> None:
    """Write episodes as one shard, whole or not at all.

    The bytes go to a temporary name beside `path`, are flushed to the disk, and only then renamed: whoever kills the
    writer loses this shard at most. Parent directories are made.

    Args:
        path: the file to make; it must not exist, because shards are immutable.
        episodes: at least one; all with the same image size, action width and state width.
        attributes: facts about the recording that every reader of the shard gets, such as the task or the seed.

    Raises:
        AimeError: if an episode breaks a rule of the schema, if the file exists, or if it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise AimeError(f"{path}: exists already and shards are never overwritten; delete it or choose another name")
    fields = _join(str(path), episodes)
    image = io.BytesIO()
    # The file is built in memory: HDF5 cannot be trusted to report a full disk, nor to leave a sound file behind.
    with h5py.File(image, "w", libver=FORMAT) as file:
        _fill(file, episodes, fields)
        file.attrs.update({**(attributes or {}), CHECKSUM: _checksum(attributes or {})})
    write_atomically(path, image.getbuffer())


def _join(source: str, episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """The small fields of all episodes, checked and concatenated; pixels are left where they are."""
    if not episodes:
        raise AimeError(f"{source}: no episode to write, expected at least one")
    for number, episode in enumerate(episodes):
        _check_episode(f"{source}: episode {number}", episode, episodes[0])
    lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
    fields = {"ep_len": lengths, "ep_offset": np.cumsum(lengths) - lengths}
    names = ["action", "reward", "terminated"] + ([] if episodes[0].state is None else ["state"])
    for name in names:
        fields[name] = np.concatenate([getattr(episode, name) for episode in episodes])
    _check_values(source, fields, int(lengths.sum()))
    return fields


def _check_episode(source: str, episode: Episode, first: Episode) -> None:
    """Every field of an episode must have the schema's dtype, L rows, and the widths of the first episode."""
    for name in ("pixels", "action", "reward", "terminated", "state"):
        array, model = getattr(episode, name), getattr(first, name)
        if (array is None) != (model is None):
            raise AimeError(f"{source}: 'state' is in some episodes only, expected in all or none; drop or add it")
        if array is None:
            continue
        axes, dtypes, expected = _LAYOUT.get(name, _STATE_LAYOUT)
        if array.dtype.name not in dtypes:
            raise AimeError(f"{source}: '{name}' has dtype {array.dtype}, expected {expected}; convert it first")
        shape = (len(episode), *model.shape[1:])
        if array.ndim != axes or array.shape != shape:
            raise AimeError(
                f"{source}: '{name}' has shape {array.shape}, expected {shape}; write it to another data set"
            )
    if episode.pixels.shape[-1] != 3:
        raise AimeError(f"{source}: 'pixels' has {episode.pixels.shape[-1]} channels, expected 3; convert it to RGB")


def _check_values(source: str, fields: Mapping[str, np.ndarray], frames: int) -> None:
    """The rules on numbers, for reader and writer alike."""
    lengths, offsets = fields["ep_len"], fields["ep_offset"]
    check_layout(source, lengths, offsets, frames)
    check_actions(source, fields["action"], lengths, offsets)
    check_rewards(source, fields["reward"], lengths, offsets)
    if "state" in fields:
        check_states(source, fields["state"], offsets)


def _fill(file: h5py.File, episodes: Sequence[Episode], fields: Mapping[str, np.ndarray]) -> None:
    """Lay out the fields, each with a checksum for every chunk: pixels in compressed chunks, all else in one."""
    frames, image = int(fields["ep_len"].sum()), episodes[0].pixels.shape[1:]
    chunks = (min(CHUNK_STEPS, frames), *image)
    gzip = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    pixels = file.create_dataset("pixels", (frames, *image), "uint8", chunks=chunks, fletcher32=True, **gzip)
    for offset, episode in zip(fields["ep_offset"], episodes, strict=True):
        pixels[offset : offset + len(episode)] = episode.pixels
    for name, array in fields.items():
        kept = _canonical(array)
        file.create_dataset(name, data=kept, chunks=tuple(max(size, 1) for size in kept.shape), fletcher32=True)


class _OpenFiles(threading.local):
    """The HDF5 handles of one thread of one process; a handle that crosses a fork or a thread reads garbage."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[FileIdentity, h5py.File] = OrderedDict()

    def get(self, identity: FileIdentity) -> h5py.File:
        """The handle of a file, opened if it is not, and now the last to be closed."""
        if self.process != os.getpid():
            self.process, self.files = os.getpid(), OrderedDict()
        file = self.files.pop(identity, None) or h5py.File(identity.path, "r")
        self.files[identity] = file
        if len(self.files) > MAX_OPEN_FILES:
            self.files.popitem(last=False)[1].close()
        return file


_open_files = _OpenFiles()
_files_of_blocks = OpenFiles()


class Shard:
    """A validating reader of one shard; the small fields are checked at once, and all but lengths read when asked for.

    A process that reads a part of many shards so holds the small fields of those alone. A shard may be read from
    several threads, be pickled, and live on in forked processes.

    Attributes:
        path: the file.
        lengths: `[E]` int64, steps of each episode.
        offsets: `[E]` int64, first row of each episode.
        action_width: A, the number of actuators.
        state_width: S, or 0 where no state was recorded.
        frames: N, of all episodes.
        image_size: height and width of a frame, in pixels.
        block: frames that the file compresses together; reading one costs as much as reading all of them.
        attributes: facts that the writer noted.
    """

    def __init__(self, path: str | Path) -> None:
        """Open and check a file; no pixel is read.

        Raises:
            AimeError: if the file is missing, empty, truncated or foreign, or a field breaks a rule of the schema.
        """
        self.path = Path(path)
        _check_file(self.path)
        status = self.path.stat()
        self._identity: FileIdentity = FileIdentity(self.path.absolute(), status.st_ino, status.st_mtime_ns)
        with _reading(self.path, "it"), h5py.File(self.path, "r") as file:
            fields, pixels = _read_small_fields(self.path, file), file["pixels"]
            self.attributes: dict[str, Attribute] = _read_attributes(file.attrs)
            self.block = int(pixels.chunks[0]) if pixels.chunks else CHUNK_STEPS
            frames, self.image_size = int(pixels.shape[0]), int(pixels.shape[1])
        _check_values(str(self.path), fields, frames)
        self.lengths, self.offsets, self.frames = fields["ep_len"], fields["ep_offset"], frames
        self.action_width = int(fields["action"].shape[1])
        self.state_width = int(fields["state"].shape[1]) if "state" in fields else 0
        self._fields: dict[str, np.ndarray] | None = None
        self._blocks: Blocks | Literal["unknown"] | None = "unknown"

    @property
    def identity(self) -> FileIdentity:
        """Of the file as it was opened."""
        return self._identity

    @property
    def action(self) -> Float32[np.ndarray, "N A"]:
        """In [-1, 1]; the last of an episode may be NaN, or all of them."""
        return self._small_fields["action"]

    @property
    def reward(self) -> Float32[np.ndarray, " N"]:
        """The first of an episode may be NaN, or all of them."""
        return self._small_fields["reward"]

    @property
    def terminated(self) -> Bool[np.ndarray, " N"]:
        """Whether each frame was the last before an episode's end."""
        return self._small_fields["terminated"]

    @property
    def state(self) -> Float32[np.ndarray, "N S"] | None:
        """The simulator's or robot's own state; None where none was recorded."""
        return self._small_fields.get("state")

    @property
    def _small_fields(self) -> dict[str, np.ndarray]:
        if self._fields is None:
            with _reading(self.path, "it"), h5py.File(self.path, "r") as file:
                self._fields = _read_small_fields(self.path, file)
        return self._fields

    def read_pixels(self, start: int, stop: int) -> UInt8[np.ndarray, "L H W 3"]:
        """Rows `start` to `stop` (exclusive, clamped to N) of the flat pixel array.

        Raises:
            AimeError: if the file is damaged there, naming the episode.
        """
        episode = int(np.searchsorted(self.offsets, start, side="right")) - 1
        stop = min(stop, self.frames)
        with _reading(self.path, f"'pixels' of episode {episode}"):
            if isinstance(self._blocks, str):
                with h5py.File(self.path, "r") as file:
                    self._blocks = Blocks.of(file["pixels"])
            if self._blocks is not None and start < stop:
                return self._rows_of_blocks(self._blocks, start, stop)
            return read_rows(_open_files.get(self._identity)["pixels"], start, stop)

    def _rows_of_blocks(self, blocks: Blocks, start: int, stop: int) -> UInt8[np.ndarray, "L H W 3"]:
        """Rows that may lie in several blocks; those of one alone are not copied."""
        size, first = self.block, start // self.block
        if stop <= (first + 1) * size:
            block = _files_of_blocks.use(self._identity, partial(blocks.read, number=first))
            return block[start - first * size : stop - first * size]
        rows = np.empty((stop - start, *blocks.shape[1:]), np.uint8)
        for number in range(first, -(-stop // size)):
            low, high = max(start, number * size), min(stop, (number + 1) * size)
            block = _files_of_blocks.use(self._identity, partial(blocks.read, number=number))
            rows[low - start : high - start] = block[low - number * size : high - number * size]
        return rows


def _check_file(path: Path) -> None:
    """Tell apart what is no shard at all, which HDF5 reports in the same words."""
    if not path.exists():
        raise AimeError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise AimeError(f"{path}: is not a file, expected an HDF5 shard; give the path of a file")
    if path.stat().st_size == 0:
        raise AimeError(f"{path}: is empty (0 bytes), expected an HDF5 shard; delete it, then copy or record it again")


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever HDF5 raises on a damaged file into the one error that names the file."""
    try:
        yield
    except AimeError:
        raise
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is None and not h5py.is_hdf5(path):
            raise AimeError(
                f"{path}: is not an HDF5 file, expected a shard of episodes; convert or remove it"
            ) from error
        raise AimeError(f"{path}: {complaint(error, what)}") from error


def _read_small_fields(path: Path, file: h5py.File) -> dict[str, np.ndarray]:
    """All fields but pixels, after the checks of their presence, dtypes and shapes."""
    layout = dict(_LAYOUT) | ({"state": _STATE_LAYOUT} if "state" in file else {})
    for name, (axes, dtypes, expected) in layout.items():
        _check_field(path, own_object(file, name), name, axes, dtypes, expected)
    shape = file["pixels"].shape
    if shape[3] != 3 or shape[1] != shape[2] or shape[1] < 1:
        raise AimeError(f"{path}: 'pixels' has shape {shape}, expected [N, H, H, 3]; crop or resize the frames")
    for name in layout.keys() - {"pixels", "ep_len", "ep_offset"}:
        if len(file[name]) != shape[0]:
            raise AimeError(
                f"{path}: '{name}' has {len(file[name])} rows and 'pixels' {shape[0]}, expected as many; "
                "the file was cut or written wrongly, write it again"
            )
    return {name: _canonical(_read_whole(file[name])) for name in layout if name != "pixels"}


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
    """int64, float32 and bool, so that no reader has to ask which of the allowed dtypes a file has."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    with np.errstate(over="ignore"):  # what becomes infinite is refused, and needs no warning before
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _read_attributes(stored: h5py.AttributeManager) -> dict[str, Attribute]:
    """The attributes, held against their checksum where there is one.

    Raises:
        ValueError: if it is wrong.
    """
    attributes = scalar_attributes(stored)
    expected = attributes.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(attributes):
        raise ValueError("the checksum of its attributes is wrong")
    return attributes


def _checksum(attributes: Mapping[str, Attribute]) -> int:
    return zlib.crc32(json.dumps(dict(attributes), sort_keys=True, default=np.generic.item).encode())
