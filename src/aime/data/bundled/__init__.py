"""Data sets that are part of the package: `bundled:NAME`."""

from __future__ import annotations

from aime.data.bundled.installed import bundled_digests, bundled_names, bundled_parts, bundled_path, bundled_root
from aime.data.bundled.packing import PARTS, Part, unpack

__all__ = [
    "PARTS",
    "Part",
    "bundled_digests",
    "bundled_names",
    "bundled_parts",
    "bundled_path",
    "bundled_root",
    "unpack",
]
