"""The encoding of tensorflow-datasets: `features.json`, and decoding of a `tf.train.Example`.

An episode's steps are a nested data set. Each of its features, such as "steps/observation/pixels", is one feature of
the example with all T steps:

| feature | in the example |
|---|---|
| tensor, encoding none | T · size numbers: float_list for floats, int64_list for integers and booleans |
| tensor, encoding bytes or zlib | T byte strings: the array in memory order, compressed or not |
| image | T byte strings: PNG or JPEG files |
| text | T byte strings |
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from aime.errors import AimeError
from aime.io.importers.files import opened
from aime.io.importers.interface import MAX_FRAME_BYTES, BadEpisode, block_length
from aime.io.importers.pictures import UNDECODABLE, decode_picture
from aime.io.importers.wire import WireError, bytes_list, float_list, int64_list

STEPS = "steps"

MAX_JSON_BYTES = 64 * 2**20

MAX_COLUMN_BYTES = 256 * 2**20
"""Maximum bytes of a feature of an episode, because compressed data can be arbitrarily large."""

_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    )
}


@dataclass(frozen=True)
class Feature:
    """One feature of a step.

    Attributes:
        path: name within a step, such as "observation/pixels".
        shape: of the value at one step.
        dtype: name of the number type.
        encoding: "none", "bytes", "zlib" or "image".
        choices: number of values of a class label; 0 if not declared.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    encoding: str
    choices: int = 0

    @property
    def is_frame(self) -> bool:
        """Whether it can be a picture: uint8 `[h, w, 1 or 3]`."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] in (1, 3)

    @property
    def is_numbers(self) -> bool:
        """Whether it is numeric: no picture and no text."""
        return self.encoding in ("none", "bytes", "zlib")

    @property
    def is_vector(self) -> bool:
        """Whether it is a number or a vector, and not boolean."""
        return self.is_numbers and len(self.shape) <= 1 and self.dtype.startswith(("float", "int", "uint"))

    @property
    def is_discrete(self) -> bool:
        """Whether it is an integer, a boolean, or a vector of these."""
        return self.is_numbers and len(self.shape) <= 1 and self.dtype.startswith(("int", "uint", "bool"))

    @property
    def size(self) -> int:
        """Number of values per step."""
        return math.prod(self.shape)


def read_features(path: Path) -> dict[str, Feature]:
    """The features of a step from `features.json`, by path; text has the encoding "unknown".

    Raises:
        AimeError: if the file is missing or damaged, declares no steps, or has an unknown type.
    """
    declared = _member(_member(read_json(path), "featuresDict", path), "features", path)
    steps = declared.get(STEPS)
    if not isinstance(steps, dict) or "sequence" not in steps:
        raise AimeError(f"{path}: declares no data set 'steps', found {sorted(declared)}; expected episodes (RLDS)")
    found: dict[str, Feature] = {}
    _walk(path, "", _member(_member(steps, "sequence", path), "feature", path), found)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        AimeError: if the file is missing, is not JSON, or is larger than 64 MB.
    """
    if not path.exists():
        raise AimeError(f"{path}: no such file, expected it next to the records; download the data set again")
    try:
        with opened(path) as file:
            text = file.read(MAX_JSON_BYTES + 1)
        if len(text) > MAX_JSON_BYTES:
            raise AimeError(f"{path}: is larger than {MAX_JSON_BYTES >> 20} MB, expected a description; check the file")
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise AimeError(f"{path}: is not JSON ({error}), expected an object; download it again") from error
    if not isinstance(content, dict):
        raise AimeError(f"{path}: is a {type(content).__name__}, expected an object; download it again")
    return content


