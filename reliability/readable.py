"""Whether each file that a kill left can be read, or can be told to be unfinished by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import yaml
from safetensors import SafetensorError, safe_open


def unfinished(path: Path) -> bool:
    """Whether the name of a file, or of a directory that it lies in, says so."""
    return any(part.endswith(".tmp") or ".tmp-" in part or ".tmp." in part for part in path.parts)


def unreadable(directory: Path) -> list[str]:
    """A line for each file that bears a final name and cannot be read."""
    faults = []
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if not path.is_file() or unfinished(inside):
            continue
        read = READERS.get(path.suffix)
        if read is None:
            continue
        try:
            read(path)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, yaml.YAMLError) as error:
            faults.append(f"{inside} cannot be read: {type(error).__name__}: {error}"[:300])
    return faults


def leftovers(directory: Path) -> list[str]:
    """A line for each unfinished file or directory in what a finished command left."""
    found = [path for path in sorted(directory.rglob("*")) if unfinished(path.relative_to(directory))]
    return [f"{path.relative_to(directory)} is left over" for path in found]


def _hdf5(path: Path) -> None:
    with h5py.File(path) as file:
        file.visititems(lambda _, node: node[()] is None if isinstance(node, h5py.Dataset) else None)


def _safetensors(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        for name in file.keys():  # noqa: SIM118  (it is no dictionary)
            file.get_tensor(name)


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _json_lines(path: Path) -> None:
    """All lines; the last may be cut short, which a line without an end shows."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            json.loads(line)


def _yaml(path: Path) -> None:
    yaml.safe_load(path.read_text(encoding="utf-8"))


READERS: dict[str, Callable[[Path], None]] = {
    ".h5": _hdf5,
    ".safetensors": _safetensors,
    ".json": _json,
    ".jsonl": _json_lines,
    ".yaml": _yaml,
}
