"""The files of the splits of a tensorflow-datasets data set, from `dataset_info.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aime.errors import AimeError
from aime.io.importers.tfds_features import read_json


def read_splits(place: Path) -> dict[str, dict[str, int | None]]:
    """The file names of each split and their numbers of records, None if not declared.

    Raises:
        AimeError: if the file cannot be read, or has invalid splits or names.
    """
    path = place / "dataset_info.json"
    info = read_json(path)
    declared = info.get("splits")
    if info.get("fileFormat", "tfrecord") != "tfrecord" or not isinstance(declared, list):
        raise AimeError(f"{path}: declares format {info.get('fileFormat')!r}, expected tfrecord files in 'splits'")
    if not all(isinstance(split, dict) and isinstance(split.get("shardLengths", []), list) for split in declared):
        raise AimeError(
            f"{path}: has other values in 'splits', expected objects with 'shardLengths'; download it again"
        )
    splits = {str(split.get("name")): _files(path, str(info.get("name")), split) for split in declared}
    filled = {name: files for name, files in splits.items() if files}
    if not filled:
        raise AimeError(f"{path}: names no split with files, expected one or more; download the data set again")
    odd = [
        name for name in filled if Path(name).name != name or name == ".." or not name.isprintable() or len(name) > 200
    ]  # the name of a split is used for a directory
    if odd:
        raise AimeError(f"{path}: names a split {odd[0]!r}, expected a plain name; the file is damaged")
    return filled


def _files(path: Path, dataset: str, split: Mapping[str, Any]) -> dict[str, int | None]:
    """The file names of a split's template "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"."""
    lengths = [
        int(str(length)) if str(length).isascii() and str(length).isdigit() and len(str(length)) < 16 else None
        for length in split.get("shardLengths", ())
    ]
    shards = len(lengths)
    template = str(split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    fixed = {"DATASET": dataset, "SPLIT": str(split.get("name")), "FILEFORMAT": "tfrecord"}
    names = []
    for number in range(shards):
        index, count = f"{number:05d}", f"{shards:05d}"
        words = fixed | {"SHARD_INDEX": index, "NUM_SHARDS": count, "SHARD_X_OF_Y": f"{index}-of-{count}"}
        name = template
        for word, meaning in words.items():
            name = name.replace("{" + word + "}", meaning)
        names.append(name)
    if any(Path(name).name != name or not name.isprintable() or len(name) > 255 for name in names):
        raise AimeError(f"{path}: names the file {names[0][:300]!r}, expected one in the same directory; it is damaged")
    return dict(zip(names, lengths, strict=True))
