"""Checked reading of HDF5 files for importers: fields, and frames in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import UInt8

from aime.data.hdf5_bounds import UNREADABLE, check_storage, complaint, own_object, read_bytes, read_rows
from aime.errors import AimeError
from aime.io.importers.interface import MAX_FRAME_BYTES, BadEpisode, block_length
from aime.io.importers.pictures import UNDECODABLE, decode_picture

MAX_FIELDS = 1024
"""Maximum number of fields in a group and all groups below it."""

MAX_ROWS_BYTES = 256 * 2**20
"""Maximum bytes of a field other than frames, per episode or index."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file. Errors about damage inside the context become `BadEpisode` with the path.

    Raises:
        BadEpisode: if it is not an HDF5 file, or is damaged, in use, or not permitted.
    """
    if not path.is_file():  # opening a pipe would block
        raise BadEpisode(f"{path}: is not a file, expected an HDF5 file; check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except AimeError:
        raise
    except UNREADABLE as error:
        raise BadEpisode(f"{path}: {complaint(error)}") from error


def fields_below(path: Path, group: h5py.Group, name: str) -> dict[str, h5py.Dataset]:
    """All data sets below a name, by relative path, sorted; a single data set has the path "".

    Raises:
        BadEpisode: if there is none, there are too many, or a group has two paths.
        Refused: if a link leads to another place or another file.
    """
    found: dict[str, h5py.Dataset] = {}
    open_groups, seen = [("", own_object(group, name))], set[Any]()
    while open_groups:
        at, node = open_groups.pop()
        if isinstance(node, h5py.Dataset):
            found[at] = node
        elif isinstance(node, h5py.Group):
            if node in seen or len(node) > MAX_FIELDS or len(seen) > MAX_FIELDS:
                raise BadEpisode(f"{path}: '{name}' is not a tree of at most {MAX_FIELDS} fields; write it again")
            seen.add(node)
            open_groups += [(f"{at}/{key}" if at else key, own_object(node, key)) for key in node]
    if not found or len(found) > MAX_FIELDS:
        raise BadEpisode(f"{path}: '{name}' has {len(found)} fields, expected 1 to {MAX_FIELDS}; check the file")
    return dict(sorted(found.items(), key=lambda pair: pair[0].split("/")))


def field(path: Path, group: Any, name: str, axes: int | None = None) -> h5py.Dataset:
    """A data set of the file.

    Raises:
        BadEpisode: if it is missing, or has another number of axes.
        Refused: if it is in another file, or its storage is not supported.
    """
    found = own_object(group, name)
    if not isinstance(found, h5py.Dataset):
        raise BadEpisode(f"{path}: has no field '{name}' in '{group.name}', found {sorted(group)[:20]}; check the file")
    check_storage(found)
    if axes is not None and found.ndim != axes:
        raise BadEpisode(f"{path}: '{name}' has shape {found.shape}, expected {axes} axes; reshape it")
    return found


def rows(path: Path, dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a field other than frames.

    Raises:
        BadEpisode: if they are not numbers, or too many.
    """
    stop = dataset.shape[0] if stop is None else stop
    if dataset.dtype.kind not in "fiub":
        raise BadEpisode(f"{path}: '{dataset.name}' has dtype {dataset.dtype}, expected numbers; convert it")
    size = (stop - start) * int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize
    if size > MAX_ROWS_BYTES:
        raise BadEpisode(
            f"{path}: '{dataset.name}' has {size / 2**20:.0f} MB in one read, expected 256 at most; split it"
        )
    return read_rows(dataset, start, stop)


def is_frames(dataset: Any) -> bool:
    """Whether a field has the shape and type of frames: uint8, `[N, H, W, 3]` or `[N, 3, H, W]`."""
    return (
        isinstance(dataset, h5py.Dataset)
        and dataset.dtype == np.uint8
        and dataset.ndim == 4
        and 3 in (dataset.shape[3], dataset.shape[1])
    )


def is_pictures(dataset: Any) -> bool:
    """Whether a field has the type of PNG or JPEG files, one per row."""
    return isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 and h5py.check_vlen_dtype(dataset.dtype) == np.uint8


def read_picture(path: Path, dataset: h5py.Dataset, row: int) -> UInt8[np.ndarray, "h w 3"]:
    """A row of a field of pictures.

    Raises:
        BadEpisode: if it cannot be decoded.
    """
    try:
        return decode_picture(read_bytes(dataset, row))
    except UNDECODABLE as error:
        raise BadEpisode(
            f"{path}: '{dataset.name}', row {row}: cannot be decoded ({error}), expected a JPEG or PNG file; download "
            "it again"
        ) from error


def frame_size(dataset: h5py.Dataset) -> tuple[int, int]:
    """Height and width of frames with channels first or last."""
    shape = dataset.shape
    return (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])


def read_frames(
    path: Path, name: str, start: int, stop: int, transpose: bool = False
) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """Rows of a field of frames or pictures, in blocks. The file is open only while a block is read.

    Args:
        path: the file.
        name: path of the field.
        start: the first row.
        stop: the row before which to end.
        transpose: whether channels come first, even if the sizes are ambiguous.

    Raises:
        BadEpisode: if the field does not have frames, or is damaged.
    """
    with opened(path) as file:
        if is_pictures(own_object(file, name)):
            yield from _picture_blocks(path, field(path, file, name), start, stop)
            return
        dataset = field(path, file, name, axes=4)
        if not is_frames(dataset):
            raise BadEpisode(f"{path}: '{name}' is {dataset.dtype} {dataset.shape}, expected uint8 [N, H, W, 3]")
        height, width = frame_size(dataset)
        if height * width * 3 > MAX_FRAME_BYTES:
            raise BadEpisode(f"{path}: '{name}' has frames of {height}x{width}, expected 64 MB at most")
        step = block_length(height, width)
        first = transpose or dataset.shape[3] != 3
        for at in range(start, stop, step):
            block = read_rows(dataset, at, min(at + step, stop))
            yield np.ascontiguousarray(block.transpose(0, 2, 3, 1)) if first else block


def _picture_blocks(path: Path, dataset: h5py.Dataset, start: int, stop: int) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    at = start
    while at < stop:
        first = read_picture(path, dataset, at)
        step = block_length(*first.shape[:2])
        block = [first, *(read_picture(path, dataset, row) for row in range(at + 1, min(at + step, stop)))]
        if len({picture.shape for picture in block}) > 1:
            raise BadEpisode(
                f"{path}: '{dataset.name}' holds pictures of several sizes, expected one; drop the episode"
            )
        yield np.stack(block)
        at += step
