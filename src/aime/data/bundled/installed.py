"""Bundled data sets, unpacked into a cache on first use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from aime.data.bundled.packing import DIGESTS, PACK, PARTS, Part, unpack
from aime.errors import AimeError
from aime.primitives.checksums import SUMS, sha256_of

_PACKS = Path(__file__).parent


def bundled_names() -> list[str]:
    """The names of the bundled data sets, sorted."""
    return sorted(path.name.removesuffix(PACK) for path in _PACKS.glob(f"*{PACK}"))


def bundled_digests(name: str) -> Mapping[Part, tuple[str, ...]]:
    """The digests of a bundled data set's episodes, by part and in order, without unpacking.

    Raises:
        AimeError: if the table of digests is missing or damaged.
    """
    return _read_digests(_PACKS / f"{name}{DIGESTS}")


def bundled_parts() -> Mapping[str, Part]:
    """The part of each bundled episode, by its digest.

    Raises:
        AimeError: if a table of digests is damaged.
    """
    paths = sorted(_PACKS.glob(f"*{DIGESTS}"))
    return _parts(tuple((path, path.stat().st_mtime_ns) for path in paths))


@cache
def _parts(tables: tuple[tuple[Path, int], ...]) -> Mapping[str, Part]:
    found = [_read_digests(path) for path, _ in tables]
    return {digest: part for table in found for part, digests in table.items() for digest in digests}


def _read_digests(path: Path) -> Mapping[Part, tuple[str, ...]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {part: tuple(map(str, content[part])) for part in PARTS}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AimeError(f"{path}: is missing or damaged ({error}), expected digests; install aime again") from error


def bundled_path(name: str, part: Part) -> Path:
    """The directory of shards of one part of a bundled data set; see `bundled_root`."""
    return bundled_root(name) / part


def bundled_root(name: str) -> Path:
    """The directory of the parts of a bundled data set, unpacked into the cache on first use.

    The cache is `$AIME_CACHE`, or `~/.cache/aime`, or a temporary directory if neither can be written. Several
    processes may unpack at the same time: the first one to finish renames its result.

    Raises:
        AimeError: if there is no such data set, the pack is damaged, or the disk is full.
    """
    names = bundled_names()
    if name not in names:
        known = ", ".join(f"bundled:{known}" for known in names) or "none in this installation"
        raise AimeError(f"bundled:{name}: no such bundled data set, expected one of: {known}")
    source = _PACKS / f"{name}{PACK}"
    # the digest in the name distinguishes versions of the package
    place = _cache() / f"{name}-{sha256_of(source)[:16]}"
    if place.is_dir() and not _is_intact(place):
        shutil.rmtree(place, ignore_errors=True)
    if not place.is_dir():
        _install(source, place)
    return place


def _install(source: Path, place: Path) -> None:
    """Unpack next to `place` and rename, atomically."""
    try:
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place.parent) as scratch:
            result = Path(scratch) / place.name
            unpack(source, result)
            _write_sums(result)
            _rename_unless_made(result, place)
    except OSError as error:
        raise AimeError(
            f"{place}: cannot be written: {error.strerror or error}; free some space, or set AIME_CACHE to another "
            "directory"
        ) from error


def _write_sums(place: Path) -> None:
    """Write the digest of every file, in the format of sha256sum."""
    lines = [f"{sha256_of(path)}  {path.relative_to(place)}\n" for path in sorted(place.rglob("*.h5"))]
    (place / SUMS).write_text("".join(lines))


def _is_intact(place: Path) -> bool:
    """Whether every file exists and is unchanged: caches may be cleaned by the user or the system."""
    try:
        pairs = [line.split("  ", 1) for line in (place / SUMS).read_text().splitlines()]
        return bool(pairs) and all(digest == sha256_of(place / name) for digest, name in pairs)
    except (OSError, ValueError):
        return False


def _rename_unless_made(result: Path, place: Path) -> None:
    """Rename a directory, unless another process has created it."""
    try:
        result.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _cache() -> Path:
    """The first writable cache directory."""
    preferred = Path(os.environ.get("AIME_CACHE") or Path.home() / ".cache" / "aime")
    candidates = (preferred, Path(tempfile.gettempdir()) / f"aime-{os.getuid()}")
    for directory in candidates:
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
            return directory
    raise AimeError(
        f"{candidates[0]}: cannot be written, nor can {candidates[1]}; set AIME_CACHE to a directory that can, "
        "to unpack bundled data into"
    )