def _member(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise AimeError(f"{path}: has no object '{name}', found {sorted(content)}; expected a tfds features.json")
    return value


def _walk(path: Path, name: str, node: Any, found: dict[str, Feature]) -> None:
    if not isinstance(node, dict):
        raise AimeError(f"{path}: '{name}' is {str(node)[:40]!r}, expected a feature; download the file again")
    if "featuresDict" in node:
        for key, inner in _member(_member(node, "featuresDict", path), "features", path).items():
            _walk(path, f"{name}/{key}" if name else key, inner, found)
    elif "tensor" in node:
        found[name] = _tensor(path, name, _member(node, "tensor", path))
    elif "image" in node:
        image = _member(node, "image", path)
        found[name] = Feature(name, _shape(path, name, image, is_picture=True), _dtype(path, name, image), "image")
    elif "classLabel" in node:
        label = _member(node, "classLabel", path)
        found[name] = Feature(name, (), "int64", "none", _count(path, name, label.get("numClasses", 0)))
    else:
        kind = str(node.get("pythonClassName", "?")).rpartition(".")[2]
        found[name] = Feature(name, (), f"of class {kind}", "unknown")


def _count(path: Path, name: str, text: Any) -> int:
    if not str(text).isascii() or not str(text).isdigit() or len(str(text)) > 9:
        raise AimeError(f"{path}: '{name}' has {str(text)[:40]!r} classes, expected a number; download the file again")
    return int(text)


def _tensor(path: Path, name: str, tensor: Mapping[str, Any]) -> Feature:
    if tensor.get("dtype") in ("string", "object"):
        return Feature(name, (), "string", "unknown")
    encoding = tensor.get("encoding", "none")
    if encoding not in ("none", "bytes", "zlib"):
        raise AimeError(
            f"{path}: '{name}' has encoding {encoding!r}, expected none, bytes or zlib; it is not supported"
        )
    return Feature(name, _shape(path, name, tensor), _dtype(path, name, tensor), encoding)


def _dtype(path: Path, name: str, node: Mapping[str, Any]) -> str:
    dtype = str(node.get("dtype", "uint8"))
    if dtype not in _DTYPES:
        raise AimeError(
            f"{path}: '{name}' has dtype {dtype!r}, expected one of {', '.join(_DTYPES)}; it is not supported"
        )
    return dtype


def _shape(path: Path, name: str, node: Mapping[str, Any], is_picture: bool = False) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in node.get("shape", {}).get("dimensions", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise AimeError(f"{path}: '{name}' has no readable shape ({error}); download the file again") from error
    least = -1 if is_picture else 1  # pictures may have any size
    if min(shape, default=1) < least or math.prod(shape) * 8 > 8 * MAX_FRAME_BYTES:
        raise AimeError(f"{path}: '{name}' has shape {list(shape)}, expected fixed sizes of 64 MB at most")
    return shape


def decode_column(feature: Feature, content: memoryview, where: str) -> np.ndarray:
    """A feature of all steps, `[T, *shape]`, of limited size.

    Raises:
        BadEpisode: if the bytes do not match the declaration.
    """
    try:
        if feature.encoding == "none":
            return _plain_column(feature, content)
        steps, decode = bytes_list(content), _decoder(feature)
        if len(steps) * feature.size * _DTYPES[feature.dtype].itemsize > MAX_COLUMN_BYTES:
            raise ValueError(f"{len(steps)} steps that are larger than {MAX_COLUMN_BYTES >> 20} MB together")
        return np.stack([decode(step) for step in steps]) if steps else np.zeros((0, *feature.shape))
    except (WireError, ValueError, zlib.error) as error:
        raise _unfit(feature, where, error) from error


def _plain_column(feature: Feature, content: memoryview) -> np.ndarray:
    dtype = _DTYPES[feature.dtype]
    if feature.dtype.startswith("float"):
        numbers = float_list(content).astype(dtype, copy=False)
    else:
        numbers = int64_list(content, dtype)
    if numbers.nbytes > MAX_COLUMN_BYTES:
        raise ValueError(f"{numbers.nbytes >> 20} MB of numbers, expected {MAX_COLUMN_BYTES >> 20} at most")
    return numbers.reshape(-1, *feature.shape)


def decode_frames(feature: Feature, content: memoryview, where: str) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """The frames of all steps, in blocks whose length depends on the size of the first frame.

    Raises:
        BadEpisode: if the bytes do not match the declaration.
    """
    try:
        plain, decode = feature.encoding == "none", _decoder(feature)
        steps: Iterator[Any] = iter(_plain_column(feature, content) if plain else bytes_list(content))
        for first in steps:
            part = [decode(first)]
            for step in itertools.islice(steps, block_length(*part[0].shape[:2]) - 1):
                part.append(decode(step))
                if part[-1].shape != part[0].shape:
                    raise ValueError(f"pictures of {part[0].shape[:2]} and {part[-1].shape[:2]}, expected one size")
            frames = np.stack(part)
            yield np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames
    except (WireError, zlib.error, *UNDECODABLE) as error:
        if isinstance(error, AimeError):
            raise
        raise _unfit(feature, where, error) from error


def _decoder(feature: Feature) -> Callable[[Any], np.ndarray]:
    """The decoder of one step's bytes."""
    if feature.encoding == "none":
        return np.asarray
    if feature.encoding == "image":
        return functools.partial(_picture, feature)
    dtype, shape = _DTYPES[feature.dtype].newbyteorder("<"), feature.shape
    wanted, inflates = feature.size * dtype.itemsize, feature.encoding == "zlib"

    def array(step: memoryview) -> np.ndarray:
        content = _inflate(step, wanted) if inflates else step
        if len(content) != wanted:
            raise ValueError(f"{len(content)} bytes a step, expected {wanted}")
        return np.frombuffer(content, dtype).reshape(shape)

    return array


def _inflate(content: memoryview, wanted: int) -> bytes:
    """Decompress at most the size of the shape."""
    stream = zlib.decompressobj()
    found = stream.decompress(content, wanted + 1)
    if len(found) != wanted or not stream.eof:
        raise ValueError(f"{len(found)}{'' if stream.eof else ' or more'} bytes a step, expected {wanted}")
    return found


def _picture(feature: Feature, step: memoryview) -> np.ndarray:
    picture, declared = decode_picture(step), feature.shape[:2]
    height, width = picture.shape[:2]
    if any(size > 0 and size != found for size, found in zip(declared, (height, width), strict=True)):
        raise ValueError(f"a picture of {height}x{width}, expected {declared[0]}x{declared[1]}")
    return picture


def _unfit(feature: Feature, where: str, error: Exception) -> BadEpisode:
    return BadEpisode(
        f"{where}: '{feature.path}' is not what features.json declares ({error}), expected {feature.dtype} "
        f"{list(feature.shape)} encoded as {feature.encoding}; download it again, or --skip-bad"
    )
