"""Recognition of shards by file name."""

from __future__ import annotations

from pathlib import Path

from aime.errors import AimeError

SUFFIXES = (".h5", ".hdf5")


def shard_paths(source: Path) -> list[Path]:
    """The shards of a directory, or the given file.

    Raises:
        AimeError: if there is none.
    """
    if not source.exists():
        raise AimeError(
            f"{source}: no such file or directory, expected a data set; record one with `aime collect`, or use "
            "bundled:cartpole"
        )
    if source.is_file():
        return [source]
    paths = shards_in(source)
    if not paths:
        below = [place.name for place in sorted(source.iterdir()) if place.is_dir() and shards_in(place)]
        remedy = f"take one of its {', '.join(below[:5])}" if below else "record some with `aime collect`"
        raise AimeError(f"{source}: holds no shard, expected files named *.h5 or *.hdf5; {remedy}")
    return paths


def shards_in(directory: Path) -> list[Path]:
    """The files of a directory with a shard's suffix, sorted by name, without hidden files."""
    return sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and not path.name.startswith("."))
