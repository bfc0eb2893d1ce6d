"""Packs: lossless files of a data set, several times smaller than shards.

A pack, NAME.npy.xz, is an xz stream (with its SHA-256 check) of arrays in NumPy's format, without pickles:

    header      the bytes of a JSON object: format, version, and attributes and number of episodes of each part
    background  [H, W, 3] uint8, the typical colour of each pixel
    then, for every episode of the training, validation and test parts:
    classes     [L, H, W] uint8: 0 if a pixel is unchanged from the previous frame (initially the background),
                1 if it changes to the background, 2 if it takes another value
    values      [V, 4] uint8: the values of the pixels of class 2 in order, padded to words, which xz compresses best
    action, reward, terminated, and state and masks if the header says so
    masks       [L, H, W] uint8, not as differences, which take 15 instead of 11 bytes per frame of cartpole

2500 frames of 64 x 64 cartpole take 86 bytes each, 140 as plain differences, and 1270 in a shard.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from jaxtyping import UInt8

from aime.data.episodes import Episode
from aime.data.shards import write_shard
from aime.errors import AimeError

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")

FORMAT, VERSION = "aime-pack", 3

_READABLE = (2, VERSION)
"""Version 2 has no masks."""

PACK, DIGESTS = ".npy.xz", ".digests.json"
"""Suffixes of a pack and of its table of digests."""

_FRAMES_PER_SHARD = 4000
"""Bounds memory during unpacking to 50 MB of 64 x 64 frames."""


def unpack(source: Path, directory: Path) -> None:
    """Unpack into directories of shards: `directory`/train, `directory`/validation and `directory`/test.

    Args:
        source: a file written by `pack`.
        directory: must hold no shards.

    Raises:
        AimeError: if the pack is damaged or of another version, or the shards cannot be written.
    """
    _check_sum(source)
    with lzma.open(source, "rb") as stream:
        header = _read_header(source, stream)
        background = _load(stream)
        for part in PARTS:
            facts, batch = header["parts"][part], list[Episode]()
            for number in range(facts["episodes"]):
                batch.append(_decode(stream, background, header["state"], header.get("masks", False)))
                if number == facts["episodes"] - 1 or sum(map(len, batch)) >= _FRAMES_PER_SHARD:
                    write_shard(directory / part / f"{number:06d}.h5", batch, facts["attributes"])
                    batch.clear()


def _check_sum(source: Path) -> None:
    """Read to the end, where xz verifies the SHA-256, before any array is decoded."""
    try:
        with lzma.open(source, "rb") as stream:
            while stream.read(2**20):
                pass
    except (lzma.LZMAError, EOFError) as error:
        raise AimeError(f"{source}: is damaged ({error}), expected a whole pack; install aime again") from error


def _read_header(source: Path, stream: IO[bytes]) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(_load(stream).tobytes())
    except ValueError as error:
        raise AimeError(f"{source}: is no pack ({error}), expected one that `pack` made; install aime again") from error
    if header.get("format") != FORMAT or header.get("version") not in _READABLE:
        raise AimeError(
            f"{source}: has format {header.get('format')} {header.get('version')}, expected {FORMAT} {VERSION}; "
            "install the version of aime that made it"
        )
    return header


def encode(episode: Episode, background: UInt8[np.ndarray, "H W 3"]) -> list[np.ndarray]:
    """The arrays of one episode, in the order of the format."""
    pixels = episode.pixels
    before = np.concatenate([background[None], pixels[:-1]])
    changed, typical = (pixels != before).any(axis=-1), (pixels == background).all(axis=-1)
    classes = np.where(changed, np.where(typical, 1, 2), 0).astype(np.uint8)
    values = np.pad(pixels[classes == 2], ((0, 0), (0, 1)))
    state = [] if episode.state is None else [episode.state]
    mask = [] if episode.mask is None else [episode.mask]
    return [classes, values, episode.action, episode.reward, episode.terminated, *state, *mask]


def _decode(stream: IO[bytes], background: UInt8[np.ndarray, "H W 3"], has_state: bool, has_mask: bool) -> Episode:
    """The inverse of `encode`."""
    classes, values, action, reward, terminated = (_load(stream) for _ in range(5))
    state = _load(stream) if has_state else None
    mask = _load(stream) if has_mask else None
    pixels = np.empty((*classes.shape, 3), dtype=np.uint8)
    typical = background.reshape(-1, 3)
    frame, used = typical.copy(), 0
    for step, row in enumerate(classes.reshape(len(classes), -1)):
        back, new = np.flatnonzero(row == 1), np.flatnonzero(row == 2)
        frame[back] = typical[back]
        frame[new] = values[used : used + len(new), :3]
        used += len(new)
        pixels[step] = frame.reshape(background.shape)
    return Episode(pixels, action, reward, terminated, state, mask)


def save_arrays(stream: IO[bytes], *arrays: np.ndarray) -> None:
    """Write arrays in NumPy's format."""
    for array in arrays:
        np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _load(stream: IO[bytes]) -> np.ndarray:
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array
