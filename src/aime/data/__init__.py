"""Episodes on disk and in memory: shards, data sets, clips."""

from __future__ import annotations

from aime.data.bundled import bundled_names, bundled_path, pack
from aime.data.clips import Clips, ClipSampler, load_clips, prefetch
from aime.data.dataset import Dataset, Split, open_dataset
from aime.data.episodes import Episode
from aime.data.shards import Attribute, Shard, write_shard

__all__ = [
    "Attribute",
    "ClipSampler",
    "Clips",
    "Dataset",
    "Episode",
    "Shard",
    "Split",
    "bundled_names",
    "bundled_path",
    "load_clips",
    "open_dataset",
    "pack",
    "prefetch",
    "write_shard",
]
