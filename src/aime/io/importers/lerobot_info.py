"""Reading and checking `meta/info.json` of a LeRobot data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aime.errors import AimeError
from aime.io.importers import tables
from aime.io.importers.tfds_features import read_json

VERSIONS = ("v2.0", "v2.1", "v3.0")


def read_info(source: Path) -> dict[str, Any]:
    """The content of the file, with valid version, features, rate and chunk size.

    Raises:
        AimeError: if a value has another type or is missing.
    """
    path = source / "meta" / "info.json"
    info = read_json(path)
    version = str(info.get("codebase_version"))
    if version not in VERSIONS:
        raise AimeError(f"{path}: has version {version}, expected {', '.join(VERSIONS)}; convert it")
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise AimeError(f"{path}: has no valid 'features', expected objects; download it again")
    rate, chunk = info.get("fps"), info.get("chunks_size", 1000)
    if not isinstance(rate, int | float) or not 0 < rate <= 10_000:
        raise AimeError(f"{path}: has fps {rate!r}, expected frames per second; fix it")
    if not isinstance(chunk, int) or chunk < 1:
        raise AimeError(f"{path}: has chunks_size {chunk!r}, expected a whole number above 0; fix it")
    return info


def find_cameras(source: Path, features: Mapping[str, Any], wanted: tuple[str, ...]) -> list[str]:
    """The requested frame features, or the only one.

    Raises:
        AimeError: if one is missing, or there are several and none is requested.
    """
    found = [name for name, feature in features.items() if feature.get("dtype") in ("video", "image")]
    named = [
        next((name for name in found if name in (camera, f"observation.images.{camera}")), None) for camera in wanted
    ]
    if None in named or not found or (len(found) > 1 and not wanted):
        raise AimeError(
            f"{source}/meta/info.json: has cameras {found}, expected {list(wanted) or 'one'}; name one or several, "
            "which are tiled, with --camera"
        )
    return [name for name in named if name is not None] or found


def width_of(source: Path, features: Mapping[str, Any], name: str) -> int:
    """The width of a feature, 0 if it does not exist.

    Raises:
        AimeError: if its shape is invalid or too large.
    """
    if name not in features:
        return 0
    shape = features[name].get("shape")
    sound = isinstance(shape, list) and all(isinstance(size, int) and 0 < size <= tables.MAX_WIDTH for size in shape)
    if not sound or math.prod(shape) > tables.MAX_WIDTH:
        raise AimeError(
            f"{source}/meta/info.json: '{name}' has shape {shape}, expected a list of sizes; download it again"
        )
    return math.prod(shape)
