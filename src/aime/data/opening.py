"""Opening of data sets: one or several sources, whole or a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aime.data.bundled import PARTS, bundled_digests, bundled_root
from aime.data.dataset import Dataset
from aime.data.identity import note_digests
from aime.data.shard_files import shard_paths
from aime.data.shards import Shard
from aime.data.sources import BUNDLED, Mixture, Source, is_bundled, parse_sources
from aime.data.splitting import SPLITS, Rule, Split
from aime.errors import AimeError


def open_dataset(source: str | Path, split: Split = "all", held_out: float = 0.05) -> Dataset:
    """Open and check a data set. Pixels are read on demand; the split of data that is not bundled reads them all.

    Args:
        source: a directory of `*.h5` or `*.hdf5` shards, one such file, "bundled:NAME", or several of these, separated
            by commas, optionally with shares of the clips: "DIR_A, DIR_B=0.3".
        split: "train" and "held-out" are disjoint; "validation" and "test" are the two halves of "held-out". Bundled
            data has these parts; in other data, held-out episodes are chosen by their content
            (`aime.data.splitting`). Sources are split separately.
        held_out: the share of held-out episodes, in [0, 1); see `aime.data.splitting.Rule`.

    Raises:
        AimeError: if a source is missing, has no shard, violates the schema, or has no episode of the split, or if
            sources do not fit together.
    """
    if split not in SPLITS:
        raise AimeError(f"split is {split!r}, expected one of {', '.join(map(repr, SPLITS))}")
    if not 0 <= held_out < 1:
        raise AimeError(f"held_out is {held_out}, expected a share in [0, 1), such as 0.05")
    sources = parse_sources(str(source))
    datasets = [_open_one(each.name) for each in sources]
    whole = datasets[0] if len(sources) == 1 else _join(str(source), sources, datasets)
    nothing_held_out = not held_out and not any(is_bundled(each.name) for each in sources)
    if split == "all" or (split == "train" and nothing_held_out):
        return whole
    return whole.part(split, Rule(held_out).choose([digests for _, digests in whole.by_source]))


def _open_one(source: str) -> Dataset:
    if not is_bundled(source):
        return Dataset([Shard(path) for path in shard_paths(Path(source))], source)
    name, shards = source.removeprefix(BUNDLED), list[Shard]()
    place = bundled_root(name)
    for part in PARTS:
        own = [Shard(path) for path in shard_paths(place / part)]
        # unpacked files are verified by checksums, so the package's digests hold for them
        note_digests(own, bundled_digests(name)[part])
        shards += own
    return Dataset(shards, source)


def _join(name: str, sources: Sequence[Source], datasets: Sequence[Dataset]) -> Dataset:
    """Several sources as one data set with interleaved episodes."""
    shards = [shard for dataset in datasets for shard in dataset._shards]
    of_shard = tuple(number for number, dataset in enumerate(datasets) for _ in dataset._shards)
    seen: dict[Path, int] = {}
    for number, shard in zip(of_shard, shards, strict=True):
        other = seen.setdefault(shard.path.resolve(), number)
        if other != number:
            names = f"{sources[other].name} and {sources[number].name}"
            raise AimeError(f"{shard.path}: is in {names}, expected every shard in one source: leave one out")
    firsts = np.cumsum([0, *(len(dataset._shards) for dataset in datasets)])
    index = np.concatenate([each._index + np.array([first, 0]) for each, first in zip(datasets, firsts, strict=False)])
    turns = np.concatenate([(np.arange(each.episodes) + 0.5) / each.episodes for each in datasets])
    order = np.argsort(turns, kind="stable")
    return Dataset(shards, name, index[order], mixture=Mixture(tuple(sources), of_shard))
